//! One journey for each service, from plaintext to the end of encryption: the operator's reconcile function on a
//! real API server, with the real SDKs over HTTP. The tables of `src/core/model` and the simulation cover everything
//! that can happen on the way.

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulated_aws::world::{FailureType, Fault, PlantedStream, Rule, Service, Settings};
use stream_encryption_api::condition::ConditionType;
use stream_encryption_api::stream_encryption::EncryptionStatus::{
    Disabling, Enabled, Enabling, EnablingFailed,
};
use stream_encryption_api::stream_encryption::KeyType;

use crate::harness::{Harness, firehose, kinesis, truth};

/// A service, and its names.
struct Journey {
    service: Service,
    arn: String,
    describe: &'static str,
    start: &'static str,
    stop: &'static str,
    /// The spec's name of the stream.
    stream: Value,
}

#[tokio::test]
async fn firehose_stream_is_managed_from_plaintext_to_deletion() {
    travel(Journey {
        service: Service::Firehose,
        arn: firehose("orders"),
        describe: "DescribeDeliveryStream",
        start: "StartDeliveryStreamEncryption",
        stop: "StopDeliveryStreamEncryption",
        stream: json!({"service": "Firehose", "name": "orders"}),
    })
    .await;
}

#[tokio::test]
async fn kinesis_stream_is_managed_from_plaintext_to_deletion() {
    travel(Journey {
        service: Service::Kinesis,
        arn: kinesis("orders"),
        describe: "DescribeStreamSummary",
        start: "StartStreamEncryption",
        stop: "StopStreamEncryption",
        stream: json!({"service": "Kinesis", "name": "orders"}),
    })
    .await;
}

async fn travel(Journey { service, arn, describe, start, stop, stream }: Journey) {
    let five = SignedDuration::from_secs(5);
    let harness =
        Harness::start(Settings { enabling: five, disabling: five, updating: five, ..Settings::default() })
            .await;
    harness.aws.world().plant_stream(PlantedStream { service, ..PlantedStream::default() });
    let spec = |more: Value| {
        let mut spec = json!({"stream": stream});
        spec.as_object_mut().expect("a spec").extend(more.as_object().expect("fields").clone());
        spec
    };
    let starts = || harness.calls(start, "orders");
    let active_key = async || harness.status("orders").await.active_key.expect("a key");

    // Enabled with the AWS-owned key.
    harness.apply("orders", &spec(json!({}))).await;
    let words = harness.until_it_says("orders", "Encrypted").await;
    let words: Vec<_> = words.iter().map(|(status, reason)| (*status, reason.as_str())).collect();
    let wanted = [(Some(Enabling), "Enabling"), (Some(Enabled), "Settling"), (Some(Enabled), "Encrypted")];
    assert_eq!(words, wanted);
    let looks = harness.calls(describe, "orders");
    assert!(looks <= 4, "{looks} Describe requests");
    let status = harness.status("orders").await;
    assert_eq!((starts(), status.calls.expect("the budget").used), (1, 1));
    assert_eq!((status.observed_generation, status.plaintext_since_time), (Some(1), None));
    assert_eq!(status.active_key.expect("a key").kind, KeyType::AwsOwned);
    let events = harness.events("orders").await;
    assert!(events.contains("Enabling") && events.contains("Encrypted"), "{events:?}");

    // Verified by a test record, once.
    harness.apply("orders", &spec(json!({"verification": "PutRecord"}))).await;
    harness.until("orders", |status| status.verified_time.is_some()).await;
    let records = harness.calls("PutRecord", "orders");
    harness.let_pass("orders", SignedDuration::from_hours(2)).await;
    assert_eq!(harness.calls("PutRecord", "orders"), records);

    // Re-keyed by an alias, and again when the alias is moved.
    let (old, new) = (harness.plant_key(), harness.plant_key());
    harness.aws.world().plant_alias("alias/orders", &old);
    let by_alias = json!({"key": {"type": "CUSTOMER_MANAGED_CMK", "alias": "alias/orders"}});
    harness.apply("orders", &spec(by_alias)).await;
    harness.until_it_says("orders", "Encrypted").await;
    harness.aws.world().plant_alias("alias/orders", &new);
    harness.until_it_says("orders", "Enabling").await;
    let status = harness.status("orders").await;
    assert_eq!(status.desired_key.clone().expect("a key").arn, Some(new.clone()));
    assert_eq!(active_key().await.arn, Some(old.clone()));
    assert_eq!(truth(&status, ConditionType::Encrypted), "True", "with the old key");
    harness.until_it_says("orders", "Encrypted").await;
    let previous = harness.status("orders").await.previous_key.expect("the old key");
    assert_eq!((active_key().await.arn, previous.arn), (Some(new.clone()), old.clone()));
    assert!(
        previous.required_until_time.0.duration_since(harness.aws.now()) > SignedDuration::from_hours(23)
    );
    assert_eq!(starts(), 3);

    // Turned off by somebody else, and corrected.
    harness.turned_off_by_another(&arn);
    harness.until_it_says("orders", "Enabling").await;
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(starts(), 4);
    assert!(harness.events("orders").await.contains("DriftCorrected"));

    // A re-key that fails is repeated at once when the user asks for it.
    let failing = Fault::FailsLater { failure: FailureType::KmsAccessDenied };
    harness.aws.world().script(Rule::once(failing).on(start));
    let by_arn = json!({"key": {"type": "CUSTOMER_MANAGED_CMK", "arn": old}});
    harness.apply("orders", &spec(by_arn.clone())).await;
    harness.until_it_says("orders", "EnablingFailed").await;
    let status = harness.status("orders").await;
    assert_eq!((status.encryption_status, active_key().await.arn), (Some(EnablingFailed), Some(new)));
    assert_eq!(truth(&status, ConditionType::Encrypted), "True");
    assert!(status.next_attempt_time.is_some());
    let failed_at = harness.aws.now();
    harness.kubectl(&["annotate", "strenc", "orders", "streamencryption.dev/retry=monday"]).await;
    harness.until_it_says("orders", "Encrypted").await;
    let took = harness.aws.now().duration_since(failed_at);
    assert!(took < SignedDuration::from_mins(1), "it waited for the backoff: {took:#}");
    assert_eq!((starts(), active_key().await.arn), (6, Some(old)));
    assert_eq!(harness.status("orders").await.last_handled_retry.as_deref(), Some("monday"));

    // A retry without an effect is reported, too.
    harness
        .kubectl(&["annotate", "strenc", "orders", "--overwrite", "streamencryption.dev/retry=tuesday"])
        .await;
    harness.let_pass("orders", SignedDuration::from_mins(1)).await;
    assert_eq!(harness.status("orders").await.last_handled_retry.as_deref(), Some("tuesday"));
    assert!(harness.events("orders").await.contains("RetryHandled"));

    // Deleted: the stream stays as it is, and so does the ledger.
    assert_eq!(harness.resource("orders").await.expect("the resource").metadata.finalizers, None);
    harness.kubectl(&["delete", "strenc", "orders"]).await;
    assert!(harness.resource("orders").await.is_none());
    assert_eq!((harness.calls(stop, "orders"), harness.reserved(&arn).await), (0, 6));

    // Created again and disabled.
    harness.apply("orders", &spec(json!({"encryption": "Disabled"}))).await;
    let words = harness.until_it_says("orders", "EncryptionDisabled").await;
    assert!(words.contains(&(Some(Disabling), "Disabling".to_owned())), "{words:?}");
    assert_eq!((starts(), harness.calls(stop, "orders")), (6, 1));

    // Deleted while it is being enabled: disabled first, within two minutes.
    harness.apply("orders", &spec(json!({"deletionPolicy": "Disable"}))).await;
    harness.until_it_says("orders", "Enabling").await;
    harness.kubectl(&["delete", "strenc", "orders", "--wait=false"]).await;
    let deleted = harness.aws.now();
    while harness.resource("orders").await.is_some() {
        let wake = harness.visit("orders").await.expect("a reconcile");
        let took = harness.aws.now().duration_since(deleted);
        assert!(took <= SignedDuration::from_mins(2), "{took:#}");
        harness.aws.advance(wake.duration_since(harness.aws.now()).max(SignedDuration::from_millis(1)));
    }
    assert_eq!((starts(), harness.calls(stop, "orders")), (7, 2));
}
