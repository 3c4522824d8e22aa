//! Which failures of a stream are worth a line in the log, and how loud a one. Pure: the time is an argument.

use std::time::Duration;

use crate::model::Moment;

/// A registration waits at most for the lease of a former one (5 s, and etcd's time to end it): a refusal that lasts
/// longer is trouble.
const ORDINARY: Duration = Duration::from_secs(7);

/// Why there is no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// The sentinel answered, and does not take this process in.
    Refused,
    /// Anything else.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tell {
    Nothing,
    /// Nothing to worry about yet.
    Note,
    Warn,
}

/// Of one stream, since it stood last.
#[derive(Debug, Default)]
pub(super) struct News {
    refused: Option<Moment>,
    warned: bool,
}

impl News {
    pub fn stands(&mut self) {
        *self = News::default();
    }

    pub fn failed(&mut self, problem: Problem, now: Moment) -> Tell {
        let first = self.refused.is_none();
        let ordinary = match problem {
            Problem::Refused => now.since(*self.refused.get_or_insert(now)) < ORDINARY,
            Problem::Lost => false,
        };
        match (ordinary, self.warned) {
            (true, false) if first => Tell::Note,
            (true, _) | (false, true) => Tell::Nothing,
            (false, false) => {
                self.warned = true;
                Tell::Warn
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_boot(Duration::from_millis(millis))
    }

    #[test]
    fn a_refusal_is_noted_once_and_warned_of_once_when_it_lasts() {
        let mut news = News::default();
        let told: Vec<Tell> =
            [1000, 1050, 3000, 7900, 8000, 9000].map(|time| news.failed(Problem::Refused, at(time))).to_vec();
        assert_eq!(told, [Tell::Note, Tell::Nothing, Tell::Nothing, Tell::Nothing, Tell::Warn, Tell::Nothing]);
        news.stands();
        assert_eq!(news.failed(Problem::Refused, at(9500)), Tell::Note, "it stood meanwhile");
    }

    #[test]
    fn a_lost_stream_is_warned_of_at_once_and_once() {
        let mut news = News::default();
        assert_eq!(news.failed(Problem::Refused, at(1000)), Tell::Note);
        assert_eq!(news.failed(Problem::Lost, at(1100)), Tell::Warn);
        assert_eq!(news.failed(Problem::Lost, at(1200)), Tell::Nothing);
        assert_eq!(news.failed(Problem::Refused, at(9000)), Tell::Nothing);
    }
}
