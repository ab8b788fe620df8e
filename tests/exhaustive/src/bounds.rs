//! How much of everything is explored: how many faults, changes of mind and moments, and how large the budget is.
//!
//! A bound says what may happen, never what the operator does about it. Each run explores everything within its bounds.

use jiff::SignedDuration;
use stream_encryption_api::stream_encryption::Service;

use crate::names::{Encryption, Wish};

/// What can go wrong. Each costs one of [`Bounds::faults`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A replica ends between its reservation and the record of the outcome. Before, it would have left no trace.
    Crash,
    /// AWS carries a call out, and its answer is lost.
    LostReply,
    /// A replica stops waiting for an answer; the request arrives later, or never.
    TimeOut,
    /// AWS refuses with `LimitExceededException`.
    Refusal,
    /// AWS accepts, and fails afterwards (`ENABLING_FAILED`; Kinesis goes back without a word).
    Failure,
    /// Somebody else changes the stream.
    Outside,
    /// AWS answers a look with what was, shortly before.
    OldAnswer,
}

/// All that can go wrong.
pub const EVERY_FAULT: &[Fault] = &[
    Fault::Crash,
    Fault::LostReply,
    Fault::TimeOut,
    Fault::Refusal,
    Fault::Failure,
    Fault::Outside,
    Fault::OldAnswer,
];

/// How old a reservation may be when its call is sent; the same as in `src/core/controller/execute.rs`.
pub(crate) const FRESH: SignedDuration = SignedDuration::from_secs(10);

/// How much is explored.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Which service.
    pub service: Service,
    /// Calls in 24 hours that the administrator allows.
    pub limit: u32,
    /// What encrypts records at the beginning.
    pub found: Encryption,
    /// What may be asked for; the first is asked for at the beginning.
    pub wishes: &'static [Wish],
    /// How often the user changes what is asked for.
    pub changes: u8,
    /// How many faults happen, of all kinds together.
    pub faults: u8,
    /// The kinds of faults.
    pub kinds: &'static [Fault],
    /// How often time moves by [`Bounds::pause`].
    pub pauses: u8,
    /// How long a pause is.
    pub pause: SignedDuration,
    /// How often time moves to the next moment at which anything ends: a wait, a window, the life of a request.
    pub moments: u8,
    /// How far each replica's clock is ahead of AWS's.
    pub ahead: [SignedDuration; 2],
}

impl Bounds {
    /// A Firehose stream in plaintext, key 1 asked for, all kinds of faults, right clocks.
    #[must_use]
    pub fn new(limit: u32, faults: u8, changes: u8, moments: u8, pauses: u8) -> Self {
        Self {
            service: Service::Firehose,
            limit,
            found: Encryption::Off,
            wishes: &[Wish::One, Wish::Off],
            changes,
            faults,
            kinds: EVERY_FAULT,
            pauses,
            pause: SignedDuration::from_secs(40),
            moments,
            ahead: [SignedDuration::ZERO; 2],
        }
    }

    /// Whether the replicas are alike, so that it does not matter which of them does something.
    pub(crate) fn replicas_are_alike(&self) -> bool {
        self.ahead[0] == self.ahead[1]
    }
}
