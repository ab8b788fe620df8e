//! KMS keys, their aliases and grants: resolves identifiers, and decides whether a service may use a key.
//!
//! Pure state. It must never know streams; the services call it when they need a key.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::policy;
use super::request::AwsError;

/// A key's state; see <https://docs.aws.amazon.com/kms/latest/developerguide/key-state.html>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "AWS's own words")]
pub enum KeyState {
    Enabled,
    Disabled,
    PendingDeletion,
    PendingImport,
    Unavailable,
}

/// A key to plant. `PlantedKey { state: KeyState::Disabled, ..PlantedKey::default() }` is a disabled
/// symmetric key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlantedKey {
    /// Empty: the default account.
    pub account: String,
    /// Empty: the default region.
    pub region: String,
    /// The key id; empty: an id is generated.
    pub id: String,
    /// The state; enabled by default.
    pub state: KeyState,
    /// `ENCRYPT_DECRYPT`, `SIGN_VERIFY`, …
    pub usage: String,
    /// `SYMMETRIC_DEFAULT`, `RSA_2048`, …; empty: a symmetric key whose spec `DescribeKey` does not show, as in
    /// 2017.
    pub spec: String,
    /// `CUSTOMER` or `AWS`.
    pub manager: String,
    /// The key policy; absent: KMS's default policy.
    pub policy: Option<Value>,
}

impl Default for PlantedKey {
    fn default() -> PlantedKey {
        PlantedKey {
            account: String::new(),
            region: String::new(),
            id: String::new(),
            state: KeyState::Enabled,
            usage: "ENCRYPT_DECRYPT".to_owned(),
            spec: "SYMMETRIC_DEFAULT".to_owned(),
            manager: "CUSTOMER".to_owned(),
            policy: None,
        }
    }
}

/// The current state of a key.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "KMS's own words, see DescribeKey")]
pub struct Key {
    pub arn: String,
    pub account: String,
    pub region: String,
    pub id: String,
    pub state: KeyState,
    pub usage: String,
    pub spec: String,
    pub manager: String,
    pub policy: Value,
    pub description: String,
    pub created: Timestamp,
}

impl Key {
    /// Returns whether this is a symmetric encryption key, the only kind that Firehose and Kinesis accept.
    pub fn encrypts(&self) -> bool {
        matches!(self.spec.as_str(), "SYMMETRIC_DEFAULT" | "") && self.usage == "ENCRYPT_DECRYPT"
    }

    /// Returns whether the key policy allows the action to a principal with these names. A service is refused
    /// only by an explicit deny.
    pub(crate) fn permits(&self, names: &[String], action: &str) -> bool {
        let verdict = policy::judge(&self.policy, names, action);
        let service = names.iter().all(|name| name.ends_with(".amazonaws.com"));
        verdict == policy::Verdict::Allowed || (service && verdict == policy::Verdict::Silent)
    }
}

/// A grant that Firehose created for itself on a customer managed key.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "KMS's own words, see ListGrants")]
pub struct Grant {
    pub id: String,
    pub key_arn: String,
    /// The stream for which it was created.
    pub stream_arn: String,
    pub issuing_account: String,
    pub created: Timestamp,
    /// The time from which it no longer exists.
    pub retired: Option<Timestamp>,
}

/// All keys, aliases and grants of all accounts and regions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    by_arn: BTreeMap<String, Key>,
    /// Maps an alias ARN to a key ARN.
    aliases: BTreeMap<String, String>,
    pub(crate) grants: Vec<Grant>,
    made: u64,
}

impl Keys {
    /// Returns the next id. Ids are counted, not random, so that a run is reproducible.
    pub(crate) fn next_id(&mut self) -> String {
        self.made += 1;
        format!("{:08x}-0000-4000-8000-{:012x}", self.made, self.made)
    }

    pub(crate) fn plant(&mut self, key: PlantedKey, created: Timestamp) -> String {
        let id = if key.id.is_empty() { self.next_id() } else { key.id };
        let arn = format!("arn:aws:kms:{}:{}:key/{id}", key.region, key.account);
        let policy = key.policy.unwrap_or_else(|| policy::default_policy(&key.account));
        self.by_arn.insert(
            arn.clone(),
            Key {
                arn: arn.clone(),
                account: key.account,
                region: key.region,
                id,
                state: key.state,
                usage: key.usage,
                spec: key.spec,
                manager: key.manager,
                policy,
                description: String::new(),
                created,
            },
        );
        arn
    }

    pub(crate) fn get(&self, arn: &str) -> Option<&Key> {
        self.by_arn.get(arn)
    }

    pub(crate) fn get_mut(&mut self, arn: &str) -> Option<&mut Key> {
        self.by_arn.get_mut(arn)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Key> {
        self.by_arn.values()
    }

    pub(crate) fn remove(&mut self, arn: &str) -> Option<Key> {
        self.aliases.retain(|_, target| target != arn);
        self.by_arn.remove(arn)
    }

    pub(crate) fn set_alias(&mut self, alias_arn: String, key_arn: String) {
        self.aliases.insert(alias_arn, key_arn);
    }

    /// Removes an alias by its ARN; returns false if there is none.
    pub(crate) fn remove_alias(&mut self, alias_arn: &str) -> bool {
        self.aliases.remove(alias_arn).is_some()
    }

    /// Returns the key ARN of an alias.
    pub(crate) fn alias(&self, alias_arn: &str) -> Option<&str> {
        self.aliases.get(alias_arn).map(String::as_str)
    }

    /// Returns the first alias of the key, as `alias/name`.
    pub(crate) fn alias_of(&self, key_arn: &str) -> Option<&str> {
        self.aliases
            .iter()
            .find(|(_, key)| *key == key_arn)
            .and_then(|(alias, _)| alias.splitn(6, ':').nth(5))
    }

    /// Returns the key ARN that an identifier refers to in this account and region: a key id, key ARN, alias
    /// name or alias ARN. `alias/aws/kinesis` exists from its first use, as AWS creates its managed keys on
    /// demand.
    pub(crate) fn resolve(
        &mut self,
        given: &str,
        account: &str,
        region: &str,
        now: Timestamp,
    ) -> Result<String, AwsError> {
        let alias = if given.starts_with("alias/") {
            Some(format!("arn:aws:kms:{region}:{account}:{given}"))
        } else if given.starts_with("arn:") {
            let resource = given.splitn(6, ':').nth(5).filter(|_| given.split(':').nth(2) == Some("kms"));
            let right_region = given.split(':').nth(3) == Some(region);
            match resource {
                Some(resource) if resource.starts_with("alias/") && right_region => Some(given.to_owned()),
                Some(resource) if resource.starts_with("key/") && right_region => None,
                // This is KMS's answer for an ARN of another region.
                Some(_) if !right_region => {
                    return Err(AwsError::new(
                        "NotFoundException",
                        format!("Invalid arn {}", given.split(':').nth(3).unwrap_or_default()),
                    ));
                }
                _ => return Err(AwsError::new("InvalidArnException", format!("Invalid arn {given}"))),
            }
        } else {
            None
        };
        if let Some(alias) = alias {
            if let Some(key) = self.aliases.get(&alias) {
                return Ok(key.clone());
            }
            if let Some(prefix) = alias.strip_suffix("alias/aws/kinesis") {
                let account = prefix.split(':').nth(4).unwrap_or_default().to_owned();
                let key = PlantedKey {
                    account,
                    region: region.to_owned(),
                    manager: "AWS".to_owned(),
                    ..PlantedKey::default()
                };
                let arn = self.plant(key, now);
                if let Some(key) = self.by_arn.get_mut(&arn) {
                    OF_KINESIS.clone_into(&mut key.description);
                }
                self.set_alias(alias, arn.clone());
                return Ok(arn);
            }
            return Err(AwsError::new("NotFoundException", format!("Alias {alias} is not found.")));
        }
        let arn = if given.starts_with("arn:") {
            given.to_owned()
        } else {
            format!("arn:aws:kms:{region}:{account}:key/{given}")
        };
        if self.by_arn.contains_key(&arn) {
            Ok(arn)
        } else if given.starts_with("arn:") || looks_like_a_key_id(given) {
            Err(AwsError::new("NotFoundException", format!("Key '{arn}' does not exist")))
        } else {
            Err(AwsError::new("NotFoundException", format!("Invalid keyId '{given}'")))
        }
    }
}

/// The description of `alias/aws/kinesis`.
const OF_KINESIS: &str = "Default key that protects my Kinesis data when no other key is defined";

/// Returns whether the text is a UUID or a multi-Region key id.
pub(crate) fn looks_like_a_key_id(text: &str) -> bool {
    let uuid = text.len() == 36
        && text
            .char_indices()
            .all(|(at, c)| if [8, 13, 18, 23].contains(&at) { c == '-' } else { c.is_ascii_hexdigit() });
    let multi_region = text
        .strip_prefix("mrk-")
        .is_some_and(|hex| hex.len() == 32 && hex.chars().all(|c| c.is_ascii_hexdigit()));
    uuid || multi_region
}
