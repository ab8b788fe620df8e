//! The parts of the wire format that only SQS has: AWS JSON 1.0, error codes of the older query protocol, and
//! URLs of queues.
//!
//! Pure translation. It must never decide an answer.

use serde_json::{Value, json};

use crate::world::AwsError;

pub(super) const JSON: &str = "application/x-amz-json-1.0";

/// Returns the body of an error; its `__type` has a namespace.
pub(super) fn error(error: &AwsError) -> String {
    let common = matches!(
        error.code.as_str(),
        "AccessDeniedException" | "InvalidParameterValueException" | "MissingRequiredParameterException"
    );
    let namespace = if common { "com.amazon.coral.service" } else { "com.amazonaws.sqs" };
    json!({ "__type": format!("{namespace}#{}", error.code), "message": error.message }).to_string()
}

/// Returns the header `x-amzn-query-error`: the code by which older clients know the error, and who caused
/// it.
pub(super) fn query_error(error: &AwsError) -> String {
    let code = match error.code.as_str() {
        "QueueDoesNotExist" => "AWS.SimpleQueueService.NonExistentQueue",
        "QueueNameExists" => "QueueAlreadyExists",
        "EmptyBatchRequest" => "AWS.SimpleQueueService.EmptyBatchRequest",
        "TooManyEntriesInBatchRequest" => "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
        "BatchEntryIdsNotDistinct" => "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
        "AccessDeniedException" => "AccessDenied",
        "InvalidParameterValueException" => "InvalidParameterValue",
        "MissingRequiredParameterException" => "MissingParameter",
        other => other,
    };
    let side = if error.status >= 500 { "Receiver" } else { "Sender" };
    format!("{code};{side}")
}

/// Returns an answer whose `QueueUrl` names this server instead of AWS.
pub(super) fn with_host(mut answer: Value, host: &str) -> Value {
    if let Some(url) = answer.get_mut("QueueUrl")
        && let Some((_, path)) = url.as_str().and_then(|url| url.split_once(".amazonaws.com/"))
    {
        *url = json!(format!("http://{host}/{path}"));
    }
    answer
}
