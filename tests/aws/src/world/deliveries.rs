//! How `EventBridge` delivers events to a queue: late, twice, out of order, or never.
//!
//! It decides when each copy of an event arrives. Pure: the same seed and the same events always give the
//! same arrivals. It must never read an event.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::stream::later;

/// The delivery of events; by default at once, each exactly once. Percentages are 0 to 100.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deliveries {
    /// The delay of each event.
    pub delay: SignedDuration,
    /// If present, the delay is random, from `delay` up to this one.
    pub delay_up_to: Option<SignedDuration>,
    /// The percentage of events that are never delivered.
    pub loss: u8,
    /// The percentage of events that are delivered twice.
    pub repetition: u8,
    /// The percentage of messages that a receive takes from a random place, not from the front.
    pub disorder: u8,
    /// The seed of all random choices.
    pub seed: u64,
}

impl Deliveries {
    /// Returns when the copies of an event arrive: none if it is lost, two if it is repeated.
    pub(super) fn arrivals(&self, at: Timestamp, dice: &mut Dice) -> Vec<Timestamp> {
        if dice.percent(self.loss) {
            return Vec::new();
        }
        let copies = if dice.percent(self.repetition) { 2 } else { 1 };
        (0..copies).map(|_| later(at, self.one_delay(dice))).collect()
    }

    fn one_delay(&self, dice: &mut Dice) -> SignedDuration {
        let range = self.delay_up_to.map_or(0, |most| most.saturating_sub(self.delay).as_millis());
        let range = u64::try_from(range).unwrap_or(0);
        let extra = if range == 0 { 0 } else { dice.below(range + 1) };
        self.delay.saturating_add(SignedDuration::from_millis(i64::try_from(extra).unwrap_or(0)))
    }
}

/// A sequence of random choices: `SplitMix64`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below the limit; 0 for the limit 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next().checked_rem(limit).unwrap_or(0)
    }

    /// Returns true in this percentage of cases. A percentage of 0 uses no random number.
    pub(super) fn percent(&mut self, percent: u8) -> bool {
        percent > 0 && self.below(100) < u64::from(percent)
    }
}
