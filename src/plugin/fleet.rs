//! One stream of the fleet as people see it: its state, derived from the status that the operator wrote. Pure.

use clap::ValueEnum;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Serialize;
use serde_json::Value;
use stream_encryption_api::condition::{ConditionStatus, ConditionType, Reason, Remedy, find};
use stream_encryption_api::stream_encryption::{
    EncryptionStatus, KeyIdentity, KeyType, Service, StreamEncryption, StreamEncryptionStatus, UNSEEN,
};
use stream_encryption_core::controller::annotations::is_suspended;
use stream_encryption_core::controller::is_deleted_without_disabling;
use stream_encryption_core::model::arn::StreamArn;

use super::cluster::{Found, Unreadable};
use super::output::Columns;

/// Calls left at which a budget is about to run out; the alert `StreamEncryptionFewCallsLeft` has the same number.
pub(super) const FEW_CALLS: u32 = 3;

/// How far a time of a Describe in a status lags: the operator writes a new one once a day. The rest is for
/// Describes that wait for their turn.
pub(super) const DESCRIBE_TIME_LAG: SignedDuration = SignedDuration::from_mins(24 * 60 + 20);

/// Maximum age of the last Describe in a status while the operator describes the stream: the longest drift interval of the
/// settings is a day, each interval varies by a tenth, and the time lags.
pub(super) const MAX_DESCRIBE_AGE: SignedDuration =
    SignedDuration::from_mins(24 * 66).saturating_add(DESCRIBE_TIME_LAG);

/// How a key without an ARN is named, as in the spec.
const AWS_OWNED: &str = "AWS_OWNED_CMK";
const CUSTOMER_MANAGED: &str = "CUSTOMER_MANAGED_CMK";

/// The reason of a resource that this program cannot read. The operator reports no such reason.
const UNREADABLE: &str = "UnreadableByPlugin";

/// The reason of a resource that was deleted while it was watched. The operator reports no such reason.
const DELETED: &str = "Deleted";

/// Whether the records of a stream are encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum State {
    /// Records are in plaintext.
    Plaintext,
    /// AWS is enabling the encryption of a plaintext stream, or disabling encryption.
    Changing,
    /// Nobody has reported it yet, or AWS has not answered lately.
    #[default]
    Unknown,
    /// The stream reads from another stream or from a database, which must be encrypted instead.
    NotEncryptable,
    /// Records are encrypted.
    Encrypted,
}

/// A stream and the resource that manages it.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_excessive_bools, reason = "each is a column of the report")]
pub(super) struct Entry {
    /// The namespace of the `StreamEncryption`; empty if the stream has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) namespace: String,
    /// The name of the `StreamEncryption`; empty if the stream has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) resource: String,
    /// The ARN; absent until it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service: Option<Service>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) account: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) region: Option<String>,
    /// The name of the stream.
    pub(super) name: String,
    pub(super) state: State,
    /// Whether the condition Encrypted is False. Otherwise, somebody may have encrypted a stream in the state Plaintext since
    /// the last Describe.
    #[serde(skip)]
    pub(super) encrypted_is_false: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) encryption_status: Option<EncryptionStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<String>,
    /// The ARN of the active key; its type if it is a key of AWS, or if no policy allows the namespace to use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) active_key: Option<String>,
    /// The ARN of the desired key, or its type as for the active key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) desired_key: Option<String>,
    /// The status of the condition Ready.
    pub(super) ready: &'static str,
    /// Whether the operator is making a change, or keeps retrying, by the condition Reconciling.
    pub(super) reconciling: bool,
    pub(super) stalled: bool,
    pub(super) suspended: bool,
    /// Whether the spec has changed, or the resource was deleted, since the operator wrote the status. Everything else is then
    /// that of the earlier spec, except that Ready is not known. Never set if the status is final.
    pub(super) outdated: bool,
    /// Whether the resource is being deleted, and its status no longer changes.
    #[serde(skip)]
    pub(super) final_status: bool,
    /// Whether the last Describe is too old to prove the state, at the time of [`Entry::with_age`].
    pub(super) stale: bool,
    /// The status of the condition `KeyUsable`; absent if the resource does not have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key_usable: Option<&'static str>,
    /// The reason of Ready; absent until the operator has reconciled the resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) encrypted_since_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) plaintext_since_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) active_key_unusable_since_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_describe_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) verified_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_attempt_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) calls_used: Option<u32>,
    /// Of these, the calls of others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) calls_external: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) calls_limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) calls_next_available_time: Option<Timestamp>,
}

impl Columns for Entry {
    fn columns() -> Vec<&'static str> {
        vec![
            "namespace",
            "resource",
            "stream",
            "service",
            "account",
            "region",
            "name",
            "state",
            "encryptionStatus",
            "source",
            "activeKey",
            "desiredKey",
            "ready",
            "reason",
            "reconciling",
            "stalled",
            "suspended",
            "outdated",
            "stale",
            "keyUsable",
            "encryptedSinceTime",
            "plaintextSinceTime",
            "activeKeyUnusableSinceTime",
            "lastDescribeTime",
            "verifiedTime",
            "nextAttemptTime",
            "callsUsed",
            "callsExternal",
            "callsLimit",
            "callsNextAvailableTime",
            "message",
        ]
    }
}

/// What a stream can have that somebody looks for, or fails a pipeline on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Finding {
    /// Records are in plaintext, also while AWS is changing that.
    Plaintext,
    /// Ready is not True.
    NotReady,
    /// The operator cannot make progress until somebody changes the spec, a policy or another resource.
    Stalled,
    /// The operator is making a change, keeps retrying, or has not reconciled the resource yet.
    Reconciling,
    /// AWS is changing the encryption.
    Changing,
    /// It is not known whether records are encrypted.
    Unknown,
    /// AWS last described the stream more than two days ago, so the state may have changed since.
    Stale,
    /// The desired key or the active key is unusable: the condition `KeyUsable` is False.
    KeyUnusable,
    /// The active key is unusable: records are lost, or cannot be read.
    ActiveKeyUnusable,
    /// At most three encryption calls are left.
    Budget,
    /// The resource is suspended.
    Suspended,
    /// Somebody probably has to act: usually, a key, a permission, a policy, the spec or the stream must be changed. Also if
    /// Ready is not True with a reason that this version does not know.
    Attention,
}

impl Entry {
    /// Describes a resource as of its status.
    pub(super) fn of(found: &Found) -> Self {
        match &found.resource {
            Ok(resource) => Self::of_resource(found, resource),
            Err(unreadable) => Self::of_unreadable(found, unreadable),
        }
    }

    /// Sets whether the state is stale at this time. An unknown state is never stale.
    pub(super) fn with_age(self, now: Timestamp) -> Self {
        let is_old = self.last_describe_time.is_none_or(|at| now.duration_since(at) > MAX_DESCRIBE_AGE);
        Self { stale: is_old && self.state != State::Unknown, ..self }
    }

    /// Describes a resource that this program cannot read. The operator may be newer, so what it reports is quoted, and
    /// nothing is derived from it.
    fn of_unreadable(found: &Found, unreadable: &Unreadable) -> Self {
        let (spec, status) = (&unreadable.object.data["spec"], &unreadable.object.data["status"]);
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let conditions: Vec<Condition> =
            conditions.filter_map(|one| serde_json::from_value(one.clone()).ok()).collect();
        let is_true =
            |kind| find(&conditions, kind).is_some_and(|one| one.status == ConditionStatus::True.as_str());
        let ready = find(&conditions, ConditionType::Ready);
        let reported =
            ready.map(|ready| format!(" The operator reports {}: {}", ready.reason, ready.message));
        let field = |name: &str| {
            let of = |object: &Value| object["stream"][name].as_str().map(str::to_owned);
            of(status).or_else(|| of(spec))
        };
        let arn: Option<StreamArn> = field("arn").and_then(|arn| arn.parse().ok());
        let service = field("service").and_then(|service| serde_json::from_value(service.into()).ok());
        let named = match &arn {
            Some(arn) => Self::unmanaged(arn),
            None => Self {
                service,
                region: field("region"),
                account: field("account"),
                name: field("name").unwrap_or_default(),
                ..Self::default()
            },
        };
        Self {
            namespace: found.namespace.clone(),
            resource: found.name.clone(),
            ready: ready.map_or(ConditionStatus::Unknown.as_str(), |ready| status_word(&ready.status)),
            reconciling: is_true(ConditionType::Reconciling),
            stalled: is_true(ConditionType::Stalled),
            reason: Some(UNREADABLE.to_owned()),
            message: Some(format!(
                "This version of the plugin cannot read the resource: {}. If the operator is newer, update the plugin; otherwise, correct the resource.{}",
                unreadable.error,
                reported.unwrap_or_default()
            )),
            ..named
        }
    }

    fn empty(namespace: &str, resource: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            resource: resource.to_owned(),
            ready: ConditionStatus::Unknown.as_str(),
            ..Self::default()
        }
    }

    fn of_resource(found: &Found, resource: &StreamEncryption) -> Self {
        let mut entry = Self {
            suspended: is_suspended(resource),
            final_status: is_deleted_without_disabling(resource),
            ..Self::empty(&found.namespace, &found.name)
        };
        entry.set_stream(resource);
        let Some(status) = &resource.status else { return entry };
        let condition = |kind| find(&status.conditions, kind);
        let is_true = |condition: &Condition| condition.status == ConditionStatus::True.as_str();
        let is_false = |condition: &Condition| condition.status == ConditionStatus::False.as_str();
        if let Some(ready) = condition(ConditionType::Ready) {
            entry.ready = status_word(&ready.status);
            entry.reason = Some(ready.reason.clone());
            entry.message = Some(ready.message.clone());
        }
        entry.reconciling = !entry.final_status && condition(ConditionType::Reconciling).is_some_and(is_true);
        entry.stalled = condition(ConditionType::Stalled).is_some_and(is_true);
        let is_seen = status.observed_generation.is_some_and(|seen| seen != UNSEEN);
        let is_of_earlier = is_seen && status.observed_generation != resource.metadata.generation;
        // A deletion, too, changes the generation.
        entry.outdated = is_of_earlier && !entry.final_status;
        if entry.outdated {
            entry.ready = ConditionStatus::Unknown.as_str();
        }
        if let Some(caveat) = entry.caveat(resource.metadata.deletion_timestamp.is_some()) {
            let message = entry.message.unwrap_or_default();
            entry.message = Some(format!("{caveat}{message}"));
        }
        entry.key_usable = condition(ConditionType::KeyUsable).map(|usable| status_word(&usable.status));
        entry.state = state(status);
        entry.encrypted_is_false = condition(ConditionType::Encrypted).is_some_and(is_false);
        entry.encryption_status = status.encryption_status;
        entry.active_key = status.active_key.as_ref().map(key);
        entry.desired_key = status.desired_key.as_ref().map(key);
        let time = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
            time.as_ref().map(|time| time.0)
        };
        entry.encrypted_since_time = time(&status.encrypted_since_time);
        entry.plaintext_since_time = time(&status.plaintext_since_time);
        entry.active_key_unusable_since_time = time(&status.active_key_unusable_since_time);
        entry.last_describe_time = time(&status.last_describe_time);
        entry.verified_time = time(&status.verified_time);
        entry.next_attempt_time = time(&status.next_attempt_time);
        if let Some(calls) = &status.calls {
            entry.calls_used = Some(calls.used);
            entry.calls_external = calls.external;
            entry.calls_limit = Some(calls.limit);
            entry.calls_next_available_time = time(&calls.next_available_time);
        }
        entry
    }

    /// Returns the words before the message of a status that is outdated or final; `None` for any other status.
    fn caveat(&self, is_deleted: bool) -> Option<&'static str> {
        if self.final_status {
            return Some("The resource is being deleted; its status no longer changes. The last status: ");
        }
        self.outdated.then_some(if is_deleted {
            "The resource is being deleted, and the operator has not reconciled the deletion yet. Until then, the status is the earlier one: "
        } else {
            "The spec has changed, and the operator has not reconciled it yet. Until then, the status is that of the earlier spec: "
        })
    }

    /// Sets which stream it is: by the status or, before the first reconcile, by the spec.
    fn set_stream(&mut self, resource: &StreamEncryption) {
        let asked = &resource.spec.stream;
        let resolved = resource.status.as_ref().and_then(|status| status.stream.as_ref());
        self.stream = resolved.and_then(|stream| stream.arn.clone()).or_else(|| asked.arn.clone());
        let parsed: Option<StreamArn> = self.stream.as_ref().and_then(|arn| arn.parse().ok());
        let parsed = parsed.as_ref();
        self.service = resolved.map(|one| one.service).or(asked.service).or(parsed.map(|arn| arn.service));
        self.region = resolved
            .map(|one| one.region.clone())
            .or_else(|| parsed.map(|arn| arn.region.to_string()))
            .or_else(|| asked.region.clone());
        self.account = resolved
            .and_then(|one| one.account.clone())
            .or_else(|| parsed.map(|arn| arn.account.to_string()));
        self.name = resolved
            .map(|one| one.name.clone())
            .or_else(|| parsed.map(|arn| arn.name().to_owned()))
            .or_else(|| asked.name.clone())
            .unwrap_or_default();
        self.source = resolved.and_then(|one| one.source.clone());
    }

    /// Describes a stream of AWS that no `StreamEncryption` manages.
    pub(super) fn unmanaged(arn: &StreamArn) -> Self {
        Self {
            stream: Some(arn.to_string()),
            service: Some(arn.service),
            account: Some(arn.account.to_string()),
            region: Some(arn.region.to_string()),
            name: arn.name().to_owned(),
            ..Self::empty("", "")
        }
    }

    /// Describes the same stream after the resource was deleted: nobody reports its state any more.
    pub(super) fn deleted(self) -> Self {
        Self {
            stream: self.stream,
            service: self.service,
            account: self.account,
            region: self.region,
            name: self.name,
            reason: Some(DELETED.to_owned()),
            message: Some(
                "The StreamEncryption was deleted. With -l, it may have lost these labels instead."
                    .to_owned(),
            ),
            ..Self::empty(&self.namespace, &self.resource)
        }
    }

    /// Sets the stream of a resource that names it by service and name.
    pub(super) fn set_arn(&mut self, arn: &StreamArn) {
        let named = Self::unmanaged(arn);
        self.stream = named.stream;
        self.account = named.account;
        self.region = named.region;
    }

    /// Returns whether this program cannot read the resource.
    pub(super) fn is_unreadable(&self) -> bool {
        self.reason.as_deref() == Some(UNREADABLE)
    }

    /// Returns whether the operator has reconciled the resource with its present spec, or has nothing left to reconcile.
    pub(super) fn is_reconciled(&self) -> bool {
        self.final_status || (self.reason.is_some() && !self.outdated)
    }

    /// Returns whether the operator leaves the stream alone because of the policies, so that nobody may be managing it.
    pub(super) fn is_denied(&self) -> bool {
        let reason = self.reason.as_ref().and_then(|reason| reason.parse::<Reason>().ok());
        reason.is_some_and(|reason| matches!(reason, Reason::NotPermitted | Reason::ConflictingPolicyRoles))
    }

    /// Returns the calls left of the stream's 24 hours; `None` if they are not known.
    pub(super) fn calls_left(&self) -> Option<u32> {
        Some(self.calls_limit?.saturating_sub(self.calls_used?))
    }

    /// Returns whether the stream has what somebody looks for.
    pub(super) fn has(&self, finding: Finding) -> bool {
        match finding {
            Finding::Plaintext => self.plaintext_since_time.is_some() || self.state == State::Plaintext,
            Finding::NotReady => self.ready != ConditionStatus::True.as_str(),
            Finding::Stalled => self.stalled,
            Finding::Reconciling => self.reconciling || !self.is_reconciled(),
            Finding::Changing => matches!(
                self.encryption_status,
                Some(EncryptionStatus::Enabling | EncryptionStatus::Disabling)
            ),
            Finding::Unknown => self.state == State::Unknown,
            Finding::Stale => self.stale,
            Finding::KeyUnusable => self.key_usable == Some(ConditionStatus::False.as_str()),
            Finding::ActiveKeyUnusable => self.active_key_unusable_since_time.is_some(),
            Finding::Budget => self.calls_left().is_some_and(|left| left <= FEW_CALLS),
            Finding::Suspended => self.suspended,
            Finding::Attention => {
                let needs_person = |reason: &str| match reason.parse::<Reason>() {
                    Ok(reason) => reason.remedy() == Remedy::Person,
                    // Only a newer operator knows what resolves it.
                    Err(()) => self.has(Finding::NotReady),
                };
                self.stalled || self.is_unreadable() || self.reason.as_deref().is_some_and(needs_person)
            }
        }
    }
}

/// Returns whether records are encrypted, by the condition that says so.
fn state(status: &StreamEncryptionStatus) -> State {
    let reason = |kind| find(&status.conditions, kind).map(|condition| condition.reason.as_str());
    if reason(ConditionType::Ready) == Some(Reason::SourceNotDirectPut.as_str()) {
        return State::NotEncryptable;
    }
    let encrypted = find(&status.conditions, ConditionType::Encrypted).map(|one| status_word(&one.status));
    let is_changing = |change| status.encryption_status == Some(change);
    match encrypted {
        _ if status.observed_generation == Some(UNSEEN) => State::Unknown,
        Some("True") if is_changing(EncryptionStatus::Disabling) => State::Changing,
        Some("True") => State::Encrypted,
        Some("False") if is_changing(EncryptionStatus::Enabling) => State::Changing,
        Some("False") => State::Plaintext,
        // With `DisableNotPermitted`, the stream is not described any more: it was in plaintext, and may still be.
        _ if status.plaintext_since_time.is_some() => State::Plaintext,
        _ => State::Unknown,
    }
}

fn status_word(status: &str) -> &'static str {
    match status {
        "True" => ConditionStatus::True.as_str(),
        "False" => ConditionStatus::False.as_str(),
        _ => ConditionStatus::Unknown.as_str(),
    }
}

/// Returns the ARN of a key. Without an ARN, returns the type: the status has no ARN for a key of AWS, and for a
/// customer managed key that no policy allows the namespace to use.
pub(super) fn key(identity: &KeyIdentity) -> String {
    let kind = match identity.kind {
        KeyType::AwsOwned => AWS_OWNED,
        KeyType::CustomerManaged => CUSTOMER_MANAGED,
    };
    identity.arn.clone().unwrap_or_else(|| kind.to_owned())
}

#[cfg(test)]
mod tests;
