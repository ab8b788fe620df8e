//! The resolve step: turns a resource into a [`ResolvedSpec`] with the stream's ARN, the desired state and
//! the permissions.
//!
//! Reads the namespace's policies, the key that an alias or a reference stands for, and the state of that key. Sends AWS no
//! request about a stream or a key that is not allowed, or whose resource is suspended; an alias is resolved if the alias is
//! allowed. An invalid spec is detected before any request to AWS, with one exception: a region of another partition than the
//! operator's. AWS returns the operator's partition only with the operator's identity.
//!
//! After this step, `stream` in the spec of the resource (not [`ResolvedSpec::stream`]) is read for two purposes only: to
//! quote it in messages, and to see whether it contains an ARN, in which case the status may show the account.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::condition::Reason;
use stream_encryption_api::stream_encryption::{
    DeletionPolicy, Encryption, KeyReference, KeyType, Service, StreamEncryption, StreamReference,
    Verification,
};
use tracing::warn;

use super::annotations::{is_suspended, retry_token};
use super::context::Context;
use super::kube_api::{KubeApi, KubeError, ReadFrom, ReferencedKey};
use super::ledger_store::Claim;
use super::memory::LastReconcile;
use super::policies::policies_in;
use super::previous_status::previous_status;
use super::stream_api::{Priority, StreamApi};
use crate::model::arn::{self, AwsAccount, KmsKeyId, ParseError, Region, StreamArn};
use crate::model::aws_error::{AwsError, ErrorKind};
use crate::model::desired::{DesiredEncryption, DesiredState};
use crate::model::key::{Key, KeyMetadata, KeyProblem};
use crate::model::ledger::MAX_IN_FLIGHT;
use crate::model::message;
use crate::model::permission::{Denial, EffectivePolicy, Policy};
use crate::model::principal::{Principal, Role};
use crate::model::schedule;
use crate::model::service::{Operation, profile};
use crate::model::status_fields;

/// The resolved spec of a resource.
pub(super) struct ResolvedSpec {
    /// The stream.
    pub(super) stream: StreamArn,
    /// The principal of the requests to AWS.
    pub(super) principal: Principal,
    /// The desired state.
    pub(super) desired: DesiredState,
    /// The permissions that policies grant.
    pub(super) permission: EffectivePolicy,
    /// The name with which KMS was asked for the desired key, and its answer: the inner `None` if there is no such key.
    /// `None` if KMS was not asked, refused, or did not answer.
    pub(super) described_key: Option<(KmsKeyId, Option<KeyMetadata>)>,
    /// The error, if the request to KMS failed for another reason than a refusal by KMS.
    pub(super) key_error: Option<AwsError>,
    /// The interval between two checks for drift, slightly different for each resource so that the checks
    /// spread out.
    pub(super) drift_interval: SignedDuration,
    /// When the resolve step started, on the monotonic clock.
    pub(super) resolve_started: Duration,
}

impl ResolvedSpec {
    /// Returns a hash of the stream, and of the role or the account with which requests about it are sent. Once one of them
    /// changes, what AWS returned before may be about another stream, or may come from an account that has no such stream.
    pub(super) fn stream_identity(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.stream.hash(&mut hasher);
        match &self.principal.role {
            // The ARN of the role contains its account.
            Some(role) => role.hash(&mut hasher),
            None => self.permission.own_account().hash(&mut hasher),
        }
        hasher.finish()
    }

    /// Returns the names of the desired key for which AWS's events can arrive: the name in the request that KMS has
    /// answered, and the ARN of the key. An ARN in the spec is returned without an answer, too; an alias is not.
    pub(super) fn key_names(&self) -> impl Iterator<Item = KmsKeyId> {
        let named = self.described_key.as_ref().map(|(name, _)| name.clone());
        let resolved = match &self.desired.encryption {
            DesiredEncryption::Key(Key::Customer(arn)) => Some(KmsKeyId::Arn(arn.clone())),
            _ => None,
        };
        named.into_iter().chain(resolved)
    }

    /// Returns whether KMS has not answered about the desired key: it refused, or the request failed.
    pub(super) fn is_key_unanswered(&self) -> bool {
        self.key_error.is_some() || self.desired.key_problem == Some(KeyProblem::DescribeDenied)
    }

    /// Returns `Some(false)` if AWS did not respond to the request to KMS.
    pub(super) fn answered(&self) -> Option<bool> {
        self.key_error.as_ref().and_then(answered)
    }

    /// Returns whether requests about the stream reach another account than the stream's. AWS then finds no stream of
    /// that name, or another one.
    pub(super) fn reaches_another_account(&self) -> bool {
        let role = self.principal.role.as_ref();
        let reached = role.map_or(&self.permission.own_account().account, |role| &role.arn.account);
        !profile(self.stream.service).requests_name_account && *reached != self.stream.account
    }

    /// Returns the claim of the resource on its stream. The claim may be made only if policies allow the
    /// whole desired state, and not while the resource is suspended.
    pub(super) fn claim(&self) -> Claim<'_> {
        let Self { stream, permission, desired, .. } = self;
        let allowed = !desired.suspended && desired.check_policies(permission, stream).is_ok();
        Claim { stream, operator_account: permission.own_account(), allowed }
    }
}

/// The reason why a resource could not be resolved.
pub(super) enum ResolveError {
    /// The spec is invalid.
    Spec(String),
    /// AWS did not return the identity of the operator's credentials.
    Identity(AwsError),
    /// The resource is suspended, and AWS did not return the identity, without which it cannot be resolved.
    Suspended,
    /// A request to Kubernetes failed.
    Kubernetes(KubeError),
}

impl ResolveError {
    /// Returns the reason and the message to report; the error, if a request to Kubernetes failed.
    pub(super) fn report(&self) -> Result<(Reason, String), KubeError> {
        Ok(match self {
            Self::Spec(words) => (Reason::SpecInvalid, format!("Invalid spec: {words}.")),
            Self::Identity(error) => (error.kind.reason(), message::identity(error)),
            Self::Suspended => (Reason::Suspended, String::new()),
            Self::Kubernetes(error) => return Err(error.clone()),
        })
    }

    /// Returns `Some(false)` if AWS did not respond to the request for the identity.
    pub(super) fn answered(&self) -> Option<bool> {
        match self {
            Self::Identity(error) => answered(error),
            Self::Spec(_) | Self::Suspended | Self::Kubernetes(_) => None,
        }
    }
}

/// Returns `Some(false)` if AWS did not respond to this request, which precedes the Describe. Any other error shows nothing
/// about the service of the stream, to which no request was sent.
fn answered(error: &AwsError) -> Option<bool> {
    (error.kind == ErrorKind::Transient).then_some(false)
}

impl From<KubeError> for ResolveError {
    fn from(error: KubeError) -> Self {
        Self::Kubernetes(error)
    }
}

impl From<ParseError> for ResolveError {
    fn from(error: ParseError) -> Self {
        Self::Spec(error.to_string())
    }
}

/// Resolves a resource, with policies from this source.
pub(super) async fn resolve<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
    last: &LastReconcile,
    from: ReadFrom,
) -> Result<ResolvedSpec, ResolveError> {
    let resolve_started = context.clock.monotonic();
    let desired = desired(resource);
    let named = stream(&resource.spec.stream, &context.config.region)?;
    let key = match &resource.spec.key {
        Some(key) if desired.encryption != DesiredEncryption::Off => {
            Some(named_key(context, resource, key).await?)
        }
        Some(_) | None => None,
    };
    let namespace = resource.metadata.namespace.as_deref().unwrap_or_default();
    let policies = policies_in(&context.kube, namespace, from).await?;
    let (stream, own) = match named {
        NamedStream::Arn(stream) if needs_no_identity(&stream, &policies, &desired) => {
            // The policies do not refer to the operator's account, so any account can stand in for it.
            let own = AwsAccount::of(&stream);
            (stream, own)
        }
        named => {
            let own = match context.aws.identity().await {
                Ok(own) => own,
                Err(_) if desired.suspended => return Err(ResolveError::Suspended),
                Err(error) => return Err(ResolveError::Identity(error)),
            };
            (named.into_arn(&own)?, own)
        }
    };
    let permission = EffectivePolicy::of(policies, own);
    let mut spec = ResolvedSpec {
        principal: principal(resource, role(&permission, &stream)),
        desired,
        permission,
        described_key: None,
        key_error: None,
        drift_interval: schedule::jittered(
            context.drift_interval(resource, &stream, customer_key(key.as_ref())),
            resource.metadata.uid.as_deref(),
        ),
        resolve_started,
        stream,
    };
    spec.desired.verified = verified(resource, last, &spec, context.clock.now());
    match key {
        None => {}
        Some(NamedKey::AwsOwned) => spec.desired.encryption = DesiredEncryption::Key(Key::AwsOwned),
        Some(NamedKey::Problem(problem)) => {
            spec.desired.encryption = DesiredEncryption::UnknownKey;
            spec.desired.key_problem = Some(problem);
        }
        Some(NamedKey::Customer(KmsKeyId::Alias(alias)))
            if spec.permission.check_alias(&spec.stream, &alias).is_err() =>
        {
            mark_key_not_permitted(&mut spec.desired);
        }
        Some(NamedKey::Customer(name)) => describe_key(context, last, &mut spec, name).await,
    }
    Ok(spec)
}

/// Returns the customer managed key that the spec names.
fn customer_key(key: Option<&NamedKey>) -> Option<&KmsKeyId> {
    match key {
        Some(NamedKey::Customer(name)) => Some(name),
        _ => None,
    }
}

/// Returns whether the operator's account cannot change the result. Both of these must be true:
///
/// - No policy of this namespace depends on that account for this stream. A policy does if it has no role and contains the
///   word `own`.
/// - The stream will not be described, and its ledger not claimed. A claim would also evaluate the policies of the ledger's
///   owner, in which `own` may occur (`ledger_store::holds`). The desired key may still be described in KMS, which does not
///   depend on the account.
///
/// The second is true in three cases: the resource is suspended; the policies deny the stream; or the spec requires that
/// encryption is disabled, now or on deletion, and the policies deny that.
fn needs_no_identity(stream: &StreamArn, policies: &[Policy], desired: &DesiredState) -> bool {
    if policies.iter().any(|policy| policy.depends_on_operator(stream)) {
        return false;
    }
    let own = AwsAccount::of(stream);
    let permission = EffectivePolicy::of(policies.to_vec(), own);
    let turns_off = desired.encryption == DesiredEncryption::Off || desired.disable_on_deletion;
    desired.suspended
        || permission.role_for(stream).is_err()
        || (turns_off && permission.check_disable(stream).is_err())
}

/// The stream that a spec names.
enum NamedStream {
    /// The stream with this ARN.
    Arn(StreamArn),
    /// The stream of this name in the operator's account.
    Named { service: Service, region: Region, name: String },
}

impl NamedStream {
    /// Returns the stream, given the operator's account `own`.
    fn into_arn(self, own: &AwsAccount) -> Result<StreamArn, ParseError> {
        match self {
            Self::Arn(stream) => Ok(stream),
            Self::Named { service, region, name } => {
                StreamArn::new(own.partition.clone(), service, region, own.account.clone(), &name)
            }
        }
    }
}

/// Parses the stream that a spec names. An invalid name is detected without AWS, too.
fn stream(reference: &StreamReference, region: &Region) -> Result<NamedStream, ResolveError> {
    match (&reference.arn, reference.service, &reference.name) {
        (Some(arn), None, None) => Ok(NamedStream::Arn(arn.parse()?)),
        (None, Some(service), Some(name)) => {
            let region = match &reference.region {
                Some(region) => region.parse()?,
                None => region.clone(),
            };
            arn::check_name(service, name)?;
            Ok(NamedStream::Named { service, region, name: name.clone() })
        }
        _ => Err(ResolveError::Spec(
            "exactly one of stream.arn or (stream.service, stream.name) must be set".to_owned(),
        )),
    }
}

/// Returns the role that the policies name; `None` if they name no role or do not allow the stream. No
/// request is sent to AWS about a stream that they do not allow.
fn role(permission: &EffectivePolicy, stream: &StreamArn) -> Option<Role> {
    let role = permission.role_for(stream);
    if role == Err(Denial::Roles) {
        warn!(%stream, "policies name different roles or external ids for this stream, using none");
    }
    role.ok().flatten().cloned()
}

fn principal(resource: &StreamEncryption, role: Option<Role>) -> Principal {
    let me = super::ledger_store::resource_identity(resource);
    Principal { role, namespace: me.namespace, resource: me.name }
}

/// Returns when AWS last encrypted a test record of this stream, according to the status and to this process.
fn verified(
    resource: &StreamEncryption,
    last: &LastReconcile,
    spec: &ResolvedSpec,
    now: Timestamp,
) -> Option<Timestamp> {
    let status = previous_status(&resource.metadata, resource.status.as_ref(), last);
    let status = status.as_deref().filter(|status| status_fields::may_be_of(status, &spec.stream));
    let reported = status.and_then(|status| status.verified_time.as_ref()).map(|time| time.0);
    let recorded = last.verified.filter(|(identity, _)| *identity == spec.stream_identity());
    // AWS accepts a clock that differs from its own by at most `MAX_CLOCK_SKEW`, so the clocks of two replicas differ by at most
    // twice that, which is less than `MAX_IN_FLIGHT`. A time that is further in the future was written by hand, or with a clock
    // that was wrong. A test record replaces it.
    let is_possible = |time: &Timestamp| time.duration_since(now) <= MAX_IN_FLIGHT;
    [reported, recorded.map(|(_, time)| time)].into_iter().flatten().filter(is_possible).max()
}

fn desired(resource: &StreamEncryption) -> DesiredState {
    let spec = &resource.spec;
    let deleting = resource.metadata.deletion_timestamp.is_some();
    let off = deleting || spec.encryption == Encryption::Disabled;
    DesiredState {
        encryption: if off { DesiredEncryption::Off } else { DesiredEncryption::AnyKey },
        key_problem: None,
        mode: spec.mode,
        suspended: is_suspended(resource),
        disable_on_deletion: spec.deletion_policy == DeletionPolicy::Disable,
        deleting,
        verify: spec.verification == Verification::PutRecord,
        verified: None,
        retry: retry_token(resource),
        key_reference: spec.key.as_ref().and_then(key_reference),
    }
}

/// Returns the alias or the object by which the spec names the key; `None` if the spec names neither.
fn key_reference(key: &KeyReference) -> Option<String> {
    key.alias.clone().or_else(|| key.object_ref.as_ref().map(|reference| reference.name.clone()))
}

enum NamedKey {
    AwsOwned,
    Customer(KmsKeyId),
    Problem(KeyProblem),
}

/// Returns the key that a spec names, in a form that KMS accepts.
async fn named_key<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
    key: &KeyReference,
) -> Result<NamedKey, ResolveError> {
    Ok(match (key.kind, &key.arn, &key.alias, &key.object_ref) {
        (KeyType::AwsOwned, None, None, None) => NamedKey::AwsOwned,
        (KeyType::CustomerManaged, Some(arn), None, None) => NamedKey::Customer(KmsKeyId::Arn(arn.parse()?)),
        (KeyType::CustomerManaged, None, Some(alias), None) => NamedKey::Customer(arn::alias(alias)?),
        (KeyType::CustomerManaged, None, None, Some(reference)) => {
            let namespace = resource.metadata.namespace.as_deref().unwrap_or_default();
            match context.kube.referenced_key(namespace, reference).await? {
                ReferencedKey::Arn(arn) => arn.parse().map_or(
                    NamedKey::Problem(KeyProblem::ReferenceNotReady),
                    |arn| NamedKey::Customer(KmsKeyId::Arn(arn)),
                ),
                ReferencedKey::NotReady => NamedKey::Problem(KeyProblem::ReferenceNotReady),
                ReferencedKey::KindMissing => NamedKey::Problem(KeyProblem::ReferenceCrdMissing),
            }
        }
        _ => return Err(ResolveError::Spec("key.arn, key.alias and key.objectRef must not be set when key.type is AWS_OWNED_CMK, and exactly one of them must be set when it is CUSTOMER_MANAGED_CMK".to_owned())),
    })
}

/// Marks the key as not permitted. The key that an alias or an object stands for is not disclosed, because
/// the namespace may not use it.
fn mark_key_not_permitted(desired: &mut DesiredState) {
    desired.encryption = DesiredEncryption::UnknownKey;
    desired.key_problem = Some(KeyProblem::NotPermitted);
}

/// Describes the key in KMS, unless the response of the last reconcile is still valid, and sets the desired
/// key and its problem.
async fn describe_key<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    last: &LastReconcile,
    spec: &mut ResolvedSpec,
    name: KmsKeyId,
) {
    let identity = spec.stream_identity();
    let desired = &mut spec.desired;
    desired.encryption = DesiredEncryption::UnknownKey;
    if let KmsKeyId::Arn(arn) = &name {
        desired.encryption = DesiredEncryption::Key(Key::Customer(arn.clone()));
        if spec.permission.check_key(&spec.stream, &Key::Customer(arn.clone())).is_err() {
            return mark_key_not_permitted(desired);
        }
        if arn.region != spec.stream.region {
            desired.key_problem = Some(KeyProblem::OtherRegion);
            return;
        }
    }
    if desired.suspended {
        return;
    }
    let remembered = last.remembered.as_ref().filter(|remembered| remembered.identity == identity);
    let remembered = remembered.and_then(|remembered| remembered.key.as_deref());
    let answer =
        match remembered.filter(|(requested, _)| *requested == name).map(|(_, metadata)| metadata.clone()) {
            Some(metadata) => Ok(metadata),
            None => context.aws.describe_key(&spec.stream, &name, &spec.principal, Priority::Changing).await,
        };
    match answer {
        Ok(metadata) => {
            match &metadata {
                Some(metadata) => {
                    let key = Key::Customer(metadata.arn.clone());
                    if spec.permission.check_key(&spec.stream, &key).is_ok() {
                        desired.encryption = DesiredEncryption::Key(key);
                        desired.key_problem = metadata.problem(&spec.stream);
                    } else {
                        mark_key_not_permitted(desired);
                    }
                }
                None => desired.key_problem = Some(KeyProblem::NotFound),
            }
            spec.described_key = Some((name, metadata));
        }
        // KMS itself refused the request. If the role could not be assumed, the key is not the cause.
        Err(error)
            if error.operation == Operation::DescribeKey
                && matches!(error.kind, ErrorKind::Denied | ErrorKind::Invalid) =>
        {
            warn!(key = %name, code = error.code, aws_message = error.message, "failed to describe the key");
            desired.key_problem = Some(KeyProblem::DescribeDenied);
        }
        Err(error) => spec.key_error = Some(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_stream_name_is_rejected_without_aws() {
        let region = "eu-west-1".parse().unwrap();
        let long = "x".repeat(65);
        let of = |service, name: &str| {
            let name = Some(name.to_owned());
            stream(&StreamReference { service: Some(service), name, ..StreamReference::default() }, &region)
        };
        for name in ["", "my orders", "orders/1", long.as_str()] {
            assert!(of(Service::Firehose, name).is_err(), "{name:?}");
        }
        assert!(of(Service::Kinesis, &long).is_ok(), "Kinesis has longer names");
    }
}
