//! The recordings of Amazon Data Firehose.

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulated_aws::world::{CreationFailure, NeverEncryptedShows, Snapshot, Source, StreamKey, StreamStatus};
use simulated_aws::{Fault, PlantedKey, PlantedStream, Rule, Settings};

use super::Recordings;
use super::scene::{KEY, KEY_ID, Scene};

pub(super) async fn encryption_changes(recordings: &mut Recordings) {
    let scene = Scene::new().await;
    let (enabling, disabling) = (Settings::default().enabling, Settings::default().disabling);
    let minute_and_a_half = SignedDuration::from_secs(90);
    for time in [enabling, disabling] {
        assert!((SignedDuration::from_secs(15)..=minute_and_a_half).contains(&time), "{time:#}");
    }
    recordings.compare("firehose-never-encrypted", &scene.description().await);
    recordings.compare("firehose-put-record-plain", &scene.firehose("PutRecord", &Value::Null).await);

    let own = json!({"KeyType": "AWS_OWNED_CMK"});
    scene.firehose("StartDeliveryStreamEncryption", &own).await.assert_accepted();
    scene.wait(enabling);
    recordings.compare("firehose-enabled-aws-owned", &scene.description().await);
    let customer = json!({"KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": KEY});
    scene.firehose("StartDeliveryStreamEncryption", &customer).await.assert_accepted();
    recordings.compare("firehose-enabling-customer", &scene.description().await);
    scene.wait(enabling);
    recordings.compare("firehose-enabled-customer", &scene.description().await);

    scene.firehose("StopDeliveryStreamEncryption", &Value::Null).await.assert_accepted();
    let in_use = scene.firehose("DeleteDeliveryStream", &Value::Null).await.body;
    assert_eq!(in_use["message"], "Cannot delete firehose orders when encryption is in DISABLING status");
    scene.wait(disabling);
    recordings.compare("firehose-disabled-after-stop", &scene.description().await);
    scene.firehose("DeleteDeliveryStream", &Value::Null).await.assert_accepted();
    recordings.compare("firehose-deleting", &scene.description().await);
    scene.wait(Settings::default().deleting);
    recordings.compare("firehose-not-found", &scene.description().await);
}

pub(super) async fn unencryptable_and_old_streams(recordings: &mut Recordings) {
    let scene = Scene::new().await;
    let source = Source::KinesisStreamAsSource;
    scene.world().plant_stream(PlantedStream { source, ..PlantedStream::default() });
    recordings.compare("firehose-kinesis-source", &scene.description().await);
    let put = scene.firehose("PutRecord", &Value::Null).await;
    recordings.compare("firehose-put-record-kinesis-source", &put);

    let failure = CreationFailure {
        failure_type: "CREATE_PRIVATE_LINK_FAILED".to_owned(),
        details: "AWS Firehose is not authorized to perform kafka:CreateVpcConnection on resource arn:aws:iam::111122223333:role/cluster".to_owned(),
    };
    scene.world().plant_stream(PlantedStream {
        source: Source::MSKAsSource,
        state: Snapshot { status: StreamStatus::CreatingFailed, ..Snapshot::default() },
        creation_failure: Some(failure),
        ..PlantedStream::default()
    });
    recordings.compare("firehose-creating-failed-msk", &scene.description().await);

    for (never_encrypted_shows, recording) in [
        (NeverEncryptedShows::NoBlock, "firehose-no-block-2018"),
        (NeverEncryptedShows::NeitherBlockNorType, "firehose-no-block-no-type-2016"),
    ] {
        scene.world().plant_stream(PlantedStream { never_encrypted_shows, ..PlantedStream::default() });
        recordings.compare(recording, &scene.description().await);
    }
}

pub(super) async fn refused_requests(recordings: &mut Recordings) {
    let scene = Scene::with(Settings::default()).await;
    scene.world().script(Rule::once(Fault::Throttle));
    recordings.compare("firehose-throttled", &scene.description().await);
    for _ in 0..5 {
        recordings.compare("firehose-never-encrypted", &scene.description().await);
    }
    recordings.compare("firehose-throttled-5-rps", &scene.description().await);
    scene.wait(SignedDuration::from_secs(1));
    scene.world().script(Rule::once(Fault::InvalidToken));
    recordings.compare("firehose-token-invalid", &scene.description().await);

    let statements = json!([
        {"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"},
        {"Effect": "Deny", "Principal": "*", "Action": "kms:GenerateDataKey", "Resource": "*"},
    ]);
    let policy = Some(json!({ "Version": "2012-10-17", "Statement": statements }));
    scene.world().plant_key(PlantedKey { id: KEY_ID.to_owned(), policy, ..PlantedKey::default() });
    let state = Snapshot::enabled(StreamKey::arn(KEY));
    scene.world().plant_stream(PlantedStream { state, ..PlantedStream::default() });
    let mut refused = scene.firehose("PutRecord", &Value::Null).await;
    // The API has this member. Whether it came with the answer was not recorded.
    let code = refused.body.as_object_mut().and_then(|body| body.remove("code"));
    assert_eq!(code, Some(json!("AccessDeniedException")));
    recordings.compare("firehose-put-record-key-refused", &refused);
}
