//! KMS: what a key is, by `DescribeKey`
//! ([DescribeKey](https://docs.aws.amazon.com/kms/latest/APIReference/API_DescribeKey.html)).
//!
//! It only reads, and never touches a key, its policy or its grants.

use aws_config::SdkConfig;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::{Builder, Region as SdkRegion};
use aws_sdk_kms::types::{KeyManagerType, KeyMetadata, KeySpec, KeyState as SdkKeyState, KeyUsageType};

use super::Turn;
use super::bounded::Bounded;
use super::calls::Calls;
use super::faults::{fault, unreadable};
use super::pacing::Quota;
use crate::model::fault::{Class, Fault, Operation};
use crate::model::key::{KeyFacts, KeyName, KeyState};
use crate::model::stream::{Account, Region, StreamArn};

const DESCRIBE: Operation = Operation::DescribeKey;
/// More regions than AWS has in one partition.
const CLIENTS: usize = 64;

/// KMS, in every region.
pub(super) struct Kms {
    config: SdkConfig,
    calls: Calls,
    clients: Bounded<Region, Client>,
}

impl Kms {
    /// KMS as `config` says.
    pub(super) fn new(config: SdkConfig, calls: Calls) -> Self {
        Self { config, calls, clients: Bounded::new(CLIENTS) }
    }

    /// What KMS says of the key that `name` means for `stream`; nothing for a key that it does not know.
    pub(super) async fn key(
        &self,
        stream: &StreamArn,
        name: &KeyName,
        turn: &Turn,
    ) -> Result<Option<KeyFacts>, Fault> {
        let region = match name {
            KeyName::Arn(arn) => &arn.region,
            KeyName::Alias(_) => &stream.region,
        };
        self.describe(&stream.account, region, &name.to_string(), turn).await
    }

    /// What KMS says of a key named in any form: ARN, id, alias or the alias's ARN.
    pub(super) async fn describe(
        &self,
        account: &Account,
        region: &Region,
        key_id: &str,
        turn: &Turn,
    ) -> Result<Option<KeyFacts>, Fault> {
        let quota = Quota { operation: DESCRIBE, account: Some(account.clone()), region: region.clone() };
        let request = self.client(region).describe_key().key_id(key_id);
        let answer = self
            .calls
            .read(&quota, turn, || async {
                request.clone().send().await.map_err(|error| fault(DESCRIBE, &error))
            })
            .await;
        match answer {
            Ok(answer) => {
                let metadata = answer.key_metadata.ok_or_else(|| unreadable(DESCRIBE, "KeyMetadata"))?;
                facts(&metadata).map(Some)
            }
            Err(Fault { class: Class::NotFound, .. }) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    fn client(&self, region: &Region) -> Client {
        self.clients.get_or_put_with(region, || {
            let region = SdkRegion::new(region.as_str().to_owned());
            Client::from_conf(Builder::from(&self.config).region(region).build())
        })
    }
}

fn facts(metadata: &KeyMetadata) -> Result<KeyFacts, Fault> {
    let arn = metadata.arn().and_then(|arn| arn.parse().ok());
    Ok(KeyFacts {
        arn: arn.ok_or_else(|| unreadable(DESCRIBE, "Arn"))?,
        state: match metadata.key_state() {
            Some(SdkKeyState::Enabled) => KeyState::Enabled,
            Some(SdkKeyState::Disabled) => KeyState::Disabled,
            Some(SdkKeyState::PendingDeletion | SdkKeyState::PendingReplicaDeletion) => KeyState::PendingDeletion,
            Some(SdkKeyState::PendingImport) => KeyState::PendingImport,
            // Creating, Updating, Unavailable, and what AWS may add: not usable now, perhaps later.
            _ => KeyState::Unavailable,
        },
        symmetric: metadata.key_spec() == Some(&KeySpec::SymmetricDefault),
        encrypts: metadata.key_usage() == Some(&KeyUsageType::EncryptDecrypt),
        aws_managed: metadata.key_manager() == Some(&KeyManagerType::Aws),
    })
}
