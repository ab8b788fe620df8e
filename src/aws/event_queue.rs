//! The SQS queue through which AWS's events arrive
//! ([ReceiveMessage](https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html)).
//!
//! Receives messages by long polling, and deletes those that the caller has finished with. It does not interpret
//! them. A message that is not deleted is delivered again after the visibility timeout of the queue.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{Builder, Region as SdkRegion};
use aws_sdk_sqs::types::{BatchResultErrorEntry, DeleteMessageBatchRequestEntry, QueueAttributeName};
use stream_encryption_core::model::arn::Region;
use stream_encryption_core::model::aws_error::AwsError;
use stream_encryption_core::model::service::Operation;

use super::error::{answered, aws_error};
use super::signed_request_sender::SignedRequestSender;

/// The longest time that SQS waits for a message, in seconds.
const LONG_POLL_SECONDS: i32 = 20;
/// The largest number of messages in one request.
const MAX_MESSAGES: usize = 10;
/// Deadline of a request that waits for messages.
const RECEIVE_DEADLINE: Duration = Duration::from_secs(30);

/// The error of a text that is not the URL of a queue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid queue URL {0:?}: expected https://sqs.REGION.amazonaws.com/ACCOUNT/NAME")]
pub struct InvalidQueueUrl(String);

/// The URL of a queue, and the region in which the queue lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueUrl {
    url: String,
    region: Option<Region>,
    /// The scheme and host of the URL; `None` for the host of SQS in the region, which the SDK uses by itself.
    endpoint: Option<String>,
}

impl std::str::FromStr for QueueUrl {
    type Err = InvalidQueueUrl;

    fn from_str(text: &str) -> Result<Self, InvalidQueueUrl> {
        let invalid = || InvalidQueueUrl(text.to_owned());
        let rest =
            text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or_else(invalid)?;
        let mut parts = rest.split('/');
        let (host, account, name) = (parts.next(), parts.next(), parts.next());
        let is_account =
            account.is_some_and(|account| account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit()));
        let is_name = name.is_some_and(|name| {
            (1..=80).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        });
        if host.is_none_or(str::is_empty) || !is_account || !is_name || parts.next().is_some() {
            return Err(invalid());
        }
        // sqs.REGION.…, sqs-fips.REGION.…, vpce-….sqs.REGION.vpce.…
        let host = host.unwrap_or_default();
        let mut labels = host.split('.');
        let region = labels.find(|label| matches!(*label, "sqs" | "sqs-fips")).and_then(|_| labels.next());
        let of_former_host = region_of_former_host(host);
        let region: Option<Region> = of_former_host.or(region).and_then(|region| region.parse().ok());
        let is_standard = of_former_host.is_some()
            || region.as_ref().is_some_and(|region| {
                ["amazonaws.com", "amazonaws.com.cn"]
                    .iter()
                    .any(|suffix| host == format!("sqs.{region}.{suffix}"))
            });
        let endpoint = text.split_once(host).map(|(scheme, _)| format!("{scheme}{host}"));
        Ok(Self { url: text.to_owned(), region, endpoint: endpoint.filter(|_| !is_standard) })
    }
}

/// Returns the region of a host that SQS had before: `REGION.queue.amazonaws.com`, or `queue.amazonaws.com` for
/// us-east-1. Old tools still print such URLs.
fn region_of_former_host(host: &str) -> Option<&str> {
    let rest = host.strip_suffix(".cn").unwrap_or(host).strip_suffix("queue.amazonaws.com")?;
    if rest.is_empty() {
        Some("us-east-1")
    } else {
        rest.strip_suffix('.').filter(|region| !region.contains('.'))
    }
}

impl std::fmt::Display for QueueUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url)
    }
}

/// A message as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The content.
    pub body: String,
    /// The handle with which the message is deleted. It becomes invalid when the message is received again.
    pub receipt: String,
}

/// The counts of a queue, and who may send to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueState {
    /// The number of messages that wait.
    pub waiting: Option<u64>,
    /// The number of messages that were received and not deleted yet.
    pub received: Option<u64>,
    /// The policy of the queue, as JSON; `None` if it has none.
    pub policy: Option<String>,
    /// The time until a message that was not deleted is delivered again, in seconds.
    pub visibility_timeout: Option<u64>,
}

/// A client of one queue, with the operator's own credentials.
#[derive(Clone)]
pub struct EventQueue {
    client: Client,
    sender: SignedRequestSender,
    url: String,
}

impl EventQueue {
    /// Creates a client that sends its requests to the host of the queue's URL. The endpoint of `config` and those of
    /// the environment (`AWS_ENDPOINT_URL` and `AWS_ENDPOINT_URL_SQS`) precede this host. So do the endpoints of FIPS
    /// and dual-stack mode: the SDK accepts no other endpoint in these modes. `region` is that of a queue whose URL
    /// names none.
    pub(super) fn new(
        config: &SdkConfig,
        sender: SignedRequestSender,
        queue: &QueueUrl,
        region: &Region,
    ) -> Self {
        let region = SdkRegion::new(queue.region.as_ref().unwrap_or(region).as_str().to_owned());
        let has_endpoint = config.endpoint_url().is_some()
            || config.use_fips() == Some(true)
            || config.use_dual_stack() == Some(true);
        let mut config = config.clone().into_builder();
        if let Some(endpoint) = queue.endpoint.as_ref().filter(|_| !has_endpoint) {
            // The endpoint of the service in the environment precedes this one.
            config = config.endpoint_url(endpoint);
        }
        let client = Client::from_conf(Builder::from(&config.build()).region(region).build());
        Self { client, sender, url: queue.url.clone() }
    }

    /// Receives up to 10 messages; none, if none arrives within 20 seconds.
    pub async fn receive(&self) -> Result<Vec<Message>, AwsError> {
        let operation = Operation::ReceiveMessage;
        let count = i32::try_from(MAX_MESSAGES).unwrap_or(1);
        let request = self.client.receive_message().queue_url(&self.url);
        let request = request.max_number_of_messages(count).wait_time_seconds(LONG_POLL_SECONDS);
        let deadlines = TimeoutConfig::builder()
            .operation_attempt_timeout(RECEIVE_DEADLINE)
            .operation_timeout(RECEIVE_DEADLINE)
            .build();
        let answer = self
            .sender
            .send_without_permit(operation, async |session| {
                let overrides = Builder::default().credentials_provider(session.credentials);
                let request = request.customize().config_override(overrides.timeout_config(deadlines));
                request.send().await.map_err(|error| aws_error(operation, &error))
            })
            .await?;
        let message = |message: aws_sdk_sqs::types::Message| {
            Some(Message { body: message.body?, receipt: message.receipt_handle? })
        };
        Ok(answer.messages.unwrap_or_default().into_iter().filter_map(message).collect())
    }

    /// Deletes messages by their receipts, up to 10 in one request. Returns one error for each request in which SQS does not
    /// delete all messages. If SQS deletes only some of them, the next request follows. If a request fails as a whole, this
    /// request is the last one. SQS delivers a message again that it does not delete.
    pub async fn delete(&self, receipts: &[String]) -> Vec<AwsError> {
        let mut errors = Vec::new();
        for batch in receipts.chunks(MAX_MESSAGES) {
            match self.delete_batch(batch).await {
                Ok(undeleted) => errors.extend(undeleted),
                Err(error) => {
                    errors.push(error);
                    break;
                }
            }
        }
        errors
    }

    /// Deletes messages in one request. Returns the error of the first message that SQS does not delete; `None` if SQS
    /// deletes all of them.
    async fn delete_batch(&self, receipts: &[String]) -> Result<Option<AwsError>, AwsError> {
        let operation = Operation::DeleteMessage;
        let entries = receipts.iter().zip(0..).filter_map(|(receipt, number): (_, usize)| {
            DeleteMessageBatchRequestEntry::builder()
                .id(number.to_string())
                .receipt_handle(receipt)
                .build()
                .ok()
        });
        let request = self.client.delete_message_batch().queue_url(&self.url);
        let request = request.set_entries(Some(entries.collect()));
        let answer = self
            .sender
            .send_without_permit(operation, async |session| {
                let overrides = Builder::default().credentials_provider(session.credentials);
                let request = request.customize().config_override(overrides);
                request.send().await.map_err(|error| aws_error(operation, &error))
            })
            .await?;
        Ok(answer.failed.first().map(|failed| entry_error(operation, failed)))
    }

    /// Returns the state of the queue.
    pub async fn state(&self) -> Result<QueueState, AwsError> {
        let operation = Operation::GetQueueAttributes;
        let request = self.client.get_queue_attributes().queue_url(&self.url);
        let request = request.attribute_names(QueueAttributeName::All);
        let answer = self
            .sender
            .send_without_permit(operation, async |session| {
                let overrides = Builder::default().credentials_provider(session.credentials);
                let request = request.customize().config_override(overrides);
                request.send().await.map_err(|error| aws_error(operation, &error))
            })
            .await?;
        let attributes = answer.attributes.unwrap_or_default();
        let number = |name| attributes.get(&name).and_then(|text: &String| text.parse().ok());
        Ok(QueueState {
            waiting: number(QueueAttributeName::ApproximateNumberOfMessages),
            received: number(QueueAttributeName::ApproximateNumberOfMessagesNotVisible),
            visibility_timeout: number(QueueAttributeName::VisibilityTimeout),
            policy: attributes.get(&QueueAttributeName::Policy).cloned(),
        })
    }
}

/// Converts the error of one entry of a batch. The response to the batch has the status of a success.
fn entry_error(operation: Operation, entry: &BatchResultErrorEntry) -> AwsError {
    let http = if entry.sender_fault { 400 } else { 500 };
    answered(operation, Some(&entry.code), None, entry.message().unwrap_or_default(), http)
}

#[cfg(test)]
mod tests;
