//! The only reader of the clock: CLOCK_BOOTTIME, which counts suspension (protocol, section 1).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::model::Moment;

pub fn now() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    Moment::from_boot(Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32))
}

/// Wall-clock time in RFC 3339 with nanoseconds, UTC: for `changeTime` and the like, which only people read.
pub fn rfc3339_now() -> String {
    rfc3339(since_epoch())
}

/// The same of an instant of the near past (to microseconds, as the log has it).
pub fn rfc3339_at(moment: Moment) -> String {
    let mut text = rfc3339(since_epoch().saturating_sub(now().since(moment)));
    text.truncate("1970-01-01T00:00:00.000000".len());
    text + "Z"
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn rfc3339(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", since_epoch.subsec_nanos())
}

/// Date of a day counted from 1970-01-01, in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let (mut year, mut left) = (1970, days);
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    (year, month as u64 + 1, left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_795_478_399, "2026-11-23T23:59:59.000000000Z"),
        ] {
            assert_eq!(rfc3339(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn an_instant_of_the_past_is_told_as_the_log_tells_time() {
        let (before, now) = (rfc3339_now(), rfc3339_at(now()));
        assert!(now.len() == 27 && now.ends_with('Z') && now[..20] >= before[..20], "{now} after {before}");
        let earlier = rfc3339_at(super::now() - Duration::from_secs(1));
        assert!(earlier < now, "{earlier}");
    }

    #[test]
    fn the_clock_never_goes_back() {
        let (first, second) = (now(), now());
        assert!(second >= first && first > Moment::default());
    }
}
