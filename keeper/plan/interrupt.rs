//! May a step that is under way be dropped for another one? Ends and fences always come through; a copy is dropped when
//! another one is wanted; everything else runs to its own end.

use super::Step;

/// True when `next`, the plan's present answer, ends `running`.
pub fn interrupts(next: &Step, running: &Step) -> bool {
    match (next, running) {
        (Step::Wait, _) => false,
        (Step::Kill, running) => *running != Step::Kill,
        (Step::GiveUp { .. }, Step::GiveUp { .. } | Step::Kill) => false,
        (Step::GiveUp { .. }, _) => true,
        (Step::Stop, Step::Kill | Step::GiveUp { .. } | Step::Stop) => false,
        (Step::Stop, _) => true,
        (Step::Resync { db, upstream, .. }, Step::Resync { db: of, upstream: from, .. }) => {
            db != of || upstream != from
        }
        (Step::Create { db, .. }, Step::Create { db: of, .. }) => db != of,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use stolon::model::{DbUid, Epoch, view::Upstream};

    use super::*;
    use crate::plan::Method;

    fn resync(of: &str, method: Method) -> Step {
        let upstream = Upstream { db: DbUid::parse(of).unwrap(), address: Some(("h".into(), 1)) };
        Step::Resync { db: DbUid::parse("mine").unwrap(), upstream, method }
    }

    #[test]
    fn fences_come_through_everything_but_themselves() {
        let (kill, give_up) = (Step::Kill, Step::GiveUp { epoch: Epoch(2), planned: false });
        for running in [Step::Promote { epoch: Epoch(3) }, resync("a", Method::CopyAnew), Step::Stop] {
            assert!(interrupts(&kill, &running) && interrupts(&give_up, &running), "{running:?}");
        }
        assert!(!interrupts(&kill, &kill) && !interrupts(&give_up, &give_up) && !interrupts(&Step::Stop, &give_up));
    }

    #[test]
    fn a_rewind_that_makes_its_data_incomplete_goes_on_and_another_upstream_ends_it() {
        let running = resync("a", Method::KeepIfPossible);
        assert!(!interrupts(&resync("a", Method::CopyAnew), &running));
        assert!(interrupts(&resync("b", Method::CopyAnew), &running));
        assert!(!interrupts(&Step::Wait, &running), "under a mark a copy goes on");
    }

    #[test]
    fn a_promotion_is_not_dropped_for_what_follows_it() {
        let running = Step::Promote { epoch: Epoch(3) };
        assert!(!interrupts(&Step::Announce { epoch: Epoch(3) }, &running));
    }
}
