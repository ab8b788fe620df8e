//! The state of the resources as gauges: the number of streams by state, the longest time in plaintext, the
//! fewest calls left. And whether AWS's events and the changes of the API server arrive.
//!
//! The gauges are computed at a scrape, from statuses that were already written and from the times of the last Describes.
//! The next scrapes may get the same text for some seconds (see `admin`). Only the leader has the resources and watches. The
//! other replicas report none of these gauges, so sums over replicas are correct.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use stream_encryption_api::condition::{ConditionStatus, ConditionType, Reason, find};
use stream_encryption_api::has_finalizer;
use stream_encryption_api::stream_encryption::{
    Encryption, EncryptionStatus, Service, StreamEncryption, StreamEncryptionStatus,
};
use stream_encryption_core::controller::event_inbox::SILENCE;
use stream_encryption_core::controller::is_deleted_without_disabling;
use stream_encryption_core::controller::stream_api::Priority;
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_core::model::ledger::QUOTA_WINDOW;

use super::Label;

/// The label value for a state that was not observed or reported yet.
const UNKNOWN: &str = "UNKNOWN";

/// The values that are computed at a scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScrapeInput {
    /// Requests to AWS that wait, in the rate limiter or with their resources in the work queue, by priority.
    pub rate_limiter_waiting: Vec<(Priority, usize)>,
    /// The state of the resources; `None` if this replica does not have them.
    pub fleet: Option<FleetSnapshot>,
    /// The accounts and regions of AWS's events; `None` if this replica does not receive them.
    pub event_regions: Option<EventRegions>,
    /// Number of watches of each kind that are not current; `None` if this replica does not watch.
    pub watches_not_current: Option<Vec<(&'static str, usize)>>,
}

/// The accounts and regions that have resources, by whether their events arrive. Those without any event so far are not
/// counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventRegions {
    /// Number of those whose events arrive.
    pub arriving: u32,
    /// Number of those whose events have stopped.
    pub silent: u32,
}

/// The state of the resources.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FleetSnapshot {
    /// Resources by service and by the encryption status that AWS reports.
    streams: BTreeMap<(Service, &'static str), u32>,
    /// Resources by service and by the reason of `Ready`. An invalid resource has no service.
    reasons: BTreeMap<(Option<Service>, &'static str), u32>,
    /// Longest time that any of them has been reconciling or stalled, likewise.
    longest_not_ready: BTreeMap<(Option<Service>, &'static str), SignedDuration>,
    /// Fewest calls left of any stream.
    lowest_calls_left: Option<u32>,
    /// Streams whose records are in plaintext and should be encrypted.
    in_plaintext: u32,
    /// Longest time that any stream has been in plaintext.
    longest_plaintext: SignedDuration,
    /// Resources whose active key is unusable.
    unusable_active_keys: u32,
    /// Resources whose desired key is unusable while the active one is usable.
    unusable_desired_keys: u32,
    /// Longest time since the last Describe of any stream.
    oldest_describe: Option<SignedDuration>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stream {
    aws_service: Label,
    status: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Given {
    aws_service: Label,
    reason: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Unusable {
    key: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Waiting {
    priority: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Watched {
    kind: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    state: Label,
}

impl Given {
    /// Returns the labels of a reason; `None` is the service of an invalid resource.
    fn new(service: Option<Service>, reason: &'static str) -> Self {
        Self { aws_service: service.map_or(Label(UNKNOWN), super::of), reason: Label(reason) }
    }
}

impl EventRegions {
    /// Counts the ages of the last events of each account and region; `None` once its events count as lost.
    pub fn of(ages: impl IntoIterator<Item = Option<Duration>>) -> Self {
        let mut regions = Self::default();
        for age in ages {
            match age {
                Some(age) if age < SILENCE => regions.arriving += 1,
                _ => regions.silent += 1,
            }
        }
        regions
    }
}

impl FleetSnapshot {
    /// Adds a resource with its state at `now`. A resource without a status is counted, too. A resource that is being deleted is
    /// counted only until its stream needs no more work. `described` is when this process last described the stream; `None` if
    /// it has not yet.
    pub fn add(&mut self, resource: &StreamEncryption, described: Option<Timestamp>, now: Timestamp) {
        if is_deleted_without_disabling(resource) {
            return;
        }
        let status = resource.status.as_ref();
        let reason = status.and_then(reason_of_ready).map_or(UNKNOWN, Reason::as_str);
        self.count_reason(service_of(resource), reason, not_ready_since(resource), now);
        if let Some(status) = status {
            self.count(resource, status, described, now);
        }
    }

    /// Adds an invalid resource with this metadata, at `now`. If it is being deleted, it is counted only until the operator has
    /// removed its finalizer: another one may keep the resource for a long time.
    pub fn add_invalid(&mut self, metadata: &ObjectMeta, now: Timestamp) {
        if metadata.deletion_timestamp.is_none() || has_finalizer(metadata) {
            // The status that the operator writes has this reason. It cannot be parsed here, either, so the time of its conditions
            // is unknown.
            let reason = Reason::SpecInvalid.as_str();
            self.count_reason(None, reason, metadata.creation_timestamp.as_ref(), now);
        }
    }

    fn count_reason(
        &mut self,
        service: Option<Service>,
        reason: &'static str,
        not_ready_since: Option<&Time>,
        now: Timestamp,
    ) {
        *self.reasons.entry((service, reason)).or_default() += 1;
        if let Some(since) = not_ready_since {
            let longest = self.longest_not_ready.entry((service, reason)).or_default();
            *longest = (*longest).max(now.duration_since(since.0));
        }
    }

    fn count(
        &mut self,
        resource: &StreamEncryption,
        status: &StreamEncryptionStatus,
        described: Option<Timestamp>,
        now: Timestamp,
    ) {
        if let Some(stream) = &status.stream {
            let word = status.encryption_status.map_or(UNKNOWN, EncryptionStatus::as_str);
            *self.streams.entry((stream.service, word)).or_default() += 1;
        }
        if let Some(calls) = status.calls.as_ref().filter(|_| !outlives_its_calls(status, now)) {
            let left = calls.limit.saturating_sub(calls.used);
            self.lowest_calls_left = Some(self.lowest_calls_left.map_or(left, |lowest| lowest.min(left)));
        }
        // A stream of a suspended resource, or of another resource, is not described on purpose.
        let described = described.or(status.last_describe_time.as_ref().map(|time| time.0));
        if let Some(described) = described.filter(|_| is_described(status)) {
            let age = now.duration_since(described);
            self.oldest_describe = Some(self.oldest_describe.map_or(age, |oldest| oldest.max(age)));
        }
        // Plaintext is not counted if the spec requests it, or the deletion.
        let is_wanted = resource.spec.encryption == Encryption::Disabled
            || resource.metadata.deletion_timestamp.is_some();
        let since = status.plaintext_since_time.as_ref();
        if let Some(since) = since.filter(|_| !is_wanted) {
            self.in_plaintext += 1;
            self.longest_plaintext = self.longest_plaintext.max(now.duration_since(since.0));
        }
        let key = find(&status.conditions, ConditionType::KeyUsable);
        if status.active_key_unusable_since_time.is_some() {
            self.unusable_active_keys += 1;
        } else if key.is_some_and(|key| key.status == ConditionStatus::False.as_str()) {
            self.unusable_desired_keys += 1;
        }
    }

    fn register(&self, registry: &mut Registry) {
        let streams = Family::<Stream, Gauge>::default();
        for ((service, status), count) in &self.streams {
            let labels = Stream { aws_service: super::of(*service), status: Label(status) };
            streams.get_or_create(&labels).set(i64::from(*count));
        }
        registry.register("streams", "Streams by encryption status as AWS reports it", streams);
        let reasons = Family::<Given, Gauge>::default();
        for ((service, reason), count) in &self.reasons {
            reasons.get_or_create(&Given::new(*service, reason)).set(i64::from(*count));
        }
        registry.register("resources", "Resources by reason of the Ready condition", reasons);
        let longest = Family::<Given, Gauge<f64, AtomicU64>>::default();
        for ((service, reason), time) in &self.longest_not_ready {
            longest.get_or_create(&Given::new(*service, reason)).set(time.as_secs_f64());
        }
        registry.register(
            "longest_not_ready_seconds",
            "Longest time that a resource has been reconciling or stalled, by reason of the Ready condition",
            longest,
        );
        if let Some(left) = self.lowest_calls_left {
            registry.register("lowest_calls_left", "Fewest calls left of any stream", gauge(left));
        }
        registry.register(
            "plaintext_streams",
            "Streams in plaintext that should be encrypted",
            gauge(self.in_plaintext),
        );
        let longest = Gauge::<f64, AtomicU64>::default();
        longest.set(self.longest_plaintext.as_secs_f64().max(0.0));
        registry.register(
            "longest_plaintext_seconds",
            "Longest time that a stream has been in plaintext",
            longest,
        );
        let unusable = Family::<Unusable, Gauge>::default();
        for (key, count) in [("active", self.unusable_active_keys), ("desired", self.unusable_desired_keys)] {
            unusable.get_or_create(&Unusable { key: Label(key) }).set(i64::from(count));
        }
        registry.register("unusable_keys", "Resources whose active or desired key is unusable", unusable);
        if let Some(age) = self.oldest_describe {
            let oldest = Gauge::<f64, AtomicU64>::default();
            oldest.set(age.as_secs_f64().max(0.0));
            registry.register(
                "oldest_describe_age_seconds",
                "Age of the oldest last Describe of any stream",
                oldest,
            );
        }
    }
}

impl ScrapeInput {
    pub(super) fn register(&self, registry: &mut Registry) {
        let waiting = Family::<Waiting, Gauge>::default();
        for (priority, count) in &self.rate_limiter_waiting {
            let labels = Waiting { priority: Label(word(*priority)) };
            waiting.get_or_create(&labels).set(number(*count));
        }
        registry.register(
            "rate_limiter_waiting",
            "Requests to AWS that wait for its limits or for a place of the work queue",
            waiting,
        );
        if let Some(watches) = &self.watches_not_current {
            let not_current = Family::<Watched, Gauge>::default();
            for (kind, count) in watches {
                not_current.get_or_create(&Watched { kind: Label(kind) }).set(number(*count));
            }
            registry.register(
                "watches_not_current",
                "Watches of the API server that have no complete list or have failed recently",
                not_current,
            );
        }
        if let Some(fleet) = &self.fleet {
            fleet.register(registry);
        }
        if let Some(EventRegions { arriving, silent }) = self.event_regions {
            let regions = Family::<OfState, Gauge>::default();
            for (state, count) in [("arriving", arriving), ("silent", silent)] {
                regions.get_or_create(&OfState { state: Label(state) }).set(i64::from(count));
            }
            registry.register(
                "aws_event_regions",
                "Accounts and regions whose events of AWS arrive or have stopped",
                regions,
            );
        }
    }
}

/// Returns whether the operator describes the stream of a resource with this status, if AWS permits it.
fn is_described(status: &StreamEncryptionStatus) -> bool {
    reason_of_ready(status).is_none_or(Reason::is_described)
}

/// Returns whether the resource has been suspended, or its stream not described, for longer than a call counts. The operator has
/// made no call for it meanwhile, and the calls in its status keep their number although they no longer count. While the oldest
/// call counts, they do: without a Describe, AWS's events may have added the calls of others.
fn outlives_its_calls(status: &StreamEncryptionStatus, now: Timestamp) -> bool {
    let oldest_ends = status.calls.as_ref().and_then(|calls| calls.next_available_time.as_ref());
    let times = [&status.suspended_since_time, &status.last_describe_time];
    oldest_ends.is_none_or(|end| end.0 <= now)
        && times.into_iter().flatten().any(|since| now.duration_since(since.0) > QUOTA_WINDOW)
}

/// Returns the service of the stream; `None` if neither the status nor the spec has a valid one.
fn service_of(resource: &StreamEncryption) -> Option<Service> {
    let reported = resource.status.as_ref().and_then(|status| status.stream.as_ref());
    let stream = &resource.spec.stream;
    let arn = || Some(stream.arn.as_ref()?.parse::<StreamArn>().ok()?.service);
    reported.map(|stream| stream.service).or(stream.service).or_else(arn)
}

fn reason_of_ready(status: &StreamEncryptionStatus) -> Option<Reason> {
    find(&status.conditions, ConditionType::Ready)?.reason.parse().ok()
}

/// Returns since when the resource has not been ready: since it has been reconciling or stalled, or since its creation if it has
/// no status. `None` if it is ready, or not ready because a user chose so: it is suspended or only observed.
///
/// `Ready` itself is no measure: it is also False while a stream is only observed, and changes between False and Unknown.
fn not_ready_since(resource: &StreamEncryption) -> Option<&Time> {
    let conditions = resource.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    if conditions.is_empty() {
        return resource.metadata.creation_timestamp.as_ref();
    }
    let since = |kind| find(conditions, kind).map(|condition| &condition.last_transition_time);
    since(ConditionType::Reconciling).or_else(|| since(ConditionType::Stalled))
}

fn word(priority: Priority) -> &'static str {
    match priority {
        Priority::Call => "call",
        Priority::Changing => "changing",
        Priority::Drift => "drift",
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn gauge(value: u32) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(i64::from(value));
    gauge
}
