//! Token bucket with a sliding window: each token returns one second after it was taken, instead of at a
//! constant rate.
//!
//! The requests of one second may therefore be sent at once, and yet no interval of one second ever contains
//! more requests than the rate. Pure: the time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
/// Minimum rate, however often AWS throttles: one request in five seconds. In thousandths of a request per
/// second.
const MIN_RATE: u32 = 200;

/// The tokens of one limit of AWS. Rates are in thousandths of a request per second.
pub(super) struct TokenBucket {
    full_rate: u32,
    rate: u32,
    /// The times at which the outstanding tokens were taken, oldest first.
    taken: VecDeque<Instant>,
    /// The time before which no request is permitted, after AWS throttled one.
    paused_until: Option<Instant>,
    /// The time at which the rate last changed.
    changed: Option<Instant>,
}

impl TokenBucket {
    /// Creates a bucket for `full_rate` thousandths of a request per second.
    pub(super) fn new(full_rate: u32) -> Self {
        let full_rate = full_rate.max(MIN_RATE);
        Self { full_rate, rate: full_rate, taken: VecDeque::new(), paused_until: None, changed: None }
    }

    /// Returns the current rate.
    pub(super) fn rate(&self) -> u32 {
        self.rate
    }

    /// Takes a token, or returns the time at which one may be available.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let token_lifetime = self.token_lifetime();
        while self.taken.front().is_some_and(|&taken| taken + token_lifetime <= now) {
            self.taken.pop_front();
        }
        if let Some(paused_until) = self.paused_until.filter(|&until| until > now) {
            return Err(paused_until);
        }
        let out = self.taken.len();
        if let Some(over) = out.checked_sub(self.capacity()) {
            return Err(self.taken[over] + token_lifetime);
        }
        self.taken.push_back(now);
        Ok(())
    }

    /// Puts back the token that was taken at `time` for a request that was not sent.
    pub(super) fn give_back(&mut self, time: Instant) {
        if let Some(at) = self.taken.iter().rposition(|&taken| taken == time) {
            self.taken.remove(at);
        }
    }

    /// Halves the rate because AWS throttled a request, and pauses for the time of one request. The rate is
    /// not halved if it changed in the last second, so the throttled requests of a burst halve it once. The
    /// first throttling always halves it.
    pub(super) fn throttled(&mut self, now: Instant) {
        if self.paused_until.is_none() || self.changed.is_none_or(|changed| now >= changed + SECOND) {
            self.rate = (self.rate / 2).max(MIN_RATE.min(self.full_rate));
            self.changed = Some(now);
        }
        self.paused_until = Some(now + SECOND * 1000 / self.rate);
    }

    /// Raises the rate because AWS answered a request: by a twentieth of the full rate, at most once a
    /// second.
    pub(super) fn succeeded(&mut self, now: Instant) {
        if self.rate < self.full_rate && self.changed.is_none_or(|changed| now >= changed + SECOND) {
            self.rate = (self.rate + self.full_rate / 20).min(self.full_rate);
            self.changed = Some(now);
        }
    }

    /// Returns whether the bucket is equivalent to a new one.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        self.rate == self.full_rate
            && self.taken.back().is_none_or(|&taken| taken + self.token_lifetime() <= now)
    }

    /// Returns the number of tokens: the whole requests of a second, at least one.
    fn capacity(&self) -> usize {
        usize::try_from(self.rate / 1000).unwrap_or(usize::MAX).max(1)
    }

    /// Returns the time after which a token returns: one second, or more if the rate is less than one request
    /// per second.
    fn token_lifetime(&self) -> Duration {
        SECOND.max(SECOND * 1000 / self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_within(bucket: &mut TokenBucket, from: Instant, span: Duration) -> usize {
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
    fn burst_is_limited_to_the_requests_of_one_second() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(4_000);
        assert_eq!(taken_within(&mut bucket, start, Duration::from_nanos(1)), 4);
        assert_eq!(bucket.take(start + Duration::from_millis(999)), Err(start + SECOND));
        assert_eq!(taken_within(&mut bucket, start + SECOND, Duration::from_nanos(1)), 4);
    }

    #[test]
    fn full_rate_is_sustained_over_a_minute() {
        let mut bucket = TokenBucket::new(16_000);
        assert_eq!(taken_within(&mut bucket, Instant::now(), 60 * SECOND), 60 * 16);
    }

    #[test]
    fn rate_below_one_per_second_permits_one_at_a_time() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(500);
        assert_eq!(bucket.take(start), Ok(()));
        assert_eq!(bucket.take(start), Err(start + 2 * SECOND));
    }

    #[test]
    fn throttling_halves_the_rate_down_to_the_minimum() {
        let mut now = Instant::now();
        let mut bucket = TokenBucket::new(4_000);
        let mut rates = vec![];
        for _ in 0..6 {
            bucket.throttled(now);
            rates.push(bucket.rate());
            now += SECOND;
        }
        assert_eq!(rates, [2_000, 1_000, 500, 250, 200, 200]);
    }

    #[test]
    fn throttled_burst_halves_the_rate_once() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(4_000);
        for _ in 0..4 {
            bucket.throttled(now);
        }
        assert_eq!(bucket.rate(), 2_000);
    }

    #[test]
    fn next_request_waits_after_throttling() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(4_000);
        bucket.throttled(now);
        assert_eq!(bucket.take(now), Err(now + SECOND / 2));
        assert_eq!(bucket.take(now + SECOND / 2), Ok(()));
    }

    #[test]
    fn rate_recovers_by_a_twentieth_per_second_of_success() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(4_000);
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
    fn returned_token_can_be_taken_again() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(1_000);
        assert_eq!(bucket.take(now), Ok(()));
        assert!(bucket.take(now).is_err());
        bucket.give_back(now);
        assert_eq!(bucket.take(now), Ok(()));
    }
}
