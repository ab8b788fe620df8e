//! When something is done again: after attempts without success, between two Describes while the state does not
//! change, and after a reconcile.
//!
//! Pure: intervals, their growth and their caps. Attempts are counted in the ledger, so a restart does not reset
//! them. Doubling from 5 minutes to 6 hours allows at most 10 attempts in 24 hours (13 if each is refused for a
//! temporary cause), which leaves the rest of the budget to changes that users request.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::condition::Reason;

use super::aws_error::ErrorKind;

/// The wait after the first attempt.
const FIRST_RETRY_DELAY: SignedDuration = SignedDuration::from_mins(5);
/// The longest wait between attempts.
pub const MAX_RETRY_DELAY: SignedDuration = SignedDuration::from_hours(6);

/// Returns the wait after attempt number `count` (from 1).
#[must_use]
pub fn after_attempt(count: u32) -> SignedDuration {
    doubled(FIRST_RETRY_DELAY, count)
}

/// Returns the wait after attempt number `count` was refused with `kind`.
#[must_use]
pub fn after_refusal(count: u32, kind: ErrorKind) -> SignedDuration {
    match kind {
        // The cause is short-lived: another change of the stream, a burst of calls, or credentials that are
        // being renewed.
        ErrorKind::Throttled
        | ErrorKind::InUse
        | ErrorKind::Transient
        | ErrorKind::NoCredentials
        | ErrorKind::CredentialsRejected => doubled(SignedDuration::from_secs(30), count),
        // Other clients used up the calls, or the key has its maximum number of streams. When this ends is
        // unknown, and Firehose may count a refused retry as well, so retries are rare.
        ErrorKind::LimitReached => doubled(SignedDuration::from_hours(1), count),
        ErrorKind::Denied
        | ErrorKind::Key(_)
        | ErrorKind::KeyAccessDenied
        | ErrorKind::NotFound
        | ErrorKind::Invalid
        | ErrorKind::UnknownOutcome => after_attempt(count),
    }
}

/// Returns the wait after the last `count` calls were not sent. It is shorter than the wait after a refusal, because AWS counts
/// none of them, and long enough that a day of them fits into a ledger.
#[must_use]
pub fn after_unsent(count: u32) -> SignedDuration {
    doubled(SignedDuration::from_secs(30), count).min(SignedDuration::from_mins(15))
}

fn doubled(first: SignedDuration, count: u32) -> SignedDuration {
    let factor = 1_i32 << count.saturating_sub(1).min(16);
    first.saturating_mul(factor).min(MAX_RETRY_DELAY)
}

/// Returns the time since which `reason` applies: the time in `last_reason` if its reason is `reason`,
/// otherwise `now`.
#[must_use]
pub fn reason_since(last_reason: Option<(Reason, Timestamp)>, reason: Reason, now: Timestamp) -> Timestamp {
    last_reason.filter(|(last, _)| *last == reason).map_or(now, |(_, since)| since)
}

/// The shortest and the longest time between two Describes; it grows while the reason stays the same.
pub type PollInterval = (SignedDuration, SignedDuration);

const fn seconds(shortest: i64, longest: i64) -> PollInterval {
    (SignedDuration::from_secs(shortest), SignedDuration::from_secs(longest))
}

/// After a step that changes something.
pub const POLL_AFTER_STEP: PollInterval = seconds(2, 2);
/// While AWS changes the encryption.
pub const POLL_IN_PROGRESS: PollInterval = seconds(2, 30);
/// After an error of AWS, while the spec or the ledger is invalid, while the stream is created or deleted, and
/// between two test records.
pub const POLL_AWS_ERROR: PollInterval = seconds(5, 5 * 60);
/// While the stream does not exist.
pub const POLL_MISSING: PollInterval = seconds(5, 10 * 60);
/// While the desired or the active key is unusable.
pub const POLL_KEY_PROBLEM: PollInterval = seconds(15, 10 * 60);
/// While the stream cannot be encrypted in its state.
pub const POLL_UNUSABLE: PollInterval = seconds(30, 5 * 60);
/// While another resource manages the stream.
pub const POLL_OTHER_OWNER: PollInterval = seconds(30, 10 * 60);
/// While the session is too old for a call.
pub const POLL_OLD_SESSION: PollInterval = seconds(60, 5 * 60);

/// Returns the wait until the next Describe of a state unchanged since `since`: as long as the state has
/// lasted, within bounds.
#[must_use]
pub fn poll_interval(since: Timestamp, now: Timestamp, (shortest, longest): PollInterval) -> SignedDuration {
    now.duration_since(since).clamp(shortest, longest)
}

/// Returns the wait until the next Describe of a stream that has been changing since `since`: until most changes are
/// complete, which takes the time `expected`; then in growing intervals.
#[must_use]
pub fn change_poll_interval(since: Timestamp, now: Timestamp, expected: SignedDuration) -> SignedDuration {
    let (shortest, longest) = POLL_IN_PROGRESS;
    // A clock that was set back must not extend the wait.
    let elapsed = now.duration_since(since).max(SignedDuration::ZERO);
    if elapsed < expected {
        return (expected - elapsed).max(shortest);
    }
    (elapsed - expected).clamp(shortest, longest)
}

/// Shortest pause between two steps for one stream, such as a call that AWS refused and the next one.
pub const AFTER_STEP: SignedDuration = SignedDuration::from_secs(2);
/// The wait after one of the first conflicts, before everything is read and decided again.
pub const AFTER_CONFLICT: SignedDuration = SignedDuration::from_secs(1);
/// The wait after a call of somebody else was learned from an event. The Describe before that may not show its effect yet.
pub const AFTER_EXTERNAL_CALL: SignedDuration = SignedDuration::from_mins(1);
/// Number of conflicts in succession that are ordinary: another writer was first.
const ORDINARY_CONFLICTS: u32 = 2;
/// Minimum age of a description before a change of the retry annotation alone causes another Describe.
pub const RETRY_PAUSE: SignedDuration = SignedDuration::from_secs(10);
/// Interval at which a resource is read again while a write without an acknowledgement may still be applied. It
/// triggers no other reconcile: the operator's own status is no trigger.
pub const REREAD: SignedDuration = SignedDuration::from_secs(30);
/// The longest wait that a reconcile requests, except for the drift interval.
const LONGEST_POLL: SignedDuration = SignedDuration::from_mins(10);
/// The wait after a reconcile that requested an impossible time.
const AFTER_SET_BACK: SignedDuration = SignedDuration::from_mins(10);
/// Shortest wait between two reconciles of one resource.
const SHORTEST_REST: SignedDuration = SignedDuration::from_millis(10);

/// Returns the wait after a reconcile that requested `wake`. Every reconcile requests a time within the drift interval,
/// with its jitter of a tenth, or within ten minutes, whichever is longer. A wait of more than twice that can only come
/// from a clock that was set back after the time was computed. The next reconcile then follows after ten minutes, and
/// decides by the present clock.
#[must_use]
pub fn after_reconcile(drift_interval: SignedDuration, now: Timestamp, wake: Timestamp) -> SignedDuration {
    let longest = drift_interval.max(LONGEST_POLL).saturating_mul(2);
    let wait = wake.duration_since(now).max(SHORTEST_REST);
    if wait > longest { AFTER_SET_BACK } else { wait }
}

/// Returns the wait after a request to the API server has failed in this many reconciles in succession: first 3 to 8
/// seconds, always the same for the same resource, so that not all resources are reconciled at once. Each further
/// failure doubles the wait, up to eight times the first one: what fails for one resource alone, such as a write that a
/// webhook refuses, must not use up AWS's rate limits.
#[must_use]
pub fn after_kube_error(uid: &str, failures: u32) -> SignedDuration {
    doubled_for(uid, failures.saturating_sub(1).min(3))
}

/// Returns the wait after the API server has refused a request in this many reconciles in succession, because of a missing
/// permission or a webhook. Somebody must repair that, so the wait grows to between three and nine minutes.
#[must_use]
pub fn after_kube_refusal(uid: &str, failures: u32) -> SignedDuration {
    doubled_for(uid, failures.saturating_sub(1).min(6))
}

fn doubled_for(uid: &str, doublings: u32) -> SignedDuration {
    let spread = i64::from(uid.bytes().fold(0_u8, u8::wrapping_add));
    SignedDuration::from_millis((3000 + spread * 20) << doublings)
}

/// Returns the wait after this many reconciles in succession were given up because of a conflict, or because what they
/// were based on had changed or grown old. After more than two of them, a slow API server is the likely cause. Each
/// attempt sends its most expensive requests, so the wait is that after failed requests.
#[must_use]
pub fn after_conflict(uid: &str, conflicts: u32) -> SignedDuration {
    match conflicts.saturating_sub(ORDINARY_CONFLICTS) {
        0 => AFTER_CONFLICT,
        failures => after_kube_error(uid, failures),
    }
}

/// Returns the drift interval of one resource: up to a tenth shorter or longer, always the same for the same
/// resource, so that the checks spread out.
#[must_use]
pub fn jittered(drift_interval: SignedDuration, uid: Option<&str>) -> SignedDuration {
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    let thousandths = i64::try_from(hasher.finish() % 200).unwrap_or(0) - 100;
    let milliseconds = i64::try_from(drift_interval.as_millis()).unwrap_or(i64::MAX / 2000);
    SignedDuration::from_millis(milliseconds + milliseconds / 1000 * thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requeue_is_early_if_the_clock_was_set_back() {
        let now = Timestamp::UNIX_EPOCH;
        let wait = |wake| after_reconcile(SignedDuration::from_mins(30), now, now + wake);
        assert_eq!(wait(SignedDuration::from_mins(33)), SignedDuration::from_mins(33));
        assert_eq!(wait(SignedDuration::from_mins(60)), SignedDuration::from_mins(60));
        assert_eq!(wait(SignedDuration::from_hours(48)), AFTER_SET_BACK);
        assert_eq!(wait(SignedDuration::from_hours(-48)), SHORTEST_REST);
    }

    #[test]
    fn jitter_stays_within_a_tenth_and_differs_by_resource() {
        let (interval, tenth) = (SignedDuration::from_mins(10), SignedDuration::from_mins(1));
        let drift: Vec<_> = (0..50).map(|n| jittered(interval, Some(&format!("uid-{n}")))).collect();
        assert!(drift.iter().all(|one| (interval - tenth..=interval + tenth).contains(one)), "{drift:?}");
        assert!(drift.iter().any(|one| *one != drift[0]));
        assert_eq!(drift[0], jittered(interval, Some("uid-0")), "it depends on the resource alone");
    }

    #[test]
    fn kube_errors_are_retried_at_different_times() {
        assert_eq!(after_kube_error("", 1), SignedDuration::from_secs(3));
        assert_eq!(after_kube_error("\u{7f}\u{7f}\u{1}", 1), SignedDuration::from_millis(3000 + 255 * 20));
        let refused = [1, 2, 6, 7, u32::MAX].map(|failures| after_kube_refusal("", failures).as_secs());
        assert_eq!(refused, [3, 6, 96, 192, 192]);
        let waits = [2, 3, 4, 5, u32::MAX].map(|failures| after_kube_error("", failures).as_secs());
        assert_eq!(waits, [6, 12, 24, 24, 24]);
    }

    #[test]
    fn backoff_doubles_from_five_minutes_to_six_hours() {
        let minutes: Vec<i64> = (1..=9).map(|count| after_attempt(count).as_mins()).collect();
        assert_eq!(minutes, [5, 10, 20, 40, 80, 160, 320, 360, 360]);
        assert_eq!(after_attempt(u32::MAX), MAX_RETRY_DELAY);
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
    fn change_is_polled_when_most_are_complete() {
        let start = Timestamp::UNIX_EPOCH;
        let polls = |expected: i64| {
            let (mut now, mut polls) = (start, Vec::new());
            for _ in 0..5 {
                now += change_poll_interval(start, now, SignedDuration::from_secs(expected));
                polls.push(now.duration_since(start).as_secs());
            }
            polls
        };
        assert_eq!(polls(0), [2, 4, 8, 16, 32]);
        assert_eq!(polls(1), [2, 4, 7, 13, 25]);
        assert_eq!(polls(45), [45, 47, 49, 53, 61]);
        let set_back = start - SignedDuration::from_hours(1);
        let expected = SignedDuration::from_secs(45);
        assert_eq!(change_poll_interval(start, set_back, expected), expected);
    }

    #[test]
    fn polling_slows_from_two_to_thirty_seconds() {
        let start = Timestamp::UNIX_EPOCH;
        let (shortest, longest) = (SignedDuration::from_secs(2), SignedDuration::from_secs(30));
        let mut now = start;
        let mut looks = Vec::new();
        for _ in 0..7 {
            now += poll_interval(start, now, (shortest, longest));
            looks.push(now.duration_since(start).as_secs());
        }
        assert_eq!(looks, [2, 4, 8, 16, 32, 62, 92]);
    }
}
