//! The recordings of Kinesis Data Streams, except those about credentials and permissions.

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulated_aws::{Fault, Rule, Service, Settings};

use super::Recordings;
use super::scene::{CLICKS, KEY, KEY_ID, Scene};

pub(super) async fn encryption_changes(recordings: &mut Recordings) {
    let scene = Scene::new().await;
    let updating = Settings::default().updating;
    let recorded_times = SignedDuration::from_secs(3)..=SignedDuration::from_secs(5);
    assert!(recorded_times.contains(&updating), "{updating:#}");
    recordings.compare("kinesis-plaintext", &scene.summary().await);
    recordings.compare("kinesis-plaintext-null-key", &scene.summary().await);
    recordings.compare("kinesis-put-record-plain", &scene.kinesis("PutRecord").await);
    recordings.compare("kinesis-stop-of-plaintext", &scene.kinesis("StopStreamEncryption").await);

    start_as_logged(recordings, &scene).await;
    recordings.compare("kinesis-updating-after-start", &scene.summary().await);
    recordings.compare("kinesis-in-use-updating", &scene.kinesis("StartStreamEncryption").await);
    scene.wait(updating);
    recordings.compare("kinesis-encrypted-aws-managed", &scene.summary().await);
    recordings.compare("kinesis-encrypted-2022", &scene.summary().await);
    // A Start with the active key is accepted, and the stream becomes UPDATING again.
    scene.kinesis("StartStreamEncryption").await.assert_accepted();
    recordings.compare("kinesis-updating-after-stop", &scene.summary().await);
    scene.wait(updating + Settings::default().settle);
    recordings.compare("kinesis-put-record-encrypted", &scene.kinesis("PutRecord").await);

    scene.kinesis("StopStreamEncryption").await.assert_accepted();
    recordings.compare("kinesis-updating-after-stop", &scene.summary().await);
    scene.wait(updating);
    recordings.compare("kinesis-plaintext-after-stop", &scene.summary().await);
    recordings.compare("kinesis-stop-of-plaintext", &scene.kinesis("StopStreamEncryption").await);
}

/// Sends the Start that `CloudTrail` logged. The simulated AWS accepts it and logs the same.
async fn start_as_logged(recordings: &mut Recordings, scene: &Scene) {
    let parameters = recordings.get("kinesis-start-request")["event"]["requestParameters"].clone();
    let body = json!({
        "StreamARN": parameters["streamARN"], "EncryptionType": parameters["encryptionType"],
        "KeyId": parameters["keyId"],
    });
    let answer = scene.call(Service::Kinesis, "StartStreamEncryption", &body).await;
    recordings.compare("kinesis-start-accepted", &answer);
    let call = scene.world().calls().last().cloned().expect("logged");
    assert!(call.executed, "{call:?}");
    let arn = format!("arn:aws:{}:{}:{}:stream/{}", call.service, call.region, call.account, call.target);
    let response = if answer.body == "" { Value::Null } else { answer.body };
    let event = json!({
        "eventSource": format!("{}.amazonaws.com", call.service),
        "eventName": call.operation,
        "requestParameters": {"encryptionType": body["EncryptionType"], "keyId": call.key, "streamARN": arn},
        "responseElements": response,
        "readOnly": !call.changes_encryption(),
        "resources": [{"accountId": call.account, "type": "AWS::Kinesis::Stream", "ARN": arn}],
    });
    recordings.compare_event("kinesis-start-request", &event);
}

pub(super) async fn creation_and_deletion(recordings: &mut Recordings) {
    let scene = Scene::new().await;
    scene.kinesis("DeleteStream").await.assert_accepted();
    recordings.compare("kinesis-deleting", &scene.summary().await);
    scene.wait(Settings::default().deleting);
    recordings.compare("kinesis-not-found", &scene.summary().await);
    scene.kinesis("CreateStream").await.assert_accepted();
    recordings.compare("kinesis-creating", &scene.summary().await);
    // The recorded operation is also allowed while UPDATING; a Start is not, and its answer says so.
    let answer =
        scene.kinesis("StartStreamEncryption").await.renamed("not ACTIVE,", "not ACTIVE or UPDATING,");
    recordings.compare("kinesis-in-use-creating", &answer);
}

/// Kinesis shows the key as the Start named it.
pub(super) async fn names_of_keys(recordings: &mut Recordings) {
    let scene = Scene::new().await;
    for (id, recording) in [(KEY, "kinesis-encrypted-key-arn"), (KEY_ID, "kinesis-encrypted-key-id")] {
        scene.kinesis_with("StartStreamEncryption", &json!({ "KeyId": id })).await.assert_accepted();
        scene.wait(Settings::default().updating);
        recordings.compare(recording, &scene.summary().await);
    }
}

/// AWS shows the old mode until the switch is done, and allows two switches a day.
pub(super) async fn mode_switches(recordings: &mut Recordings) {
    let scene = Scene::new().await;
    let switch = async |mode: &str| {
        let body = json!({ "StreamARN": CLICKS, "StreamModeDetails": {"StreamMode": mode} });
        scene.call(Service::Kinesis, "UpdateStreamMode", &body).await
    };
    switch("ON_DEMAND").await.assert_accepted();
    scene.wait(Settings::default().updating);
    recordings.compare("kinesis-on-demand", &scene.summary().await);
    switch("PROVISIONED").await.assert_accepted();
    recordings.compare("kinesis-updating-mode", &scene.summary().await);
    scene.wait(Settings::default().updating);
    recordings.compare("kinesis-plaintext", &scene.summary().await);
    recordings.compare("kinesis-quota-of-a-day", &switch("ON_DEMAND").await);
}

pub(super) async fn refused_requests(recordings: &mut Recordings) {
    let scene = Scene::new().await;
    let arn = "arn:aws:kinesis:us-west-2:111122223333:stream/clicks";
    let elsewhere = scene.call(Service::Kinesis, "DescribeStreamSummary", &json!({ "StreamARN": arn })).await;
    recordings.compare("kinesis-arn-of-another-region", &elsewhere);
    let invalid = scene.kinesis_with("StartStreamEncryption", &json!({ "EncryptionType": "INVALID" })).await;
    recordings.compare("kinesis-validation", &invalid);
    scene.world().script(Rule::once(Fault::Throttle));
    recordings.compare("kinesis-rate-of-the-account", &scene.summary().await);
    for _ in 0..Settings::default().call_limit {
        scene.kinesis("StartStreamEncryption").await.assert_accepted();
        scene.wait(Settings::default().updating);
    }
    recordings.compare("kinesis-quota-of-a-day", &scene.kinesis("StartStreamEncryption").await);
}
