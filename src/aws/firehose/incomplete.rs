//! Descriptions in which Firehose leaves out a member that the SDK requires.
//!
//! The SDK rejects a response without `DeliveryStreamType` (as Firehose returned it in 2016) or without
//! `DeliveryStreamStatus`. This file parses the members of such a response that the operator needs; the
//! missing member stays missing.

use aws_sdk_firehose::config::http::HttpResponse;
use aws_sdk_firehose::error::SdkError;
use aws_sdk_firehose::primitives::DateTime;
use aws_sdk_firehose::types::{
    DeliveryStreamDescription, DeliveryStreamEncryptionConfiguration, FailureDescription,
};
use serde_json::Value;

use super::super::error::MISSING_VALUE;

/// Returns the description in a response that the SDK could not parse, if it lacks `DeliveryStreamStatus`
/// or `DeliveryStreamType`.
pub(super) fn description<E>(error: &SdkError<E, HttpResponse>) -> Option<DeliveryStreamDescription> {
    let response = error.raw_response().filter(|response| response.status().as_u16() == 200)?;
    let body: Value = serde_json::from_slice(response.body().bytes()?).ok()?;
    let description = body.get("DeliveryStreamDescription")?;
    let status = text(description, "DeliveryStreamStatus");
    let source = text(description, "DeliveryStreamType");
    if status.is_some() && source.is_some() {
        return None;
    }
    let created = description.get("CreateTimestamp").and_then(Value::as_f64);
    DeliveryStreamDescription::builder()
        .delivery_stream_name(text(description, "DeliveryStreamName")?)
        .delivery_stream_arn(text(description, "DeliveryStreamARN")?)
        .delivery_stream_status(status.unwrap_or(MISSING_VALUE).into())
        .delivery_stream_type(source.unwrap_or(MISSING_VALUE).into())
        .set_create_timestamp(created.map(DateTime::from_secs_f64))
        .set_delivery_stream_encryption_configuration(
            description.get("DeliveryStreamEncryptionConfiguration").map(encryption),
        )
        .set_failure_description(failure(description))
        .version_id("")
        .set_destinations(Some(Vec::new()))
        .has_more_destinations(false)
        .build()
        .ok()
}

fn encryption(block: &Value) -> DeliveryStreamEncryptionConfiguration {
    DeliveryStreamEncryptionConfiguration::builder()
        .set_status(text(block, "Status").map(Into::into))
        .set_key_type(text(block, "KeyType").map(Into::into))
        .set_key_arn(text(block, "KeyARN").map(ToOwned::to_owned))
        .set_failure_description(failure(block))
        .build()
}

fn failure(of: &Value) -> Option<FailureDescription> {
    let failure = of.get("FailureDescription")?;
    FailureDescription::builder()
        .r#type(text(failure, "Type")?.into())
        .details(text(failure, "Details").unwrap_or_default())
        .build()
        .ok()
}

fn text<'a>(of: &'a Value, member: &str) -> Option<&'a str> {
    of.get(member)?.as_str()
}
