//! The execute step: the only place that calls Start or Stop. It decides nothing.
//!
//! In this order, and in no other: a turn from the pacer, the resource and the policies as they are now, the reservation in the
//! ledger, the call, its outcome in the ledger. No call is sent before the reservation is acknowledged, and none is sent twice. The
//! call is dated as the ledger has it, and AWS refuses a date that is not its own: so whatever becomes of the clock, AWS
//! counts a call when the ledger does, or not at all.

use std::time::Duration;

use jiff::Timestamp;
use tracing::{info, warn};

use super::asked::{is_suspended, retry_of};
use super::case::{Case, FRESH};
use super::context::Operator;
use super::records::{Happening, RecordError, Records};
use super::resolve::permission;
use crate::api::ledger::{Action, Target};
use crate::api::stream_encryption::StreamEncryption;
use crate::aws::{Signer, Streams};
use crate::model::decision::{self, Wanted};
use crate::model::fault::{Class, Fault, Operation};
use crate::model::key::Key;
use crate::model::ledger::{self, Reservation};
use crate::model::message;

/// Longer than it may take, with all deadlines used up, from the resolving to the ledger: the process was paused meanwhile.
const PAUSED: Duration = Duration::from_mins(2);

/// Waits for the call's turn. False: it took so long that what was seen before is old, or the operator has other credentials by
/// now; the stream must be looked at again.
pub(super) async fn turn<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    case: &Case,
    reservation: &Reservation,
) -> bool {
    let (subject, Some(signer)) = (&case.subject, &case.signer) else { return false };
    let (stream, by) = (&subject.stream, &subject.principal);
    let signs = operator.aws.turn(stream, reservation.target.action, by, signer).await;
    let steady = operator.clock.steady();
    signs && steady.saturating_sub(case.looked) <= FRESH && case.resolved_before(steady) <= FRESH
}

/// Makes the call that was decided. [`RecordError::Conflict`]: the decision does not hold any more, and nothing was sent; or
/// what was seen is older than what the ledger holds by now, and is to be seen anew.
pub(super) async fn call<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
    case: &mut Case,
    reservation: &Reservation,
) -> Result<(), RecordError> {
    let stream = case.subject.stream.clone();
    let target = &reservation.target;
    // Counted from here, so that a pause after the answer is noticed too.
    let asked_at = operator.clock.steady();
    still_asked_for(operator, resource).await?;
    still_permitted(operator, resource, case).await?;

    let in_force_before = case.book.spec.in_force.clone();
    let reserved = operator.clock.now();
    let (Some(proven), Some(signer)) = (case.proven(), case.signer.clone()) else {
        return Err(RecordError::Conflict);
    };
    case.now = reserved;
    if !decision::budget(&case.input()).has_room() {
        // The clock was set since the decision.
        return Err(RecordError::Conflict);
    }
    let shorter = ledger::without_old_calls(&case.book.spec, proven);
    let (spec, id) = ledger::reserve(&shorter, reservation, reserved);
    case.book.spec = spec;
    case.book.save(&operator.records).await?;

    let outcome = if operator.clock.steady().saturating_sub(asked_at) > FRESH {
        Err(not_sent(&stream, target.action))
    } else {
        info!(%stream, call = id, action = ?target.action, key = ?target.key, correction = reservation.correction, "calling");
        send(operator, case, target, &signer, reserved).await
    };
    match &outcome {
        Ok(()) => info!(%stream, call = id, "accepted"),
        Err(fault) => {
            warn!(%stream, call = id, code = fault.code, class = ?fault.class, message = fault.message, "not accepted");
        }
    }
    let now = operator.clock.now();
    case.book
        .amend(&operator.records, |ledger| ledger::record(ledger, &id, outcome.as_ref().copied(), now))
        .await
        // The reservation stands, as pending: the next visit resolves it by looking.
        .unwrap_or_else(|error| warn!(%stream, call = id, %error, "the outcome could not be recorded"));
    if reservation.correction {
        let was = message::key_in_force(&case.input(), in_force_before.as_ref());
        let note = format!("Somebody changed the stream's encryption: {was} It is being corrected.");
        let happening = Happening {
            warning: true,
            reason: "DriftCorrected".to_owned(),
            action: "Correct",
            note,
            encrypted_after: None,
        };
        // A loss is counted and in the log.
        operator.records.tell(&super::book::owner(resource), &happening).await.ok();
    }
    if case.book.overtaken { Err(RecordError::Conflict) } else { Ok(()) }
}

/// Writes down what was learned, without a call. What is learned depends on what is asked for: a visit of a resource that has
/// changed since must not write over what another one has learned of it, and a resource that no policy allows any more claims
/// nothing.
pub(super) async fn note<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
    case: &mut Case,
) -> Result<(), RecordError> {
    if case.book.is_changed() {
        if case.resolved_before(operator.clock.steady()) > PAUSED {
            // It was paused, and the key may be another one by now.
            return Err(RecordError::Conflict);
        }
        still_asked_for(operator, resource).await?;
        still_permitted(operator, resource, case).await?;
    }
    case.book.save(&operator.records).await
}

/// Writes one record and reads whether it was encrypted. What signed the look signs the record, as with a call: it would else
/// go to another account's stream.
pub(super) async fn verify<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
    case: &mut Case,
) {
    let Some(signer) = &case.signer else { return };
    let me = super::book::owner(resource);
    let record = format!("{{\"streamencryption.dev/verify\":\"{}/{}\"}}\n", me.namespace, me.name);
    match operator.aws.put_record(&case.subject.stream, &record, &case.subject.principal, signer).await {
        Ok(true) => case.subject.intent.verified = Some(operator.clock.now()),
        Ok(false) => info!(stream = %case.subject.stream, "a record was not encrypted yet"),
        Err(fault) => {
            warn!(stream = %case.subject.stream, code = fault.code, message = fault.message, "no record could be written");
        }
    }
}

async fn send<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    case: &Case,
    target: &Target,
    signer: &Signer,
    reserved: Timestamp,
) -> Result<(), Fault> {
    let (stream, by) = (&case.subject.stream, &case.subject.principal);
    match (target.action, &case.subject.intent.wanted) {
        (Action::Start, Wanted::Key(key)) => operator.aws.start(stream, key, by, signer, reserved).await,
        (Action::Start, Wanted::AnyKey | Wanted::UnknownKey | Wanted::Off) => {
            operator.aws.start(stream, &Key::AwsOwned, by, signer, reserved).await
        }
        (Action::Stop, _) => {
            let in_force = case.book.spec.in_force.as_ref().and_then(|known| known.key.as_ref());
            operator.aws.stop(stream, in_force.map(Key::of).as_ref(), by, signer, reserved).await
        }
    }
}

/// The live resource must still be the one that was decided about.
async fn still_asked_for<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
) -> Result<(), RecordError> {
    let me = super::book::owner(resource);
    let live = operator.records.resource(&me.namespace, &me.name).await?.ok_or(RecordError::Conflict)?;
    let same = live.metadata.uid == resource.metadata.uid
        && live.metadata.generation == resource.metadata.generation
        && live.metadata.deletion_timestamp == resource.metadata.deletion_timestamp
        && is_suspended(&live) == is_suspended(resource)
        && retry_of(&live) == retry_of(resource);
    if same { Ok(()) } else { Err(RecordError::Conflict) }
}

/// The live policies must still say what was decided about: what was taken away meanwhile is not used any more.
async fn still_permitted<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
    case: &Case,
) -> Result<(), RecordError> {
    let own = case.subject.permission.own().clone();
    let now = permission(operator, resource, own).await?;
    if now == case.subject.permission { Ok(()) } else { Err(RecordError::Conflict) }
}

fn not_sent(stream: &crate::model::stream::StreamArn, action: Action) -> Fault {
    Fault {
        operation: Operation::change(stream.service, action),
        class: Class::Transient,
        code: Some("NotSent".to_owned()),
        message: "the process was paused between the reservation and the call".to_owned(),
    }
}
