//! The observe step: one look at the stream, what the ledger learns from it, and the state of the key in force. Reads; writes
//! nothing.
//!
//! A look may wait for its turn for minutes. What was resolved before such a wait is resolved again after it: a key that is
//! named by an alias or an object may be another one by now, and the ledger would learn of the old one.

use tracing::{debug, warn};

use super::case::{Case, FRESH, Sight};
use super::context::Operator;
use super::records::{RecordError, Records};
use super::resolve::{self, Unresolved};
use crate::api::condition::Reason;
use crate::api::stream_encryption::StreamEncryption;
use crate::aws::{Streams, Urgency};
use crate::model::claims;
use crate::model::key::{KeyName, KeyProblem};
use crate::model::ledger;
use crate::model::observation::{Observation, Shown};

/// Looks at the stream of a case.
pub(super) async fn observe<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
    case: &mut Case,
) -> Result<Result<(), Unresolved>, RecordError> {
    look(operator, case).await;
    if case.resolved_before(operator.clock.steady()) > FRESH {
        match resolve::resolve(operator, resource, &case.visit).await? {
            Ok(subject) => case.resolve_again(subject)?,
            Err(unresolved) => return Ok(Err(unresolved)),
        }
    }
    // Also where KMS does not answer by now: what AWS has shown of the stream is known all the same.
    learn(case);
    if let Some(fault) = &case.subject.fault {
        case.sight = Sight::Failed(fault.clone());
    }
    Ok(Ok(()))
}

/// Asks KMS of the customer managed key in force, where that is not the one asked for. What it does not say stops nothing.
pub(super) async fn key_in_force<A: Streams, R: Records>(operator: &Operator<A, R>, case: &mut Case) {
    if !case.look_is_fresh() {
        return;
    }
    let Some(arn) = claims::customer_key_in_force(&case.input()) else { return };
    let stream = &case.subject.stream;
    if let Some((_, Some(facts))) = &case.subject.key
        && facts.arn == arn
    {
        case.active_key = Some((arn, facts.problem(stream)));
        return;
    }
    let (name, by) = (KeyName::Arn(arn.clone()), &case.subject.principal);
    match operator.aws.key(stream, &name, by, Urgency::Drift).await {
        Ok(facts) => {
            let problem = facts.map_or(Some(KeyProblem::Missing), |facts| facts.problem(stream));
            case.active_key = Some((arn, problem));
        }
        // What the status reports of it is still reported.
        Err(fault) => {
            debug!(key = %arn, code = fault.code, message = fault.message, "the key in force cannot be read");
        }
    }
}

async fn look<A: Streams, R: Records>(operator: &Operator<A, R>, case: &mut Case) {
    let at = operator.clock.now();
    case.looked = operator.clock.steady();
    let by = &case.subject.principal;
    let seen = operator.aws.look(&case.subject.stream, by, urgency(case)).await;
    case.now = operator.clock.now();
    match seen {
        Ok(seen) => {
            let (look, signer) = seen.unzip();
            if let Some(Shown::Failed { reason, details, .. }) = look.as_ref().map(|look| &look.encryption) {
                debug!(stream = %case.subject.stream, reason, details, "AWS shows a failure");
            }
            case.signer = signer;
            case.sight = Sight::of(&case.subject, at, look, true);
        }
        Err(fault) => {
            warn!(stream = %case.subject.stream, code = fault.code, message = fault.message, "AWS could not be asked");
            case.sight = Sight::Failed(fault);
        }
    }
}

/// The first look, and looks at what is changing, go before looks for drift. A stream that cannot be encrypted as it is, or does not
/// exist, is not changing.
fn urgency(case: &Case) -> Urgency {
    match case.visit.waiting {
        Some((
            Reason::Encrypted
            | Reason::EncryptionDisabled
            | Reason::Drifted
            | Reason::StreamNotFound
            | Reason::StreamDeleting
            | Reason::StreamBroken
            | Reason::SourceNotDirectPut
            | Reason::WrongStream,
            _,
        )) => Urgency::Drift,
        _ => Urgency::Changing,
    }
}

/// Lets the ledger learn. What was seen of another stream, or of none, teaches nothing.
fn learn(case: &mut Case) {
    let Sight::At { look: Some(look), observation, .. } = &case.sight else { return };
    if matches!(observation, Observation::OtherStream | Observation::NotEncryptable(_)) {
        return;
    }
    let wanted = case.subject.intent.wanted.target();
    let unusable = case.subject.intent.key_problem.is_some();
    case.book.spec =
        ledger::learn(&case.book.spec, observation, look.created, wanted.as_ref(), unusable, case.now);
}
