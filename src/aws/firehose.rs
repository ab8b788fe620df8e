//! Firehose: its format of a stream's encryption, and its operations.
//!
//! Firehose identifies a stream by its name alone, in the caller's account. A description contains the ARN
//! that was found, and the caller must compare it with the expected ARN. This file decides nothing about
//! encryption.

mod incomplete;
mod listing;

use std::convert::Infallible;

use aws_config::SdkConfig;
use aws_sdk_firehose::Client;
use aws_sdk_firehose::config::{Builder, Region as SdkRegion};
use aws_sdk_firehose::primitives::Blob;
use aws_sdk_firehose::types::{
    DeliveryStreamDescription, DeliveryStreamEncryptionConfiguration,
    DeliveryStreamEncryptionConfigurationInput, FailureDescription, KeyType, Record,
};
use jiff::Timestamp;
use quick_cache::sync::Cache;
use stream_encryption_api::ledger::Action;
use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::controller::stream_api::{Priority, Signer};
use stream_encryption_core::model::arn::{Region, StreamArn};
use stream_encryption_core::model::aws_error::{Accepted, AwsError, ErrorKind, UNRESOLVED_KEY};
use stream_encryption_core::model::credentials::CredentialsProblem;
use stream_encryption_core::model::key::Key;
use stream_encryption_core::model::observation::{ReportedEncryption, StreamDescription, StreamState};
use stream_encryption_core::model::principal::Principal;
use stream_encryption_core::model::service::Operation;
use stream_encryption_core::model::service::profile;
use tracing::warn;

use super::bounded_cache;
use super::cached_credentials::Session;
use super::credentials::MAX_SESSION_AGE;
use super::error::{
    MAX_CODE_BYTES, MAX_MESSAGE_BYTES, accepted, aws_error, invalid_response, not_found_as_none, not_sent,
    present_value, truncate,
};
use super::rate_limit::QuotaScope;
use super::signed_request_sender::SignedRequestSender;
use super::timestamp::{fixed_time_source, timestamp};

/// The reason of a failure for which AWS reports none: AWS's own code for an unknown error.
const NO_REASON: &str = "UNKNOWN_ERROR";
/// Maximum number of cached clients; more than the regions of any partition of AWS.
const MAX_CLIENTS: usize = 64;

/// A client of Firehose for every region.
pub(super) struct Firehose {
    config: SdkConfig,
    sender: SignedRequestSender,
    clients: Cache<Region, Client>,
}

impl Firehose {
    /// Creates a client that is configured by `config`.
    pub(super) fn new(config: SdkConfig, sender: SignedRequestSender) -> Self {
        Self { config, sender, clients: bounded_cache::cache(MAX_CLIENTS) }
    }

    /// Sends `DescribeDeliveryStream`; returns `None` if the stream does not exist.
    pub(super) async fn describe_stream(
        &self,
        stream: &StreamArn,
        principal: &Principal,
        priority: Priority,
    ) -> Result<Option<(StreamDescription, Signer)>, AwsError> {
        let operation = Operation::DescribeDeliveryStream;
        let client = self.client(&stream.region);
        let request = client.describe_delivery_stream().delivery_stream_name(stream.name());
        let answer = self
            .sender
            .read(&QuotaScope::of(operation, stream), principal, priority, async |session| {
                let signer = session.signer();
                let overrides = Builder::default().credentials_provider(session.credentials);
                let request = request.clone().customize().config_override(overrides);
                let description = match request.send().await {
                    Ok(answer) => answer
                        .delivery_stream_description
                        .ok_or_else(|| invalid_response(operation, "DeliveryStreamDescription"))?,
                    Err(error) => {
                        incomplete::description(&error).ok_or_else(|| aws_error(operation, &error))?
                    }
                };
                Ok((description, signer))
            })
            .await;
        let Some((description, signer)) = not_found_as_none(operation, answer)? else { return Ok(None) };
        Ok(Some((parse_description(&description)?, signer)))
    }

    /// Sends `StartDeliveryStreamEncryption` once, without waiting for a permit, dated `signing_time`. A
    /// customer managed key requires a session that is not too old.
    pub(super) async fn start(
        &self,
        stream: &StreamArn,
        key: &Key,
        principal: &Principal,
        signer: &Signer,
        signing_time: Timestamp,
    ) -> Result<Accepted, AwsError> {
        let operation = Operation::StartDeliveryStreamEncryption;
        let input = encryption_input(key).ok_or_else(|| {
            not_sent(operation, ErrorKind::Invalid, UNRESOLVED_KEY, &format!("{key} is not the ARN of a key"))
        })?;
        let client = self.client(&stream.region);
        let request = client.start_delivery_stream_encryption().delivery_stream_name(stream.name());
        let request = request.delivery_stream_encryption_configuration_input(input);
        let answer = self
            .sender
            .send_now(&QuotaScope::of(operation, stream), principal, signer, async |session| {
                if matches!(key, Key::Customer(_)) {
                    refuse_old(operation, &session)?;
                }
                let overrides = Builder::default().credentials_provider(session.credentials);
                let request = request
                    .customize()
                    .config_override(overrides.time_source(fixed_time_source(signing_time)));
                request.send().await.map_err(|error| aws_error(operation, &error))
            })
            .await?;
        Ok(accepted(&answer))
    }

    /// Sends `StopDeliveryStreamEncryption` once, without waiting for a permit, dated `signing_time`.
    pub(super) async fn stop(
        &self,
        stream: &StreamArn,
        principal: &Principal,
        signer: &Signer,
        signing_time: Timestamp,
    ) -> Result<Accepted, AwsError> {
        let operation = Operation::StopDeliveryStreamEncryption;
        let client = self.client(&stream.region);
        let request = client.stop_delivery_stream_encryption().delivery_stream_name(stream.name());
        let answer = self
            .sender
            .send_now(&QuotaScope::of(operation, stream), principal, signer, async |session| {
                let overrides = Builder::default().credentials_provider(session.credentials);
                let request = request
                    .customize()
                    .config_override(overrides.time_source(fixed_time_source(signing_time)));
                request.send().await.map_err(|error| aws_error(operation, &error))
            })
            .await?;
        Ok(accepted(&answer))
    }

    /// Sends `PutRecord` once, and returns whether Firehose reports that the record was encrypted.
    pub(super) async fn put_record(
        &self,
        stream: &StreamArn,
        record: &str,
        principal: &Principal,
        signer: &Signer,
    ) -> Result<bool, AwsError> {
        let operation = Operation::PutFirehoseRecord;
        let record = Record::builder().data(Blob::new(record)).build();
        let record = record
            .map_err(|error| not_sent(operation, ErrorKind::Invalid, "InvalidRecord", &error.to_string()))?;
        let client = self.client(&stream.region);
        let request = client.put_record().delivery_stream_name(stream.name()).record(record);
        let answer = self
            .sender
            .send_now(&QuotaScope::of(operation, stream), principal, signer, async |session| {
                let overrides = Builder::default().credentials_provider(session.credentials);
                let request = request.customize().config_override(overrides);
                request.send().await.map_err(|error| aws_error(operation, &error))
            })
            .await?;
        Ok(answer.encrypted() == Some(true))
    }

    fn client(&self, region: &Region) -> Client {
        let Ok(client) = self.clients.get_or_insert_with(region, || {
            let region = SdkRegion::new(region.as_str().to_owned());
            Ok::<_, Infallible>(Client::from_conf(Builder::from(&self.config).region(region).build()))
        });
        client
    }
}

fn refuse_old(operation: Operation, session: &Session) -> Result<(), AwsError> {
    match session.age {
        Some(age) if age >= MAX_SESSION_AGE => {
            let message =
                format!("the AWS session is {} s old, which Firehose does not accept", age.as_secs());
            Err(not_sent(
                operation,
                ErrorKind::NoCredentials,
                CredentialsProblem::SessionTooOld.code(),
                &message,
            ))
        }
        _ => Ok(()),
    }
}

fn encryption_input(key: &Key) -> Option<DeliveryStreamEncryptionConfigurationInput> {
    let input = DeliveryStreamEncryptionConfigurationInput::builder();
    let input = match key {
        Key::AwsOwned => input.key_type(KeyType::AwsOwnedCmk),
        Key::Customer(arn) => input.key_type(KeyType::CustomerManagedCmk).key_arn(arn.to_string()),
        Key::Unresolved(_) => return None,
    };
    input.build().ok()
}

fn parse_description(description: &DeliveryStreamDescription) -> Result<StreamDescription, AwsError> {
    let invalid_response = |what| invalid_response(Operation::DescribeDeliveryStream, what);
    let raw_status = description.delivery_stream_status().as_str();
    let arn: StreamArn =
        description.delivery_stream_arn().parse().map_err(|_| invalid_response("DeliveryStreamARN"))?;
    let state = match raw_status {
        "CREATING" => StreamState::Creating,
        "ACTIVE" => StreamState::Active,
        "DELETING" => StreamState::Deleting,
        "CREATING_FAILED" | "DELETING_FAILED" => StreamState::NotOperational,
        _ => StreamState::Unrecognized,
    };
    // The status of the resource shows only the stream's state. If the encryption is ENABLED, it has no failure.
    if let Some(failure) = description.failure_description()
        && state == StreamState::NotOperational
    {
        warn!(
            stream = %arn,
            status = raw_status,
            code = shorten(failure.r#type().as_str()),
            aws_message = truncate(failure.details(), MAX_MESSAGE_BYTES),
            "AWS failed to create or delete the stream"
        );
    }
    Ok(StreamDescription {
        arn,
        created: description.create_timestamp().and_then(timestamp),
        source: present_value(description.delivery_stream_type().as_str()).map(shorten),
        state,
        raw_status: shorten(present_value(raw_status).unwrap_or_default()),
        encryption: parse_encryption(description),
        retention: profile(Service::Firehose).longest_retention,
    })
}

/// Converts the reported encryption. For a stream that was never encrypted, AWS reports `DISABLED`, no
/// status, or no encryption at all. AWS may describe the failure of an encryption call in the encryption or in the stream.
fn parse_encryption(description: &DeliveryStreamDescription) -> ReportedEncryption {
    let encryption = description.delivery_stream_encryption_configuration();
    let Some((encryption, status)) = encryption.and_then(|said| Some((said, said.status()?))) else {
        return ReportedEncryption::Off;
    };
    let failure = encryption.failure_description().or(description.failure_description());
    match status.as_str() {
        "DISABLED" => ReportedEncryption::Off,
        "ENABLED" => key(encryption).map_or_else(ReportedEncryption::Unknown, ReportedEncryption::On),
        "ENABLING" => ReportedEncryption::Enabling,
        "DISABLING" => ReportedEncryption::Disabling,
        "ENABLING_FAILED" => failed(Action::Start, failure),
        "DISABLING_FAILED" => failed(Action::Stop, failure),
        other => ReportedEncryption::Unknown(shorten(other)),
    }
}

/// Returns the key of a stream that is `ENABLED`; the error is a type of key that this version does not know.
fn key(encryption: &DeliveryStreamEncryptionConfiguration) -> Result<Key, String> {
    let arn = encryption.key_arn();
    Ok(match encryption.key_type().map(KeyType::as_str) {
        Some("AWS_OWNED_CMK") => Key::AwsOwned,
        Some("CUSTOMER_MANAGED_CMK") => arn
            .and_then(|arn| arn.parse().ok())
            .map_or_else(|| unresolved(arn.unwrap_or("CUSTOMER_MANAGED_CMK")), Key::Customer),
        Some(other) => return Err(shorten(&format!("ENABLED, KeyType {other}"))),
        None => return Err("ENABLED, no KeyType".to_owned()),
    })
}

fn unresolved(name: &str) -> Key {
    Key::Unresolved(truncate(name, MAX_MESSAGE_BYTES))
}

/// Shortens a value of AWS to the length that can be stored.
fn shorten(text: &str) -> String {
    truncate(text, MAX_CODE_BYTES)
}

fn failed(action: Action, failure: Option<&FailureDescription>) -> ReportedEncryption {
    ReportedEncryption::Failed {
        action,
        reason: shorten(failure.map_or(NO_REASON, |failure| failure.r#type().as_str())),
        details: failure.map(|failure| truncate(failure.details(), MAX_MESSAGE_BYTES)).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
