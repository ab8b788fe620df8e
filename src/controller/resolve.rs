//! The resolve step: from the resource to a [`Subject`]: the stream's ARN, what is asked for, what is allowed.
//!
//! Reads the namespace's policies, the key that an alias or a reference stands for, and that key's state; and the caller's identity
//! only where the stream or a policy means the operator's own account. An invalid spec, a refusing policy and a suspension are
//! found out before AWS is asked. What is not allowed is not asked of AWS. After this step nothing reads the raw spec of the
//! stream and the key.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::SignedDuration;
use tracing::warn;

use super::asked::{is_suspended, retry_of};
use super::book::Claim;
use super::context::Operator;
use super::memory::Visit;
use super::permitted::{permission_in, policies_in};
use super::records::{RecordError, Records, ReferencedKey};
use crate::api::stream_encryption::{
    DeletionPolicy, Encryption, KeyReference, KeyType, Service, StreamEncryption, StreamReference,
};
use crate::aws::{Streams, Urgency};
use crate::model::decision::{Intent, Wanted};
use crate::model::fault::{Class, Fault, Operation};
use crate::model::key::{self, Key, KeyFacts, KeyName, KeyProblem};
use crate::model::pattern::Own;
use crate::model::permission::{Permission, Policy, Refusal};
use crate::model::principal::{Principal, Role};
use crate::model::stream::{self, Malformed, Region, StreamArn};

/// What a resource is about, resolved.
pub(super) struct Subject {
    /// The stream.
    pub(super) stream: StreamArn,
    /// As whom AWS is asked about it.
    pub(super) principal: Principal,
    /// What is asked for.
    pub(super) intent: Intent,
    /// What is allowed.
    pub(super) permission: Permission,
    /// What KMS said of the key asked for, to be remembered.
    pub(super) key: Option<(KeyName, Option<KeyFacts>)>,
    /// Why KMS could not be asked.
    pub(super) fault: Option<Fault>,
    /// How often to look for drift: a little different for each resource, so that they spread out.
    pub(super) drift_interval: SignedDuration,
    /// When it was begun to resolve it, on the steady clock.
    pub(super) resolved: Duration,
}

impl Subject {
    /// Returns the claim that the resource has on its stream. It may be made only for all that policies allow, and not while the
    /// resource is suspended.
    pub(super) fn claim(&self) -> Claim<'_> {
        let Self { stream, permission, intent, .. } = self;
        let allowed = !intent.suspended && intent.permitted(permission, stream).is_ok();
        Claim { stream, own: permission.own(), allowed }
    }
}

/// Why a resource has no subject.
pub(super) enum Unresolved {
    /// The spec has no meaning.
    Spec(String),
    /// AWS does not tell whose credentials the operator has.
    Identity(Fault),
    /// It is suspended, and only AWS could tell more.
    Suspended,
}

/// Resolves a resource.
pub(super) async fn resolve<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
    visit: &Visit,
) -> Result<Result<Subject, Unresolved>, RecordError> {
    let resolved = operator.clock.steady();
    let intent = intent(resource);
    let asked = match stream(&resource.spec.stream, &operator.rules.region) {
        Ok(asked) => asked,
        Err(why) => return Ok(Err(Unresolved::Spec(why))),
    };
    let key = match &resource.spec.key {
        Some(key) if intent.wanted != Wanted::Off => match named_key(operator, resource, key).await? {
            Ok(named) => Some(named),
            Err(why) => return Ok(Err(Unresolved::Spec(why))),
        },
        Some(_) | None => None,
    };
    let namespace = resource.metadata.namespace.as_deref().unwrap_or_default();
    let policies = policies_in(&operator.records, namespace).await?;
    let (stream, own) = match asked {
        Asked::Arn(stream) if is_decided_without_aws(&stream, &policies, &intent) => {
            // Nothing in the policies means the operator's account, so any will do.
            let own = Own { account: stream.account.clone(), partition: stream.partition.clone() };
            (stream, own)
        }
        _ if intent.suspended => return Ok(Err(Unresolved::Suspended)),
        asked => {
            let identity = match operator.aws.identity().await {
                Ok(identity) => identity,
                Err(fault) => return Ok(Err(Unresolved::Identity(fault))),
            };
            let own = Own { account: identity.account, partition: identity.partition };
            match asked.of(&own) {
                Ok(stream) => (stream, own),
                Err(why) => return Ok(Err(Unresolved::Spec(why))),
            }
        }
    };
    let permission = Permission::of(policies, own);
    let mut subject = Subject {
        principal: principal(resource, role(&permission, &stream)),
        intent,
        permission,
        key: None,
        fault: None,
        drift_interval: spread(operator.rules.drift_interval, resource),
        resolved,
        stream,
    };
    match key {
        None => {}
        Some(Named::AwsOwned) => subject.intent.wanted = Wanted::Key(Key::AwsOwned),
        Some(Named::Problem(problem)) => {
            subject.intent.wanted = Wanted::UnknownKey;
            subject.intent.key_problem = Some(problem);
        }
        Some(Named::Customer(KeyName::Alias(alias)))
            if subject.permission.alias(&subject.stream, &alias).is_err() =>
        {
            not_permitted(&mut subject.intent);
        }
        Some(Named::Customer(name)) => look_up(operator, visit, &mut subject, name).await,
    }
    Ok(Ok(subject))
}

/// Whether the policies refuse what is asked for, or it is suspended, and the operator's own account has no part in that: then nothing is
/// asked of AWS.
fn is_decided_without_aws(stream: &StreamArn, policies: &[Policy], intent: &Intent) -> bool {
    if policies.iter().any(|policy| policy.depends_on_operator(stream)) {
        return false;
    }
    let own = Own { account: stream.account.clone(), partition: stream.partition.clone() };
    let permission = Permission::of(policies.to_vec(), own);
    let turns_off = intent.wanted == Wanted::Off || intent.disable_on_deletion;
    intent.suspended
        || permission.stream(stream).is_err()
        || (turns_off && permission.disable(stream).is_err())
}

/// The stream that a spec means.
enum Asked {
    /// This one.
    Arn(StreamArn),
    /// The one of this name in the operator's account.
    Named { service: Service, region: Region, name: String },
}

impl Asked {
    /// The stream, where the operator's account is `own`.
    fn of(self, own: &Own) -> Result<StreamArn, String> {
        match self {
            Self::Arn(stream) => Ok(stream),
            Self::Named { service, region, name } => {
                StreamArn::new(own.partition.clone(), service, region, own.account.clone(), &name)
                    .map_err(|malformed| malformed.to_string())
            }
        }
    }
}

/// Reads which stream a spec means. What is wrong with a name shows without AWS, too.
fn stream(asked: &StreamReference, region: &Region) -> Result<Asked, String> {
    let words = |malformed: Malformed| malformed.to_string();
    match (&asked.arn, asked.service, &asked.name) {
        (Some(arn), None, None) => arn.parse().map(Asked::Arn).map_err(words),
        (None, Some(service), Some(name)) => {
            let region = match &asked.region {
                Some(region) => region.parse().map_err(words)?,
                None => region.clone(),
            };
            stream::check_name(service, name).map_err(words)?;
            Ok(Asked::Named { service, region, name: name.clone() })
        }
        _ => Err("write exactly one of stream.arn, or stream.service and stream.name".to_owned()),
    }
}

/// The role that the policies name. Where they do not allow the stream there is none, and nothing is asked of AWS.
fn role(permission: &Permission, stream: &StreamArn) -> Option<Role> {
    let role = permission.stream(stream);
    if role == Err(Refusal::Roles) {
        warn!(%stream, "several policies name different roles or external ids for this stream: none is used");
    }
    role.ok().flatten().cloned()
}

fn principal(resource: &StreamEncryption, role: Option<Role>) -> Principal {
    let me = super::book::owner(resource);
    Principal { role, namespace: me.namespace, resource: me.name }
}

fn intent(resource: &StreamEncryption) -> Intent {
    let spec = &resource.spec;
    let deleting = resource.metadata.deletion_timestamp.is_some();
    let status = resource.status.as_ref();
    let off = deleting || spec.encryption == Encryption::Disabled;
    Intent {
        wanted: if off { Wanted::Off } else { Wanted::AnyKey },
        key_problem: None,
        drift: spec.drift,
        suspended: is_suspended(resource),
        disable_on_deletion: spec.deletion_policy == DeletionPolicy::Disable,
        deleting,
        verify: spec.verify.is_some_and(|verify| verify.put_record),
        verified: status.and_then(|status| status.verified_time.as_ref()).map(|time| time.0),
        retry: retry_of(resource),
        key_name: spec.key.as_ref().and_then(key_name),
    }
}

/// What the spec names the key by, if that is not the key itself.
fn key_name(asked: &KeyReference) -> Option<String> {
    asked.alias.clone().or_else(|| asked.reference.as_ref().map(|reference| reference.name.clone()))
}

enum Named {
    AwsOwned,
    Customer(KeyName),
    Problem(KeyProblem),
}

/// The key that a spec names, in a form that KMS understands.
async fn named_key<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
    asked: &KeyReference,
) -> Result<Result<Named, String>, RecordError> {
    let words = |malformed: Malformed| malformed.to_string();
    let by_arn = |arn: &str| arn.parse().map(|arn| Named::Customer(KeyName::Arn(arn))).map_err(words);
    Ok(match (asked.kind, &asked.arn, &asked.alias, &asked.reference) {
        (KeyType::AwsOwned, None, None, None) => Ok(Named::AwsOwned),
        (KeyType::CustomerManaged, Some(arn), None, None) => by_arn(arn),
        (KeyType::CustomerManaged, None, Some(alias), None) => key::alias(alias).map(Named::Customer).map_err(words),
        (KeyType::CustomerManaged, None, None, Some(reference)) => {
            let namespace = resource.metadata.namespace.as_deref().unwrap_or_default();
            match operator.records.referenced_key(namespace, reference).await? {
                ReferencedKey::Arn(arn) => by_arn(&arn).or(Ok(Named::Problem(KeyProblem::ReferenceNotReady))),
                ReferencedKey::NotReady => Ok(Named::Problem(KeyProblem::ReferenceNotReady)),
                ReferencedKey::KindMissing => Ok(Named::Problem(KeyProblem::ReferenceKindMissing)),
            }
        }
        _ => Err("write nothing beside key.type AWS_OWNED_CMK, and exactly one of key.arn, key.alias and key.ref with CUSTOMER_MANAGED_CMK".to_owned()),
    })
}

/// What the policies of the resource's namespace allow, as they are now.
pub(super) async fn permission<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
    own: Own,
) -> Result<Permission, RecordError> {
    let namespace = resource.metadata.namespace.as_deref().unwrap_or_default();
    permission_in(&operator.records, namespace, own).await
}

/// The key is not to be used. Which one an alias or an object stands for is not told: it is not this namespace's.
fn not_permitted(intent: &mut Intent) {
    intent.wanted = Wanted::UnknownKey;
    intent.key_problem = Some(KeyProblem::NotPermitted);
}

/// Asks KMS for the key, unless the last visit's answer is still good, and sets what is wanted and what is wrong with it.
async fn look_up<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    visit: &Visit,
    subject: &mut Subject,
    name: KeyName,
) {
    let intent = &mut subject.intent;
    intent.wanted = Wanted::UnknownKey;
    if let KeyName::Arn(arn) = &name {
        intent.wanted = Wanted::Key(Key::Customer(arn.clone()));
        if subject.permission.key(&subject.stream, &Key::Customer(arn.clone())).is_err() {
            return not_permitted(intent);
        }
        if arn.region != subject.stream.region {
            intent.key_problem = Some(KeyProblem::OtherRegion);
            return;
        }
    }
    if intent.suspended {
        return;
    }
    let remembered = visit.key.as_ref().filter(|(asked, _)| *asked == name).map(|(_, facts)| facts.clone());
    let answer = match remembered {
        Some(facts) => Ok(facts),
        None => operator.aws.key(&subject.stream, &name, &subject.principal, Urgency::Changing).await,
    };
    match answer {
        Ok(facts) => {
            match &facts {
                Some(facts) => {
                    let key = Key::Customer(facts.arn.clone());
                    if subject.permission.key(&subject.stream, &key).is_ok() {
                        intent.wanted = Wanted::Key(key);
                        intent.key_problem = facts.problem(&subject.stream);
                    } else {
                        not_permitted(intent);
                    }
                }
                None => intent.key_problem = Some(KeyProblem::Missing),
            }
            subject.key = Some((name, facts));
        }
        // KMS's own refusal; where the role could not even be assumed, the key is not what is wrong.
        Err(fault)
            if fault.operation == Operation::DescribeKey
                && matches!(fault.class, Class::Denied | Class::Invalid) =>
        {
            warn!(key = %name, code = fault.code, message = fault.message, "the key cannot be read");
            intent.key_problem = Some(KeyProblem::Unreadable);
        }
        Err(fault) => subject.fault = Some(fault),
    }
}

/// The drift interval of one resource: up to a tenth shorter or longer, always the same for the same resource.
fn spread(interval: SignedDuration, resource: &StreamEncryption) -> SignedDuration {
    let mut hasher = DefaultHasher::new();
    resource.metadata.uid.hash(&mut hasher);
    let thousandths = i64::try_from(hasher.finish() % 200).unwrap_or(0) - 100;
    let milliseconds = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX / 2000);
    SignedDuration::from_millis(milliseconds + milliseconds / 1000 * thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_that_no_stream_can_have_is_refused_without_aws() {
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
