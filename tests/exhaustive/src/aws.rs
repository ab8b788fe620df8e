//! The stream as AWS has it: what is in force, what is under way, what is shown, and which calls were counted.
//!
//! Firehose counts every call that arrives; Kinesis, those that it carries out. It knows nothing of ledgers. Whether
//! a change succeeds, and when it is done, is not decided here: the model tries everything.

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::ledger::Action;
use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::model::ledger::{DAY, READ_LAG};
use stream_encryption_core::model::observation::Observation;

use crate::bounds::FRESH;
use crate::names::Encryption;

/// How long after a change AWS may still show what was before it. The product waits [`READ_LAG`] from the reservation,
/// and a call may be sent a little later than that.
pub(crate) const LAG: SignedDuration = SignedDuration::from_secs(READ_LAG.as_secs() - FRESH.as_secs());

/// What AWS says of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// ENABLED or DISABLED.
    Rest,
    /// ENABLING or DISABLING.
    Changing {
        /// What it will be.
        to: Encryption,
        /// Whether the operator asked for it.
        own: bool,
    },
    /// `ENABLING_FAILED` or `DISABLING_FAILED`.
    Failed(Action),
}

/// The stream at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    /// What AWS says.
    pub(crate) phase: Phase,
    /// What encrypts records.
    pub(crate) active_key: Encryption,
}

/// A call that AWS counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Counted {
    /// Its entry in the ledger.
    pub(crate) id: String,
    /// What it asked for.
    pub(crate) action: Action,
    /// When it arrived.
    pub(crate) at: Timestamp,
    /// Whether nobody heard the answer.
    pub(crate) unheard: bool,
    /// Whether it arrived later than any answer is waited for.
    pub(crate) late: bool,
}

/// The stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Aws {
    /// Now.
    pub(crate) view: View,
    /// Before the last change, while AWS may still show it.
    pub(crate) before: Option<View>,
    /// When the last change was.
    pub(crate) changed: Timestamp,
    /// Everything that ever was in force, as bits.
    had: u8,
    /// Whether somebody else has ever changed it.
    pub(crate) outside: bool,
    /// The operator's calls of the last 24 hours.
    pub(crate) log: Vec<Counted>,
}

impl View {
    /// What a look makes of it.
    pub(crate) fn observation(self, service: Service) -> Observation {
        match (self.phase, service) {
            (Phase::Rest, _) => self.active_key.key().map_or(Observation::Off, Observation::On),
            (Phase::Changing { to, .. }, Service::Firehose) => Observation::InProgress(Some(to.action())),
            (Phase::Changing { .. }, Service::Kinesis) => Observation::InProgress(None),
            (Phase::Failed(action), _) => {
                Observation::Failed { action, reason: "KMS_ACCESS_DENIED".to_owned() }
            }
        }
    }
}

impl Aws {
    /// A stream at rest.
    pub(crate) fn new(found: Encryption, now: Timestamp) -> Self {
        let view = View { phase: Phase::Rest, active_key: found };
        Self { view, before: None, changed: now, had: bit(found), outside: false, log: Vec::new() }
    }

    /// Whether a change is under way.
    pub(crate) fn is_changing(&self) -> bool {
        matches!(self.view.phase, Phase::Changing { .. })
    }

    /// Whether the operator's own change is under way.
    pub(crate) fn is_changing_for_us(&self) -> bool {
        matches!(self.view.phase, Phase::Changing { own: true, .. })
    }

    /// Whether this ever was in force.
    pub(crate) fn ever_had(&self, encryption: Encryption) -> bool {
        self.had & bit(encryption) != 0
    }

    fn show(&mut self, view: View, now: Timestamp) {
        self.before = Some(self.view);
        self.changed = now;
        self.view = view;
        self.had |= bit(view.active_key);
    }

    /// Somebody's call begins a change.
    pub(crate) fn begin(&mut self, to: Encryption, own: bool, now: Timestamp) {
        self.show(View { phase: Phase::Changing { to, own }, ..self.view }, now);
    }

    /// The change under way succeeds.
    pub(crate) fn finish(&mut self, now: Timestamp) {
        if let Phase::Changing { to, .. } = self.view.phase {
            self.show(View { phase: Phase::Rest, active_key: to }, now);
        }
    }

    /// The change under way fails. Kinesis has no word for it.
    pub(crate) fn fail(&mut self, service: Service, now: Timestamp) {
        if let Phase::Changing { to, .. } = self.view.phase {
            let phase = match service {
                Service::Firehose => Phase::Failed(to.action()),
                Service::Kinesis => Phase::Rest,
            };
            self.show(View { phase, ..self.view }, now);
        }
    }

    /// The most calls that count together now.
    pub(crate) fn used(&self, service: Service) -> usize {
        let of = |action| self.log.iter().filter(|call| call.action == action).count();
        match service {
            Service::Firehose => self.log.len(),
            Service::Kinesis => of(Action::Start).max(of(Action::Stop)),
        }
    }

    /// What is over is forgotten.
    pub(crate) fn passes(&mut self, now: Timestamp) {
        self.log.retain(|call| now.duration_since(call.at) < DAY);
        if now.duration_since(self.changed) >= LAG {
            self.before = None;
        }
    }
}

/// A set of one.
pub(crate) fn bit(encryption: Encryption) -> u8 {
    1 << encryption as u8
}
