//! The recordings about credentials, permissions and keys, of all services.

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::{Snapshot, StreamKey};
use simulated_aws::{Fault, PlantedKey, PlantedStream, Rule};

use super::Recordings;
use super::scene::{KEY, KEY_ID, Scene, clicks};

pub(super) async fn credentials(recordings: &mut Recordings) {
    let mut scene = Scene::new().await;
    scene.assume("operator");
    recordings.compare("sts-caller-identity", &scene.identity().await);
    scene.wait(SignedDuration::from_hours(1));
    recordings.compare("kinesis-token-expired", &scene.summary().await);
    scene.world().script(Rule::once(Fault::InvalidToken));
    recordings.compare("kinesis-token-invalid", &scene.summary().await);
}

pub(super) async fn missing_permissions(recordings: &mut Recordings) {
    let mut scene = Scene::new().await;
    scene.assume("operator");
    scene.world().script(Rule::once(Fault::DeniedBySessionPolicy));
    recordings.compare("kinesis-denied-by-session-policy", &scene.summary().await);
    // A missing stream is denied too.
    scene.world().remove_stream(super::scene::CLICKS);
    scene.world().script(Rule::once(Fault::DeniedBySessionPolicy));
    recordings.compare("kinesis-denied-by-session-policy", &scene.summary().await);
    recordings.compare("kinesis-not-found", &scene.summary().await);
    // The recording does not depend on how the request names the key.
    for name in [KEY, KEY_ID] {
        scene.world().script(Rule::once(Fault::AccessDenied));
        recordings.compare("kms-denied", &scene.key(name).await);
    }

    // The caller may describe the key, but not use it.
    scene.assume("writer");
    let statement =
        json!({"Effect": "Allow", "Principal": "*", "Action": "kms:DescribeKey", "Resource": "*"});
    let policy = Some(json!({ "Version": "2012-10-17", "Statement": [statement] }));
    scene.world().plant_key(PlantedKey { id: KEY_ID.to_owned(), policy, ..PlantedKey::default() });
    let state = Snapshot::enabled(StreamKey::arn(KEY));
    scene.world().plant_stream(PlantedStream { state, ..clicks() });
    recordings.compare("kinesis-put-record-key-denied", &scene.kinesis("PutRecord").await);
}

pub(super) async fn descriptions_of_keys(recordings: &mut Recordings) {
    let scene = Scene::new().await;
    scene.kinesis("StartStreamEncryption").await.assert_accepted();
    let own = scene.key("alias/aws/kinesis").await;
    // AWS chooses the id.
    let id = own.body["KeyMetadata"]["KeyId"].as_str().expect("an id").to_owned();
    assert_ne!(id, KEY_ID);
    recordings.compare("kms-aws-managed-kinesis", &own.renamed(&id, KEY_ID));

    let planted = PlantedKey { id: KEY_ID.to_owned(), spec: String::new(), ..PlantedKey::default() };
    scene.world().plant_key(planted);
    recordings.compare("kms-customer-no-spec-2017", &scene.key(KEY).await);
    recordings.compare("kms-invalid-key-id", &scene.key("fake-key-id").await);
    scene.world().remove_key(KEY);
    recordings.compare("kms-no-such-key", &scene.key(KEY).await);
}
