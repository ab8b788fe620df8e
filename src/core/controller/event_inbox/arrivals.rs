//! Whether AWS's events of one account and region arrive.
//!
//! A heartbeat is an event that EventBridge sends on a schedule. Heartbeats show that the queue works. They do not show that
//! a trail of CloudTrail logs calls, so the operator's own encryption calls are a test of that: each must lead to an event.
//! Pure; all times are those of the monotonic clock.

use std::mem;
use std::time::Duration;

use crate::model::ledger::MAX_CLOCK_SKEW;

/// Time without any event of an account and region after which its events count as lost: three of the heartbeats that
/// the templates in `config/events` set up. Also the time within which an encryption call of the operator must lead to an event.
pub const SILENCE: Duration = Duration::from_mins(15);

/// The longest difference between the operator's clock and AWS's with which AWS accepts a call.
const LONGEST_SKEW: Duration = MAX_CLOCK_SKEW.unsigned_abs();

/// Why the events of an account and region count as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Neither an event nor a heartbeat has arrived for [`SILENCE`].
    Everything,
    /// No event of CloudTrail has arrived since an encryption call of the operator, made [`SILENCE`] ago. Other events, such
    /// as heartbeats, arrive: probably no trail logs management events.
    OwnCall,
}

/// When events of one account and region arrived, on the monotonic clock.
#[derive(Debug)]
pub(super) struct Arrivals {
    /// The last event, heartbeats included.
    last: Duration,
    /// The event of CloudTrail that happened last, of those that have arrived.
    last_trail_event: Option<TrailEvent>,
    /// The first encryption call of the operator that AWS accepted since the last event of CloudTrail happened.
    unreported_call: Option<Duration>,
    /// The present silence, once [`announce_silence`](Self::announce_silence) has returned it.
    announced: Option<Silence>,
}

/// An event of CloudTrail. It happened at `arrived - age`, which may be before the monotonic clock began. So two such
/// times are compared as sums.
#[derive(Clone, Copy, Debug)]
struct TrailEvent {
    /// When it arrived.
    arrived: Duration,
    /// The time from its happening to its arrival: the difference of two clocks, AWS's and the operator's.
    age: Duration,
}

impl TrailEvent {
    /// Returns whether this event happened before the other one.
    fn is_before(&self, other: &Self) -> bool {
        self.arrived.saturating_add(other.age) < other.arrived.saturating_add(self.age)
    }

    /// Returns whether this event can report a call that was sent at this time: it happened after the call, or at most
    /// [`LONGEST_SKEW`] before it.
    fn can_report(&self, sent: Duration) -> bool {
        self.arrived.saturating_add(LONGEST_SKEW) >= sent.saturating_add(self.age)
    }
}

impl Arrivals {
    /// Begins with an event that arrives at `now`.
    pub(super) fn begin(now: Duration) -> Self {
        Self { last: now, last_trail_event: None, unreported_call: None, announced: None }
    }

    /// Records that an event or a heartbeat has arrived.
    pub(super) fn record(&mut self, now: Duration) {
        self.last = now;
    }

    /// Records that an event of CloudTrail has arrived, whose `age` is the time since it happened.
    pub(super) fn record_trail_event(&mut self, now: Duration, age: Duration) {
        let event = TrailEvent { arrived: now, age };
        self.unreported_call = self.unreported_call.filter(|call| !event.can_report(*call));
        if self.last_trail_event.is_none_or(|last| last.is_before(&event)) {
            self.last_trail_event = Some(event);
        }
    }

    /// Records that AWS has accepted an encryption call of the operator, which was sent at this time. Its event may have
    /// arrived before AWS's response.
    pub(super) fn record_own_call(&mut self, sent: Duration) {
        let is_reported = |event: TrailEvent| event.arrived >= sent && event.can_report(sent);
        if !self.last_trail_event.is_some_and(is_reported) {
            self.unreported_call.get_or_insert(sent);
        }
    }

    /// Returns what is missing at `now`.
    pub(super) fn silence(&self, now: Duration) -> Option<Silence> {
        let is_over = |since: Duration| now.saturating_sub(since) >= SILENCE;
        if is_over(self.last) {
            Some(Silence::Everything)
        } else {
            self.unreported_call.is_some_and(is_over).then_some(Silence::OwnCall)
        }
    }

    /// Returns what is missing at `now`. Returns `None` if nothing is missing, or if this function found the same the last time.
    pub(super) fn announce_silence(&mut self, now: Duration) -> Option<Silence> {
        let silence = self.silence(now);
        let announced = mem::replace(&mut self.announced, silence);
        silence.filter(|silence| announced != Some(*silence))
    }

    /// Returns how long ago the last event arrived; `None` while something is missing.
    pub(super) fn age(&self, now: Duration) -> Option<Duration> {
        self.silence(now).is_none().then(|| now.saturating_sub(self.last))
    }
}
