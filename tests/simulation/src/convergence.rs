//! The convergence check: a day after the faults have ended, every resource must match its spec and stay
//! unchanged (P4, P5).
//!
//! The expected state is computed from the live specs and the true state of AWS, without the operator's
//! decision: the owner of a stream, whether its key is usable, and the actual active key.

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

use crate::environment::{ACCOUNT, EXTERNAL_ACCESS_KEY, OPERATOR_ACCESS_KEY, REGION, State};
use crate::invariants::key_identity;
use crate::policies::Access;

/// The expected final state.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    /// Encrypted with this key; `None` for any key.
    Encrypted(Option<KeyIdentity>),
    /// Plaintext.
    Plaintext,
    /// Reports one of these reasons, and makes no call.
    Reports(Vec<Reason>),
    /// Owned by this resource: a claim by another resource has no effect any more.
    Owner,
}

/// Maximum duration of a change on AWS: the slowest ones take an hour.
const MAX_CHANGE_DURATION: SignedDuration = SignedDuration::from_mins(90);

/// Checks every resource against its expected state. Returns whether no further attempts are pending.
pub fn check_convergence(state: &mut State) -> bool {
    let mut is_stable = true;
    let resources: Vec<_> = state.store.resources().cloned().collect();
    for resource in resources {
        let Some(stream) = stream_of(&resource) else { continue };
        let expected = expected(state, &resource, &stream);
        let now = state.now;
        let name = format!(
            "{}/{}",
            resource.metadata.namespace.as_deref().unwrap_or_default(),
            resource.metadata.name.as_deref().unwrap_or_default()
        );
        match check_resource(state, &resource, &stream, &expected) {
            Ok(true) => state.statistics.converged += 1,
            Ok(false) => state.statistics.blocked += 1,
            Err(details) => {
                state.invariants.record_violation("P4", now, || format!("{name}: {details}"));
                return false;
            }
        }
        if resource.status.as_ref().and_then(|status| status.observed_generation)
            != resource.metadata.generation
        {
            state
                .invariants
                .record_violation("P4", now, || format!("{name}: its status is of an older generation"));
        }
        let is_waiting = resource.status.as_ref().is_some_and(|status| status.next_attempt_time.is_some());
        is_stable &= !is_waiting && !is_in_progress(state, &resource, &stream);
        // A key that its policy denies is retried occasionally.
        is_stable &=
            !matches!(&expected, Expected::Reports(reasons) if reasons.contains(&Reason::EnablingFailed));
    }
    is_stable
}

/// Returns the stream of a spec.
pub fn stream_of(resource: &StreamEncryption) -> Option<StreamArn> {
    let reference = &resource.spec.stream;
    match (&reference.arn, reference.service, &reference.name) {
        (Some(arn), ..) => arn.parse().ok(),
        (None, Some(service), Some(name)) => {
            StreamArn::new("aws".parse().ok()?, service, REGION.parse().ok()?, ACCOUNT.parse().ok()?, name)
                .ok()
        }
        _ => None,
    }
}

/// Returns the expected state of a resource.
fn expected(state: &mut State, resource: &StreamEncryption, stream: &StreamArn) -> Expected {
    let spec = &resource.spec;
    let one_of = |reasons: &[Reason]| Expected::Reports(reasons.to_vec());
    let is_deleting = resource.metadata.deletion_timestamp.is_some();
    let plaintext = is_deleting || spec.encryption == Encryption::Disabled;
    let namespace = resource.metadata.namespace.clone().unwrap_or_default();
    if spec.suspend {
        // These reasons are detected without a request to AWS.
        return one_of(&[
            Reason::Suspended,
            Reason::NotPermitted,
            Reason::ConflictingPolicyRoles,
            Reason::DisableNotPermitted,
        ]);
    }
    if !state.policies.allow(&namespace, stream, &Access::Describe) {
        return one_of(&[Reason::NotPermitted]);
    }
    if state.policies.roles_differ(&namespace, stream) {
        return one_of(&[Reason::ConflictingPolicyRoles]);
    }
    if (plaintext || spec.deletion_policy == DeletionPolicy::Disable)
        && !state.policies.allow(&namespace, stream, &Access::Stop)
    {
        return one_of(&[Reason::DisableNotPermitted]);
    }
    if !plaintext && !key_is_allowed(state, &namespace, resource, stream) {
        return one_of(&[Reason::NotPermitted]);
    }
    let uid = resource.metadata.uid.clone().unwrap_or_default();
    if let Some(ledger) = state.store.ledger(&ledger::name(stream))
        && ledger.spec.owner.uid != uid
    {
        let owner = &ledger.spec.owner;
        let is_owned = state.store.resource_by_uid(&owner.uid).is_some()
            && state.policies.allow(&owner.namespace, stream, &Access::Describe);
        return if is_owned { one_of(&[Reason::StreamAlreadyManaged]) } else { Expected::Owner };
    }
    let now = state.now;
    let Some(actual) = state.world.stream(&stream.to_string(), now).cloned() else {
        return one_of(&[Reason::StreamNotFound]);
    };
    if matches!(actual.status, StreamStatus::CreatingFailed) {
        return one_of(&[Reason::StreamFailed]);
    }
    // As another caller, because the operator's own requests are checked against the policies.
    let source = state.aws(&Caller::new(EXTERNAL_ACCESS_KEY)).describe_stream(stream).0.ok().flatten();
    if source.and_then(|description| description.source).is_some_and(|source| source != "DirectPut") {
        return if plaintext {
            one_of(&[Reason::EncryptionDisabled])
        } else {
            one_of(&[Reason::SourceNotDirectPut])
        };
    }
    if plaintext {
        return Expected::Plaintext;
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
        return state.policies.allow(namespace, stream, &Access::Start(&Key::AwsOwned));
    };
    if let Some(alias) = alias
        && !state.policies.allow(namespace, stream, &Access::DescribeKey(&KmsKeyId::Alias(alias.clone())))
    {
        return false;
    }
    let Some(key) = resource.spec.key.clone() else { return true };
    let Ok(arn) = key_arn(state, resource, stream, &key) else { return true };
    let Ok(arn) = arn.parse() else { return true };
    state.policies.allow(namespace, stream, &Access::Start(&Key::Customer(arn)))
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
            if !state.key_crd_installed {
                return Err(vec![Reason::KeyReferenceCRDMissing]);
            }
            let object = state.key_objects.iter().find(|(object, _)| *object == name);
            return object.and_then(|(_, arn)| arn.clone()).ok_or_else(|| vec![Reason::KeyReferenceNotReady]);
        }
        _ => return Err(vec![Reason::SpecInvalid]),
    };
    if !id.starts_with("alias/") {
        return Ok(id);
    }
    let request = simulated_aws::world::Request::kms("DescribeKey", serde_json::json!({ "KeyId": id }));
    let now = state.now;
    let reply = state.world.call(now, &Caller::new(OPERATOR_ACCESS_KEY), stream.region.as_str(), &request);
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
        Err(reasons) => return Expected::Reports(reasons),
    };
    let possible_reasons = [
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
    if !is_usable(state, stream, &arn) {
        let mut reasons = possible_reasons.to_vec();
        if makes_data_unreadable(state, stream, &arn) && !denies(state, &arn) {
            // This also holds for the active key: records become unreadable.
            reasons.retain(|reason| !matches!(reason, Reason::Encrypted | Reason::Verifying));
        }
        return Expected::Reports(reasons);
    }
    if denies(state, &arn) {
        // The key may already be active, be refused, or not be describable.
        let mut reasons = possible_reasons.to_vec();
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
        return Expected::Reports(reasons);
    }
    Expected::Encrypted(Some(KeyIdentity { kind: KeyType::CustomerManaged, arn: Some(arn) }))
}

/// Returns whether a stream can be encrypted with a key, apart from the key's policy.
fn is_usable(state: &State, stream: &StreamArn, arn: &str) -> bool {
    state.world.key(arn).is_some_and(|key| {
        key.state == KeyState::Enabled
            && key.encrypts()
            && key.region == stream.region.as_str()
            && key.manager == "CUSTOMER"
    })
}

/// The reasons that report an unusable active key.
const UNUSABLE_KEY_REASONS: [Reason; 5] = [
    Reason::KeyNotFound,
    Reason::KeyDisabled,
    Reason::KeyPendingDeletion,
    Reason::KeyPendingImport,
    Reason::KeyUnavailable,
];

/// Returns whether records become unreadable with this active key.
fn makes_data_unreadable(state: &State, stream: &StreamArn, arn: &str) -> bool {
    state.world.key(arn).is_some_and(|key| {
        key.state != KeyState::Enabled
            && key.encrypts()
            && key.region == stream.region.as_str()
            && key.manager == "CUSTOMER"
    })
}

/// Returns whether no policy lets the operator describe the active key in KMS for this resource.
fn is_key_forbidden(
    state: &State,
    resource: &StreamEncryption,
    stream: &StreamArn,
    key: Option<&KeyIdentity>,
) -> bool {
    let namespace = resource.metadata.namespace.clone().unwrap_or_default();
    key.is_some_and(|key| !state.policies.allow(&namespace, stream, &Access::Start(&Key::of(key))))
}

/// Returns whether a key's policy denies an action.
fn denies(state: &State, arn: &str) -> bool {
    state.world.key(arn).is_some_and(|key| key.policy.to_string().contains("Deny"))
}

/// Returns whether a wait has just ended and a change of the stream is in progress.
fn is_in_progress(state: &State, resource: &StreamEncryption, stream: &StreamArn) -> bool {
    let ready = resource.status.as_ref().and_then(|status| find(&status.conditions, ConditionType::Ready));
    let reasons = [Reason::Enabling, Reason::Disabling, Reason::Settling, Reason::Verifying];
    ready.is_some_and(|ready| reasons.iter().any(|reason| ready.reason == reason.as_str()))
        && state
            .invariants
            .last_call(&stream.to_string())
            .is_some_and(|at| state.now.duration_since(at) < MAX_CHANGE_DURATION)
}

/// Returns whether a successful and then a failed change by another caller may have happened between two
/// Describes, or a failed one before the first one. AWS shows only the failure, so the active key is unknown.
fn shows_only_external_failure(state: &State, stream: &StreamArn) -> bool {
    let failed = [AwsEncryption::EnablingFailed, AwsEncryption::DisablingFailed];
    let stream = stream.to_string();
    let actual = state.world.stream(&stream, state.now);
    actual.is_some_and(|actual| failed.contains(&actual.encryption))
        && (state.invariants.external_changes.contains_key(&stream)
            || !state.invariants.has_observed_settled(&stream))
}

/// Returns whether the stream matches the spec, or false if a valid reason prevents that. Returns an error if
/// the reported reason is not an expected one.
fn check_resource(
    state: &State,
    resource: &StreamEncryption,
    stream: &StreamArn,
    expected: &Expected,
) -> Result<bool, String> {
    let status = resource.status.clone().unwrap_or_default();
    let ready = find(&status.conditions, ConditionType::Ready);
    let reported = ready.map(|ready| ready.reason.clone()).unwrap_or_default();
    let reason: Option<Reason> = reported.parse().ok();
    let actual = state.world.stream(&stream.to_string(), state.now);
    let active_key = actual.and_then(|actual| actual.active_key.as_ref()).map(key_identity);
    let is_ready = ready.is_some_and(|ready| ready.status == ConditionStatus::True.as_str());
    match expected {
        Expected::Owner => Err(format!(
            "it reports {reported}, but the owner of its stream is deleted or no longer allowed it"
        )),
        // In mode Observe, the reason of a change that would be made is not determined.
        Expected::Reports(_) if resource.spec.mode == Mode::Observe && reason == Some(Reason::Drifted) => {
            Ok(false)
        }
        Expected::Reports(reasons) => {
            // AWS refused the only attempt with the key, possibly because the key is already active: only a
            // user can resolve this.
            let shows_failure =
                actual.is_some_and(|actual| actual.encryption == AwsEncryption::EnablingFailed);
            let has_given_up = shows_failure
                && reasons.contains(&Reason::KeyAccessDenied)
                && reason == Some(Reason::ActiveKeyUnknown);
            if has_given_up || reason.is_some_and(|reason| reasons.contains(&reason)) {
                Ok(false)
            } else {
                Err(format!("it reports {reported}, but should report one of {reasons:?}"))
            }
        }
        Expected::Plaintext | Expected::Encrypted(_) => {
            let is_as_expected = match expected {
                Expected::Encrypted(Some(key)) => active_key.as_ref() == Some(key),
                Expected::Encrypted(None) => active_key.is_some(),
                _ => active_key.is_none(),
            };
            // Records become unreadable with such an active key: the resource must not be Ready.
            let key = active_key.as_ref().and_then(|key| key.arn.as_ref());
            let is_unreadable = key.is_some_and(|arn| makes_data_unreadable(state, stream, arn));
            if is_as_expected && is_unreadable {
                let reports_problem = reason.is_some_and(|reason| UNUSABLE_KEY_REASONS.contains(&reason));
                let is_denied = key.is_some_and(|arn| denies(state, arn));
                let is_unknown =
                    status.active_key != active_key && shows_only_external_failure(state, stream);
                let is_forbidden = is_key_forbidden(state, resource, stream, active_key.as_ref());
                return if reports_problem || is_denied || is_unknown || is_forbidden {
                    Ok(false)
                } else {
                    Err(format!("it reports {reported}, and the active key cannot be used"))
                };
            }
            if is_as_expected && is_ready {
                return Ok(true);
            }
            if resource.spec.mode == Mode::Observe && !is_as_expected && reason == Some(Reason::Drifted) {
                return Ok(false);
            }
            // Verification fails while the active key, which was usable when it became active, is unusable.
            let key_is_unusable = key.is_some_and(|arn| !is_usable(state, stream, arn) || denies(state, arn));
            if is_as_expected && key_is_unusable && reason == Some(Reason::Verifying) {
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
            let start_failed =
                actual.is_some_and(|actual| actual.encryption == AwsEncryption::EnablingFailed);
            let acceptable = [Reason::EnablingFailed, Reason::ActiveKeyUnknown, Reason::CallRefused];
            if is_as_expected && start_failed && reason.is_some_and(|reason| acceptable.contains(&reason)) {
                return Ok(false);
            }
            if shows_only_external_failure(state, stream) {
                return Ok(false);
            }
            // If the limit is small, calls that AWS refused because of other callers may have used it up. The
            // status reports the end of the wait.
            let calls = status.calls.as_ref();
            if reason == Some(Reason::CallLimitReached)
                && calls.is_some_and(|calls| calls.used >= calls.limit)
                && status.next_attempt_time.as_ref().is_some_and(|next| next.0 > state.now)
            {
                return Ok(false);
            }
            // A call that was dated by a clock days ahead may still arrive then. The status reports the end
            // of the wait.
            let ledger = state.store.ledger(&ledger::name(stream));
            if reason == Some(Reason::OutcomeUnknown)
                && ledger
                    .is_some_and(|ledger| state.invariants.has_call_dated_after_clock_change(&ledger.spec))
                && status.next_attempt_time.as_ref().is_some_and(|next| next.0 > state.now)
            {
                return Ok(false);
            }
            if is_in_progress(state, resource, stream) {
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
                "expected {expected:?}; active key {active_key:?} ({actual:?}); it reports {reported}, next attempt {:?}, ledger {:?}",
                status.next_attempt_time.map(|next| crate::trace::since_start(next.0)),
                state.store.ledger(&ledger::name(stream)).map(|ledger| summarize(&ledger.spec)),
            ))
        }
    }
}

fn summarize(ledger: &StreamLedgerSpec) -> String {
    format!(
        "{} calls, active key {:?}, attempts {:?}",
        ledger.calls.len(),
        ledger.known_encryption.as_ref().map(|known| &known.key),
        ledger.attempts.as_ref().map(|attempts| (attempts.count, &attempts.reason))
    )
}
