//! Kinesis data streams: their format of a stream's encryption, and their operations, all by the stream's
//! ARN.
//!
//! Kinesis returns a key in the form in which it was given: alias, alias ARN, id or key ARN
//! ([StreamDescriptionSummary](https://docs.aws.amazon.com/kinesis/latest/APIReference/API_StreamDescriptionSummary.html)).
//! This file converts each form to a [`Key`], so that one key never appears as two. It decides nothing about
//! encryption.

mod listing;

use std::convert::Infallible;
use std::sync::Arc;

use aws_config::SdkConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{Builder, Region as SdkRegion};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{EncryptionType, StreamDescriptionSummary};
use jiff::{SignedDuration, Timestamp};
use quick_cache::sync::Cache;
use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::controller::stream_api::{Priority, Signer};
use stream_encryption_core::model::arn::{KeyArn, Region, StreamArn};
use stream_encryption_core::model::aws_error::{Accepted, AwsError, ErrorKind, UNRESOLVED_KEY};
use stream_encryption_core::model::key::{KINESIS_ALIAS, Key};
use stream_encryption_core::model::observation::{ReportedEncryption, StreamDescription, StreamState};
use stream_encryption_core::model::principal::Principal;
use stream_encryption_core::model::service::Operation;
use stream_encryption_core::model::service::profile;

use super::bounded_cache;
use super::error::{
    MAX_CODE_BYTES, MAX_MESSAGE_BYTES, accepted, aws_error, invalid_response, not_found_as_none, not_sent,
    present_value, truncate,
};
use super::kms::Kms;
use super::rate_limit::QuotaScope;
use super::signed_request_sender::SignedRequestSender;
use super::timestamp::{fixed_time_source, timestamp};

/// Placeholder for the key if Kinesis reports `KMS` without a key id.
const UNNAMED: &str = "unknown";
/// The partition key of the operator's records. All of them go to the same shard; which one does not matter.
const PARTITION_KEY: &str = "stream-encryption-operator";
/// Maximum number of cached clients; more than the regions of any partition of AWS.
const MAX_CLIENTS: usize = 64;
/// Maximum number of entries in `aws_managed`.
const MAX_KEYS: usize = 4096;

/// A client of Kinesis for every region.
pub(super) struct Kinesis {
    config: SdkConfig,
    sender: SignedRequestSender,
    kms: Arc<Kms>,
    clients: Cache<Region, Client>,
    /// Whether AWS manages a key, which never changes.
    aws_managed: Cache<KeyArn, bool>,
}

impl Kinesis {
    /// Creates a client that is configured by `config`, with `kms` to describe keys.
    pub(super) fn new(config: SdkConfig, sender: SignedRequestSender, kms: Arc<Kms>) -> Self {
        Self {
            config,
            sender,
            kms,
            clients: bounded_cache::cache(MAX_CLIENTS),
            aws_managed: bounded_cache::cache(MAX_KEYS),
        }
    }

    /// Sends `DescribeStreamSummary`, and `DescribeKey` unless the key is `alias/aws/kinesis` or known from
    /// before; returns `None` if the stream does not exist.
    pub(super) async fn describe_stream(
        &self,
        stream: &StreamArn,
        principal: &Principal,
        priority: Priority,
    ) -> Result<Option<(StreamDescription, Signer)>, AwsError> {
        let operation = Operation::DescribeStreamSummary;
        let request = self.client(&stream.region).describe_stream_summary().stream_arn(stream.to_string());
        let answer = self
            .sender
            .read(&QuotaScope::of(operation, stream), principal, priority, async |session| {
                let signer = session.signer();
                let overrides = Builder::default().credentials_provider(session.credentials);
                let request = request.clone().customize().config_override(overrides);
                let answer = request.send().await.map_err(|error| aws_error(operation, &error))?;
                Ok((answer, signer))
            })
            .await;
        let Some((answer, signer)) = not_found_as_none(operation, answer)? else { return Ok(None) };
        let summary = answer.stream_description_summary;
        let summary = summary.ok_or_else(|| invalid_response(operation, "StreamDescriptionSummary"))?;
        let encryption = self.encryption_of(stream, &summary, principal, priority).await?;
        Ok(Some((parse_description(&summary, encryption)?, signer)))
    }

    /// Sends `StartStreamEncryption` once, without waiting for a permit, dated `signing_time`.
    pub(super) async fn start(
        &self,
        stream: &StreamArn,
        key: &Key,
        principal: &Principal,
        signer: &Signer,
        signing_time: Timestamp,
    ) -> Result<Accepted, AwsError> {
        let operation = Operation::StartStreamEncryption;
        let key_id = match key {
            Key::AwsOwned => KINESIS_ALIAS.to_owned(),
            Key::Customer(arn) => arn.to_string(),
            Key::Unresolved(name) => {
                let message = format!("{name} is not the ARN of a key");
                return Err(not_sent(operation, ErrorKind::Invalid, UNRESOLVED_KEY, &message));
            }
        };
        let request = self.client(&stream.region).start_stream_encryption().stream_arn(stream.to_string());
        let request = request.encryption_type(EncryptionType::Kms).key_id(key_id);
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

    /// Sends `StopStreamEncryption` once, without waiting for a permit, dated `signing_time`. Kinesis requires
    /// the active key; if it is unknown, the alias of Kinesis is sent in its place.
    pub(super) async fn stop(
        &self,
        stream: &StreamArn,
        active_key: Option<&Key>,
        principal: &Principal,
        signer: &Signer,
        signing_time: Timestamp,
    ) -> Result<Accepted, AwsError> {
        let operation = Operation::StopStreamEncryption;
        let key_id = match active_key {
            Some(Key::Customer(arn)) => arn.to_string(),
            Some(Key::Unresolved(name)) if name != UNNAMED => name.clone(),
            Some(Key::AwsOwned | Key::Unresolved(_)) | None => KINESIS_ALIAS.to_owned(),
        };
        let request = self.client(&stream.region).stop_stream_encryption().stream_arn(stream.to_string());
        let request = request.encryption_type(EncryptionType::Kms).key_id(key_id);
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

    /// Sends `PutRecord` once, and returns whether Kinesis reports that the record was encrypted.
    pub(super) async fn put_record(
        &self,
        stream: &StreamArn,
        record: &str,
        principal: &Principal,
        signer: &Signer,
    ) -> Result<bool, AwsError> {
        let operation = Operation::PutKinesisRecord;
        let request = self.client(&stream.region).put_record().stream_arn(stream.to_string());
        let request = request.partition_key(PARTITION_KEY).data(Blob::new(record));
        let answer = self
            .sender
            .send_now(&QuotaScope::of(operation, stream), principal, signer, async |session| {
                let overrides = Builder::default().credentials_provider(session.credentials);
                let request = request.customize().config_override(overrides);
                request.send().await.map_err(|error| aws_error(operation, &error))
            })
            .await?;
        Ok(answer.encryption_type() == Some(&EncryptionType::Kms))
    }

    async fn encryption_of(
        &self,
        stream: &StreamArn,
        summary: &StreamDescriptionSummary,
        principal: &Principal,
        priority: Priority,
    ) -> Result<ReportedEncryption, AwsError> {
        match summary.encryption_type().map_or("NONE", EncryptionType::as_str) {
            "NONE" => Ok(ReportedEncryption::Off),
            "KMS" => {
                let key_id = truncate(summary.key_id().unwrap_or(UNNAMED), MAX_MESSAGE_BYTES);
                self.key(stream, &key_id, principal, priority).await.map(ReportedEncryption::On)
            }
            word => Ok(ReportedEncryption::Unknown(truncate(word, MAX_CODE_BYTES))),
        }
    }

    /// Returns the key that `key_id` names, in any form.
    async fn key(
        &self,
        stream: &StreamArn,
        key_id: &str,
        principal: &Principal,
        priority: Priority,
    ) -> Result<Key, AwsError> {
        let StreamArn { partition, region, account, .. } = stream;
        let alias = key_id.rsplit(':').next().filter(|name| name.starts_with("alias/"));
        match alias {
            _ if key_id == UNNAMED => Ok(Key::Unresolved(UNNAMED.to_owned())),
            Some(KINESIS_ALIAS) => Ok(Key::AwsOwned),
            Some(_) => self.key_of_alias(stream, key_id, principal, priority).await,
            None => {
                let by_id = || KeyArn::new(partition.clone(), region.clone(), account.clone(), key_id);
                match key_id.parse().or_else(|_| by_id()) {
                    Ok(arn) => self.key_of_arn(stream, arn, principal, priority).await,
                    Err(_) => Ok(Key::Unresolved(key_id.to_owned())),
                }
            }
        }
    }

    async fn key_of_arn(
        &self,
        stream: &StreamArn,
        arn: KeyArn,
        principal: &Principal,
        priority: Priority,
    ) -> Result<Key, AwsError> {
        let aws_managed = match self.aws_managed.get(&arn) {
            Some(known) => known,
            None => {
                match self
                    .kms
                    .describe(&stream.account, &arn.region, &arn.to_string(), principal, priority)
                    .await
                {
                    Ok(Some(metadata)) => {
                        self.aws_managed.insert(arn.clone(), metadata.aws_managed);
                        metadata.aws_managed
                    }
                    Err(error) if kms_may_resolve_later(&error) => return Err(error),
                    // The key does not exist, or may not be described. A customer managed key is assumed: a
                    // stream has the AWS managed key by its ARN or id only if another client set it so.
                    Ok(None) | Err(_) => false,
                }
            }
        };
        Ok(if aws_managed { Key::AwsOwned } else { Key::Customer(arn) })
    }

    /// Returns the key of an alias. An alias may be pointed at another key at any time, so the key is not
    /// cached.
    async fn key_of_alias(
        &self,
        stream: &StreamArn,
        alias: &str,
        principal: &Principal,
        priority: Priority,
    ) -> Result<Key, AwsError> {
        match self.kms.describe(&stream.account, &stream.region, alias, principal, priority).await {
            Ok(Some(metadata)) if metadata.aws_managed => Ok(Key::AwsOwned),
            Ok(Some(metadata)) => Ok(Key::Customer(metadata.arn)),
            Err(error) if kms_may_resolve_later(&error) => Err(error),
            Ok(None) | Err(_) => Ok(Key::Unresolved(alias.to_owned())),
        }
    }

    fn client(&self, region: &Region) -> Client {
        let Ok(client) = self.clients.get_or_insert_with(region, || {
            let region = SdkRegion::new(region.as_str().to_owned());
            Ok::<_, Infallible>(Client::from_conf(Builder::from(&self.config).region(region).build()))
        });
        client
    }
}

/// Returns whether a later request may resolve the key. A key that KMS cannot resolve now must not appear as
/// another key, which would be drift and cost a call. An error of another operation means that KMS received
/// no request.
fn kms_may_resolve_later(error: &AwsError) -> bool {
    error.operation != Operation::DescribeKey || error.kind.is_inconclusive()
}

fn parse_description(
    summary: &StreamDescriptionSummary,
    encryption: ReportedEncryption,
) -> Result<StreamDescription, AwsError> {
    let invalid_response = |what| invalid_response(Operation::DescribeStreamSummary, what);
    let raw_status = summary.stream_status().as_str();
    Ok(StreamDescription {
        arn: summary.stream_arn().parse().map_err(|_| invalid_response("StreamARN"))?,
        created: timestamp(summary.stream_creation_timestamp()),
        source: None,
        state: match raw_status {
            "CREATING" => StreamState::Creating,
            "ACTIVE" => StreamState::Active,
            "UPDATING" => StreamState::Updating,
            "DELETING" => StreamState::Deleting,
            _ => StreamState::Unrecognized,
        },
        raw_status: truncate(present_value(raw_status).unwrap_or_default(), MAX_CODE_BYTES),
        encryption,
        retention: match summary.retention_period_hours() {
            hours @ 1.. => SignedDuration::from_hours(hours.into()),
            // The SDK returns 0 if AWS reports no retention. A key may be required for as long as Kinesis can
            // keep a record.
            _ => profile(Service::Kinesis).longest_retention,
        },
    })
}

#[cfg(test)]
mod tests;
