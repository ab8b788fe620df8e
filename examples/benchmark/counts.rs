//! Counts requests: those that AWS received, by the simulated AWS's own log, and those that the API server
//! received, by its own metrics.
//!
//! It only reads. The benchmark itself sends no counted request while it measures, except that it watches the
//! resources, and watches are not counted.

use std::collections::BTreeMap;

use anyhow::Context as _;
use simulated_aws::SimulatedAws;
use test_cluster::TestCluster;

/// The error codes with which AWS refuses a request because of its limits of requests per second.
const THROTTLED: [&str; 3] = ["ThrottlingException", "LimitExceededException", "Throttling"];

/// Requests to AWS.
#[derive(Clone, Debug, Default)]
pub(crate) struct AwsCalls {
    /// Requests by operation.
    pub(crate) by_operation: BTreeMap<String, u64>,
    /// Requests that AWS refused because of its limits.
    pub(crate) throttled: u64,
    /// Describes of a stream.
    pub(crate) describes: u64,
}

impl AwsCalls {
    /// Counts the log from its entry `from` on. Also returns the length of the log, from which a later count
    /// goes on.
    pub(crate) fn since(aws: &SimulatedAws, from: usize) -> (Self, usize) {
        let world = aws.world();
        let mut counted = Self::default();
        for call in &world.calls()[from..] {
            *counted.by_operation.entry(call.operation.clone()).or_default() += 1;
            counted.throttled += u64::from(THROTTLED.contains(&call.outcome.as_str()));
            let describes = ["DescribeDeliveryStream", "DescribeStreamSummary"];
            counted.describes += u64::from(describes.contains(&call.operation.as_str()));
        }
        (counted, world.calls().len())
    }

    /// Returns the number of all requests.
    pub(crate) fn total(&self) -> u64 {
        self.by_operation.values().sum()
    }
}

/// Requests to the API server, by verb and resource, without watches.
pub(crate) type ApiRequests = BTreeMap<String, u64>;

/// Returns the number of requests so far that concern the operator's objects, namespaces or events.
pub(crate) async fn api_requests(cluster: &TestCluster) -> anyhow::Result<ApiRequests> {
    let metrics = cluster.kubectl(&["get", "--raw", "/metrics"]).await?;
    let mut requests = ApiRequests::new();
    for line in metrics.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
        let label = |name: &str| {
            let (_, rest) = line.split_once(&format!("{name}=\"")).context("a label is missing")?;
            Ok::<_, anyhow::Error>(rest.split_once('"').context("a label does not end")?.0)
        };
        let (group, resource, verb) = (label("group")?, label("resource")?, label("verb")?);
        let subresource = label("subresource")?;
        let concerned = ["streamencryption.dev", "events.k8s.io"].contains(&group)
            || group.is_empty() && resource == "namespaces";
        if !concerned || verb == "WATCH" {
            continue;
        }
        let slash = if subresource.is_empty() { "" } else { "/" };
        let count: u64 = line.rsplit(' ').next().context("no count")?.parse()?;
        *requests.entry(format!("{verb} {resource}{slash}{subresource}")).or_default() += count;
    }
    Ok(requests)
}

/// Returns the requests between two counts.
pub(crate) fn between(before: &ApiRequests, after: &ApiRequests) -> ApiRequests {
    let more = after.iter().map(|(what, count)| {
        (what.clone(), count.saturating_sub(before.get(what).copied().unwrap_or_default()))
    });
    more.filter(|(_, count)| *count > 0).collect()
}
