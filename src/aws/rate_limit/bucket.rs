//! Token bucket with a sliding window: each token returns one second after it was taken (two seconds at half a request per
//! second, and so on), and tokens are taken one after the other, not all at once.
//!
//! In no interval of one second are more tokens taken than the rate. So a rate of one per second or more is rounded down
//! to a whole number: 3.95 per second permits 3. At rates of up to 90 per second, the tokens are spaced over the second:
//! otherwise the network could deliver the requests of two seconds in one. A request that only detects drift also needs a
//! token of a second bucket, which has half the rounded rate. So half of the rate is always left for other requests. Pure: the
//! time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
/// Minimum rate, however often AWS throttles: one request in five seconds, or the full rate if that is lower. In
/// thousandths of a request per second.
const MIN_RATE: u32 = 200;
/// Requests that only detect drift use the rate of all requests, divided by this number.
pub const DRIFT_DIVISOR: u32 = 2;
/// Pauses between two tokens that would be shorter than this are left out: a timer is precise to a millisecond only. At more
/// than 90 requests per second, the tokens of a second can therefore be taken at once.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// The tokens of one limit of AWS. Rates are in thousandths of a request per second.
pub(super) struct TokenBucket {
    full_rate: u32,
    rate: u32,
    all: Taken,
    drift: Taken,
    /// The time before which no request is permitted, after AWS throttled one.
    paused_until: Option<Instant>,
    /// The time at which the rate was last halved.
    halved: Option<Instant>,
    /// The time at which the rate was last raised.
    raised: Option<Instant>,
}

impl TokenBucket {
    /// Creates a bucket for `full_rate` thousandths of a request per second.
    pub(super) fn new(full_rate: u32) -> Self {
        Self {
            full_rate,
            rate: full_rate,
            all: Taken::default(),
            drift: Taken::default(),
            paused_until: None,
            halved: None,
            raised: None,
        }
    }

    /// Returns the current rate.
    pub(super) fn rate(&self) -> u32 {
        self.rate
    }

    /// Returns the rate of requests that only detect drift.
    fn drift_rate(&self) -> u32 {
        let permitted = if self.rate < 1000 { self.rate } else { self.rate / 1000 * 1000 };
        permitted / DRIFT_DIVISOR
    }

    /// Returns the time from which a token is available; `now` if one is. `detects_drift` states whether it is for a
    /// request that only detects drift.
    fn available_from(&mut self, now: Instant, detects_drift: bool) -> Instant {
        let mut available = self.all.available_from(now, self.rate);
        if detects_drift {
            available = available.max(self.drift.available_from(now, self.drift_rate()));
        }
        self.paused_until.map_or(available, |until| available.max(until))
    }

    /// Returns the time from which a token is available for a request that only detects drift; `now` if one is.
    pub(super) fn drift_available_from(&mut self, now: Instant) -> Instant {
        self.available_from(now, true)
    }

    /// Takes a token, or returns the time at which one may be available.
    pub(super) fn take(&mut self, now: Instant, detects_drift: bool) -> Result<(), Instant> {
        let available = self.available_from(now, detects_drift);
        if available > now {
            return Err(available);
        }
        self.all.0.push_back(now);
        if detects_drift {
            self.drift.0.push_back(now);
        }
        Ok(())
    }

    /// Puts back the token that was taken at `time` for a request that was not sent.
    pub(super) fn give_back(&mut self, time: Instant, detects_drift: bool) {
        self.all.give_back(time);
        if detects_drift {
            self.drift.give_back(time);
        }
    }

    /// Halves the rate because AWS throttled a request, and permits nothing for one interval of the new rate. The rate is
    /// not halved twice within a second, so the throttled requests of a burst halve it once.
    pub(super) fn throttled(&mut self, now: Instant) {
        if is_past_second(self.halved, now) {
            self.rate = (self.rate / 2).max(MIN_RATE.min(self.full_rate));
            self.halved = Some(now);
        }
        let until = now + SECOND * 1000 / self.rate.max(1);
        self.paused_until = self.paused_until.max(Some(until));
    }

    /// Raises the rate because AWS answered a request: by a twentieth of the full rate, at most once a second, and not in the
    /// second after it was halved. Returns whether it was raised.
    pub(super) fn succeeded(&mut self, now: Instant) -> bool {
        let is_raised = self.rate < self.full_rate
            && is_past_second(self.halved, now)
            && is_past_second(self.raised, now);
        if is_raised {
            self.rate = (self.rate + self.full_rate / 20).min(self.full_rate);
            self.raised = Some(now);
        }
        is_raised
    }

    /// Returns whether the bucket is equivalent to a new one.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        self.rate == self.full_rate
            && self.paused_until.is_none_or(|until| until <= now)
            && self.all.are_back(now, self.rate)
            && self.drift.are_back(now, self.drift_rate())
    }
}

/// Returns whether a change of the rate was at least a second ago.
fn is_past_second(change: Option<Instant>, now: Instant) -> bool {
    change.is_none_or(|at| now >= at + SECOND)
}

/// The times at which the outstanding tokens were taken, oldest first.
#[derive(Default)]
struct Taken(VecDeque<Instant>);

impl Taken {
    /// Returns the time from which another token is available at this rate; `now` if one is.
    fn available_from(&mut self, now: Instant, rate: u32) -> Instant {
        let lifetime = token_lifetime(rate);
        while self.0.front().is_some_and(|&taken| taken + lifetime <= now) {
            self.0.pop_front();
        }
        // If `capacity` or more tokens are outstanding, all but `capacity - 1` must return first. The last of these is at
        // `len - capacity`, which is 0 unless the rate has fallen.
        let last_to_return = self.0.len().checked_sub(capacity(rate)).map(|index| self.0[index]);
        let returns = last_to_return.map(|taken| taken + lifetime);
        let spaced = self.0.back().map(|&last| last + pause(rate));
        [returns, spaced].into_iter().flatten().fold(now, Instant::max)
    }

    fn give_back(&mut self, time: Instant) {
        if let Some(at) = self.0.iter().rposition(|&taken| taken == time) {
            self.0.remove(at);
        }
    }

    /// Returns whether no token is outstanding.
    fn are_back(&self, now: Instant, rate: u32) -> bool {
        self.0.back().is_none_or(|&taken| taken + token_lifetime(rate) <= now)
    }
}

/// Returns the number of tokens: the requests per second, rounded down, at least one.
fn capacity(rate: u32) -> usize {
    usize::try_from(rate / 1000).unwrap_or(usize::MAX).max(1)
}

/// Returns the time after which a token returns: one second, or more if the rate is less than one request
/// per second.
fn token_lifetime(rate: u32) -> Duration {
    SECOND.max(SECOND * 1000 / rate.max(1))
}

/// Returns the pause between two tokens, which only spreads the requests: [`token_lifetime`] limits their rate. The pause is nine
/// tenths of 1/rate. With all of it, each timer that is late would lower the rate.
fn pause(rate: u32) -> Duration {
    let spacing = SECOND * 900 / rate.max(1);
    if spacing < SHORTEST_PAUSE { Duration::ZERO } else { spacing }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_within(bucket: &mut TokenBucket, from: Instant, span: Duration, detects_drift: bool) -> usize {
        let mut now = from;
        let mut count = 0;
        while now < from + span {
            match bucket.take(now, detects_drift) {
                Ok(()) => count += 1,
                Err(again) => now = again,
            }
        }
        count
    }

    #[test]
    fn requests_of_one_second_are_spread_over_it() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(4_000);
        let pause = SECOND * 9 / 40;
        for number in 0..4 {
            let due = start + number * pause;
            assert_eq!(bucket.take(due, false), Ok(()));
            assert_eq!(taken_within(&mut bucket, due, pause, false), 0);
        }
        assert_eq!(bucket.take(start + Duration::from_millis(999), false), Err(start + SECOND));
    }

    #[test]
    fn full_rate_is_sustained_over_a_minute() {
        for (rate, each_second) in [(4_000, 4), (16_000, 16), (1_600_000, 1600)] {
            let mut bucket = TokenBucket::new(rate);
            assert_eq!(taken_within(&mut bucket, Instant::now(), 60 * SECOND, false), 60 * each_second);
        }
    }

    #[test]
    fn drift_takes_half_and_leaves_the_other_half() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(4_000);
        assert_eq!(taken_within(&mut bucket, start, 60 * SECOND, true), 60 * 2);
        let mut changes = 0;
        for millisecond in 60_000..120_000 {
            let now = start + Duration::from_millis(millisecond);
            let _ = bucket.take(now, true);
            changes += usize::from(bucket.take(now, false).is_ok());
        }
        assert!((115..=125).contains(&changes), "{changes}");
    }

    #[test]
    fn drift_takes_at_most_half_of_the_rounded_rate() {
        // Half of three requests per second is rounded down to one.
        for (rate, all, drift) in [(1_800, 60, 30), (1_000, 60, 30), (3_900, 180, 60), (900, 55, 28)] {
            let taken = |detects_drift| {
                taken_within(&mut TokenBucket::new(rate), Instant::now(), 60 * SECOND, detects_drift)
            };
            assert_eq!((taken(false), taken(true)), (all, drift), "{rate}");
        }
    }

    #[test]
    fn rate_below_one_per_second_permits_one_at_a_time() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(500);
        assert_eq!(bucket.take(start, false), Ok(()));
        assert_eq!(bucket.take(start, false), Err(start + 2 * SECOND));
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
    fn full_rate_below_the_minimum_is_not_exceeded() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(50);
        assert_eq!(taken_within(&mut bucket, start, 60 * SECOND, false), 3);
        bucket.throttled(start + 60 * SECOND);
        assert_eq!(bucket.rate(), 50);
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
    fn throttling_right_after_a_raise_halves_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(4_000);
        bucket.throttled(start);
        // AWS answers the first request of each second, and throttles a later one.
        for second in 1..10 {
            bucket.succeeded(start + second * SECOND);
            bucket.throttled(start + second * SECOND + SECOND / 2);
        }
        assert!(bucket.rate() < 400, "{}", bucket.rate());
    }

    #[test]
    fn late_throttled_response_does_not_shorten_the_pause() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(16_000);
        for second in 0..7 {
            bucket.throttled(start + second * SECOND);
        }
        // The rate is 0.2 per second since second 6: one request in five seconds.
        assert_eq!(bucket.take(start + 10 * SECOND, false), Err(start + 11 * SECOND));
        // The rate is raised to 1, and halved. By itself, that would pause until second 9.1.
        bucket.succeeded(start + 7 * SECOND);
        bucket.throttled(start + SECOND * 71 / 10);
        assert_eq!(bucket.take(start + 10 * SECOND, false), Err(start + 11 * SECOND));
    }

    #[test]
    fn paused_bucket_is_not_fresh() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(50);
        bucket.throttled(start);
        assert!(!bucket.is_fresh(start + 19 * SECOND));
        assert!(bucket.is_fresh(start + 20 * SECOND));
    }

    #[test]
    fn next_request_waits_after_throttling() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(4_000);
        bucket.throttled(now);
        assert_eq!(bucket.take(now, false), Err(now + SECOND / 2));
        assert_eq!(bucket.take(now + SECOND / 2, false), Ok(()));
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
        assert_eq!(bucket.take(now, false), Ok(()));
        assert!(bucket.take(now, false).is_err());
        bucket.give_back(now, false);
        assert_eq!(bucket.take(now, false), Ok(()));
    }
}
