//! Firehose: how it shows a stream's encryption, and its calls.
//!
//! Firehose names a stream by its name alone, in the caller's account: the answer of a look carries the ARN that was
//! found, and it is for the caller to compare it with the ARN that was meant. Nothing here decides about encryption.

mod incomplete;

use aws_config::SdkConfig;
use aws_sdk_firehose::Client;
use aws_sdk_firehose::config::{Builder, Region as SdkRegion};
use aws_sdk_firehose::primitives::Blob;
use aws_sdk_firehose::types::{
    DeliveryStreamDescription, DeliveryStreamEncryptionConfiguration,
    DeliveryStreamEncryptionConfigurationInput, KeyType, Record,
};
use jiff::Timestamp;

use super::bounded::Bounded;
use super::calls::Calls;
use super::credentials::{OLDEST_SESSION, Session};
use super::faults::{LONGEST_CODE, LONGEST_MESSAGE, cut, fault, found, not_sent, shown_word, unreadable};
use super::pacing::Quota;
use super::port::{Signer, Urgency};
use super::timestamp::{dated, timestamp};
use crate::api::ledger::Action;
use crate::api::stream_encryption::Service;
use crate::model::credentials::Missing;
use crate::model::fault::{Class, Fault, Operation};
use crate::model::key::Key;
use crate::model::observation::{Look, Shown, StreamState};
use crate::model::principal::Principal;
use crate::model::replaced::longest_retention;
use crate::model::stream::{Region, StreamArn};

/// The reason of a failure for which AWS gives none: its own word for it.
const NO_REASON: &str = "UNKNOWN_ERROR";
/// More regions than AWS has in one partition.
const CLIENTS: usize = 64;

/// Firehose, in every region.
pub(super) struct Firehose {
    config: SdkConfig,
    calls: Calls,
    clients: Bounded<Region, Client>,
}

impl Firehose {
    /// Firehose as `config` says.
    pub(super) fn new(config: SdkConfig, calls: Calls) -> Self {
        Self { config, calls, clients: Bounded::new(CLIENTS) }
    }

    /// `DescribeDeliveryStream`; nothing for a stream that Firehose does not know.
    pub(super) async fn look(
        &self,
        stream: &StreamArn,
        by: &Principal,
        urgency: Urgency,
    ) -> Result<Option<(Look, Signer)>, Fault> {
        let operation = Operation::DescribeDeliveryStream;
        let client = self.client(&stream.region);
        let request = client.describe_delivery_stream().delivery_stream_name(stream.name());
        let answer = self
            .calls
            .read(&Quota::of(operation, stream), by, urgency, async |session| {
                let signer = session.signer();
                let overrides = Builder::default().credentials_provider(session.credentials);
                let request = request.clone().customize().config_override(overrides);
                let description = match request.send().await {
                    Ok(answer) => answer.delivery_stream_description,
                    Err(error) => {
                        Some(incomplete::description(&error).ok_or_else(|| fault(operation, &error))?)
                    }
                };
                Ok((description, signer))
            })
            .await;
        let Some((description, signer)) = found(operation, answer)? else { return Ok(None) };
        let seen = description.as_ref().map(look).transpose()?;
        Ok(seen.map(|look| (look, signer)))
    }

    /// `StartDeliveryStreamEncryption`, once and at once, dated `reserved`; never with a customer managed key in a session that is too old.
    pub(super) async fn start(
        &self,
        stream: &StreamArn,
        key: &Key,
        by: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), Fault> {
        let operation = Operation::StartDeliveryStreamEncryption;
        let input = encryption_input(key).ok_or_else(|| {
            not_sent(operation, Class::Invalid, "UnresolvedKey", &format!("{key} is not the ARN of a key"))
        })?;
        let client = self.client(&stream.region);
        let request = client.start_delivery_stream_encryption().delivery_stream_name(stream.name());
        let request = request.delivery_stream_encryption_configuration_input(input);
        self.calls
            .at_once(&Quota::of(operation, stream), by, signer, async |session| {
                if matches!(key, Key::Customer(_)) {
                    refuse_old(operation, &session)?;
                }
                let overrides = Builder::default().credentials_provider(session.credentials);
                let request = request.customize().config_override(overrides.time_source(dated(reserved)));
                request.send().await.map_err(|error| fault(operation, &error))
            })
            .await?;
        Ok(())
    }

    /// `StopDeliveryStreamEncryption`, once and at once, dated `reserved`.
    pub(super) async fn stop(
        &self,
        stream: &StreamArn,
        by: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), Fault> {
        let operation = Operation::StopDeliveryStreamEncryption;
        let client = self.client(&stream.region);
        let request = client.stop_delivery_stream_encryption().delivery_stream_name(stream.name());
        self.calls
            .at_once(&Quota::of(operation, stream), by, signer, async |session| {
                let overrides = Builder::default().credentials_provider(session.credentials);
                let request = request.customize().config_override(overrides.time_source(dated(reserved)));
                request.send().await.map_err(|error| fault(operation, &error))
            })
            .await?;
        Ok(())
    }

    /// `PutRecord`, once: whether Firehose says that the record was encrypted.
    pub(super) async fn put_record(
        &self,
        stream: &StreamArn,
        record: &str,
        by: &Principal,
        signer: &Signer,
    ) -> Result<bool, Fault> {
        let operation = Operation::PutFirehoseRecord;
        let record = Record::builder().data(Blob::new(record)).build();
        let record = record
            .map_err(|error| not_sent(operation, Class::Invalid, "UnreadableRecord", &error.to_string()))?;
        let client = self.client(&stream.region);
        let request = client.put_record().delivery_stream_name(stream.name()).record(record);
        let answer = self
            .calls
            .once(&Quota::of(operation, stream), by, signer, async |session| {
                let overrides = Builder::default().credentials_provider(session.credentials);
                let request = request.customize().config_override(overrides);
                request.send().await.map_err(|error| fault(operation, &error))
            })
            .await?;
        Ok(answer.encrypted() == Some(true))
    }

    fn client(&self, region: &Region) -> Client {
        self.clients.get_or_put_with(region, || {
            let region = SdkRegion::new(region.as_str().to_owned());
            Client::from_conf(Builder::from(&self.config).region(region).build())
        })
    }
}

fn refuse_old(operation: Operation, session: &Session) -> Result<(), Fault> {
    match session.age {
        Some(age) if age >= OLDEST_SESSION => {
            let message = format!("the AWS session is {} s old, more than Firehose takes", age.as_secs());
            Err(not_sent(operation, Class::NoCredentials, Missing::SessionTooOld.code(), &message))
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

fn look(description: &DeliveryStreamDescription) -> Result<Look, Fault> {
    let unreadable = |what| unreadable(Operation::DescribeDeliveryStream, what);
    let state_word = description.delivery_stream_status().as_str();
    Ok(Look {
        arn: description.delivery_stream_arn().parse().map_err(|_| unreadable("DeliveryStreamARN"))?,
        created: description.create_timestamp().and_then(timestamp),
        source: shown_word(description.delivery_stream_type().as_str()).map(word),
        state: match state_word {
            "CREATING" => StreamState::Creating,
            "ACTIVE" => StreamState::Active,
            "DELETING" => StreamState::Deleting,
            "CREATING_FAILED" | "DELETING_FAILED" => StreamState::Broken,
            _ => StreamState::Unrecognized,
        },
        state_word: word(shown_word(state_word).unwrap_or_default()),
        encryption: shown(description.delivery_stream_encryption_configuration()),
        retention: longest_retention(Service::Firehose),
    })
}

/// What AWS shows of a stream that was never encrypted differs: `DISABLED`, no status, or no word at all.
fn shown(encryption: Option<&DeliveryStreamEncryptionConfiguration>) -> Shown {
    let Some((encryption, status)) = encryption.and_then(|said| Some((said, said.status()?))) else {
        return Shown::Off;
    };
    match status.as_str() {
        "DISABLED" => Shown::Off,
        "ENABLED" => key(encryption).map_or_else(Shown::Unknown, Shown::On),
        "ENABLING" => Shown::Enabling,
        "DISABLING" => Shown::Disabling,
        "ENABLING_FAILED" => failed(Action::Start, encryption),
        "DISABLING_FAILED" => failed(Action::Stop, encryption),
        other => Shown::Unknown(word(other)),
    }
}

/// The key of a stream that is `ENABLED`, or the type of key that this version does not know.
fn key(encryption: &DeliveryStreamEncryptionConfiguration) -> Result<Key, String> {
    let arn = encryption.key_arn();
    Ok(match encryption.key_type().map(KeyType::as_str) {
        Some("AWS_OWNED_CMK") => Key::AwsOwned,
        Some("CUSTOMER_MANAGED_CMK") => arn
            .and_then(|arn| arn.parse().ok())
            .map_or_else(|| unresolved(arn.unwrap_or("CUSTOMER_MANAGED_CMK")), Key::Customer),
        Some(other) => return Err(word(&format!("ENABLED, KeyType {other}"))),
        None => return Err("ENABLED, no KeyType".to_owned()),
    })
}

fn unresolved(name: &str) -> Key {
    Key::Unresolved(cut(name, LONGEST_MESSAGE))
}

/// A word of AWS's, short enough to be kept.
fn word(text: &str) -> String {
    cut(text, LONGEST_CODE)
}

fn failed(action: Action, encryption: &DeliveryStreamEncryptionConfiguration) -> Shown {
    let failure = encryption.failure_description();
    Shown::Failed {
        action,
        reason: word(failure.map_or(NO_REASON, |failure| failure.r#type().as_str())),
        details: failure.map(|failure| cut(failure.details(), LONGEST_MESSAGE)).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
