//! Recorded responses of the real AWS, and the operator's interpretation of them.
//!
//! `tests/aws/recorded` contains responses that others recorded and published, one file each. `operation` is
//! the recorded operation, `replayedAs` are the operations for which the response is replayed here, and
//! `means` is the expected interpretation. `built` marks a response that was assembled from recorded parts.
//! Every response passes through the real SDKs and adapters.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Value, json};
use stream_encryption_api::ledger::Action;
use stream_encryption_core::controller::stream_api::{Priority, StreamApi};
use stream_encryption_core::model::arn::{KmsKeyId, StreamArn};
use stream_encryption_core::model::aws_error::{Accepted, AwsError};
use stream_encryption_core::model::key::{Key, KeyMetadata};
use stream_encryption_core::model::observation::{Observation, StreamDescription};

use super::Aws;
use super::rate_limit::RateLimiter;
use super::replay::{ReplayClient, signer, somebody};

const CLICKS: &str = "arn:aws:kinesis:us-east-1:111122223333:stream/clicks";
const ORDERS: &str = "arn:aws:firehose:us-east-1:111122223333:deliverystream/orders";
const KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
/// Maximum number of times that a read is sent.
const READS: usize = 3;

/// Returns every recording by its name.
fn recordings() -> BTreeMap<String, Value> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/aws/recorded");
    let files = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: &Path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    files.map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), read(&path))).collect()
}

fn text<'a>(of: &'a Value, member: &str) -> &'a str {
    of[member].as_str().unwrap_or_else(|| panic!("no {member} in {of}"))
}

/// Returns the response as sent over the wire.
fn answer(recording: &Value) -> (u16, String) {
    let status = u16::try_from(recording["status"].as_u64().unwrap()).unwrap();
    let body = &recording["body"];
    let body = match (text(recording, "operation"), body) {
        ("GetCallerIdentity", _) => format!(
            "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>{}</Arn><UserId>{}</UserId>\
             <Account>{}</Account></GetCallerIdentityResult></GetCallerIdentityResponse>",
            text(body, "Arn"),
            text(body, "UserId"),
            text(body, "Account"),
        ),
        (_, Value::String(raw)) => raw.clone(),
        (_, body) => body.to_string(),
    };
    (status, body)
}

/// Returns the operator's AWS over recorded responses.
fn aws(recorded: &ReplayClient) -> Aws {
    let region = "us-east-1".parse().unwrap();
    Aws::from_config(recorded.config(), region, RateLimiter::new(80), Arc::new(SystemTime::now))
}

fn observation_of(
    stream: &StreamArn,
    description: Result<Option<StreamDescription>, AwsError>,
) -> Result<Value, AwsError> {
    let observation = match Observation::of(stream, description?.as_ref()) {
        Observation::On(Key::AwsOwned) => "On AWS_OWNED_CMK".to_owned(),
        Observation::On(Key::Customer(arn)) => format!("On {arn}"),
        Observation::InProgress(None) => "Changing".to_owned(),
        Observation::InProgress(Some(Action::Start)) => "Changing Start".to_owned(),
        Observation::InProgress(Some(Action::Stop)) => "Changing Stop".to_owned(),
        Observation::NotOperational(word) => format!("Broken {word}"),
        Observation::NotEncryptable(source) => format!("NotEncryptable {source}"),
        other => format!("{other:?}"),
    };
    Ok(json!({ "observation": observation }))
}

fn described(metadata: Option<KeyMetadata>) -> Value {
    let metadata = metadata.map(|metadata| {
        assert_eq!(metadata.arn.to_string(), KEY);
        json!({
            "state": format!("{:?}", metadata.state), "symmetric": metadata.symmetric,
            "encrypts": metadata.encrypts, "awsManaged": metadata.aws_managed,
        })
    });
    json!({ "key": metadata })
}

/// Returns the operator's interpretation of the response to `operation`, in the format of the recordings.
async fn understood(aws: &Aws, recording: &str, operation: &str) -> Value {
    let (clicks, orders) = (CLICKS.parse().unwrap(), ORDERS.parse().unwrap());
    let of_kinesis = recording.starts_with("kinesis");
    let (stream, principal, now) =
        (if of_kinesis { &clicks } else { &orders }, somebody(), Timestamp::UNIX_EPOCH);
    let accepted = |_: Accepted| json!({"outcome": "Accepted"});
    let answer = match operation {
        "DescribeDeliveryStream" | "DescribeStreamSummary" => {
            observation_of(stream, aws.describe_stream(stream, &principal, Priority::Drift).await.map(|seen| seen.map(|(description, _)| description)))
        }
        "StartStreamEncryption" => aws.start(stream, &Key::AwsOwned, &principal, &signer(), now).await.map(accepted),
        "StopStreamEncryption" => aws.stop(stream, Some(&Key::AwsOwned), &principal, &signer(), now).await.map(accepted),
        "PutRecord" => {
            aws.put_record(stream, "marked", &principal, &signer()).await.map(|encrypted| json!({ "encrypted": encrypted }))
        }
        "DescribeKey" => {
            aws.describe_key(stream, &KmsKeyId::Arn(KEY.parse().unwrap()), &principal, Priority::Drift).await.map(described)
        }
        "GetCallerIdentity" => aws.identity().await.map(|identity| {
            json!({"account": identity.account.to_string(), "partition": identity.partition.to_string()})
        }),
        other => panic!("{recording}: nothing is asked of AWS by {other}"),
    };
    answer.unwrap_or_else(
        |error| json!({"kind": format!("{:?}", error.kind), "reason": error.kind.reason().to_string()}),
    )
}

#[tokio::test(start_paused = true)]
async fn recorded_responses_are_interpreted_as_expected() {
    let recordings = recordings();
    let answers = recordings.iter().filter(|(_, recording)| recording.get("body").is_some());
    let mut replayed = 0;
    for (name, recording) in answers {
        let recorded_operation = json!([recording["operation"]]);
        let operations = recording.get("replayedAs").unwrap_or(&recorded_operation).as_array().unwrap();
        let then = recording.get("then").map(|then| answer(&recordings[then.as_str().unwrap()]));
        for operation in operations {
            let first = answer(recording);
            // A throttled read is repeated.
            let repeated = if then.is_none() { READS - 1 } else { 0 };
            let repeated = (0..repeated).map(|_| first.clone());
            let answers = [first.clone()].into_iter().chain(then.clone()).chain(repeated);
            let aws = aws(&ReplayClient::answers(answers));
            let means = understood(&aws, name, operation.as_str().unwrap()).await;
            assert_eq!(means, recording["means"], "{name} as the answer of {operation}");
            replayed += 1;
        }
    }
    assert!(replayed > recordings.len(), "{replayed} answers of {} recordings", recordings.len());
}

#[tokio::test(start_paused = true)]
async fn kinesis_start_matches_the_recorded_request() {
    let request = &recordings()["kinesis-start-request"]["means"]["request"];
    let recorded = ReplayClient::answers([(200, "")]);
    let principal = somebody();
    aws(&recorded)
        .start(&CLICKS.parse().unwrap(), &Key::AwsOwned, &principal, &signer(), Timestamp::UNIX_EPOCH)
        .await
        .unwrap();
    let [sent] = recorded.sent().try_into().unwrap();
    // CloudTrail writes the members of a request with a lower-case first letter.
    let expected = json!({
        "EncryptionType": request["encryptionType"], "KeyId": request["keyId"], "StreamARN": request["streamARN"],
    });
    assert_eq!(sent.body, expected);
}
