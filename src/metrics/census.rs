//! What the resources say, counted: how many streams stand how, how long the longest is in plain text, how few calls are left.
//!
//! It is read from statuses that were written already, at the moment of asking, so nothing is kept and nothing grows stale. Only
//! the replica that leads has the resources at hand; the others tell nothing of them, and sums over replicas are right.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use jiff::{SignedDuration, Timestamp};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Word;
use crate::api::condition::{ConditionType, Reason, Truth, find};
use crate::api::stream_encryption::{
    Encryption, EncryptionStatus, Service, StreamEncryption, StreamEncryptionSpec, StreamEncryptionStatus,
};
use crate::aws::Urgency;

/// The word for what nobody has seen or said yet.
const UNKNOWN: &str = "UNKNOWN";

/// What only the moment of asking shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moment {
    /// Requests that wait for their turn at AWS, by how urgent they are.
    pub pacer_waiting: Vec<(Urgency, usize)>,
    /// What the resources say; nothing where this replica does not have them.
    pub census: Option<Census>,
}

/// What the resources say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Census {
    /// Resources by service and AWS's word.
    streams: BTreeMap<(Service, &'static str), u32>,
    /// Resources by the reason of `Ready`.
    reasons: BTreeMap<&'static str, u32>,
    /// Of the stream that has the fewest.
    lowest_calls_left: Option<u32>,
    /// Streams whose records are in plain text and are to be encrypted.
    in_plain_text: u32,
    /// Of the stream that has been in plain text longest.
    longest_plain_text: SignedDuration,
    /// Resources whose active key cannot be used: records are being lost.
    unusable_active_keys: u32,
    /// Resources of which the key asked for cannot be used, and the active one can.
    unusable_desired_keys: u32,
    /// How long ago AWS answered last, of the stream of which it answered least lately.
    oldest_describe: Option<SignedDuration>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stream {
    aws_service: Word,
    status: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Given {
    reason: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Unusable {
    key: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Waiting {
    urgency: Word,
}

impl Census {
    /// Counts what these resources say at `now`; one that says nothing yet, or cannot be read, is counted too.
    #[must_use]
    pub fn of<'a>(resources: impl IntoIterator<Item = Option<&'a StreamEncryption>>, now: Timestamp) -> Self {
        let mut census = Self::default();
        for resource in resources {
            let status = resource.and_then(|resource| resource.status.as_ref());
            let reason = status.and_then(reason_of_ready).map_or(UNKNOWN, Reason::as_str);
            *census.reasons.entry(reason).or_default() += 1;
            if let (Some(resource), Some(status)) = (resource, status) {
                census.count(&resource.spec, status, now);
            }
        }
        census
    }

    fn count(&mut self, spec: &StreamEncryptionSpec, status: &StreamEncryptionStatus, now: Timestamp) {
        if let Some(stream) = &status.stream {
            let word = status.encryption_status.map_or(UNKNOWN, EncryptionStatus::as_str);
            *self.streams.entry((stream.service, word)).or_default() += 1;
        }
        if let Some(calls) = &status.calls {
            let left = calls.limit.saturating_sub(calls.used);
            self.lowest_calls_left = Some(self.lowest_calls_left.map_or(left, |lowest| lowest.min(left)));
        }
        // What is suspended, or not this resource's, is not described on purpose.
        let described = status.last_describe_time.as_ref().filter(|_| is_described(status));
        if let Some(described) = described {
            let age = now.duration_since(described.0);
            self.oldest_describe = Some(self.oldest_describe.map_or(age, |oldest| oldest.max(age)));
        }
        // Plain text that is asked for is nothing to wait for.
        let since = status.plain_text_since.as_ref();
        if let Some(since) = since.filter(|_| spec.encryption == Encryption::Enabled) {
            self.in_plain_text += 1;
            self.longest_plain_text = self.longest_plain_text.max(now.duration_since(since.0));
        }
        let key = find(&status.conditions, ConditionType::KeyUsable);
        if status.active_key_unusable_since_time.is_some() {
            self.unusable_active_keys += 1;
        } else if key.is_some_and(|key| key.status == Truth::False.as_str()) {
            self.unusable_desired_keys += 1;
        }
    }

    fn register(&self, registry: &mut Registry) {
        let streams = Family::<Stream, Gauge>::default();
        for ((service, status), count) in &self.streams {
            let labels = Stream { aws_service: super::of(*service), status: Word(status) };
            streams.get_or_create(&labels).set(i64::from(*count));
        }
        registry.register("streams", "Streams of resources by AWS's word for their encryption", streams);
        let reasons = Family::<Given, Gauge>::default();
        for (reason, count) in &self.reasons {
            reasons.get_or_create(&Given { reason: Word(reason) }).set(i64::from(*count));
        }
        registry.register("resources", "Resources by the reason of Ready", reasons);
        if let Some(left) = self.lowest_calls_left {
            registry.register(
                "lowest_calls_left",
                "Calls left to the stream that has the fewest",
                gauge(left),
            );
        }
        registry.register(
            "plain_text_streams",
            "Streams whose records are in plain text and are to be encrypted",
            gauge(self.in_plain_text),
        );
        let longest = Gauge::<f64, AtomicU64>::default();
        longest.set(self.longest_plain_text.as_secs_f64().max(0.0));
        registry.register(
            "longest_plain_text_seconds",
            "How long the stream that has been in plain text longest has been so",
            longest,
        );
        let unusable = Family::<Unusable, Gauge>::default();
        for (key, count) in [("active", self.unusable_active_keys), ("desired", self.unusable_desired_keys)] {
            unusable.get_or_create(&Unusable { key: Word(key) }).set(i64::from(count));
        }
        registry.register(
            "unusable_keys",
            "Resources whose active or desired key cannot be used; with an active one, records are being lost",
            unusable,
        );
        if let Some(age) = self.oldest_describe {
            let oldest = Gauge::<f64, AtomicU64>::default();
            oldest.set(age.as_secs_f64().max(0.0));
            registry.register(
                "oldest_describe_age_seconds",
                "How long ago AWS last answered a Describe, of the stream where that is longest ago",
                oldest,
            );
        }
    }
}

impl Moment {
    pub(super) fn register(&self, registry: &mut Registry) {
        let waiting = Family::<Waiting, Gauge>::default();
        for (urgency, count) in &self.pacer_waiting {
            let labels = Waiting { urgency: Word(word(*urgency)) };
            waiting.get_or_create(&labels).set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
        registry.register("pacer_waiting", "Requests that wait for their turn at AWS", waiting);
        if let Some(census) = &self.census {
            census.register(registry);
        }
    }
}

/// Whether the operator looks at the stream of a resource with this status, if AWS lets it.
fn is_described(status: &StreamEncryptionStatus) -> bool {
    !matches!(
        reason_of_ready(status),
        Some(
            Reason::Suspended
                | Reason::NotPermitted
                | Reason::RolesDiffer
                | Reason::DisableNotPermitted
                | Reason::StreamOwnedByAnother
                | Reason::LedgerUnreadable
                | Reason::SpecInvalid
        )
    )
}

fn reason_of_ready(status: &StreamEncryptionStatus) -> Option<Reason> {
    find(&status.conditions, ConditionType::Ready)?.reason.parse().ok()
}

fn word(urgency: Urgency) -> &'static str {
    match urgency {
        Urgency::Call => "call",
        Urgency::Changing => "changing",
        Urgency::Drift => "drift",
    }
}

fn gauge(value: u32) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(i64::from(value));
    gauge
}
