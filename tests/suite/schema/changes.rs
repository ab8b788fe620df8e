//! Changes to an existing resource, and the defaults that the API server writes.

use super::{ENCRYPTIONS, Refused, Taken, change, client, create, disagreement, encryption};
use serde_json::json;

use crate::harness;

const NOT_CHANGED: &str = "stream is immutable; create a new StreamEncryption instead";
const ORDERS: &str = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders";

#[tokio::test]
async fn only_stream_is_immutable() {
    let client = client().await;
    let by_arn = encryption("changed-by-arn", &json!({"stream": {"arn": ORDERS}}));
    let by_name = encryption("changed-by-name", &json!({"stream": {"service": "Kinesis", "name": "orders"}}));
    for object in [&by_arn, &by_name] {
        create(&client, ENCRYPTIONS, object, false).await.unwrap();
    }
    let other = ORDERS.replace("orders", "clicks");
    let key = |alias: &str| json!({"key": {"type": "CUSTOMER_MANAGED_CMK", "alias": alias}});
    let mut wrong = Vec::new();
    for (sentence, name, spec, verdict) in [
        ("another ARN", "changed-by-arn", json!({"stream": {"arn": other}}), Refused(NOT_CHANGED)),
        ("the same ARN", "changed-by-arn", json!({"stream": {"arn": ORDERS}}), Taken),
        (
            "from ARN to name",
            "changed-by-arn",
            json!({"stream": {"arn": null, "service": "Kinesis", "name": "orders"}}),
            Refused(NOT_CHANGED),
        ),
        ("another name", "changed-by-name", json!({"stream": {"name": "clicks"}}), Refused(NOT_CHANGED)),
        (
            "another service",
            "changed-by-name",
            json!({"stream": {"service": "Firehose"}}),
            Refused(NOT_CHANGED),
        ),
        (
            "a region added",
            "changed-by-name",
            json!({"stream": {"region": "eu-west-1"}}),
            Refused(NOT_CHANGED),
        ),
        (
            "from name to ARN",
            "changed-by-name",
            json!({"stream": {"arn": ORDERS, "service": null, "name": null}}),
            Refused(NOT_CHANGED),
        ),
        (
            "the stream taken away",
            "changed-by-name",
            json!({"stream": null}),
            Refused("spec.stream: Required value"),
        ),
        ("a key", "changed-by-name", key("alias/orders"), Taken),
        ("another key", "changed-by-name", key("alias/clicks"), Taken),
        (
            "the AWS-owned key",
            "changed-by-name",
            json!({"key": {"type": "AWS_OWNED_CMK", "alias": null}}),
            Taken,
        ),
        ("no key", "changed-by-name", json!({"key": null}), Taken),
        ("turned off", "changed-by-name", json!({"encryption": "Disabled"}), Taken),
        (
            "the rest",
            "changed-by-name",
            json!({"mode": "Observe", "suspend": true, "verification": "PutRecord"}),
            Taken,
        ),
    ] {
        let answer = change(&client, ENCRYPTIONS, name, &json!({"spec": spec})).await;
        wrong.extend(disagreement(sentence, verdict, &answer));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn short_resource_is_stored_with_defaults() {
    let client = client().await;
    let stored =
        create(&client, ENCRYPTIONS, &encryption("short", &json!({"stream": {"arn": ORDERS}})), true)
            .await
            .unwrap();
    let expected = json!({
        "stream": {"arn": ORDERS}, "encryption": "Enabled", "mode": "Enforce", "deletionPolicy": "Retain",
        "verification": "None",
    });
    assert_eq!(stored["spec"], expected);
    assert_eq!(stored["status"], json!({"observedGeneration": -1}), "otherwise kstatus would report Current");
}

#[tokio::test]
async fn complete_spec_is_stored_unchanged() {
    let client = client().await;
    let spec = json!({
        "stream": {"service": "Firehose", "name": "orders", "region": "eu-west-1"},
        "key": {
            "type": "CUSTOMER_MANAGED_CMK",
            "objectRef": {"group": "kms.services.k8s.aws", "kind": "Key", "name": "orders"},
        },
        "encryption": "Enabled", "mode": "Enforce", "deletionPolicy": "Disable", "suspend": false,
        "verification": "None",
    });
    let stored = create(&client, ENCRYPTIONS, &encryption("long", &spec), true).await.unwrap();
    assert_eq!(stored["spec"], spec);
}

#[tokio::test]
async fn status_in_a_created_resource_is_ignored() {
    let client = client().await;
    let mut object = encryption("forged", &json!({"stream": {"arn": ORDERS}}));
    object["status"] = json!({"encryptionStatus": "ENABLED"});
    let stored = create(&client, ENCRYPTIONS, &object, true).await.unwrap();
    assert_eq!(
        stored["status"],
        json!({"observedGeneration": -1}),
        "the given status is ignored, and the default is stored"
    );
}

#[tokio::test]
async fn kubectl_diff_is_empty_after_apply() {
    let cluster = harness::cluster().await;
    for (name, how) in [("applied", &[][..]), ("applied-by-server", &["--server-side"])] {
        let yaml = serde_json::to_string(&encryption(name, &json!({"stream": {"arn": ORDERS}}))).unwrap();
        let kubectl = |command| [&[command, "-f", "-"][..], how].concat();
        cluster.kubectl_with_input(&kubectl("apply"), &yaml).await.unwrap();
        // kubectl fails if there is a difference.
        assert_eq!(cluster.kubectl_with_input(&kubectl("diff"), &yaml).await.unwrap(), "");
    }
}
