//! Windows in virtual time: order, bounds, many ranks, and what nothing can end.

use ubccl::ErrorKind;

#[test]
fn simulated_ranks_have_windows_too() {
    let report = ubccl::sim::World::run("cloudmatrix384", 6, async |comm| {
        let (me, n) = (comm.rank(), comm.ranks());
        let (next, before) = ((me + 1) % n, (me + n - 1) % n);
        let window = comm.window::<u32>(1000).await?;
        let begin = comm.now_ps();
        for round in 1..=20_u32 {
            let len = (round as usize * 37) % 1000;
            window.put(next, 1000 - len, &vec![round * 100 + me; len]).await?;
            window.signal(next, 1).await?;
            window.wait_signal(before, u64::from(round)).await?;
            let found = window.get(me, 1000 - len, len).await?;
            assert!(found.iter().all(|&x| x == round * 100 + before), "round {round}");
            window.fence().await?;
        }
        assert!(comm.now_ps() > begin, "it takes virtual time");
        for peer in 0..n {
            window.put(peer, me as usize * 10, &[peer * 10 + me; 10]).await?;
        }
        window.fence().await?;
        for peer in 0..n {
            for from in 0..n {
                let found = window.get(peer, from as usize * 10, 10).await?;
                assert_eq!(found, [peer * 10 + from; 10], "rank {me} reads {peer}");
            }
        }
        for refused in [
            window.put(n, 0, &[1]).await,
            window.put(0, 1000, &[1]).await,
            window.signal(n + 3, 1).await,
            window.get(next, usize::MAX, 2).await.map(drop),
        ] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
        window.fence().await?;
        window.close().await
    });
    let ends = report.expect("the world can be made").into_results().expect("every rank ends well");
    assert_eq!(ends.len(), 6);
}

#[test]
fn a_simulated_signal_that_cannot_come_is_an_error() {
    let report = ubccl::sim::World::run("cloudmatrix384", 2, async |comm| {
        let window = comm.window::<u8>(4).await?;
        if comm.rank() == 0 {
            window.wait_signal(1, 1).await?;
        }
        Ok(())
    });
    assert!(report.expect("the world can be made").into_results().is_err(), "nobody signals");
}
