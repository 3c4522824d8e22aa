//! Orders and answers as bytes: frames of one length on a Unix socket. A guard may be older than the keeper that finds it,
//! so each frame says its version; what is not understood is an error, and the deadline that stands goes on standing.

use std::time::Duration;

use stolon::model::{Epoch, LeaseId, Moment};

use super::core::{Armed, Order, Verdict};
use crate::pg::ProcessId;

pub const LENGTH: usize = 48;
const VERSION: u8 = 1;

/// The guard's answer to an order: the verdict, and what it is armed with now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub verdict: Verdict,
    pub armed: Option<Armed>,
}

pub fn order(order: Order) -> [u8; LENGTH] {
    match order {
        Order::Ask => frame(0, None),
        Order::Arm(armed) => frame(1, Some(armed)),
        Order::Extend(armed) => frame(2, Some(armed)),
        Order::Bound(armed) => frame(3, Some(armed)),
        Order::Disarm => frame(4, None),
    }
}

pub fn read_order(bytes: &[u8; LENGTH]) -> Option<Order> {
    let (kind, armed) = parse(bytes)?;
    match (kind, armed) {
        (0, None) => Some(Order::Ask),
        (1, Some(armed)) => Some(Order::Arm(armed)),
        (2, Some(armed)) => Some(Order::Extend(armed)),
        (3, Some(armed)) => Some(Order::Bound(armed)),
        (4, None) => Some(Order::Disarm),
        _ => None,
    }
}

pub fn answer(answer: Answer) -> [u8; LENGTH] {
    let kind = match answer.verdict {
        Verdict::Taken => 0,
        Verdict::Refused => 1,
        Verdict::TooLate => 2,
    };
    frame(kind, answer.armed)
}

pub fn read_answer(bytes: &[u8; LENGTH]) -> Option<Answer> {
    let (kind, armed) = parse(bytes)?;
    let verdict = match kind {
        0 => Verdict::Taken,
        1 => Verdict::Refused,
        2 => Verdict::TooLate,
        _ => return None,
    };
    Some(Answer { verdict, armed })
}

/// Version, kind, armed or not, has a postmaster or not; then numbers of 8 bytes, little-endian: epoch, lease, nanoseconds
/// since boot, pid, start of the postmaster.
fn frame(kind: u8, armed: Option<Armed>) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let postmaster = armed.and_then(|armed| armed.postmaster);
    let flags = [VERSION, kind, u8::from(armed.is_some()), u8::from(postmaster.is_some())];
    let numbers = armed.map_or([0; 5], |armed| {
        let until = u64::try_from(armed.until.since_boot().as_nanos()).unwrap_or(u64::MAX);
        let (pid, started) = postmaster.map_or((0, 0), |id| (u64::from(id.pid), id.started));
        [armed.epoch.0, armed.lease.0.cast_unsigned(), until, pid, started]
    });
    for (place, byte) in bytes.iter_mut().zip(flags) {
        *place = byte;
    }
    for (place, byte) in bytes[8..].iter_mut().zip(numbers.into_iter().flat_map(u64::to_le_bytes)) {
        *place = byte;
    }
    bytes
}

fn parse(bytes: &[u8; LENGTH]) -> Option<(u8, Option<Armed>)> {
    if bytes[0] != VERSION {
        return None;
    }
    let number = |index: usize| {
        let bytes = bytes[8 + 8 * index..].first_chunk().copied();
        bytes.map_or(0, u64::from_le_bytes)
    };
    let id = ProcessId { pid: u32::try_from(number(3)).ok()?, started: number(4) };
    let armed = Armed {
        epoch: Epoch(number(0)),
        lease: LeaseId(number(1).cast_signed()),
        until: Moment::from_boot(Duration::from_nanos(number(2))),
        postmaster: (bytes[3] == 1).then_some(id),
    };
    Some((bytes[1], (bytes[2] == 1).then_some(armed)))
}
