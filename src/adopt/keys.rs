//! The key that the manifest of a stream names: its active key, or for a stream in plaintext the key that the person gave.
//!
//! A given key is described first, so that no manifest names a key that cannot encrypt its stream. This module only
//! reads.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use stream_encryption_api::stream_encryption::{KeyReference, KeyType};
use stream_encryption_core::controller::stream_api::{Priority, StreamApi as _};
use stream_encryption_core::model::arn::{self, Account, KeyArn, KmsKeyId, ParseError, Region, StreamArn};

use super::found::{FoundEncryption, FoundStream};
use super::survey::{Place, PlaceSurvey, described};
use crate::aws::Aws;

/// A key for streams in plaintext, as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenKey(KmsKeyId);

impl FromStr for GivenKey {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.starts_with("alias/") {
            arn::alias(text).map(Self)
        } else {
            text.parse().map(KmsKeyId::Arn).map(Self)
        }
    }
}

impl fmt::Display for GivenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The key of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ManifestKey {
    /// `AWS_OWNED_CMK`.
    AwsOwned,
    /// A customer managed key by its ARN.
    Arn(KeyArn),
    /// A customer managed key by its alias, which points at this key now.
    Alias(String, KeyArn),
}

impl ManifestKey {
    /// Returns the key as a spec names it.
    #[must_use]
    pub fn reference(&self) -> KeyReference {
        let customer =
            KeyReference { kind: KeyType::CustomerManaged, arn: None, alias: None, object_ref: None };
        match self {
            Self::AwsOwned => KeyReference { kind: KeyType::AwsOwned, ..customer },
            Self::Arn(arn) => KeyReference { arn: Some(arn.to_string()), ..customer },
            Self::Alias(alias, _) => KeyReference { alias: Some(alias.clone()), ..customer },
        }
    }

    /// Returns the patterns of keys with which a policy allows this key for a stream, and no other. A key that is named by
    /// its alias must be allowed by both names.
    #[must_use]
    pub fn patterns(&self, stream: &StreamArn) -> Vec<String> {
        let StreamArn { partition, region, account, .. } = stream;
        match self {
            Self::AwsOwned => vec!["AWS_OWNED_CMK".to_owned()],
            Self::Arn(arn) => vec![arn.to_string()],
            Self::Alias(alias, arn) => {
                vec![format!("arn:{partition}:kms:{region}:{account}:{alias}"), arn.to_string()]
            }
        }
    }

    /// Returns the customer managed key, if it is one.
    #[must_use]
    pub fn customer(&self) -> Option<&KeyArn> {
        match self {
            Self::AwsOwned => None,
            Self::Arn(arn) | Self::Alias(_, arn) => Some(arn),
        }
    }
}

/// The key for the streams in plaintext of each account and region, or why there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlaintextKeys {
    is_given: bool,
    by_place: BTreeMap<(Account, Region), Result<ManifestKey, String>>,
}

impl PlaintextKeys {
    /// Chooses one of the given keys for each place that has streams in plaintext, and describes it. A failed request is a
    /// problem of its place. Without any given key, all streams get `AWS_OWNED_CMK`.
    pub async fn choose(aws: &Aws, given: &[GivenKey], surveys: &mut [PlaceSurvey]) -> Self {
        let mut by_place = BTreeMap::new();
        if !given.is_empty() {
            for PlaceSurvey { place, streams, problems, .. } in surveys {
                let is_plaintext = |stream: &&FoundStream| stream.encryption == FoundEncryption::Plaintext;
                let Some(one_of) = streams.iter().find(is_plaintext) else { continue };
                let key = key_of_place(aws, given, place, &one_of.arn, problems).await;
                by_place.insert((place.account.account.clone(), place.region.clone()), key);
            }
        }
        Self { is_given: !given.is_empty(), by_place }
    }

    /// Returns the key for a stream in plaintext, or why there is none.
    pub fn of(&self, stream: &StreamArn) -> Result<ManifestKey, String> {
        let place = (stream.account.clone(), stream.region.clone());
        match self.by_place.get(&place) {
            Some(key) => key.clone(),
            None if self.is_given => Err("no key was checked for its region".to_owned()),
            None => Ok(ManifestKey::AwsOwned),
        }
    }
}

/// Returns a given key that no region would use, if there is one.
#[must_use]
pub fn unused<'a>(given: &'a [GivenKey], regions: &[Region]) -> Option<&'a GivenKey> {
    given.iter().find(|key| !regions.iter().any(|region| key_for(given, region) == Some(key)))
}

/// Returns the key for a region: the first one that is an ARN of the region, or an alias.
fn key_for<'a>(given: &'a [GivenKey], region: &Region) -> Option<&'a GivenKey> {
    given.iter().find(|GivenKey(key)| match key {
        KmsKeyId::Arn(arn) => arn.region == *region,
        KmsKeyId::Alias(_) => true,
    })
}

/// Returns the key for the streams in plaintext of a place, or why there is none. `one_of` is one of these streams.
async fn key_of_place(
    aws: &Aws,
    given: &[GivenKey],
    place: &Place,
    one_of: &StreamArn,
    problems: &mut Vec<String>,
) -> Result<ManifestKey, String> {
    let region = &place.region;
    let GivenKey(key) = key_for(given, region).ok_or_else(|| format!("no given key is in {region}"))?;
    let metadata = aws.describe_key(one_of, key, &place.principal(), Priority::Drift).await;
    let metadata = metadata.map_err(|error| {
        let why = format!("{key} cannot be checked in {region}: {}", described(&error));
        problems.push(why.clone());
        why
    })?;
    let metadata = metadata.ok_or_else(|| format!("{key} does not exist in {region}"))?;
    if let Some(problem) = metadata.problem(one_of) {
        return Err(format!("{key} cannot encrypt streams in {region}: {}", problem.reason()));
    }
    Ok(match key {
        KmsKeyId::Arn(arn) => ManifestKey::Arn(arn.clone()),
        KmsKeyId::Alias(alias) => ManifestKey::Alias(alias.clone(), metadata.arn),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn given_key_is_an_arn_or_an_alias_of_a_customer() {
        for good in [KEY, "alias/orders"] {
            assert!(good.parse::<GivenKey>().is_ok(), "{good}");
        }
        for bad in
            ["", "orders", "alias/aws/kinesis", "AWS_OWNED_CMK", "arn:aws:kms:eu-west-1:111122223333:alias/x"]
        {
            assert!(bad.parse::<GivenKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn key_that_no_region_uses_is_found() {
        let keys = |keys: &[&str]| -> Vec<GivenKey> { keys.iter().map(|key| key.parse().unwrap()).collect() };
        let regions = ["eu-west-1", "eu-central-1"].map(|region| region.parse().unwrap());
        let (other, elsewhere) = (KEY.replace("1234abcd", "abcd1234"), KEY.replace("eu-west-1", "us-east-1"));
        for (given, wrong) in [
            (&[KEY, "alias/orders"][..], None),
            (&[KEY, KEY], None),
            (&["alias/orders", KEY], Some(KEY)),
            (&["alias/orders", "alias/other"], Some("alias/other")),
            (&[KEY, &other], Some(&other)),
            (&[KEY, &elsewhere], Some(&elsewhere)),
        ] {
            let found = unused(&keys(given), &regions).map(ToString::to_string);
            assert_eq!(found.as_deref(), wrong, "{given:?}");
        }
    }

    #[test]
    fn alias_is_allowed_by_both_of_its_names() {
        let stream: StreamArn =
            "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders".parse().unwrap();
        let alias = ManifestKey::Alias("alias/orders".to_owned(), KEY.parse().unwrap());
        assert_eq!(alias.patterns(&stream), ["arn:aws:kms:eu-west-1:111122223333:alias/orders", KEY]);
        assert_eq!(alias.reference().alias.as_deref(), Some("alias/orders"));
        assert_eq!(alias.customer(), Some(&KEY.parse().unwrap()));
        assert_eq!(ManifestKey::AwsOwned.patterns(&stream), ["AWS_OWNED_CMK"]);
        assert_eq!(ManifestKey::AwsOwned.customer(), None);
    }

    #[test]
    fn aws_owned_key_is_the_default_for_plaintext() {
        let stream = "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks".parse().unwrap();
        assert_eq!(PlaintextKeys::default().of(&stream), Ok(ManifestKey::AwsOwned));
        let given = PlaintextKeys { is_given: true, by_place: BTreeMap::new() };
        assert!(given.of(&stream).is_err());
    }
}
