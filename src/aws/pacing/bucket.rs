//! How many requests may go, and when: a bucket of tokens that gets each token back one second after it was taken.
//!
//! So a second's worth may go at once, and yet no second, wherever it begins, ever sees more than the rate. Pure: the
//! time comes in as a value.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
/// However often AWS throttles: one request in five seconds. In thousandths of a request a second.
const SLOWEST: u32 = 200;

/// The tokens of one limit of AWS. Rates are in thousandths of a request a second.
pub(super) struct Bucket {
    full_rate: u32,
    rate: u32,
    /// When each token was taken that has not come back yet, the first taken first.
    taken: VecDeque<Instant>,
    /// After a throttling answer nothing goes before this time.
    held_until: Option<Instant>,
    /// When the rate last changed.
    changed: Option<Instant>,
}

impl Bucket {
    /// A bucket for `full_rate` thousandths of a request a second.
    pub(super) fn new(full_rate: u32) -> Self {
        let full_rate = full_rate.max(SLOWEST);
        Self { full_rate, rate: full_rate, taken: VecDeque::new(), held_until: None, changed: None }
    }

    /// The rate at present.
    pub(super) fn rate(&self) -> u32 {
        self.rate
    }

    /// Takes a token, or tells when there may be one.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let back_after = self.back_after();
        while self.taken.front().is_some_and(|&taken| taken + back_after <= now) {
            self.taken.pop_front();
        }
        if let Some(held_until) = self.held_until.filter(|&until| until > now) {
            return Err(held_until);
        }
        let out = self.taken.len();
        if let Some(over) = out.checked_sub(self.capacity()) {
            return Err(self.taken[over] + back_after);
        }
        self.taken.push_back(now);
        Ok(())
    }

    /// Puts back the token that was taken at `time` for a request that never went.
    pub(super) fn give_back(&mut self, time: Instant) {
        if let Some(at) = self.taken.iter().rposition(|&taken| taken == time) {
            self.taken.remove(at);
        }
    }

    /// AWS throttled a request: half the rate, and a pause of one request. Answers to requests of the same second are
    /// one sign, not many.
    pub(super) fn throttled(&mut self, now: Instant) {
        if self.held_until.is_none() || self.changed.is_none_or(|changed| now >= changed + SECOND) {
            self.rate = (self.rate / 2).max(SLOWEST.min(self.full_rate));
            self.changed = Some(now);
        }
        self.held_until = Some(now + SECOND * 1000 / self.rate);
    }

    /// AWS answered a request: a twentieth of the full rate more, once a second.
    pub(super) fn succeeded(&mut self, now: Instant) {
        if self.rate < self.full_rate && self.changed.is_none_or(|changed| now >= changed + SECOND) {
            self.rate = (self.rate + self.full_rate / 20).min(self.full_rate);
            self.changed = Some(now);
        }
    }

    /// Whether it is as good as a new one.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        self.rate == self.full_rate && self.taken.back().is_none_or(|&taken| taken + self.back_after() <= now)
    }

    /// How many tokens there are: the whole requests of a second, at least one.
    fn capacity(&self) -> usize {
        usize::try_from(self.rate / 1000).unwrap_or(usize::MAX).max(1)
    }

    /// When a token comes back: after a second, or after longer where the rate is less than one a second.
    fn back_after(&self) -> Duration {
        SECOND.max(SECOND * 1000 / self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_within(bucket: &mut Bucket, from: Instant, span: Duration) -> usize {
        let mut now = from;
        let mut count = 0;
        while now < from + span {
            match bucket.take(now) {
                Ok(()) => count += 1,
                Err(again) => now = again,
            }
        }
        count
    }

    #[test]
    fn a_seconds_worth_goes_at_once_and_no_more_until_the_second_is_over() {
        let start = Instant::now();
        let mut bucket = Bucket::new(4_000);
        assert_eq!(taken_within(&mut bucket, start, Duration::from_nanos(1)), 4);
        assert_eq!(bucket.take(start + Duration::from_millis(999)), Err(start + SECOND));
        assert_eq!(taken_within(&mut bucket, start + SECOND, Duration::from_nanos(1)), 4);
    }

    #[test]
    fn the_whole_rate_is_used_over_a_long_time() {
        let mut bucket = Bucket::new(16_000);
        assert_eq!(taken_within(&mut bucket, Instant::now(), 60 * SECOND), 60 * 16);
    }

    #[test]
    fn a_rate_below_one_a_second_lets_one_go_at_a_time() {
        let start = Instant::now();
        let mut bucket = Bucket::new(500);
        assert_eq!(bucket.take(start), Ok(()));
        assert_eq!(bucket.take(start), Err(start + 2 * SECOND));
    }

    #[test]
    fn a_throttling_answer_halves_the_rate_down_to_one_request_in_five_seconds() {
        let mut now = Instant::now();
        let mut bucket = Bucket::new(4_000);
        let mut rates = vec![];
        for _ in 0..6 {
            bucket.throttled(now);
            rates.push(bucket.rate());
            now += SECOND;
        }
        assert_eq!(rates, [2_000, 1_000, 500, 250, 200, 200]);
    }

    #[test]
    fn the_answers_to_one_burst_halve_the_rate_once() {
        let now = Instant::now();
        let mut bucket = Bucket::new(4_000);
        for _ in 0..4 {
            bucket.throttled(now);
        }
        assert_eq!(bucket.rate(), 2_000);
    }

    #[test]
    fn after_a_throttling_answer_the_next_request_waits() {
        let now = Instant::now();
        let mut bucket = Bucket::new(4_000);
        bucket.throttled(now);
        assert_eq!(bucket.take(now), Err(now + SECOND / 2));
        assert_eq!(bucket.take(now + SECOND / 2), Ok(()));
    }

    #[test]
    fn the_rate_grows_back_by_a_twentieth_of_the_full_rate_each_second_of_success() {
        let start = Instant::now();
        let mut bucket = Bucket::new(4_000);
        bucket.throttled(start);
        for tenth in 0..=50 {
            bucket.succeeded(start + tenth * SECOND / 10);
        }
        assert_eq!(bucket.rate(), 2_000 + 5 * 200);
        for second in 6..20 {
            bucket.succeeded(start + second * SECOND);
        }
        assert_eq!(bucket.rate(), 4_000);
    }

    #[test]
    fn a_token_given_back_can_be_taken_again() {
        let now = Instant::now();
        let mut bucket = Bucket::new(1_000);
        assert_eq!(bucket.take(now), Ok(()));
        assert!(bucket.take(now).is_err());
        bucket.give_back(now);
        assert_eq!(bucket.take(now), Ok(()));
    }
}
