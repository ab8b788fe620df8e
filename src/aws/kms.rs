//! KMS: the metadata of a key, by `DescribeKey`
//! ([DescribeKey](https://docs.aws.amazon.com/kms/latest/APIReference/API_DescribeKey.html)).
//!
//! This module only reads, and never changes a key, its policy or its grants.

use std::convert::Infallible;

use aws_config::SdkConfig;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::{Builder, Region as SdkRegion};
use aws_sdk_kms::types::{
    KeyManagerType, KeyMetadata as SdkKeyMetadata, KeySpec, KeyState as SdkKeyState, KeyUsageType,
};
use quick_cache::sync::Cache;
use stream_encryption_core::controller::stream_api::Priority;
use stream_encryption_core::model::arn::{Account, KeyArn, KmsKeyId, Region, StreamArn};
use stream_encryption_core::model::aws_error::AwsError;
use stream_encryption_core::model::key::{KeyMetadata, KeyState};
use stream_encryption_core::model::principal::Principal;
use stream_encryption_core::model::service::Operation;
use tracing::warn;

use super::bounded_cache;
use super::error::{MAX_CODE_BYTES, aws_error, invalid_response, not_found_as_none, truncate};
use super::rate_limit::QuotaScope;
use super::signed_request_sender::SignedRequestSender;

const DESCRIBE: Operation = Operation::DescribeKey;
/// Maximum number of cached clients; more than the regions of any partition of AWS.
const MAX_CLIENTS: usize = 64;

/// A client of KMS for every region.
pub(super) struct Kms {
    config: SdkConfig,
    sender: SignedRequestSender,
    clients: Cache<Region, Client>,
}

impl Kms {
    /// Creates a client that is configured by `config`.
    pub(super) fn new(config: SdkConfig, sender: SignedRequestSender) -> Self {
        Self { config, sender, clients: bounded_cache::cache(MAX_CLIENTS) }
    }

    /// Returns the metadata of the key that `name` identifies for `stream`; `None` if the key does not exist.
    pub(super) async fn describe_key(
        &self,
        stream: &StreamArn,
        name: &KmsKeyId,
        principal: &Principal,
        priority: Priority,
    ) -> Result<Option<KeyMetadata>, AwsError> {
        let region = match name {
            KmsKeyId::Arn(arn) => &arn.region,
            KmsKeyId::Alias(_) => &stream.region,
        };
        self.describe(&stream.account, region, &name.to_string(), principal, priority).await
    }

    /// Returns the metadata of a key that is named in any form: ARN, id, alias or the alias's ARN.
    pub(super) async fn describe(
        &self,
        account: &Account,
        region: &Region,
        key_id: &str,
        principal: &Principal,
        priority: Priority,
    ) -> Result<Option<KeyMetadata>, AwsError> {
        let quota =
            QuotaScope { operation: DESCRIBE, account: Some(account.clone()), region: region.clone() };
        let request = self.client(region).describe_key().key_id(key_id);
        let answer = self
            .sender
            .read(&quota, principal, priority, async |session| {
                let overrides = Builder::default().credentials_provider(session.credentials);
                let request = request.clone().customize().config_override(overrides);
                request.send().await.map_err(|error| aws_error(DESCRIBE, &error))
            })
            .await;
        let Some(answer) = not_found_as_none(DESCRIBE, answer)? else { return Ok(None) };
        parse_metadata(&answer.key_metadata.ok_or_else(|| invalid_response(DESCRIBE, "KeyMetadata"))?)
            .map(Some)
    }

    fn client(&self, region: &Region) -> Client {
        let Ok(client) = self.clients.get_or_insert_with(region, || {
            let region = SdkRegion::new(region.as_str().to_owned());
            Ok::<_, Infallible>(Client::from_conf(Builder::from(&self.config).region(region).build()))
        });
        client
    }
}

fn parse_metadata(metadata: &SdkKeyMetadata) -> Result<KeyMetadata, AwsError> {
    let arn = metadata.arn().and_then(|arn| arn.parse().ok());
    let arn: KeyArn = arn.ok_or_else(|| invalid_response(DESCRIBE, "Arn"))?;
    let unknown = unknown_value(metadata);
    if let Some(value) = unknown {
        warn!(key = %arn, value = truncate(value, MAX_CODE_BYTES), "KMS reported a value that this version does not know");
    }
    Ok(KeyMetadata {
        arn,
        state: match metadata.key_state().filter(|_| unknown.is_none()) {
            None => KeyState::Unrecognized,
            // Updating: the primary Region of a multi-Region key is changed. The key works meanwhile.
            Some(SdkKeyState::Enabled | SdkKeyState::Updating) => KeyState::Enabled,
            Some(SdkKeyState::Disabled) => KeyState::Disabled,
            Some(SdkKeyState::PendingDeletion | SdkKeyState::PendingReplicaDeletion) => {
                KeyState::PendingDeletion
            }
            Some(SdkKeyState::PendingImport) => KeyState::PendingImport,
            // Creating, Unavailable: not usable now, but perhaps later.
            Some(_) => KeyState::Unavailable,
        },
        // AWS always reports `KeySpec` and `KeyUsage`; if a server leaves one out, the default of CreateKey
        // applies. With an unknown value both count as suitable, so that the key is reported as unrecognized,
        // and not as asymmetric or of the wrong usage.
        symmetric: unknown.is_some()
            || metadata.key_spec().is_none_or(|spec| *spec == KeySpec::SymmetricDefault),
        encrypts: unknown.is_some()
            || metadata.key_usage().is_none_or(|usage| *usage == KeyUsageType::EncryptDecrypt),
        aws_managed: metadata.key_manager() == Some(&KeyManagerType::Aws),
    })
}

/// Returns the first value that this version does not know, of those that decide whether the key can be used.
fn unknown_value(metadata: &SdkKeyMetadata) -> Option<&str> {
    let values = [
        metadata.key_state().map(|value| (value.as_str(), SdkKeyState::values())),
        metadata.key_spec().map(|value| (value.as_str(), KeySpec::values())),
        metadata.key_usage().map(|value| (value.as_str(), KeyUsageType::values())),
        metadata.key_manager().map(|value| (value.as_str(), KeyManagerType::values())),
    ];
    values.into_iter().flatten().find(|(value, known)| !known.contains(value)).map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use stream_encryption_core::model::aws_error::ErrorKind;
    use stream_encryption_core::model::key::KeyProblem;

    use super::super::replay::{ReplayClient, sender, somebody};
    use super::*;

    const KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    fn orders() -> StreamArn {
        "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders".parse().unwrap()
    }

    fn metadata(state: &str, spec: &str, usage: &str, manager: &str) -> (u16, String) {
        let metadata = json!({
            "KeyId": "1234abcd-12ab-34cd-56ef-1234567890ab", "Arn": KEY, "KeyState": state, "KeySpec": spec,
            "KeyUsage": usage, "KeyManager": manager,
        });
        (200, json!({ "KeyMetadata": metadata }).to_string())
    }

    async fn described(answer: (u16, String)) -> KeyMetadata {
        let recorded = ReplayClient::answers([answer]);
        let name = KmsKeyId::Alias("alias/orders".to_owned());
        Kms::new(recorded.config(), sender())
            .describe_key(&orders(), &name, &somebody(), Priority::Drift)
            .await
            .unwrap()
            .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn every_key_state_is_parsed() {
        for (value, state) in [
            ("Enabled", KeyState::Enabled),
            ("Disabled", KeyState::Disabled),
            ("PendingDeletion", KeyState::PendingDeletion),
            ("PendingReplicaDeletion", KeyState::PendingDeletion),
            ("PendingImport", KeyState::PendingImport),
            ("Creating", KeyState::Unavailable),
            ("Updating", KeyState::Enabled),
            ("Unavailable", KeyState::Unavailable),
            ("Somewhere", KeyState::Unrecognized),
        ] {
            let metadata =
                described(metadata(value, "SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "CUSTOMER")).await;
            assert_eq!(metadata.state, state, "{value}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn key_spec_usage_and_manager_are_parsed() {
        for (spec, usage, manager, expected) in [
            ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "CUSTOMER", (true, true, false)),
            ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "AWS", (true, true, true)),
            ("RSA_2048", "ENCRYPT_DECRYPT", "CUSTOMER", (false, true, false)),
            ("HMAC_256", "GENERATE_VERIFY_MAC", "CUSTOMER", (false, false, false)),
        ] {
            let metadata = described(metadata("Enabled", spec, usage, manager)).await;
            assert_eq!(
                (metadata.symmetric, metadata.encrypts, metadata.aws_managed),
                expected,
                "{spec} {usage} {manager}"
            );
            assert_eq!(metadata.arn, KEY.parse().unwrap());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn key_with_unknown_value_is_unrecognized() {
        for (state, spec, usage, manager) in [
            ("Somewhere", "RSA_2048", "SIGN_VERIFY", "CUSTOMER"),
            ("Enabled", "SYMMETRIC_NEW", "ENCRYPT_DECRYPT", "CUSTOMER"),
            ("Enabled", "SYMMETRIC_DEFAULT", "ENCRYPT_ALL", "CUSTOMER"),
            ("Enabled", "SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "PARTNER"),
        ] {
            let metadata = described(metadata(state, spec, usage, manager)).await;
            let stream: StreamArn =
                "arn:aws:firehose:us-east-1:111122223333:deliverystream/orders".parse().unwrap();
            let problem = metadata.problem(&stream);
            assert_eq!(problem, Some(KeyProblem::Unrecognized), "{state} {spec} {usage} {manager}");
        }
        let stateless = json!({ "KeyMetadata": {"KeyId": "1234abcd", "Arn": KEY} });
        assert_eq!(described((200, stateless.to_string())).await.state, KeyState::Unrecognized);
    }

    #[tokio::test(start_paused = true)]
    async fn omitted_spec_and_usage_have_create_key_defaults() {
        // The response of moto for a key that was created without a usage.
        let metadata =
            json!({"KeyId": "1234abcd", "Arn": KEY, "KeyState": "Enabled", "KeyManager": "CUSTOMER"});
        let metadata = described((200, json!({ "KeyMetadata": metadata }).to_string())).await;
        assert_eq!((metadata.symmetric, metadata.encrypts), (true, true));
    }

    #[tokio::test(start_paused = true)]
    async fn key_arn_uses_its_own_region_and_alias_that_of_the_stream() {
        for (name, key_id, host) in [
            (KmsKeyId::Arn(KEY.parse().unwrap()), KEY, "kms.us-east-1.amazonaws.com"),
            (KmsKeyId::Alias("alias/orders".to_owned()), "alias/orders", "kms.eu-west-1.amazonaws.com"),
        ] {
            let recorded = ReplayClient::answers([metadata(
                "Enabled",
                "SYMMETRIC_DEFAULT",
                "ENCRYPT_DECRYPT",
                "CUSTOMER",
            )]);
            Kms::new(recorded.config(), sender())
                .describe_key(&orders(), &name, &somebody(), Priority::Drift)
                .await
                .unwrap();
            let [sent] = recorded.sent().try_into().unwrap();
            assert_eq!((sent.body, sent.host.as_str()), (json!({"KeyId": key_id}), host));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn missing_key_is_none_and_denied_key_is_an_error() {
        let recorded = ReplayClient::answers([
            (400, r#"{"__type":"NotFoundException"}"#),
            (400, r#"{"__type":"AccessDeniedException","Message":"not authorized"}"#),
        ]);
        let kms = Kms::new(recorded.config(), sender());
        let name = KmsKeyId::Arn(KEY.parse().unwrap());
        assert_eq!(kms.describe_key(&orders(), &name, &somebody(), Priority::Drift).await, Ok(None));
        assert_eq!(
            kms.describe_key(&orders(), &name, &somebody(), Priority::Drift).await.unwrap_err().kind,
            ErrorKind::Denied
        );
    }
}
