//! The behaviour of every operation, through the port. Each file has one subject; here is what they share.

mod accounts;
mod attempts;
mod endpoints;
mod errors;
mod listing;
mod sessions;
mod signing;

use std::sync::atomic::{AtomicU64, Ordering};

use aws_credential_types::Credentials;
use aws_credential_types::credential_fn::provide_credentials_fn;
use aws_sdk_sts::config::SharedHttpClient;
use aws_smithy_async::time::TimeSource;
use aws_smithy_http_client::test_util::NeverClient;
use jiff::SignedDuration;
use serde_json::json;
use stream_encryption_core::model::arn::KeyArn;
use stream_encryption_core::model::aws_error::ErrorKind;
use stream_encryption_core::model::key::KeyProblem;
use stream_encryption_core::model::service::Operation as Op;
use tokio::time::Instant;

use super::super::replay::{ReplayClient, assuming, credentials, signer, somebody};
use super::*;

fn ours() -> AwsConfig {
    AwsConfig::of("eu-west-1".parse().unwrap())
}

fn ours_account() -> AwsAccount {
    AwsAccount::of(&stream(Service::Firehose))
}

fn customer() -> KeyArn {
    "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab".parse().unwrap()
}

fn stream(service: Service) -> StreamArn {
    let arn = match service {
        Service::Firehose => "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders",
        Service::Kinesis => "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks",
    };
    arn.parse().unwrap()
}

/// Returns AWS over `http_client`, configured as in production.
async fn aws(http_client: SharedHttpClient) -> Aws {
    let loader = loader(&ours()).credentials_provider(credentials()).http_client(http_client);
    Aws::from_config(
        loader.load().await,
        ours().region,
        RateLimiter::new(ours().rate_percent),
        Arc::new(SystemTime::now),
    )
}

/// Returns the signer of the next call for `principal`; if there are no credentials, any signer.
async fn signer_of(aws: &Aws, principal: &Principal) -> Signer {
    aws.sender
        .session(Op::GetCallerIdentity, principal)
        .await
        .map_or_else(|_| signer(), |session| session.signer())
}

/// Sends the operation, a call with the current signer. A missing stream or key counts as an error.
async fn ask(aws: &Aws, operation: Op) -> Result<(), AwsError> {
    let signer = if reads(operation) { signer() } else { signer_of(aws, &somebody()).await };
    ask_signed(aws, operation, &signer).await
}

/// Returns the queue of events.
fn events() -> QueueUrl {
    "https://sqs.eu-west-1.amazonaws.com/111122223333/events".parse().unwrap()
}

/// Sends the operation, a call after a Describe that `signer` signed.
async fn ask_signed(aws: &Aws, operation: Op, signer: &Signer) -> Result<(), AwsError> {
    let (firehose, kinesis) = (stream(Service::Firehose), stream(Service::Kinesis));
    let missing = || AwsError {
        operation,
        kind: ErrorKind::NotFound,
        code: None,
        message: String::new(),
        request_id: None,
    };
    let key = Key::Customer(customer());
    match operation {
        Op::DescribeDeliveryStream => {
            aws.describe_stream(&firehose, &somebody(), Priority::Drift).await?.map(drop).ok_or_else(missing)
        }
        Op::DescribeStreamSummary => {
            aws.describe_stream(&kinesis, &somebody(), Priority::Drift).await?.map(drop).ok_or_else(missing)
        }
        Op::DescribeKey => {
            let name = KmsKeyId::Arn(customer());
            aws.describe_key(&firehose, &name, &somebody(), Priority::Drift)
                .await?
                .map(drop)
                .ok_or_else(missing)
        }
        Op::StartDeliveryStreamEncryption => {
            aws.start(&firehose, &key, &somebody(), signer, Timestamp::UNIX_EPOCH).await.map(drop)
        }
        Op::StopDeliveryStreamEncryption => {
            aws.stop(&firehose, None, &somebody(), signer, Timestamp::UNIX_EPOCH).await.map(drop)
        }
        Op::StartStreamEncryption => {
            aws.start(&kinesis, &key, &somebody(), signer, Timestamp::UNIX_EPOCH).await.map(drop)
        }
        Op::StopStreamEncryption => {
            aws.stop(&kinesis, None, &somebody(), signer, Timestamp::UNIX_EPOCH).await.map(drop)
        }
        Op::PutFirehoseRecord => aws.put_record(&firehose, "marked", &somebody(), signer).await.map(drop),
        Op::PutKinesisRecord => aws.put_record(&kinesis, "marked", &somebody(), signer).await.map(drop),
        Op::ReceiveMessage => aws.event_queue(&events()).receive().await.map(drop),
        Op::DeleteMessage => {
            aws.event_queue(&events()).delete(&["receipt".to_owned()]).await.pop().map_or(Ok(()), Err)
        }
        Op::GetQueueAttributes => aws.event_queue(&events()).state().await.map(drop),
        Op::ListDeliveryStreams => {
            aws.list_streams(Service::Firehose, &ours_account(), &ours().region, &somebody()).await.map(drop)
        }
        Op::ListStreams => {
            aws.list_streams(Service::Kinesis, &ours_account(), &ours().region, &somebody()).await.map(drop)
        }
        Op::ListTagsForDeliveryStream => aws.list_tags(&firehose, &somebody()).await.map(drop),
        Op::ListTagsForStream => aws.list_tags(&kinesis, &somebody()).await.map(drop),
        Op::GetCallerIdentity => aws.identity().await.map(drop),
        Op::AssumeRole => {
            aws.describe_stream(&firehose, &assuming("orders"), Priority::Drift).await.map(drop)
        }
    }
}

/// Returns the error of the operation, and the number of requests that were sent while AWS kept returning
/// this response.
async fn error_of(operation: Op, status: u16, body: &str) -> (AwsError, usize) {
    let recorded = ReplayClient::answers((0..9).map(|_| (status, body)));
    let error = ask(&aws(recorded.http_client()).await, operation).await.unwrap_err();
    (error, recorded.sent().len())
}

fn reads(operation: Op) -> bool {
    matches!(
        operation,
        Op::DescribeDeliveryStream
            | Op::DescribeStreamSummary
            | Op::DescribeKey
            | Op::GetCallerIdentity
            | Op::AssumeRole
    ) || Op::LISTING.contains(&operation)
}

/// A clock of a test in minutes, for both the operator and the SDK.
#[derive(Clone, Debug, Default)]
struct Minutes(Arc<AtomicU64>);

impl Minutes {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl TimeSource for Minutes {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_683_200 + 60 * self.get())
    }
}
