//! The final check: a day after the faults have ended, everything must match its spec and stay unchanged (P4,
//! P5).
//!
//! The expected state is computed from the live specs and the true state of AWS, without the operator's
//! decision: the owner of a stream, whether its key is usable, and the key that is really active.

use jiff::SignedDuration;
use simulated_aws::world::{Caller, EncryptionStatus as AwsEncryption, KeyState, StreamStatus};
use stream_encryption_api::condition::{ConditionStatus, ConditionType, Reason, find};
use stream_encryption_api::ledger::StreamLedgerSpec;
use stream_encryption_api::stream_encryption::{
    DeletionPolicy, Encryption, KeyIdentity, KeyReference, KeyType, Mode, Service, StreamEncryption,
};
use stream_encryption_core::model::arn::{KmsKeyId, StreamArn};
use stream_encryption_core::model::key::Key;
use stream_encryption_core::model::ledger;

use crate::environment::{ACCOUNT, OPERATOR, OUTSIDER, REGION, State};
use crate::invariants::written;
use crate::policies::Act;

/// The expected final state.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    /// Encrypted with this key; `None` for any key.
    Encrypted(Option<KeyIdentity>),
    /// Plaintext.
    Off,
    /// Reports one of these reasons, and makes no call.
    Says(Vec<Reason>),
    /// Owned by this resource: another resource's claim has no effect any more.
    Claimed,
}

/// Maximum duration of a change on AWS: the slowest ones take an hour.
const LONGEST_CHANGE: SignedDuration = SignedDuration::from_mins(90);

/// Checks every resource against its expected state. Returns whether no further attempts are pending.
pub fn reckon(state: &mut State) -> bool {
    let mut stable_status = true;
    let resources: Vec<_> = state.store.resources().cloned().collect();
    for resource in resources {
        let Some(stream) = stream_of(&resource) else { continue };
        let expected = expected(state, &resource, &stream);
        let now = state.now;
        let of = format!(
            "{}/{}",
            resource.metadata.namespace.as_deref().unwrap_or_default(),
            resource.metadata.name.as_deref().unwrap_or_default()
        );
        match held(state, &resource, &stream, &expected) {
            Ok(true) => state.tally.converged += 1,
            Ok(false) => state.tally.blocked += 1,
            Err(how) => {
                state.promises.break_with("P4", now, || format!("{of}: {how}"));
                return false;
            }
        }
        if resource.status.as_ref().and_then(|status| status.observed_generation)
            != resource.metadata.generation
        {
            state.promises.break_with("P4", now, || format!("{of}: its status is of an older generation"));
        }
        let waits = resource.status.as_ref().is_some_and(|status| status.next_attempt_time.is_some());
        stable_status &= !waits && !is_on_its_way(state, &resource, &stream);
        // A key that its policy denies is retried occasionally.
        stable_status &=
            !matches!(&expected, Expected::Says(reasons) if reasons.contains(&Reason::EnablingFailed));
    }
    stable_status
}

/// Returns the stream of a spec.
pub fn stream_of(resource: &StreamEncryption) -> Option<StreamArn> {
    let asked = &resource.spec.stream;
    match (&asked.arn, asked.service, &asked.name) {
        (Some(arn), ..) => arn.parse().ok(),
        (None, Some(service), Some(name)) => {
            StreamArn::new("aws".parse().ok()?, service, REGION.parse().ok()?, ACCOUNT.parse().ok()?, name)
                .ok()
        }
        _ => None,
    }
}

fn expected(state: &mut State, resource: &StreamEncryption, stream: &StreamArn) -> Expected {
    let spec = &resource.spec;
    let says = |reasons: &[Reason]| Expected::Says(reasons.to_vec());
    let deleting = resource.metadata.deletion_timestamp.is_some();
    let off = deleting || spec.encryption == Encryption::Disabled;
    let namespace = resource.metadata.namespace.clone().unwrap_or_default();
    if spec.suspend {
        // These reasons are detected without a request to AWS.
        return says(&[
            Reason::Suspended,
            Reason::NotPermitted,
            Reason::ConflictingPolicyRoles,
            Reason::DisableNotPermitted,
        ]);
    }
    if !state.policies.allow(&namespace, stream, &Act::Look) {
        return says(&[Reason::NotPermitted]);
    }
    if state.policies.roles_differ(&namespace, stream) {
        return says(&[Reason::ConflictingPolicyRoles]);
    }
    if (off || spec.deletion_policy == DeletionPolicy::Disable)
        && !state.policies.allow(&namespace, stream, &Act::Stop)
    {
        return says(&[Reason::DisableNotPermitted]);
    }
    if !off && !key_is_allowed(state, &namespace, resource, stream) {
        return says(&[Reason::NotPermitted]);
    }
    let uid = resource.metadata.uid.clone().unwrap_or_default();
    if let Some(ledger) = state.store.ledger(&ledger::name(stream))
        && ledger.spec.owner.uid != uid
    {
        let owner = &ledger.spec.owner;
        let holds = state.store.resource_by_uid(&owner.uid).is_some()
            && state.policies.allow(&owner.namespace, stream, &Act::Look);
        return if holds { says(&[Reason::StreamAlreadyManaged]) } else { Expected::Claimed };
    }
    let now = state.now;
    let Some(real) = state.world.stream(&stream.to_string(), now).cloned() else {
        return says(&[Reason::StreamNotFound]);
    };
    if matches!(real.status, StreamStatus::CreatingFailed) {
        return says(&[Reason::StreamFailed]);
    }
    // As another caller, because the operator's own requests are checked against the policies.
    let source = state.aws(&Caller::new(OUTSIDER)).look(stream).0.ok().flatten();
    if source.and_then(|look| look.source).is_some_and(|source| source != "DirectPut") {
        return if off { says(&[Reason::EncryptionDisabled]) } else { says(&[Reason::SourceNotDirectPut]) };
    }
    if off {
        return Expected::Off;
    }
    match &spec.key {
        None => Expected::Encrypted(None),
        Some(KeyReference { kind: KeyType::AwsOwned, .. }) => {
            Expected::Encrypted(Some(KeyIdentity { kind: KeyType::AwsOwned, arn: None }))
        }
        Some(key) => customer_key(state, resource, stream, key),
    }
}

/// Returns whether the policies allow the desired key and the name in the spec. A key that does not exist is
/// not forbidden.
fn key_is_allowed(
    state: &mut State,
    namespace: &str,
    resource: &StreamEncryption,
    stream: &StreamArn,
) -> bool {
    let Some(KeyReference { kind: KeyType::CustomerManaged, alias, .. }) = &resource.spec.key else {
        return state.policies.allow(namespace, stream, &Act::Start(&Key::AwsOwned));
    };
    if let Some(alias) = alias
        && !state.policies.allow(namespace, stream, &Act::Ask(&KmsKeyId::Alias(alias.clone())))
    {
        return false;
    }
    let Some(key) = resource.spec.key.clone() else { return true };
    let Ok(arn) = key_arn(state, resource, stream, &key) else { return true };
    let Ok(arn) = arn.parse() else { return true };
    state.policies.allow(namespace, stream, &Act::Start(&Key::Customer(arn)))
}

/// Returns the ARN of a customer managed key, or the reason why there is none.
fn key_arn(
    state: &mut State,
    resource: &StreamEncryption,
    stream: &StreamArn,
    key: &KeyReference,
) -> Result<String, Vec<Reason>> {
    let id = match (&key.arn, &key.alias, &key.object_ref) {
        (Some(arn), ..) => arn.clone(),
        (_, Some(alias), _) => alias.clone(),
        (_, _, Some(reference)) => {
            let name = (resource.metadata.namespace.clone().unwrap_or_default(), reference.name.clone());
            if !state.key_kind {
                return Err(vec![Reason::KeyReferenceCRDMissing]);
            }
            let object = state.key_objects.iter().find(|(known, _)| *known == name);
            return object.and_then(|(_, arn)| arn.clone()).ok_or_else(|| vec![Reason::KeyReferenceNotReady]);
        }
        _ => return Err(vec![Reason::SpecInvalid]),
    };
    if !id.starts_with("alias/") {
        return Ok(id);
    }
    let request = simulated_aws::world::Request::kms("DescribeKey", serde_json::json!({ "KeyId": id }));
    let now = state.now;
    let reply = state.world.call(now, &Caller::new(OPERATOR), stream.region.as_str(), &request);
    match reply.result {
        Ok(body) => Ok(body["KeyMetadata"]["Arn"].as_str().unwrap_or_default().to_owned()),
        Err(_) => Err(vec![Reason::KeyDescribeDenied, Reason::KeyNotFound]),
    }
}

/// Returns the expected state with a customer managed key.
fn customer_key(
    state: &mut State,
    resource: &StreamEncryption,
    stream: &StreamArn,
    key: &KeyReference,
) -> Expected {
    let arn = match key_arn(state, resource, stream, key) {
        Ok(arn) => arn,
        Err(reasons) => return Expected::Says(reasons),
    };
    let every_trouble = [
        Reason::KeyNotFound,
        Reason::KeyDisabled,
        Reason::KeyPendingDeletion,
        Reason::KeyPendingImport,
        Reason::KeyUnavailable,
        Reason::KeyNotSymmetric,
        Reason::KeyUsageWrong,
        Reason::KeyManagedByAws,
        Reason::KeyInOtherRegion,
        Reason::KeyDescribeDenied,
        // It became the active key while it was usable.
        Reason::Encrypted,
        Reason::Verifying,
    ];
    if !works(state, stream, &arn) {
        let mut reasons = every_trouble.to_vec();
        if is_lost(state, stream, &arn) && !denies(state, &arn) {
            // This also holds for the active key: records become unreadable.
            reasons.retain(|reason| !matches!(reason, Reason::Encrypted | Reason::Verifying));
        }
        return Expected::Says(reasons);
    }
    if denies(state, &arn) {
        // The key may already be active, be refused, or not be describable.
        let mut reasons = every_trouble.to_vec();
        reasons.extend([
            Reason::Encrypted,
            Reason::Verifying,
            Reason::EnablingFailed,
            Reason::KeyAccessDenied,
            Reason::Enabling,
            Reason::CallLimitReached,
            Reason::Drifted,
            Reason::CallRefused,
        ]);
        return Expected::Says(reasons);
    }
    Expected::Encrypted(Some(KeyIdentity { kind: KeyType::CustomerManaged, arn: Some(arn) }))
}

/// Returns whether a stream can be encrypted with a key, apart from the key's policy.
fn works(state: &State, stream: &StreamArn, arn: &str) -> bool {
    state.world.key(arn).is_some_and(|key| {
        key.state == KeyState::Enabled
            && key.encrypts()
            && key.region == stream.region.as_str()
            && key.manager == "CUSTOMER"
    })
}

/// The reasons that report an unusable active key.
const LOST: [Reason; 5] = [
    Reason::KeyNotFound,
    Reason::KeyDisabled,
    Reason::KeyPendingDeletion,
    Reason::KeyPendingImport,
    Reason::KeyUnavailable,
];

/// Returns whether records become unreadable with this active key.
fn is_lost(state: &State, stream: &StreamArn, arn: &str) -> bool {
    state.world.key(arn).is_some_and(|key| {
        key.state != KeyState::Enabled
            && key.encrypts()
            && key.region == stream.region.as_str()
            && key.manager == "CUSTOMER"
    })
}

/// Returns whether no policy lets the operator describe the active key in KMS for this resource.
fn is_kept_from(
    state: &State,
    resource: &StreamEncryption,
    stream: &StreamArn,
    key: Option<&KeyIdentity>,
) -> bool {
    let namespace = resource.metadata.namespace.clone().unwrap_or_default();
    key.is_some_and(|key| !state.policies.allow(&namespace, stream, &Act::Start(&Key::of(key))))
}

/// Returns whether a key's policy denies an action.
fn denies(state: &State, arn: &str) -> bool {
    state.world.key(arn).is_some_and(|key| key.policy.to_string().contains("Deny"))
}

/// Returns whether a wait has just ended and the stream is being changed.
fn is_on_its_way(state: &State, resource: &StreamEncryption, stream: &StreamArn) -> bool {
    let ready = resource.status.as_ref().and_then(|status| find(&status.conditions, ConditionType::Ready));
    let in_progress = [Reason::Enabling, Reason::Disabling, Reason::Settling, Reason::Verifying];
    ready.is_some_and(|ready| in_progress.iter().any(|reason| ready.reason == reason.as_str()))
        && state
            .promises
            .called(&stream.to_string())
            .is_some_and(|at| state.now.duration_since(at) < LONGEST_CHANGE)
}

/// Whether somebody else's change that worked, and then one that failed, may have come between two looks: AWS shows only the
/// second, so nobody can know which key is the active one.
fn shows_only_a_failure_of_another(state: &State, stream: &StreamArn) -> bool {
    let failed = [AwsEncryption::EnablingFailed, AwsEncryption::DisablingFailed];
    let stream = stream.to_string();
    let real = state.world.stream(&stream, state.now);
    real.is_some_and(|real| failed.contains(&real.encryption)) && state.promises.touched.contains_key(&stream)
}

/// Whether it is as expected: with the stream as asked for, or for a good reason not.
fn held(
    state: &State,
    resource: &StreamEncryption,
    stream: &StreamArn,
    expected: &Expected,
) -> Result<bool, String> {
    let status = resource.status.clone().unwrap_or_default();
    let ready = find(&status.conditions, ConditionType::Ready);
    let said = ready.map(|ready| ready.reason.clone()).unwrap_or_default();
    let reason: Option<Reason> = said.parse().ok();
    let real = state.world.stream(&stream.to_string(), state.now);
    let active_key = real.and_then(|real| real.active_key.as_ref()).map(written);
    let is_ready = ready.is_some_and(|ready| ready.status == ConditionStatus::True.as_str());
    match expected {
        Expected::Claimed => {
            Err(format!("it reports {said}, but the owner of its stream is deleted or no longer allowed it"))
        }
        // In mode Observe, the reason of a change that would be made is not determined.
        Expected::Says(_) if resource.spec.mode == Mode::Observe && reason == Some(Reason::Drifted) => {
            Ok(false)
        }
        Expected::Says(reasons) => {
            // AWS refused the only attempt with the key, possibly because the key is already active: only a
            // user can resolve this.
            let shows_failure = real.is_some_and(|real| real.encryption == AwsEncryption::EnablingFailed);
            let given_up = shows_failure
                && reasons.contains(&Reason::KeyAccessDenied)
                && reason == Some(Reason::ActiveKeyUnknown);
            if given_up || reason.is_some_and(|reason| reasons.contains(&reason)) {
                Ok(false)
            } else {
                Err(format!("it reports {said}, but should report one of {reasons:?}"))
            }
        }
        Expected::Off | Expected::Encrypted(_) => {
            let so = match expected {
                Expected::Encrypted(Some(key)) => active_key.as_ref() == Some(key),
                Expected::Encrypted(None) => active_key.is_some(),
                _ => active_key.is_none(),
            };
            // Records become unreadable with such an active key: the resource must not be Ready.
            let key = active_key.as_ref().and_then(|key| key.arn.as_ref());
            let cannot_be_used = key.is_some_and(|arn| is_lost(state, stream, arn));
            if so && cannot_be_used {
                let told = reason.is_some_and(|reason| LOST.contains(&reason));
                let unreadable = key.is_some_and(|arn| denies(state, arn));
                let unseen =
                    status.active_key != active_key && shows_only_a_failure_of_another(state, stream);
                let kept_from = is_kept_from(state, resource, stream, active_key.as_ref());
                return if told || unreadable || unseen || kept_from {
                    Ok(false)
                } else {
                    Err(format!("it says {said}, and the active key cannot be used"))
                };
            }
            if so && is_ready {
                return Ok(true);
            }
            if resource.spec.mode == Mode::Observe && !so && reason == Some(Reason::Drifted) {
                return Ok(false);
            }
            // Verification fails while the active key, which was usable when it became active, is unusable.
            let lost = active_key.as_ref().and_then(|key| key.arn.as_ref());
            let lost = lost.is_some_and(|arn| !works(state, stream, arn) || denies(state, arn));
            if so && lost && reason == Some(Reason::Verifying) {
                return Ok(false);
            }
            // The active key is unknown after another caller's failed attempt: a user must specify a key, or
            // a different one.
            if reason == Some(Reason::ActiveKeyUnknown) && matches!(expected, Expected::Encrypted(_)) {
                return Ok(false);
            }
            // Firehose fails a Start with the active key, and shows only the failure. An operator that did
            // not observe the earlier settled state can only try once, or report that the active key is
            // unknown.
            let failed_start = real.is_some_and(|real| real.encryption == AwsEncryption::EnablingFailed);
            let unknown = [Reason::EnablingFailed, Reason::ActiveKeyUnknown, Reason::CallRefused];
            if so && failed_start && reason.is_some_and(|reason| unknown.contains(&reason)) {
                return Ok(false);
            }
            if shows_only_a_failure_of_another(state, stream) {
                return Ok(false);
            }
            // If the limit is small, calls that AWS refused because of other callers may have used it up. The
            // status reports until when.
            let calls = status.calls.as_ref();
            if reason == Some(Reason::CallLimitReached)
                && calls.is_some_and(|calls| calls.used >= calls.limit)
                && status.next_attempt_time.as_ref().is_some_and(|next| next.0 > state.now)
            {
                return Ok(false);
            }
            // A call that was dated by a clock days ahead may still arrive then. The status reports until
            // when.
            let ledger = state.store.ledger(&ledger::name(stream));
            if reason == Some(Reason::OutcomeUnknown)
                && ledger.is_some_and(|ledger| state.promises.dated_while_a_clock_was_set(&ledger.spec))
                && status.next_attempt_time.as_ref().is_some_and(|next| next.0 > state.now)
            {
                return Ok(false);
            }
            if is_on_its_way(state, resource, stream) {
                return Ok(false);
            }
            if reason == Some(Reason::Drifted)
                && resource.spec.mode == Mode::Observe
                && stream.service == Service::Firehose
            {
                // After a failed attempt by another caller, the operator may only report that the active key
                // is unknown.
                return Ok(false);
            }
            Err(format!(
                "expected {expected:?}; active key {active_key:?} ({real:?}); it reports {said}, next attempt {:?}, ledger {:?}",
                status.next_attempt_time.map(|next| crate::trace::since_begin(next.0)),
                state.store.ledger(&ledger::name(stream)).map(|ledger| brief(&ledger.spec)),
            ))
        }
    }
}

fn brief(ledger: &StreamLedgerSpec) -> String {
    format!(
        "{} calls, active key {:?}, attempts {:?}",
        ledger.calls.len(),
        ledger.known_encryption.as_ref().map(|known| &known.key),
        ledger.attempts.as_ref().map(|attempts| (attempts.count, &attempts.reason))
    )
}
