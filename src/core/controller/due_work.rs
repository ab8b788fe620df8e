//! What a due resource waits for: the limit of AWS that its Describe needs, and how urgent that is.
//!
//! Reads the resource and the memory; sends no request. A wrong result costs only time: the reconcile itself decides what it
//! needs, and waits for AWS's limits in any case.

use stream_encryption_api::condition::{ConditionType, DescribePurpose, Reason, find};
use stream_encryption_api::stream_encryption::{Service, StreamEncryption};

use super::annotations::retry_token;
use super::context::Context;
use super::memory::LastOutcome;
use crate::model::arn::{Account, Region, StreamArn};
use crate::work_queue::{Lane, Work};

/// The AWS limit for which a due resource waits. Resources with the same limit form one scope of the work queue,
/// which limits how many of them are reconciled at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AwsLimit {
    /// Nothing of AWS: the last description still suffices, or the resource is invalid.
    NoRequest,
    /// The limit of the Describes of a service in an account and region. `None` stands for the account of the
    /// operator, in which streams without an ARN lie.
    Describe(Service, Option<Account>, Region),
}

/// Returns the scope, the [`Lane`] and the namespace of a due resource.
pub fn due_work<A, R>(context: &Context<A, R>, resource: &StreamEncryption) -> Work<AwsLimit> {
    let namespace = resource.metadata.namespace.clone().unwrap_or_default();
    let (has_description, last) = context.memory.scheduling_state(resource, context.clock.now());
    let is_noticed = context.memory.events.is_noticed(resource);
    if has_description && !is_noticed {
        // This reconcile sends AWS no request. In a scope of its own, it need not wait behind reconciles that do.
        return Work { scope: AwsLimit::NoRequest, lane: Lane::Changed, namespace };
    }
    let scope = describe_limit(resource, &context.config.region).unwrap_or(AwsLimit::NoRequest);
    let lane = match lane(resource, last) {
        Lane::Changed => Lane::Changed,
        // Without the event, nothing of AWS would be due.
        _ if has_description => Lane::Event,
        Lane::Drift if is_noticed => Lane::Event,
        lane => lane,
    };
    Work { scope, lane, namespace }
}

/// Returns the lane of a resource that needs a Describe.
pub(super) fn lane(resource: &StreamEncryption, last: LastOutcome) -> Lane {
    let Some(status) = &resource.status else { return Lane::Changed };
    let is_handled = status.observed_generation == resource.metadata.generation
        && status.last_handled_retry == retry_token(resource);
    if !is_handled || last.is_interrupted {
        return Lane::Changed;
    }
    if resource.metadata.deletion_timestamp.is_some() {
        return Lane::InProgress;
    }
    // A process that has just started continues with what the status reports.
    let reported = || find(&status.conditions, ConditionType::Ready)?.reason.parse().ok();
    match last.reason.or_else(reported).map(Reason::describe_purpose) {
        Some(DescribePurpose::Drift) => Lane::Drift,
        Some(DescribePurpose::Change) => Lane::InProgress,
        Some(DescribePurpose::Absent) | None => Lane::Changed,
    }
}

/// Returns the limit that the Describe of the resource's stream needs; `None` if the spec is invalid.
fn describe_limit(resource: &StreamEncryption, own_region: &Region) -> Option<AwsLimit> {
    let stream = &resource.spec.stream;
    let of = |arn: StreamArn| AwsLimit::Describe(arn.service, Some(arn.account), arn.region);
    if let Some(arn) = &stream.arn {
        return arn.parse().ok().map(of);
    }
    let (service, name) = (stream.service?, stream.name.as_deref()?);
    let region = stream.region.as_deref().map_or(Ok(own_region.clone()), str::parse).ok()?;
    let reported = || resource.status.as_ref()?.stream.as_ref()?.arn.as_ref()?.parse::<StreamArn>().ok();
    let is_same = |arn: &StreamArn| arn.service == service && arn.region == region && arn.name() == name;
    Some(reported().filter(is_same).map_or(AwsLimit::Describe(service, None, region), of))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ARN: &str = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders";

    fn resource(stream: &Value, status: &Value) -> StreamEncryption {
        serde_json::from_value(json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": {"name": "orders", "namespace": "data", "generation": 2},
            "spec": {"stream": stream}, "status": status,
        }))
        .unwrap()
    }

    fn status(reason: &str) -> Value {
        let ready = json!({
            "type": "Ready", "status": "True", "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        json!({"observedGeneration": 2, "conditions": [ready]})
    }

    fn lane_of(resource: &StreamEncryption, reason: Option<Reason>) -> Lane {
        lane(resource, LastOutcome { reason, is_interrupted: false })
    }

    #[test]
    fn lane_follows_the_reason() {
        let reported = |reason| resource(&json!({"arn": ARN}), &status(reason));
        for (reason, lane) in [
            ("Encrypted", Lane::Drift),
            ("StreamNotFound", Lane::Drift),
            ("Enabling", Lane::InProgress),
            ("NotPermitted", Lane::Changed),
            ("unknown", Lane::Changed),
        ] {
            assert_eq!(lane_of(&reported(reason), None), lane, "{reason}");
        }
        assert_eq!(lane_of(&reported("Encrypted"), Some(Reason::Enabling)), Lane::InProgress);
        assert_eq!(lane_of(&resource(&json!({"arn": ARN}), &Value::Null), None), Lane::Changed);
    }

    #[test]
    fn request_of_a_user_is_no_drift_check() {
        let encrypted = resource(&json!({"arn": ARN}), &status("Encrypted"));
        let mut changed = encrypted.clone();
        changed.metadata.generation = Some(3);
        let mut retried = encrypted.clone();
        let retry = (stream_encryption_api::RETRY_ANNOTATION.to_owned(), "1".to_owned());
        retried.metadata.annotations = Some([retry].into());
        let mut deleted = encrypted.clone();
        deleted.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        for resource in [changed, retried] {
            assert_eq!(lane_of(&resource, Some(Reason::Encrypted)), Lane::Changed);
        }
        // The deletion has increased the generation, so this one was described since.
        assert_eq!(lane_of(&deleted, Some(Reason::DisablingFailed)), Lane::InProgress);
        let interrupted = LastOutcome { reason: Some(Reason::Encrypted), is_interrupted: true };
        assert_eq!(lane(&encrypted, interrupted), Lane::Changed);
    }

    #[test]
    fn scope_is_the_account_and_region_of_the_stream() {
        let own_region = "eu-west-2".parse().unwrap();
        let of = |stream: &Value, status: &Value| describe_limit(&resource(stream, status), &own_region);
        let describe = |account: Option<&str>, region: &str| {
            let account = account.map(|account| account.parse().unwrap());
            Some(AwsLimit::Describe(Service::Firehose, account, region.parse().unwrap()))
        };
        let account = Some("111122223333");
        assert_eq!(of(&json!({"arn": ARN}), &Value::Null), describe(account, "eu-west-1"));
        let named = json!({"service": "Firehose", "name": "orders"});
        assert_eq!(of(&named, &Value::Null), describe(None, "eu-west-2"));
        let stream = json!({"arn": ARN.replace("eu-west-1", "eu-west-2"), "service": "Firehose", "account": "111122223333", "region": "eu-west-2", "name": "orders"});
        assert_eq!(of(&named, &json!({"stream": stream})), describe(account, "eu-west-2"));
        let elsewhere = json!({"service": "Firehose", "name": "orders", "region": "eu-west-3"});
        assert_eq!(
            of(&elsewhere, &json!({"stream": stream})),
            describe(None, "eu-west-3"),
            "the spec has changed"
        );
        assert_eq!(of(&json!({"arn": "orders"}), &Value::Null), None);
    }
}
