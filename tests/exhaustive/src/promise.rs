//! What must never happen, by the names of the design. A world in which a promise was broken stays as it is, for the report.
//!
//! Promises are held against what AWS has and did, never against what the operator believes.

use stream_encryption_api::condition::{ConditionStatus, Reason};
use stream_encryption_api::ledger::{Outcome, StreamLedgerSpec};
use stream_encryption_api::stream_encryption::EncryptionStatus;
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_core::model::decision::DecisionInput;
use stream_encryption_core::model::key::Key;
use stream_encryption_core::model::ledger::{expires_at, validate};
use stream_encryption_core::model::status_fields;

use crate::aws::{View, bit};
use crate::names::Encryption;
use crate::world::{Visit, World};

/// A promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Promise {
    /// P1: in every 24 hours, on AWS's clock, at most the limit of calls.
    Limit,
    /// P2: every call that arrives at AWS has a ledger entry.
    WriteAhead,
    /// P3: no call is sent while an earlier one may still arrive, or is being carried out.
    OneOpenCall,
    /// P6: the status says no more than AWS showed.
    ConditionStatus,
    /// P7: no Stop unless the user asks for it.
    NoStop,
    /// P10: no entry is forgotten while AWS counts it or may still get its call, and none is refunded on doubt.
    Memory,
    /// P4 and P5: left alone, the stream becomes as asked, and then nothing is called any more.
    Rest,
}

/// All of them.
pub const EVERY_PROMISE: &[Promise] = &[
    Promise::Limit,
    Promise::WriteAhead,
    Promise::OneOpenCall,
    Promise::ConditionStatus,
    Promise::NoStop,
    Promise::Memory,
    Promise::Rest,
];

impl Promise {
    /// As a sentence.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Limit => "P1: never more calls than the limit in any 24 hours of AWS's log",
            Self::WriteAhead => "P2: every call in AWS's log has an earlier entry in the ledger",
            Self::OneOpenCall => "P3: no call is sent while an earlier one may arrive or is under way",
            Self::ConditionStatus => "P6: the status says no more than AWS showed",
            Self::NoStop => "P7: no Stop unless the user asks for it",
            Self::Memory => "P10: no entry is forgotten while it counts, and none is refunded on doubt",
            Self::Rest => "P4, P5: left alone, the stream becomes as asked and is then left alone",
        }
    }
}

/// Whether a ledger may be replaced by another one, at the moment of the writer's clock.
pub(crate) fn may_replace(
    world: &World,
    stream: &StreamArn,
    old: Option<&StreamLedgerSpec>,
    new: &StreamLedgerSpec,
    clock: jiff::Timestamp,
) -> bool {
    if validate(new, stream).is_err() {
        return false;
    }
    old.into_iter().flat_map(|old| &old.calls).all(|call| {
        let Some(kept) = new.calls.iter().find(|kept| kept.id == call.id) else {
            let known_to_aws = world.aws.log.iter().any(|counted| counted.id == call.id);
            let on_its_way = world.wire.iter().any(|request| request.id == call.id);
            return expires_at(call) <= clock && !known_to_aws && !on_its_way;
        };
        let refunded = call.outcome == Outcome::Unknown && kept.outcome == Outcome::Refused;
        (&kept.target, &kept.time) == (&call.target, &call.time) && !refunded
    })
}

/// Whether a status is true: what it says against what was in force since the visit began, and when it was looked at.
pub(crate) fn is_true(
    world: &World,
    input: &DecisionInput<'_>,
    reason: Reason,
    visit: &Visit,
    then: View,
) -> bool {
    let had = visit.had | bit(then.active_key);
    let key = status_fields::active_key(input);
    let claimed = key.as_ref().map(|key| Encryption::of(Some(&Key::of(key))));
    let says_encrypted = status_fields::encrypted(input, reason) == ConditionStatus::True;
    let says_enabled = status_fields::encryption_status(input) == Some(EncryptionStatus::Enabled);
    let says_plain = status_fields::plaintext_since_time(input).is_some();
    // Where somebody else has called, or the other replica has written the ledger meanwhile, a status may be late: then
    // only what never was in force is a lie.
    let may_be_late = world.aws.outside || !visit.current;
    let could_be = |encryption| {
        if may_be_late { world.aws.ever_had(encryption) } else { had & bit(encryption) != 0 }
    };
    claimed.is_none_or(could_be)
        && (!says_plain || could_be(Encryption::Off))
        && (!says_encrypted || claimed.is_some())
        // A replica that records late tells of its own look and of the ledger as it is now.
        && (!says_enabled || claimed.is_some() || then.active_key != Encryption::Off)
}
