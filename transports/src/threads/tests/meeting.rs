//! Starting: who shares a world and who does not.

use super::*;

#[test]
fn options_that_differ_are_told_on_all_ranks() {
    let options = |lanes| ConnectOptions { lanes, ..ConnectOptions::default() };
    let answers = try_connect(&[options(1), options(1), options(3)]);
    for answer in answers {
        let error = answer.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Start);
        assert!(error.to_string().contains("rank 0 connects with 1 lanes, rank 2 with 3"), "{error}");
    }
}

#[test]
fn a_rank_that_cannot_prepare_is_told_to_all() {
    let options = |lanes| ConnectOptions { lanes, ..ConnectOptions::default() };
    for culprit in [0, 1] {
        let mut all = vec![options(1), options(1)];
        all[culprit] = options(200);
        for answer in try_connect(&all) {
            let text = answer.unwrap_err().to_string();
            assert!(text.contains(&format!("rank {culprit}")) && text.contains("200 lanes"), "{text}");
        }
    }
}

#[test]
fn many_worlds_start_at_once_and_stay_apart() {
    std::thread::scope(|scope| {
        for seed in 0..8 {
            scope.spawn(move || {
                let mut rig = Rig::new(3);
                let message = pattern(seed, 500);
                let (from, into) = (rig.area(0, &message), rig.area(2, &[0; 500]));
                rig.post(0, 1, &key(1, 0), send(from, 2)).unwrap();
                rig.post(2, 2, &key(1, 0), receive(into, 0)).unwrap();
                rig.settle().unwrap();
                assert_eq!(rig.bytes(2, into), message);
            });
        }
    });
}
