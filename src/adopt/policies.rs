//! The policies for streams that are taken over: those of the cluster, and the IAM policies of the operator's role. Pure.
//!
//! Both name each stream and each key, without any pattern, and allow only what encryption needs. Where the number of
//! streams exceeds a limit of Kubernetes or of IAM, there are several.

use std::collections::{BTreeMap, BTreeSet};

use stream_encryption_api::policy::{
    DEFAULT_CALLS_PER_DAY, NamespaceSelector, PolicyRole, StreamEncryptionPolicySpec,
};
use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::model::arn::{Account, KeyArn, Region, StreamArn};
use stream_encryption_core::model::principal::Role;

use super::survey::Place;
use crate::iam::document::{LONGEST_MANAGED_POLICY, PolicyDocument, characters};
use crate::iam::scope::{Scope, ScopeError};
use crate::iam::{self, Feature};

/// Maximum number of streams, and of keys, in a `StreamEncryptionPolicy`.
const MAX_ITEMS: usize = 100;
/// The label that Kubernetes sets on each namespace.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// A stream that is taken over, as policies need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedStream {
    /// The stream.
    pub stream: StreamArn,
    /// The role with which it is reached.
    pub role: Option<Role>,
    /// The patterns of the keys that it may have.
    pub keys: Vec<String>,
    /// The customer managed keys among them.
    pub customer_keys: Vec<KeyArn>,
}

/// Returns the policies that allow a namespace these streams and keys, with their names. Each account and region has
/// policies of its own.
#[must_use]
pub fn of_cluster(namespace: &str, streams: &[AllowedStream]) -> Vec<(String, StreamEncryptionPolicySpec)> {
    let mut groups: BTreeMap<(&Account, &Region, &Option<Role>), Vec<&AllowedStream>> = BTreeMap::new();
    for allowed in streams {
        let StreamArn { account, region, .. } = &allowed.stream;
        groups.entry((account, region, &allowed.role)).or_default().push(allowed);
    }
    let policies = groups.into_iter().flat_map(|((account, region, role), streams)| {
        let name = name(namespace, account, region);
        let chunks = chunks(&streams);
        let is_only = chunks.len() == 1;
        chunks.into_iter().enumerate().map(move |(number, (streams, keys))| {
            let name = if is_only { name.clone() } else { format!("{name}-{}", number + 1) };
            (name, spec(namespace, role.as_ref(), streams, keys))
        })
    });
    policies.collect()
}

fn name(namespace: &str, account: &Account, region: &Region) -> String {
    format!("adopted-{namespace}-{account}-{region}")
}

/// Returns whether a policy of this name is one of those that [`of_cluster`] returns for the streams of a place.
#[must_use]
pub fn is_name_of(policy: &str, namespace: &str, place: &Place) -> bool {
    let rest = policy.strip_prefix(&name(namespace, &place.account.account, &place.region));
    let is_number = |rest: &str| rest.strip_prefix('-').is_some_and(|number| number.parse::<usize>().is_ok());
    rest.is_some_and(|rest| rest.is_empty() || is_number(rest))
}

/// Divides streams so that neither they nor their keys exceed the length of a list.
fn chunks(streams: &[&AllowedStream]) -> Vec<(Vec<String>, BTreeSet<String>)> {
    let mut chunks: Vec<(Vec<String>, BTreeSet<String>)> = Vec::new();
    for allowed in streams {
        let has_room = |(streams, keys): &(Vec<String>, BTreeSet<String>)| {
            let added = allowed.keys.iter().filter(|key| !keys.contains(*key)).count();
            streams.len() < MAX_ITEMS && keys.len() + added <= MAX_ITEMS
        };
        if !chunks.last().is_some_and(has_room) {
            chunks.push((Vec::new(), BTreeSet::new()));
        }
        if let Some((streams, keys)) = chunks.last_mut() {
            streams.push(allowed.stream.to_string());
            keys.extend(allowed.keys.iter().cloned());
        }
    }
    chunks
}

fn spec(
    namespace: &str,
    role: Option<&Role>,
    streams: Vec<String>,
    keys: BTreeSet<String>,
) -> StreamEncryptionPolicySpec {
    let match_labels = BTreeMap::from([(NAMESPACE_LABEL.to_owned(), namespace.to_owned())]);
    StreamEncryptionPolicySpec {
        namespace_selector: NamespaceSelector { match_labels, ..NamespaceSelector::default() },
        role: role.map(|role| PolicyRole {
            arn: role.arn.to_string(),
            external_id: role.external_id.as_ref().map(|id| id.as_str().to_owned()),
        }),
        streams,
        keys: keys.into_iter().collect(),
        allow_disable: false,
        max_calls_per_day: DEFAULT_CALLS_PER_DAY,
    }
}

/// Returns the IAM policies of the operator's role in each account: for these streams and their keys, each short enough
/// for a managed policy.
pub fn of_iam(streams: &[AllowedStream]) -> Result<Vec<(Account, Vec<PolicyDocument>)>, ScopeError> {
    let mut accounts: BTreeMap<&Account, Vec<&AllowedStream>> = BTreeMap::new();
    for allowed in streams {
        accounts.entry(&allowed.stream.account).or_default().push(allowed);
    }
    let policies =
        |(account, streams): (&Account, Vec<&AllowedStream>)| Ok((account.clone(), documents(&streams)?));
    accounts.into_iter().map(policies).collect()
}

fn documents(streams: &[&AllowedStream]) -> Result<Vec<PolicyDocument>, ScopeError> {
    let arns = streams.iter().map(|allowed| allowed.stream.to_string().parse()).collect::<Result<_, _>>()?;
    let keys: BTreeSet<String> =
        streams.iter().flat_map(|allowed| &allowed.customer_keys).map(ToString::to_string).collect();
    let keys = keys.iter().map(|key| key.parse()).collect::<Result<_, _>>()?;
    // The ARN of `alias/aws/kinesis` differs in each account and region.
    let uses_aws_key = |allowed: &&&AllowedStream| {
        allowed.stream.service == Service::Kinesis && allowed.keys.iter().any(|key| key == "AWS_OWNED_CMK")
    };
    let regions = streams.iter().filter(uses_aws_key).map(|allowed| allowed.stream.region.clone());
    let scope = Scope::new(arns, keys, Vec::new())?.with_unknown_kinesis_keys(regions);
    let document = iam::policy(&scope, &[Feature::Encrypt]);
    if streams.len() == 1 || characters(&document) <= LONGEST_MANAGED_POLICY {
        return Ok(vec![document]);
    }
    let (first, second) = streams.split_at(streams.len() / 2);
    Ok([documents(first)?, documents(second)?].concat())
}

#[cfg(test)]
mod tests {
    use stream_encryption_core::model::arn::AwsAccount;

    use super::*;

    fn allowed(number: usize, region: &str, key: Option<usize>, role: Option<&Role>) -> AllowedStream {
        let stream = format!("arn:aws:firehose:{region}:111122223333:deliverystream/orders-{number:04}");
        let key = key.map(|key| format!("arn:aws:kms:{region}:111122223333:key/{key:08}"));
        AllowedStream {
            stream: stream.parse().unwrap(),
            role: role.cloned(),
            keys: vec![key.clone().unwrap_or_else(|| "AWS_OWNED_CMK".to_owned())],
            customer_keys: key.iter().map(|key| key.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn policy_allows_exactly_the_streams_and_keys() {
        let role = Role {
            arn: "arn:aws:iam::111122223333:role/spoke".parse().unwrap(),
            external_id: Some("of-the-data-team".parse().unwrap()),
        };
        let streams =
            [allowed(1, "eu-west-1", None, Some(&role)), allowed(2, "eu-west-1", Some(7), Some(&role))];
        let [(name, spec)] = of_cluster("data", &streams).try_into().unwrap();
        assert_eq!(name, "adopted-data-111122223333-eu-west-1");
        assert_eq!(spec.streams, streams.each_ref().map(|allowed| allowed.stream.to_string()));
        assert_eq!(spec.keys, ["AWS_OWNED_CMK", "arn:aws:kms:eu-west-1:111122223333:key/00000007"]);
        assert_eq!(spec.namespace_selector.match_labels["kubernetes.io/metadata.name"], "data");
        let role = spec.role.unwrap();
        assert_eq!(role.arn, "arn:aws:iam::111122223333:role/spoke");
        assert_eq!(role.external_id.as_deref(), Some("of-the-data-team"));
        assert!(!spec.allow_disable);
    }

    #[test]
    fn each_region_and_each_hundred_streams_have_a_policy() {
        let mut streams: Vec<_> = (0..201).map(|number| allowed(number, "eu-west-1", None, None)).collect();
        streams.push(allowed(1, "eu-central-1", None, None));
        let policies = of_cluster("data", &streams);
        let lengths: Vec<(&str, usize)> =
            policies.iter().map(|(name, spec)| (name.as_str(), spec.streams.len())).collect();
        assert_eq!(
            lengths,
            [
                ("adopted-data-111122223333-eu-central-1", 1),
                ("adopted-data-111122223333-eu-west-1-1", 100),
                ("adopted-data-111122223333-eu-west-1-2", 100),
                ("adopted-data-111122223333-eu-west-1-3", 1),
            ]
        );
    }

    #[test]
    fn names_of_a_place_are_recognized() {
        let stream = allowed(1, "us-east-1", None, None).stream;
        let place = Place { account: AwsAccount::of(&stream), region: stream.region, role: None };
        for (name, is_of_place) in [
            ("adopted-data-111122223333-us-east-1", true),
            ("adopted-data-111122223333-us-east-1-12", true),
            ("adopted-data-111122223333-us-east-12", false),
            ("adopted-data-111122223333-us-east-2", false),
            ("adopted-web-111122223333-us-east-1", false),
            ("adopted-data-111122223333-us-east-1-x", false),
        ] {
            assert_eq!(is_name_of(name, "data", &place), is_of_place, "{name}");
        }
    }

    #[test]
    fn keys_of_a_policy_fit_its_list() {
        let two_keys = |number: usize| {
            let mut allowed = allowed(number, "eu-west-1", Some(2 * number), None);
            allowed.keys.push(format!("arn:aws:kms:eu-west-1:111122223333:key/{:08}", 2 * number + 1));
            allowed
        };
        let policies = of_cluster("data", &(0..120).map(two_keys).collect::<Vec<_>>());
        assert_eq!(policies.iter().map(|(_, spec)| spec.keys.len()).collect::<Vec<_>>(), [100, 100, 40]);
        assert_eq!(policies.iter().map(|(_, spec)| spec.streams.len()).sum::<usize>(), 120);
    }

    #[test]
    fn iam_policies_cover_each_stream_once_and_fit() {
        let streams: Vec<_> =
            (0..300).map(|number| allowed(number, "eu-west-1", Some(number % 3), None)).collect();
        let [(account, documents)] = of_iam(&streams).unwrap().try_into().unwrap();
        assert_eq!(account.as_str(), "111122223333");
        assert!(documents.len() > 1);
        let mut named = Vec::new();
        for document in &documents {
            assert!(characters(document) <= LONGEST_MANAGED_POLICY);
            named.extend(document.statement[0].resource.iter().map(ToOwned::to_owned));
        }
        assert_eq!(named, streams.iter().map(|allowed| allowed.stream.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn each_account_has_its_own_iam_policy() {
        let mut other = allowed(1, "eu-west-1", None, None);
        other.stream = other.stream.to_string().replace("111122223333", "444455556666").parse().unwrap();
        let policies = of_iam(&[allowed(1, "eu-west-1", Some(1), None), other]).unwrap();
        let accounts: Vec<&str> = policies.iter().map(|(account, _)| account.as_str()).collect();
        assert_eq!(accounts, ["111122223333", "444455556666"]);
        assert!(policies.iter().all(|(_, documents)| documents.len() == 1));
    }

    /// With a customer managed key of the region alone, AWS would refuse to encrypt the other stream.
    #[test]
    fn aws_key_of_kinesis_is_allowed_beside_a_customer_key() {
        let kinesis = |number, key| {
            let mut one = allowed(number, "eu-west-1", key, None);
            one.stream =
                format!("arn:aws:kinesis:eu-west-1:111122223333:stream/orders-{number}").parse().unwrap();
            one
        };
        let any_key = "arn:aws:kms:eu-west-1:111122223333:key/*";
        for (second, wanted) in [(None, true), (Some(2), false)] {
            let policies = of_iam(&[kinesis(1, Some(1)), kinesis(2, second)]).unwrap();
            let text = serde_json::to_string(&policies[0].1).unwrap();
            assert_eq!(text.contains(any_key), wanted, "{text}");
        }
    }
}
