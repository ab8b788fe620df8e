//! Metrics for Prometheus: counters of the operator's actions, updated as they happen, and gauges of the
//! resources, computed when the metrics are rendered, at most every five seconds.
//!
//! Labels have values of a fixed set, never names of resources or streams: a fleet of ten thousand streams
//! has no more time series than one of ten. `docs/metrics.md` has one line for each metric, and a test
//! compares that table with this module.

use std::time::Duration;

use jiff::SignedDuration;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use stream_encryption_api::ledger::Action;
use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::controller::ReconcileMetrics;
use stream_encryption_core::model::aws_error::ErrorKind;
use stream_encryption_core::model::service::{PROFILES, profile};

mod fleet;

pub use fleet::{EventRegions, FleetSnapshot, ScrapeInput};

/// Prefix of the name of every metric.
const PREFIX: &str = "stream_encryption";
/// Buckets for reconciliations, which take some milliseconds, or as long as the deadlines of AWS and the API
/// server.
const VISIT_SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];
/// Buckets for the time in plaintext: AWS takes seconds to minutes; if a key must be fixed, it takes hours.
const PLAIN_TEXT_SECONDS: [f64; 9] = [10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0];

/// Buckets for the age of an event of AWS when it arrives: seconds as a rule, minutes at times.
const EVENT_AGE_SECONDS: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];

/// The metrics that are updated as events happen. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    looks: Family<DescribeLabels, Counter>,
    calls: Family<Call, Counter>,
    reconciles: Family<Reconcile, Counter>,
    reconcile_duration: Histogram,
    time_to_encrypted: Family<OfService, Histogram>,
    leader: Gauge,
    events_lost: Counter,
    encryption_left_on: Counter,
    aws_events: Family<OfKind, Counter>,
    aws_event_age: Histogram,
    event_queue_errors: Counter,
}

/// The result of a reconciliation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the label's values are these words")]
pub enum ReconcileResult {
    /// The reconciliation succeeded.
    ok,
    /// What the reconciliation was based on has changed or grown old: it starts again.
    conflict,
    /// A request to the API server failed.
    error,
}

/// What a message of the queue of AWS's events is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the label's values are these words")]
pub enum AwsEventKind {
    /// A call of Start or Stop.
    call,
    /// The creation or deletion of a stream.
    stream,
    /// A key or an alias.
    key,
    /// None: the event proves that events arrive.
    heartbeat,
    /// Something that the operator does not use.
    unrelated,
    /// The message is no valid event.
    invalid,
}

impl AwsEventKind {
    /// Every kind.
    const ALL: [Self; 6] =
        [Self::call, Self::stream, Self::key, Self::heartbeat, Self::unrelated, Self::invalid];
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: AwsEventKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconcile {
    result: ReconcileResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DescribeLabels {
    aws_service: Label,
    outcome: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    aws_service: Label,
    action: Label,
    outcome: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfService {
    aws_service: Label,
}

/// A label value of a fixed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Label(&'static str);

impl EncodeLabelValue for Label {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }
}

/// Every time series of a counter exists from the start, at 0: Prometheus detects no increase in a series
/// that begins with 1.
impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            looks: Family::default(),
            calls: Family::default(),
            reconciles: Family::default(),
            reconcile_duration: Histogram::new(VISIT_SECONDS),
            time_to_encrypted: Family::new_with_constructor(|| Histogram::new(PLAIN_TEXT_SECONDS)),
            leader: Gauge::default(),
            events_lost: Counter::default(),
            encryption_left_on: Counter::default(),
            aws_events: Family::default(),
            aws_event_age: Histogram::new(EVENT_AGE_SECONDS),
            event_queue_errors: Counter::default(),
        };
        for kind in AwsEventKind::ALL {
            let _ = metrics.aws_events.get_or_create(&OfKind { kind });
        }
        for result in [ReconcileResult::ok, ReconcileResult::conflict, ReconcileResult::error] {
            let _ = metrics.reconciles.get_or_create(&Reconcile { result });
        }
        for aws_service in PROFILES.map(|profile| Label(profile.name)) {
            for answered in [true, false] {
                let _ = metrics.looks.get_or_create(&DescribeLabels { aws_service, outcome: look(answered) });
            }
            for action in [action(Action::Start), action(Action::Stop)] {
                for outcome in ErrorKind::ALL.map(Err).into_iter().chain([Ok(())]) {
                    let _ =
                        metrics.calls.get_or_create(&Call { aws_service, action, outcome: call(outcome) });
                }
            }
            let _ = metrics.time_to_encrypted.get_or_create(&OfService { aws_service });
        }
        metrics
    }
}

impl Metrics {
    /// Counts a reconciliation of a resource.
    pub fn reconciled(&self, ended: ReconcileResult, took: Duration) {
        self.reconciles.get_or_create(&Reconcile { result: ended }).inc();
        self.reconcile_duration.observe(took.as_secs_f64());
    }

    /// Sets whether this replica leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Counts a message of the queue of AWS's events; `age` is that of its event, if it has one.
    pub fn aws_event(&self, kind: AwsEventKind, age: Option<SignedDuration>) {
        self.aws_events.get_or_create(&OfKind { kind }).inc();
        if let Some(age) = age {
            self.aws_event_age.observe(age.as_secs_f64().max(0.0));
        }
    }

    /// Counts a request to the queue of AWS's events that failed.
    pub fn event_queue_failed(&self) {
        self.event_queue_errors.inc();
    }

    /// Returns all metrics in
    /// [`OpenMetrics`' text format](https://prometheus.io/docs/specs/om/open_metrics_spec/), with the values
    /// of `input` that are computed at the scrape.
    #[must_use]
    pub fn encode(&self, input: &ScrapeInput) -> String {
        let mut registry = Registry::with_prefix(PREFIX);
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("operator", "Version of the operator", version);
        registry.register("leader", "Whether this replica is the leader", self.leader.clone());
        registry.register("describe_requests", "Describe requests for streams", self.looks.clone());
        registry.register("calls", "Start and Stop calls sent to AWS", self.calls.clone());
        registry.register("reconciles", "Reconciliations of resources", self.reconciles.clone());
        registry.register(
            "reconcile_duration_seconds",
            "Duration of reconciliations",
            self.reconcile_duration.clone(),
        );
        registry.register(
            "time_to_encrypted_seconds",
            "Time from plaintext until AWS reported ENABLED",
            self.time_to_encrypted.clone(),
        );
        registry.register("events_lost", "Events that were not published", self.events_lost.clone());
        registry.register(
            "encryption_left_on",
            "Resources deleted with deletionPolicy Disable whose stream's encryption was left unchanged",
            self.encryption_left_on.clone(),
        );
        registry.register(
            "aws_events",
            "Messages received from the queue of AWS's events",
            self.aws_events.clone(),
        );
        registry.register(
            "aws_event_age_seconds",
            "Age of AWS's events when they arrive, by AWS's clock",
            self.aws_event_age.clone(),
        );
        registry.register(
            "event_queue_errors",
            "Requests to the queue of AWS's events that failed",
            self.event_queue_errors.clone(),
        );
        input.register(&mut registry);
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

fn of(service: Service) -> Label {
    Label(profile(service).name)
}

fn action(action: Action) -> Label {
    Label(match action {
        Action::Start => "Start",
        Action::Stop => "Stop",
    })
}

fn look(answered: bool) -> Label {
    Label(if answered { "answered" } else { "failed" })
}

fn call(outcome: Result<(), ErrorKind>) -> Label {
    let Err(class) = outcome else { return Label("Accepted") };
    Label(match class {
        ErrorKind::Throttled => "Throttled",
        ErrorKind::Transient => "Transient",
        ErrorKind::UnknownOutcome => "UnknownOutcome",
        ErrorKind::NoCredentials => "NoCredentials",
        ErrorKind::CredentialsRejected => "CredentialsRejected",
        ErrorKind::Denied => "Denied",
        ErrorKind::Key(_) => "Key",
        ErrorKind::KeyAccessDenied => "KeyAccessDenied",
        ErrorKind::NotFound => "NotFound",
        ErrorKind::InUse => "InUse",
        ErrorKind::LimitReached => "LimitReached",
        ErrorKind::Invalid => "Invalid",
    })
}

impl ReconcileMetrics for Metrics {
    fn described(&self, service: Service, answered: bool) {
        let labels = DescribeLabels { aws_service: of(service), outcome: look(answered) };
        self.looks.get_or_create(&labels).inc();
    }

    fn called(&self, service: Service, action: Action, outcome: Result<(), ErrorKind>) {
        let labels = Call { aws_service: of(service), action: self::action(action), outcome: call(outcome) };
        self.calls.get_or_create(&labels).inc();
    }

    fn encrypted(&self, service: Service, after: SignedDuration) {
        let family = self.time_to_encrypted.get_or_create(&OfService { aws_service: of(service) });
        family.observe(after.as_secs_f64().max(0.0));
    }

    fn encryption_left_on(&self) {
        self.encryption_left_on.inc();
    }

    fn event_lost(&self) {
        self.events_lost.inc();
    }
}

#[cfg(test)]
mod tests;
