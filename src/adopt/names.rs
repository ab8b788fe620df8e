//! The names of files and of resources: valid in Kubernetes, unique, and the same in each run. Pure.
//!
//! A stream's name may have characters, upper case and a length that a Kubernetes name may not have. A name that has to be
//! changed gets a hash of the original, so that two streams never share one.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_core::model::object::is_dns_subdomain;
use stream_encryption_core::model::service::profile;

/// Returns `SERVICE-NAME` as a valid name, unique in the account and region of the stream.
#[must_use]
pub fn of_stream(stream: &StreamArn) -> String {
    let service = profile(stream.service).arn_service;
    let name = format!("{service}-{}", stream.name());
    if is_dns_subdomain(&name) {
        return name;
    }
    let plain = |character: char| {
        if character.is_ascii_alphanumeric() { character.to_ascii_lowercase() } else { '-' }
    };
    let words: String = stream.name().chars().map(plain).collect();
    let words: Vec<&str> = words.split('-').filter(|word| !word.is_empty()).collect();
    let parts = std::iter::once(service).chain(words).collect::<Vec<_>>().join("-");
    format!("{parts}-{}", hash(stream.name()))
}

/// Returns a name for a resource of each stream, none of them among `taken`. A name that several streams would have gets
/// the region, and the account if that is not enough.
#[must_use]
pub fn of_resources(streams: &[&StreamArn], taken: &BTreeSet<&str>) -> Vec<String> {
    let candidates: Vec<[String; 4]> = streams.iter().map(|stream| candidates(stream)).collect();
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    for candidates in &candidates {
        for candidate in candidates {
            *uses.entry(candidate).or_default() += 1;
        }
    }
    let is_free = |name: &str| uses[name] == 1 && !taken.contains(name);
    let chosen = |candidates: &[String; 4]| {
        let [.., last] = candidates;
        candidates.iter().find(|name| is_free(name)).unwrap_or(last).clone()
    };
    candidates.iter().map(chosen).collect()
}

/// Returns the names for a resource in the order of preference. The last one is unique.
fn candidates(stream: &StreamArn) -> [String; 4] {
    let name = of_stream(stream);
    let with_region = format!("{name}-{}", stream.region);
    let with_account = format!("{with_region}-{}", stream.account);
    let with_hash = format!("{with_account}-{}", hash(&stream.to_string()));
    [name, with_region, with_account, with_hash]
}

fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    format!("{:08x}", u32::from_be_bytes(digest[..4].try_into().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(name: &str) -> StreamArn {
        format!("arn:aws:kinesis:eu-west-1:111122223333:stream/{name}").parse().unwrap()
    }

    #[test]
    fn valid_name_is_kept_and_other_gets_a_hash() {
        for (name, expected) in [
            ("clicks", "kinesis-clicks"),
            ("data.clicks-v2", "kinesis-data.clicks-v2"),
            ("Clicks", "kinesis-clicks-"),
            ("my_clicks", "kinesis-my-clicks-"),
            ("a..b", "kinesis-a-b-"),
            ("-clicks-", "kinesis-clicks-"),
            ("___", "kinesis-"),
        ] {
            let made = of_stream(&stream(name));
            let is_kept = !expected.ends_with('-');
            assert!(
                if is_kept { made == expected } else { made.len() == expected.len() + 8 },
                "{name}: {made}"
            );
            assert!(made.starts_with(expected) && is_dns_subdomain(&made), "{name}: {made}");
        }
    }

    #[test]
    fn names_that_differ_in_case_only_stay_different() {
        let names: BTreeSet<String> = ["orders", "Orders", "ORDERS", "or_ders", "or-ders"]
            .iter()
            .map(|name| of_stream(&stream(name)))
            .collect();
        assert_eq!(names.len(), 5);
    }

    #[test]
    fn shared_names_get_region_and_account() {
        let arns = [
            "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks",
            "arn:aws:kinesis:eu-central-1:111122223333:stream/clicks",
            "arn:aws:kinesis:eu-central-1:444455556666:stream/clicks",
            "arn:aws:firehose:eu-west-1:111122223333:deliverystream/clicks",
            "arn:aws:kinesis:eu-west-1:111122223333:stream/views",
        ]
        .map(|arn| arn.parse::<StreamArn>().unwrap());
        let names = of_resources(&arns.each_ref(), &BTreeSet::from(["kinesis-views"]));
        assert_eq!(
            names,
            [
                "kinesis-clicks-eu-west-1",
                "kinesis-clicks-eu-central-1-111122223333",
                "kinesis-clicks-eu-central-1-444455556666",
                "firehose-clicks",
                "kinesis-views-eu-west-1",
            ]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_name_is_valid_and_unique(names in prop::collection::btree_set("[a-zA-Z0-9_.-]{1,128}", 1..20)) {
            let streams: Vec<StreamArn> = names.iter().map(|name| stream(name)).collect();
            let streams: Vec<&StreamArn> = streams.iter().collect();
            let made = of_resources(&streams, &BTreeSet::new());
            prop_assert!(made.iter().all(|name| is_dns_subdomain(name)), "{:?}", made);
            prop_assert_eq!(made.iter().collect::<BTreeSet<_>>().len(), streams.len());
        }
    }
}
