//! How long to wait: after attempts that did not succeed, and between looks at what does not change.
//!
//! Attempts are counted in the ledger, so a restart forgets nothing. Doubling from 5 minutes to 6 hours makes at most
//! 10 attempts in 24 hours, which leaves the rest of the budget to changes that a person asks for.

use jiff::{SignedDuration, Timestamp};

use super::fault::Class;
use crate::api::condition::Reason;

/// The wait after the first attempt.
pub const FIRST: SignedDuration = SignedDuration::from_mins(5);
/// The longest wait between attempts.
pub const LONGEST: SignedDuration = SignedDuration::from_hours(6);

/// How long to wait after attempt number `count` (from 1).
#[must_use]
pub fn after_attempt(count: u32) -> SignedDuration {
    doubled(FIRST, count)
}

/// How long to wait after attempt number `count` was refused with `class`.
#[must_use]
pub fn after_refusal(count: u32, class: Class) -> SignedDuration {
    match class {
        // Somebody else is changing the stream, everybody calls at once, or other credentials come: that is over soon.
        Class::Throttled
        | Class::InUse
        | Class::Transient
        | Class::NoCredentials
        | Class::CredentialsRejected => doubled(SignedDuration::from_secs(30), count),
        // Others used the calls up. When they run free cannot be known, and asking may cost one.
        Class::LimitReached => doubled(SignedDuration::from_hours(1), count),
        Class::Denied
        | Class::Key(_)
        | Class::KeyRefused
        | Class::NotFound
        | Class::Invalid
        | Class::UnknownOutcome => after_attempt(count),
    }
}

fn doubled(first: SignedDuration, count: u32) -> SignedDuration {
    let factor = 1_i32 << count.saturating_sub(1).min(16);
    first.saturating_mul(factor).min(LONGEST)
}

/// Since when `reason` has been given: since `waiting` says so, if it was the one given last, and else since now.
#[must_use]
pub fn given_since(waiting: Option<(Reason, Timestamp)>, reason: Reason, now: Timestamp) -> Timestamp {
    waiting.filter(|(last, _)| *last == reason).map_or(now, |(_, since)| since)
}

/// When to look again at what has been as it is since `since`: as long again, within bounds.
#[must_use]
pub fn look_again(
    since: Timestamp,
    now: Timestamp,
    shortest: SignedDuration,
    longest: SignedDuration,
) -> SignedDuration {
    now.duration_since(since).clamp(shortest, longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_double_from_five_minutes_to_six_hours() {
        let minutes: Vec<i64> = (1..=9).map(|count| after_attempt(count).as_mins()).collect();
        assert_eq!(minutes, [5, 10, 20, 40, 80, 160, 320, 360, 360]);
        assert_eq!(after_attempt(u32::MAX), LONGEST);
    }

    #[test]
    fn at_most_ten_attempts_fit_into_a_day() {
        let day = SignedDuration::from_hours(24);
        let mut at = SignedDuration::ZERO;
        let mut attempts = 0;
        while at < day {
            attempts += 1;
            at += after_attempt(attempts);
        }
        assert_eq!(attempts, 10);
    }

    #[test]
    fn looks_at_a_stream_that_changes_go_from_two_seconds_to_thirty() {
        let start = Timestamp::UNIX_EPOCH;
        let (shortest, longest) = (SignedDuration::from_secs(2), SignedDuration::from_secs(30));
        let mut now = start;
        let mut looks = Vec::new();
        for _ in 0..7 {
            now += look_again(start, now, shortest, longest);
            looks.push(now.duration_since(start).as_secs());
        }
        assert_eq!(looks, [2, 4, 8, 16, 32, 62, 92]);
    }
}
