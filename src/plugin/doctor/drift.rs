//! The check of drift detection: whether each stream was described as lately as the operator's settings and AWS's limits
//! permit.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::condition::Reason;
use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::model::arn::{Account, Region, StreamArn};
use stream_encryption_core::model::service::profile;

use super::Check;
use crate::aws::rate_limit::DRIFT_DIVISOR;
use crate::plugin::age::short;
use crate::plugin::fleet::Entry;
use crate::plugin::operator_settings::{DescribePace, OperatorSettings};

const NAME: &str = "drift detection";
/// By how much a status lags: the operator writes a newer time of the last description alone only once an hour.
const STATUS_LAG: SignedDuration = SignedDuration::from_hours(1);
/// The longest wait between two descriptions that do not detect drift, such as those of a stream whose key is disabled.
/// A short drift interval does not shorten it.
const LONGEST_POLL: SignedDuration = SignedDuration::from_mins(10);

/// What decides how often streams are described.
pub(super) struct Describers<'a> {
    /// The settings of each operator; if none is known, the defaults.
    pub(super) operators: &'a [OperatorSettings],
    /// Whether the person names a queue of AWS's events.
    pub(super) names_queue: bool,
    /// Whether there may be more streams, in other namespaces, which share AWS's limits.
    pub(super) is_partial: bool,
}

/// The streams of one operator that share one of AWS's limits. The first field is the number of the operator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group(usize, Service, Account, Region);

/// A stream that its operator is meant to describe.
struct Described<'a> {
    entry: &'a Entry,
    group: Group,
}

/// A stream that was described too long ago.
struct Late<'a> {
    stream: &'a Described<'a>,
    age: SignedDuration,
    expected: SignedDuration,
}

impl Describers<'_> {
    /// Checks the resources, each with its labels.
    pub(super) fn check(&self, resources: &[(Entry, &BTreeMap<String, String>)], now: Timestamp) -> Check {
        let described: Vec<Described<'_>> =
            resources.iter().filter_map(|(entry, labels)| self.described(entry, labels)).collect();
        let mut counts: BTreeMap<&Group, u32> = BTreeMap::new();
        for stream in &described {
            *counts.entry(&stream.group).or_default() += 1;
        }
        let note = self.slowest(&counts);
        let aged = described.iter().filter_map(|stream| {
            let age = now.duration_since(stream.entry.last_describe_time?);
            let permitted = self.permitted(&stream.group, counts.get(&stream.group).copied()?);
            Some(Late { stream, age, expected: oldest_expected(self.interval(&stream.group), permitted) })
        });
        let aged: Vec<Late<'_>> = aged.collect();
        let Some(oldest) = aged.iter().map(|one| one.age).max() else {
            return Check::good(NAME, format!("no stream has been described yet{note}"));
        };
        let late: Vec<&Late<'_>> = aged.iter().filter(|one| one.age > one.expected).collect();
        match late.iter().max_by_key(|one| one.age.saturating_sub(one.expected)) {
            None => {
                Check::good(NAME, format!("the oldest description in a status is {} old{note}", short(oldest)))
            }
            Some(Late { stream, age, expected }) => Check::warning(
                NAME,
                format!(
                    "{} of {} streams were not described in time, such as that of {}/{}: {} ago by its status, instead of at most {}{note}",
                    late.len(),
                    described.len(),
                    stream.entry.namespace,
                    stream.entry.resource,
                    short(*age),
                    short(*expected)
                ),
                self.remedy(&stream.group),
            ),
        }
    }

    /// Returns the stream of a resource if an operator is meant to describe it. An operator leaves out the resources that it
    /// does not watch, and those whose reason says so: their last description gets older without end.
    fn described<'a>(&self, entry: &'a Entry, labels: &BTreeMap<String, String>) -> Option<Described<'a>> {
        let reason = entry.reason.as_ref().and_then(|reason| reason.parse().ok());
        if entry.suspended || !reason.is_none_or(Reason::is_described) {
            return None;
        }
        // Shards do not overlap.
        let watches =
            |operator: &OperatorSettings| operator.watched.excludes(&entry.namespace, labels).is_none();
        let operator = self.operators.iter().position(watches)?;
        let stream: StreamArn = entry.stream.as_ref()?.parse().ok()?;
        Some(Described { entry, group: Group(operator, stream.service, stream.account, stream.region) })
    }

    fn pace(&self, group: &Group) -> &DescribePace {
        &self.operators[group.0].pace
    }

    /// Returns the longest interval at which the operator's settings have these streams described.
    fn interval(&self, group: &Group) -> SignedDuration {
        let pace = self.pace(group);
        // A queue that the person names may be that of an operator whose settings could not be read.
        pace.longest_interval(self.names_queue && !pace.is_known)
    }

    /// Returns the interval at which AWS's limits permit to describe these streams.
    fn permitted(&self, group: &Group, count: u32) -> SignedDuration {
        let Group(_, service, account, region) = group;
        let pace = self.pace(group);
        let limit = pace.limits.of(profile(*service).describe, Some(account), region);
        // In thousandths of a request per second; from one per second on, the operator sends whole requests per second.
        let rate = limit.saturating_mul(10).saturating_mul(u32::from(pace.rate_percent)) / DRIFT_DIVISOR;
        let rate = if rate < 1000 { rate.max(1) } else { rate / 1000 * 1000 };
        SignedDuration::from_millis(i64::from(count) * 1_000_000 / i64::from(rate))
    }

    /// Returns which streams AWS's limits slow down most; empty if none.
    fn slowest(&self, counts: &BTreeMap<&Group, u32>) -> String {
        let permitted = counts.iter().map(|(group, count)| (self.permitted(group, *count), *group, *count));
        let slowed = permitted.filter(|(permitted, group, _)| *permitted > self.interval(group));
        let Some((permitted, Group(_, service, account, region), count)) = slowed.max() else {
            return String::new();
        };
        format!(
            "; {count} {service:?} streams of account {account} in {region} are described every {} by the operator's share of AWS's limits",
            short(permitted)
        )
    }

    fn remedy(&self, group: &Group) -> String {
        let mut remedy =
            "Does the operator run? docs/runbooks/StreamEncryptionNotReconciling.md".to_owned();
        if !self.pace(group).is_known {
            remedy.push_str(&format!(
                ". Its settings are not all known: if its drift interval is longer than {}, ignore this.",
                short(self.interval(group))
            ));
        }
        if self.is_partial {
            remedy.push_str(
                " Streams of other namespaces share AWS's limits, and are not counted: check without -n, if you may.",
            );
        }
        remedy
    }
}

/// Returns the greatest age of the last description in a status while the operator works. `interval` is that of the
/// settings, which differs by up to a tenth between resources; `permitted` is that of AWS's limits.
fn oldest_expected(interval: SignedDuration, permitted: SignedDuration) -> SignedDuration {
    let interval = interval.max(LONGEST_POLL);
    (interval + interval / 10).max(permitted).saturating_add(STATUS_LAG)
}
