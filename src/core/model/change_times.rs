//! How long AWS takes to change the encryption of a stream, learned from the changes that the operator has followed.
//!
//! AWS documents no time: Kinesis takes seconds, Firehose up to minutes. A Describe before a change is complete uses
//! one of few requests for nothing, so the first one waits until most changes are complete. Pure. The estimate only
//! affects when a stream is described; a wrong one costs a later or another Describe.

use jiff::SignedDuration;
use stream_encryption_api::stream_encryption::Service;

use super::service::PROFILES;

/// The longest time that the first Describe waits, however long the changes before took.
const LONGEST: SignedDuration = SignedDuration::from_mins(1);

/// The time of a change, by service; `None` until one has been followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeTimes([Option<SignedDuration>; PROFILES.len()]);

impl ChangeTimes {
    /// Returns the time after which most changes are complete; zero until one has been followed.
    #[must_use]
    pub fn expected(&self, service: Service) -> SignedDuration {
        self.0[service as usize].unwrap_or(SignedDuration::ZERO)
    }

    /// Learns from a change: it was last seen in progress at `in_progress`, if ever, and complete at `complete`, each
    /// from its start.
    ///
    /// One change in ten should be described too early. The estimate therefore grows by a tenth if a change was, and
    /// shrinks by a hundredth if it was not. A single slow change raises it by half at most.
    pub fn learn(&mut self, service: Service, in_progress: Option<SignedDuration>, complete: SignedDuration) {
        // The clock may have been set back meanwhile.
        let in_progress = in_progress.unwrap_or(SignedDuration::ZERO).max(SignedDuration::ZERO);
        let complete = complete.max(in_progress);
        let estimate = match self.0[service as usize] {
            None => in_progress + (complete - in_progress) / 2,
            Some(known) if in_progress >= known => in_progress.clamp(known * 11 / 10, known * 3 / 2),
            Some(known) => known * 99 / 100,
        };
        self.0[service as usize] = Some(estimate.clamp(SignedDuration::ZERO, LONGEST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::schedule::change_poll_interval;

    const START: jiff::Timestamp = jiff::Timestamp::UNIX_EPOCH;

    /// Follows a change that takes this long, as the decision schedules it, and returns the number of Describes and
    /// the time of the last one.
    fn follow(times: &mut ChangeTimes, takes: SignedDuration) -> (u32, SignedDuration) {
        let (mut now, mut describes, mut in_progress) = (START, 0, None);
        loop {
            now += change_poll_interval(START, now, times.expected(Service::Firehose));
            describes += 1;
            let at = now.duration_since(START);
            if at >= takes {
                times.learn(Service::Firehose, in_progress, at);
                return (describes, at);
            }
            in_progress = Some(at);
        }
    }

    #[test]
    fn nine_of_ten_changes_need_one_describe() {
        for seconds in [3, 10, 45, 55] {
            let (mut times, takes) = (ChangeTimes::default(), SignedDuration::from_secs(seconds));
            for _ in 0..20 {
                follow(&mut times, takes);
            }
            let followed: Vec<_> = (0..1000).map(|_| follow(&mut times, takes)).collect();
            let describes: u32 = followed.iter().map(|(describes, _)| describes).sum();
            assert!(describes <= 1150, "{seconds} s: {describes} Describes");
            let latest = followed.iter().map(|(_, at)| *at).max().unwrap();
            assert!(latest <= takes * 5 / 4 + SignedDuration::from_secs(2), "{seconds} s: {latest:#}");
        }
    }

    #[test]
    fn estimate_follows_a_faster_and_a_slower_aws() {
        let mut times = ChangeTimes::default();
        for (seconds, changes) in [(5, 1), (45, 12), (5, 300)] {
            let takes = SignedDuration::from_secs(seconds);
            for _ in 0..changes {
                follow(&mut times, takes);
            }
            let (_, at) = follow(&mut times, takes);
            assert!(at <= takes * 3 / 2 + SignedDuration::from_secs(2), "{seconds} s: {at:#}");
        }
    }

    #[test]
    fn stuck_change_delays_others_by_half_at_most() {
        let mut times = ChangeTimes::default();
        let takes = SignedDuration::from_secs(10);
        for _ in 0..100 {
            follow(&mut times, takes);
        }
        let before = times.expected(Service::Firehose);
        follow(&mut times, SignedDuration::from_hours(3));
        assert!(times.expected(Service::Firehose) <= before * 3 / 2);
        for _ in 0..100 {
            follow(&mut times, SignedDuration::from_hours(3));
        }
        assert_eq!(times.expected(Service::Firehose), LONGEST);
        assert_eq!(times.expected(Service::Kinesis), SignedDuration::ZERO, "the other service");
    }
}
