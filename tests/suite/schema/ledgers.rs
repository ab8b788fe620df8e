//! Validation of the operator's own ledgers.

use super::{LEDGERS, Refused, Taken, change, client, create, disagreement, judge_objects};
use serde_json::{Value, json};

const ORDERS: &str = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders";

fn call(number: usize) -> Value {
    json!({
        "id": number.to_string(), "target": {"action": "Stop"},
        "time": "2026-01-01T00:00:00.000000Z", "outcome": "Accepted",
    })
}

fn ledger(name: &str, calls: usize) -> Value {
    json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamLedger", "metadata": {"name": name},
        "spec": {
            "streamARN": ORDERS,
            "owner": {"namespace": "data", "name": "orders", "uid": "1"},
            "calls": (0..calls).map(call).collect::<Vec<_>>(),
        },
    })
}

#[tokio::test]
async fn ledger_stream_is_immutable() {
    let client = client().await;
    create(&client, LEDGERS, &ledger("one-stream", 1), false).await.unwrap();
    for (sentence, spec, verdict) in [
        (
            "another stream",
            json!({"streamARN": ORDERS.replace("orders", "clicks")}),
            Refused("streamARN is immutable"),
        ),
        ("no stream", json!({"streamARN": null}), Refused("spec.streamARN: Required value")),
        ("another owner", json!({"owner": {"uid": "2"}}), Taken),
        ("another call", json!({"calls": [call(1), call(2)]}), Taken),
    ] {
        let answer = change(&client, LEDGERS, "one-stream", &json!({"spec": spec})).await;
        assert_eq!(disagreement(sentence, verdict, &answer), None);
    }
}

#[tokio::test]
async fn ledger_holds_at_most_256_valid_calls() {
    let with = |field: &str, value: Value| {
        let mut ledger = ledger("judged", 1);
        ledger["spec"]["calls"][0][field] = value;
        ledger
    };
    judge_objects(
        LEDGERS,
        [
            ("256 calls", ledger("judged", 256), Taken),
            (
                "257 calls",
                ledger("judged", 257),
                Refused("spec.calls: Too many: 257: must have at most 256 items"),
            ),
            (
                "an outcome that is none",
                with("outcome", json!("Perhaps")),
                Refused(r#"supported values: "Pending", "Accepted", "Refused", "Unknown""#),
            ),
            (
                "an action that is none",
                with("target", json!({"action": "Pause"})),
                Refused(r#"supported values: "Start", "Stop""#),
            ),
            ("a time that is none", with("time", json!("yesterday")), Refused("spec.calls[0].time")),
            (
                "a field that does not exist",
                with("note", json!("x")),
                Refused(r#"unknown field "spec.calls[0].note""#),
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn call_time_keeps_microseconds() {
    let client = client().await;
    let mut object = ledger("judged", 1);
    object["spec"]["calls"][0]["time"] = json!("2026-01-01T00:00:00.123456Z");
    let stored = create(&client, LEDGERS, &object, true).await.unwrap();
    assert_eq!(stored["spec"]["calls"], object["spec"]["calls"]);
}
