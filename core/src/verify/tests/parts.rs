//! A part of the contents: all parts together find what following everything finds.

use super::*;

/// An all-gather of three ranks by direct exchange; where `spoilt`, rank 2 takes rank 0's block for rank 1's.
fn gathered(part: Part, in_place: bool, spoilt: bool) -> Result<Report, Violation> {
    let call = |_| Collective::all_gather(COUNT, DataType::F32);
    let block = |index: Index| output().even(3, index);
    let plans = |me: Rank| {
        let spec = Spec::new(&call(me), 3, me, in_place, Choice::default());
        let mut plan = PlanBuilder::new(&spec, "by hand", Association::None);
        plan.lane(8);
        plan.straight();
        let others = Peers::Run { first: Index::on_circle(me as i32 + 1, 3), stride: 1, count: 2 };
        plan.send(input(), others);
        if !in_place {
            plan.copy(input(), block(rank(me)));
        }
        for from in [(me + 1) % 3, (me + 2) % 3] {
            let place = if spoilt && me == 2 { 1 - from } else { from };
            plan.receive(block(rank(place)), rank(from));
        }
        plan.finish()
    };
    verify_part(&plans, &call, 3, part)
}

#[test]
fn parts_are_refused_where_they_are_wrong_and_all_together_are_everything() {
    let parts = |of| (0..of).map(move |number| Part { number, of });
    for in_place in [false, true] {
        for part in [1, 2, 3, 5, 24, 100].into_iter().flat_map(parts) {
            assert_eq!(gathered(part, in_place, false), gathered(Part::ALL, in_place, false), "{part:?}");
        }
        assert!(gathered(Part::ALL, in_place, true).is_err());
        // Rank 2's own block is right, and it is a third.
        let refused: Vec<bool> = parts(3).map(|part| gathered(part, in_place, true).is_err()).collect();
        assert_eq!(refused, [true, true, false]);
        assert_eq!(parts(24).filter(|&part| gathered(part, in_place, true).is_err()).count(), 16);
    }
}

#[test]
fn what_is_followed_may_not_be_mixed_with_what_is_not() {
    // Each rank sums its first half with the other's second: equally long, but other elements.
    let call = |_| Collective::all_reduce(COUNT, DataType::F32, ReduceOp::Sum);
    let plans = |me: Rank| {
        let spec = Spec::new(&call(me), 2, me, false, Choice::default());
        let mut plan = PlanBuilder::new(&spec, "by hand", Association::Flat);
        plan.lane(8);
        plan.straight();
        for which in 0..2 {
            plan.send(half(input(), which), Peers::one(rank(1 - me)));
        }
        for which in 0..2 {
            let sources = Peers::Run { first: rank(0), stride: 1, count: 2 };
            plan.receive_reduce(sources, half(input(), 1 - which), half(output(), which));
        }
        plan.finish()
    };
    for number in 0..2 {
        let refused = verify_part(&plans, &call, 2, Part { number, of: 2 });
        assert!(matches!(refused, Err(Violation::Outcome { .. })), "{refused:?}");
    }
}
