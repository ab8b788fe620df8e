//! What the operator tells Prometheus: what it does, counted as it happens, and what the resources say, counted when asked.
//!
//! Labels are words of a fixed set, never names of resources or streams: a fleet of ten thousand streams makes no more lines
//! than one of ten. `docs/metrics.md` has one line for each metric, and a test holds that table against this module.

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

use crate::api::ledger::Action;
use crate::api::stream_encryption::Service;
use crate::model::fault::Class;

mod census;
mod counted;

pub use census::{Census, Moment};
pub use counted::Counted;

/// Before the name of every metric.
const PREFIX: &str = "stream_encryption";
/// A visit takes some milliseconds, or as long as AWS's and the API server's deadlines.
const VISIT_SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];
/// AWS takes seconds to minutes; a key that a person has to mend takes hours.
const PLAIN_TEXT_SECONDS: [f64; 9] = [10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0];

/// What is counted as it happens. Clones count together.
#[derive(Clone)]
pub struct Metrics {
    looks: Family<Look, Counter>,
    calls: Family<Call, Counter>,
    reconciles: Family<Reconcile, Counter>,
    reconcile_duration: Histogram,
    time_to_encrypted: Family<OfService, Histogram>,
    leader: Gauge,
    events_lost: Counter,
    encryption_left_on: Counter,
}

/// How a visit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the label's values are these words")]
pub enum Ended {
    /// All was done.
    ok,
    /// Somebody else wrote first: it begins anew.
    conflict,
    /// Kubernetes could not be asked.
    error,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconcile {
    result: Ended,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Look {
    aws_service: Word,
    outcome: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    aws_service: Word,
    action: Word,
    outcome: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfService {
    aws_service: Word,
}

/// A word of a fixed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Word(&'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }
}

/// Every line of a counter is there from the start, at 0: Prometheus sees no increase in a line that begins with 1.
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
        };
        for result in [Ended::ok, Ended::conflict, Ended::error] {
            let _ = metrics.reconciles.get_or_create(&Reconcile { result });
        }
        for aws_service in [of(Service::Firehose), of(Service::Kinesis)] {
            for answered in [true, false] {
                let _ = metrics.looks.get_or_create(&Look { aws_service, outcome: look(answered) });
            }
            for action in [action(Action::Start), action(Action::Stop)] {
                for outcome in Class::EACH.map(Err).into_iter().chain([Ok(())]) {
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
    /// A look at a stream, and whether AWS answered.
    fn look(&self, service: Service, answered: bool) {
        self.looks.get_or_create(&Look { aws_service: of(service), outcome: look(answered) }).inc();
    }

    /// A Start or Stop, and what came of it: accepted, or the class of the error.
    fn call(&self, service: Service, action: Action, outcome: Result<(), Class>) {
        let labels = Call { aws_service: of(service), action: self::action(action), outcome: call(outcome) };
        self.calls.get_or_create(&labels).inc();
    }

    /// A stream's records were in plain text for so long, and AWS says now that they no longer are.
    fn encrypted(&self, service: Service, after: SignedDuration) {
        let family = self.time_to_encrypted.get_or_create(&OfService { aws_service: of(service) });
        family.observe(after.as_secs_f64().max(0.0));
    }

    /// An event that Kubernetes did not take.
    fn event_lost(&self) {
        self.events_lost.inc();
    }

    /// A deleted resource was let go, and its stream was to be turned off and is not.
    fn encryption_left_on(&self) {
        self.encryption_left_on.inc();
    }

    /// A visit of a resource.
    pub fn reconciled(&self, ended: Ended, took: Duration) {
        self.reconciles.get_or_create(&Reconcile { result: ended }).inc();
        self.reconcile_duration.observe(took.as_secs_f64());
    }

    /// Whether this replica leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// All metrics, in [`OpenMetrics`' text](https://prometheus.io/docs/specs/om/open_metrics_spec/); `moment` tells what only
    /// the moment of asking shows.
    #[must_use]
    pub fn told(&self, moment: &Moment) -> String {
        let mut registry = Registry::with_prefix(PREFIX);
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("operator", "The version that runs", version);
        registry.register("leader", "Whether this replica does the work", self.leader.clone());
        registry.register("looks", "Looks at streams", self.looks.clone());
        registry.register("calls", "Starts and Stops sent to AWS", self.calls.clone());
        registry.register("reconciles", "Visits of resources", self.reconciles.clone());
        registry.register(
            "reconcile_duration_seconds",
            "How long visits took",
            self.reconcile_duration.clone(),
        );
        registry.register(
            "time_to_encrypted_seconds",
            "How long records were in plain text until AWS said ENABLED",
            self.time_to_encrypted.clone(),
        );
        registry.register("events_lost", "Events that Kubernetes did not take", self.events_lost.clone());
        registry.register(
            "encryption_left_on",
            "Resources deleted with deletionPolicy Disable whose stream was left as it is",
            self.encryption_left_on.clone(),
        );
        moment.register(&mut registry);
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

fn of(service: Service) -> Word {
    Word(match service {
        Service::Firehose => "Firehose",
        Service::Kinesis => "Kinesis",
    })
}

fn action(action: Action) -> Word {
    Word(match action {
        Action::Start => "Start",
        Action::Stop => "Stop",
    })
}

fn look(answered: bool) -> Word {
    Word(if answered { "answered" } else { "failed" })
}

fn call(outcome: Result<(), Class>) -> Word {
    let Err(class) = outcome else { return Word("Accepted") };
    Word(match class {
        Class::Throttled => "Throttled",
        Class::Transient => "Transient",
        Class::UnknownOutcome => "UnknownOutcome",
        Class::NoCredentials => "NoCredentials",
        Class::CredentialsRejected => "CredentialsRejected",
        Class::Denied => "Denied",
        Class::Key(_) => "Key",
        Class::KeyRefused => "KeyRefused",
        Class::NotFound => "NotFound",
        Class::InUse => "InUse",
        Class::LimitReached => "LimitReached",
        Class::Invalid => "Invalid",
    })
}

#[cfg(test)]
mod tests;
