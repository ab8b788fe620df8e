//! The streams that a `StreamEncryption` of the cluster manages already, and the names that the cluster has. Pure.
//!
//! A resource names its stream in its status once the operator has resolved it. Before that, its spec counts: an ARN, or
//! a service and name, which then stand for the account of the person's own credentials.

use std::collections::{BTreeMap, BTreeSet};

use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::model::arn::{AwsAccount, Region, StreamArn};

/// The `StreamEncryptions` of the cluster, by stream, and the names of its `StreamEncryptionPolicies`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managed {
    by_stream: BTreeMap<StreamArn, String>,
    names: BTreeSet<(String, String)>,
    policies: Option<BTreeSet<String>>,
}

impl Managed {
    /// Adds a resource. Its parts are absent if the resource cannot be parsed; its name is taken nevertheless.
    /// `own` and `regions` resolve a stream that is given by name: the person's own account, and the surveyed regions.
    pub fn add(
        &mut self,
        namespace: &str,
        name: &str,
        resource: Option<&StreamEncryption>,
        own: Option<&AwsAccount>,
        regions: &[Region],
    ) {
        self.names.insert((namespace.to_owned(), name.to_owned()));
        for stream in resource.map(|resource| streams(resource, own, regions)).unwrap_or_default() {
            self.by_stream.entry(stream).or_insert_with(|| format!("{namespace}/{name}"));
        }
    }

    /// Adds a resource that cannot be parsed, for example because a newer operator has written it, with the ARN of its
    /// stream as far as it is known.
    pub fn add_unreadable(&mut self, namespace: &str, name: &str, stream: Option<StreamArn>) {
        self.names.insert((namespace.to_owned(), name.to_owned()));
        if let Some(stream) = stream {
            self.by_stream.entry(stream).or_insert_with(|| format!("{namespace}/{name}"));
        }
    }

    /// Sets the names of all `StreamEncryptionPolicies` of the cluster.
    pub fn set_policies(&mut self, names: BTreeSet<String>) {
        self.policies = Some(names);
    }

    /// Returns the names of all `StreamEncryptionPolicies` of the cluster; `None` if they were not listed.
    #[must_use]
    pub fn policies(&self) -> Option<&BTreeSet<String>> {
        self.policies.as_ref()
    }

    /// Returns the resource that manages a stream, as `NAMESPACE/NAME`.
    #[must_use]
    pub fn of(&self, stream: &StreamArn) -> Option<&str> {
        self.by_stream.get(stream).map(String::as_str)
    }

    /// Returns the names of the resources of a namespace.
    pub fn names_in(&self, namespace: &str) -> impl Iterator<Item = &str> {
        self.names.iter().filter(move |(other, _)| other == namespace).map(|(_, name)| name.as_str())
    }
}

/// Returns the streams that a resource may stand for: one, or one in each region if its region is not known yet.
fn streams(resource: &StreamEncryption, own: Option<&AwsAccount>, regions: &[Region]) -> Vec<StreamArn> {
    let of_status = resource.status.as_ref().and_then(|status| status.stream.as_ref()?.arn.as_deref());
    let spec = &resource.spec.stream;
    if let Some(arn) = of_status.or(spec.arn.as_deref()) {
        return arn.parse().into_iter().collect();
    }
    let (Some(service), Some(name), Some(own)) = (spec.service, spec.name.as_deref(), own) else {
        return Vec::new();
    };
    let given: Option<Region> = spec.region.as_deref().and_then(|region| region.parse().ok());
    let regions = given.as_ref().map_or(regions, std::slice::from_ref);
    let AwsAccount { account, partition } = own;
    let stream =
        |region: &Region| StreamArn::new(partition.clone(), service, region.clone(), account.clone(), name);
    regions.iter().filter_map(|region| stream(region).ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ORDERS: &str = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders";

    fn resource(spec: &serde_json::Value, status: &serde_json::Value) -> StreamEncryption {
        serde_json::from_value(json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption", "metadata": {"name": "orders"},
            "spec": {"stream": spec}, "status": status,
        }))
        .unwrap()
    }

    fn managed(spec: &serde_json::Value, status: &serde_json::Value) -> Managed {
        let own = AwsAccount::of(&ORDERS.parse().unwrap());
        let regions = ["eu-west-1", "eu-central-1"].map(|region| region.parse().unwrap());
        let mut managed = Managed::default();
        managed.add("data", "orders", Some(&resource(spec, status)), Some(&own), &regions);
        managed
    }

    #[test]
    fn status_precedes_spec() {
        let status = json!({"stream": {"arn": ORDERS, "service": "Firehose", "region": "eu-west-1", "name": "orders"}});
        for spec in [json!({"service": "Firehose", "name": "orders"}), json!({"arn": ORDERS})] {
            assert_eq!(managed(&spec, &status).of(&ORDERS.parse().unwrap()), Some("data/orders"));
        }
        assert_eq!(
            managed(&json!({"arn": ORDERS}), &json!(null)).of(&ORDERS.parse().unwrap()),
            Some("data/orders")
        );
    }

    #[test]
    fn name_without_region_stands_for_each_region() {
        let elsewhere = ORDERS.replace("eu-west-1", "eu-central-1");
        let of = |managed: &Managed, arn: &str| managed.of(&arn.parse().unwrap()).is_some();
        let both = managed(&json!({"service": "Firehose", "name": "orders"}), &json!(null));
        assert!(of(&both, ORDERS) && of(&both, &elsewhere));
        let one = managed(
            &json!({"service": "Firehose", "name": "orders", "region": "eu-central-1"}),
            &json!(null),
        );
        assert!(!of(&one, ORDERS) && of(&one, &elsewhere));
        assert!(!of(&both, &ORDERS.replace("111122223333", "444455556666")));
    }

    #[test]
    fn invalid_resource_takes_its_name_only() {
        let mut managed = Managed::default();
        managed.add("data", "broken", None, None, &[]);
        assert_eq!(managed.names_in("data").collect::<Vec<_>>(), ["broken"]);
        assert_eq!(managed.names_in("other").count(), 0);
        assert_eq!(managed.by_stream.len(), 0);
    }
}
