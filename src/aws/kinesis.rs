//! Kinesis data streams: how Kinesis shows a stream's encryption, and its calls, all by the stream's ARN.
//!
//! Kinesis echoes a key as it was named to it: alias, alias ARN, id or key ARN
//! ([StreamDescriptionSummary](https://docs.aws.amazon.com/kinesis/latest/APIReference/API_StreamDescriptionSummary.html)).
//! This file turns each into a [`Key`], so that one key never looks like two. Nothing here decides about encryption.

use std::sync::Arc;

use aws_config::SdkConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{Builder, Region as SdkRegion};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{EncryptionType, StreamDescriptionSummary};
use jiff::{SignedDuration, Timestamp};

use super::bounded::Bounded;
use super::calls::Calls;
use super::faults::{LONGEST_CODE, LONGEST_MESSAGE, cut, fault, found, not_sent, shown_word, unreadable};
use super::kms::Kms;
use super::pacing::Quota;
use super::port::{Signer, Urgency};
use super::timestamp::{dated, timestamp};
use crate::api::stream_encryption::Service;
use crate::model::fault::{Class, Fault, Operation};
use crate::model::key::{KINESIS_ALIAS, Key, KeyArn};
use crate::model::observation::{Look, Shown, StreamState};
use crate::model::principal::Principal;
use crate::model::replaced::longest_retention;
use crate::model::stream::{Region, StreamArn};

/// The key of a stream of which Kinesis says that it is encrypted, but not with what.
const UNNAMED: &str = "unknown";
/// Every record of the operator goes to the same shard; which one does not matter.
const PARTITION_KEY: &str = "stream-encryption-operator";
/// More regions than AWS has in one partition.
const CLIENTS: usize = 64;
/// The keys of which it is remembered whether AWS manages them.
const KEYS: usize = 4096;

/// Kinesis, in every region.
pub(super) struct Kinesis {
    config: SdkConfig,
    calls: Calls,
    kms: Arc<Kms>,
    clients: Bounded<Region, Client>,
    /// Whether AWS manages a key never changes.
    aws_managed: Bounded<KeyArn, bool>,
}

impl Kinesis {
    /// Kinesis as `config` says; `kms` tells what its keys are.
    pub(super) fn new(config: SdkConfig, calls: Calls, kms: Arc<Kms>) -> Self {
        Self { config, calls, kms, clients: Bounded::new(CLIENTS), aws_managed: Bounded::new(KEYS) }
    }

    /// `DescribeStreamSummary`, and `DescribeKey` where the key's name needs it; nothing for a stream that Kinesis does not know.
    pub(super) async fn look(
        &self,
        stream: &StreamArn,
        by: &Principal,
        urgency: Urgency,
    ) -> Result<Option<(Look, Signer)>, Fault> {
        let operation = Operation::DescribeStreamSummary;
        let request = self.client(&stream.region).describe_stream_summary().stream_arn(stream.to_string());
        let answer = self
            .calls
            .read(&Quota::of(operation, stream), by, urgency, async |session| {
                let signer = session.signer();
                let overrides = Builder::default().credentials_provider(session.credentials);
                let request = request.clone().customize().config_override(overrides);
                let answer = request.send().await.map_err(|error| fault(operation, &error))?;
                Ok((answer, signer))
            })
            .await;
        let Some((answer, signer)) = found(operation, answer)? else { return Ok(None) };
        let summary = answer.stream_description_summary;
        let summary = summary.ok_or_else(|| unreadable(operation, "StreamDescriptionSummary"))?;
        let encryption = self.shown(stream, &summary, by, urgency).await?;
        Ok(Some((look(&summary, encryption)?, signer)))
    }

    /// `StartStreamEncryption`, once and at once, dated `reserved`.
    pub(super) async fn start(
        &self,
        stream: &StreamArn,
        key: &Key,
        by: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), Fault> {
        let operation = Operation::StartStreamEncryption;
        let key_id = match key {
            Key::AwsOwned => KINESIS_ALIAS.to_owned(),
            Key::Customer(arn) => arn.to_string(),
            Key::Unresolved(name) => {
                let message = format!("{name} is not the ARN of a key");
                return Err(not_sent(operation, Class::Invalid, "UnresolvedKey", &message));
            }
        };
        let request = self.client(&stream.region).start_stream_encryption().stream_arn(stream.to_string());
        let request = request.encryption_type(EncryptionType::Kms).key_id(key_id);
        self.calls
            .at_once(&Quota::of(operation, stream), by, signer, async |session| {
                let overrides = Builder::default().credentials_provider(session.credentials);
                let request = request.customize().config_override(overrides.time_source(dated(reserved)));
                request.send().await.map_err(|error| fault(operation, &error))
            })
            .await?;
        Ok(())
    }

    /// `StopStreamEncryption`, once and at once, dated `reserved`. Kinesis wants the key in force; where it is not known, its own alias has to do.
    pub(super) async fn stop(
        &self,
        stream: &StreamArn,
        in_force: Option<&Key>,
        by: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), Fault> {
        let operation = Operation::StopStreamEncryption;
        let key_id = match in_force {
            Some(Key::Customer(arn)) => arn.to_string(),
            Some(Key::Unresolved(name)) if name != UNNAMED => name.clone(),
            Some(Key::AwsOwned | Key::Unresolved(_)) | None => KINESIS_ALIAS.to_owned(),
        };
        let request = self.client(&stream.region).stop_stream_encryption().stream_arn(stream.to_string());
        let request = request.encryption_type(EncryptionType::Kms).key_id(key_id);
        self.calls
            .at_once(&Quota::of(operation, stream), by, signer, async |session| {
                let overrides = Builder::default().credentials_provider(session.credentials);
                let request = request.customize().config_override(overrides.time_source(dated(reserved)));
                request.send().await.map_err(|error| fault(operation, &error))
            })
            .await?;
        Ok(())
    }

    /// `PutRecord`, once: whether Kinesis says that the record was encrypted.
    pub(super) async fn put_record(
        &self,
        stream: &StreamArn,
        record: &str,
        by: &Principal,
        signer: &Signer,
    ) -> Result<bool, Fault> {
        let operation = Operation::PutKinesisRecord;
        let request = self.client(&stream.region).put_record().stream_arn(stream.to_string());
        let request = request.partition_key(PARTITION_KEY).data(Blob::new(record));
        let answer = self
            .calls
            .once(&Quota::of(operation, stream), by, signer, async |session| {
                let overrides = Builder::default().credentials_provider(session.credentials);
                let request = request.customize().config_override(overrides);
                request.send().await.map_err(|error| fault(operation, &error))
            })
            .await?;
        Ok(answer.encryption_type() == Some(&EncryptionType::Kms))
    }

    async fn shown(
        &self,
        stream: &StreamArn,
        summary: &StreamDescriptionSummary,
        by: &Principal,
        urgency: Urgency,
    ) -> Result<Shown, Fault> {
        match summary.encryption_type().map_or("NONE", EncryptionType::as_str) {
            "NONE" => Ok(Shown::Off),
            "KMS" => {
                let key_id = cut(summary.key_id().unwrap_or(UNNAMED), LONGEST_MESSAGE);
                self.key(stream, &key_id, by, urgency).await.map(Shown::On)
            }
            word => Ok(Shown::Unknown(cut(word, LONGEST_CODE))),
        }
    }

    /// The key that `key_id` names, whatever form it has.
    async fn key(
        &self,
        stream: &StreamArn,
        key_id: &str,
        by: &Principal,
        urgency: Urgency,
    ) -> Result<Key, Fault> {
        let StreamArn { partition, region, account, .. } = stream;
        let alias = key_id.rsplit(':').next().filter(|name| name.starts_with("alias/"));
        match alias {
            _ if key_id == UNNAMED => Ok(Key::Unresolved(UNNAMED.to_owned())),
            Some(KINESIS_ALIAS) => Ok(Key::AwsOwned),
            Some(_) => self.key_of_alias(stream, key_id, by, urgency).await,
            None => {
                let by_id = || KeyArn::new(partition.clone(), region.clone(), account.clone(), key_id);
                match key_id.parse().or_else(|_| by_id()) {
                    Ok(arn) => self.key_of_arn(stream, arn, by, urgency).await,
                    Err(_) => Ok(Key::Unresolved(key_id.to_owned())),
                }
            }
        }
    }

    async fn key_of_arn(
        &self,
        stream: &StreamArn,
        arn: KeyArn,
        by: &Principal,
        urgency: Urgency,
    ) -> Result<Key, Fault> {
        let aws_managed = match self.aws_managed.get(&arn) {
            Some(known) => known,
            None => {
                match self.kms.describe(&stream.account, &arn.region, &arn.to_string(), by, urgency).await {
                    Ok(Some(facts)) => {
                        self.aws_managed.put(arn.clone(), facts.aws_managed);
                        facts.aws_managed
                    }
                    Err(fault) if may_answer_later(&fault) => return Err(fault),
                    // KMS does not know it, or will not tell: then it is no key of AWS's that anybody could ask for.
                    Ok(None) | Err(_) => false,
                }
            }
        };
        Ok(if aws_managed { Key::AwsOwned } else { Key::Customer(arn) })
    }

    /// An alias may be pointed at another key at any time, so its key is not remembered.
    async fn key_of_alias(
        &self,
        stream: &StreamArn,
        alias: &str,
        by: &Principal,
        urgency: Urgency,
    ) -> Result<Key, Fault> {
        match self.kms.describe(&stream.account, &stream.region, alias, by, urgency).await {
            Ok(Some(facts)) if facts.aws_managed => Ok(Key::AwsOwned),
            Ok(Some(facts)) => Ok(Key::Customer(facts.arn)),
            Err(fault) if may_answer_later(&fault) => Err(fault),
            Ok(None) | Err(_) => Ok(Key::Unresolved(alias.to_owned())),
        }
    }

    fn client(&self, region: &Region) -> Client {
        self.clients.get_or_put_with(region, || {
            let region = SdkRegion::new(region.as_str().to_owned());
            Client::from_conf(Builder::from(&self.config).region(region).build())
        })
    }
}

/// A key that KMS cannot name just now must not look like another key: that would be drift, and cost a call. KMS was not
/// even asked if the fault is another operation's.
fn may_answer_later(fault: &Fault) -> bool {
    fault.operation != Operation::DescribeKey || fault.class.leaves_the_question_open()
}

fn look(summary: &StreamDescriptionSummary, encryption: Shown) -> Result<Look, Fault> {
    let unreadable = |what| unreadable(Operation::DescribeStreamSummary, what);
    let state_word = summary.stream_status().as_str();
    Ok(Look {
        arn: summary.stream_arn().parse().map_err(|_| unreadable("StreamARN"))?,
        created: timestamp(summary.stream_creation_timestamp()),
        source: None,
        state: match state_word {
            "CREATING" => StreamState::Creating,
            "ACTIVE" => StreamState::Active,
            "UPDATING" => StreamState::Updating,
            "DELETING" => StreamState::Deleting,
            _ => StreamState::Unrecognized,
        },
        state_word: cut(shown_word(state_word).unwrap_or_default(), LONGEST_CODE),
        encryption,
        retention: match summary.retention_period_hours() {
            hours @ 1.. => SignedDuration::from_hours(hours.into()),
            // The SDK has 0 where AWS shows none. A key may be needed for as long as Kinesis can keep a
            // record.
            _ => longest_retention(Service::Kinesis),
        },
    })
}

#[cfg(test)]
mod tests;
