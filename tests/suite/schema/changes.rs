//! What may be changed of a resource that is there, and what the API server writes into it.

use super::{ENCRYPTIONS, Refused, Taken, change, client, create, disagreement, encryption};
use serde_json::json;

const NOT_CHANGED: &str =
    "stream cannot be changed: delete this resource and make another one for the other stream";
const ORDERS: &str = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders";

#[tokio::test]
async fn the_stream_stays_and_all_else_may_change() {
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
            json!({"drift": "Report", "suspend": true, "verify": {"putRecord": true}}),
            Taken,
        ),
    ] {
        let answer = change(&client, ENCRYPTIONS, name, &json!({"spec": spec})).await;
        wrong.extend(disagreement(sentence, verdict, &answer));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_short_resource_is_stored_with_its_three_defaults_and_nothing_else() {
    let client = client().await;
    let stored =
        create(&client, ENCRYPTIONS, &encryption("short", &json!({"stream": {"arn": ORDERS}})), true)
            .await
            .unwrap();
    let expected = json!({
        "stream": {"arn": ORDERS}, "encryption": "Enabled", "drift": "Correct", "deletionPolicy": "Retain",
    });
    assert_eq!(stored["spec"], expected);
    assert_eq!(stored["status"], json!({"observedGeneration": -1}), "or kstatus would call it done");
}

#[tokio::test]
async fn what_is_written_is_stored_as_it_is_written_so_that_gitops_sees_no_difference() {
    let client = client().await;
    let spec = json!({
        "stream": {"service": "Firehose", "name": "orders", "region": "eu-west-1"},
        "key": {
            "type": "CUSTOMER_MANAGED_CMK",
            "ref": {"apiVersion": "kms.services.k8s.aws/v1alpha1", "kind": "Key", "name": "orders"},
        },
        "encryption": "Enabled", "drift": "Correct", "deletionPolicy": "Disable", "suspend": false,
        "verify": {"putRecord": false},
    });
    let stored = create(&client, ENCRYPTIONS, &encryption("long", &spec), true).await.unwrap();
    assert_eq!(stored["spec"], spec);
}

#[tokio::test]
async fn a_user_who_writes_the_spec_cannot_write_the_status() {
    let client = client().await;
    let mut object = encryption("forged", &json!({"stream": {"arn": ORDERS}}));
    object["status"] = json!({"encryptionStatus": "ENABLED"});
    let stored = create(&client, ENCRYPTIONS, &object, true).await.unwrap();
    assert_eq!(
        stored["status"],
        json!({"observedGeneration": -1}),
        "nothing of it, but what every new one has"
    );
}

#[tokio::test]
async fn kubectl_sees_no_difference_between_what_was_applied_and_what_is_stored() {
    client().await;
    let cluster = test_cluster::shared().await.unwrap();
    for (name, how) in [("applied", &[][..]), ("applied-by-server", &["--server-side"])] {
        let yaml = serde_json::to_string(&encryption(name, &json!({"stream": {"arn": ORDERS}}))).unwrap();
        let kubectl = |command| [&[command, "-f", "-"][..], how].concat();
        cluster.kubectl_with_input(&kubectl("apply"), &yaml).await.unwrap();
        // It fails where there is a difference.
        assert_eq!(cluster.kubectl_with_input(&kubectl("diff"), &yaml).await.unwrap(), "");
    }
}
