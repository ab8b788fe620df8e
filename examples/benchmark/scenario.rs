//! The scenario, as the flags define it: how many streams of which kind, in how many regions, and how long AWS's
//! limits make the operator wait at least.
//!
//! It only computes. The limits are those of `src/core/model/service.rs`, which cites their sources.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Value, json};
use stream_encryption_api::stream_encryption::Service as ApiService;
use stream_encryption_core::model::decision::PROPAGATION_DELAY;
use stream_encryption_core::model::service::{Operation, ServiceProfile, profile};
use stream_encryption_operator::aws::rate_limit::DEFAULT_RATE_PERCENT;

/// The limit of each operation that the operator is told if AWS does not limit requests, in requests per second.
const WITHOUT_LIMITS: u32 = 10_000;
/// The shortest default of the drift interval.
const SHORTEST_INTERVAL: usize = 30;
/// The operator's default of the drift interval while events arrive.
const INTERVAL_WITH_EVENTS: usize = 3600;
/// Resources per second that two cores adopt, at least. The drift interval must be longer than the first sweep, or
/// streams are described again before all resources are Ready.
const ADOPTED_PER_SECOND: usize = 60;

/// Measures the operator with many resources, on a real API server and a simulated AWS. Needs Linux.
#[derive(clap::Parser)]
#[command(name = "benchmark")]
pub(crate) struct Scenario {
    /// The number of resources, each with its own stream.
    #[arg(long, default_value_t = 200)]
    pub(crate) resources: usize,
    /// The service of the streams.
    #[arg(long, value_enum, default_value = "kinesis")]
    pub(crate) service: Service,
    /// The state of the streams when the operator starts.
    #[arg(long, value_enum, default_value = "encrypted")]
    pub(crate) state: State,
    /// Whether AWS limits the requests per second. Without limits, the operator is told raised ones.
    #[arg(long, value_enum, default_value = "aws")]
    pub(crate) limits: Limits,
    /// The number of regions of the streams.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=99))]
    pub(crate) regions: u8,
    /// Receive AWS's events from a queue, with a heartbeat every five minutes.
    #[arg(long)]
    pub(crate) events: bool,
    /// The drift interval in seconds. Default: longer than two sweeps over all streams, or an hour with events.
    #[arg(long)]
    drift_interval: Option<usize>,
    /// The time that AWS takes to encrypt a stream, in seconds. Default: 45 for Firehose, 5 for Kinesis.
    #[arg(long)]
    pub(crate) change: Option<i64>,
    /// The number of drift intervals to measure at rest. The watches list everything again after six.
    /// 0: the operator is not measured at rest.
    #[arg(long, default_value_t = 2)]
    pub(crate) rest: u32,
    /// The number of streams whose encryption somebody else turns off in the end, one after the other. The benchmark
    /// measures when the operator corrects it.
    #[arg(long, default_value_t = 0)]
    pub(crate) stops: usize,
    /// The program to measure, such as a released one. Default: the operator in this program.
    #[arg(long)]
    pub(crate) operator: Option<PathBuf>,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The service of the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    /// Amazon Data Firehose.
    Firehose,
    /// Kinesis Data Streams.
    Kinesis,
}

/// The state of the streams when the operator starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    /// Never encrypted: the operator encrypts each of them.
    Plaintext,
    /// Encrypted with the desired key already: the operator adopts each of them without a call.
    Encrypted,
}

/// Whether AWS limits the requests per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Limits {
    /// As AWS documents them.
    Aws,
    /// None.
    None,
}

impl Scenario {
    /// Returns the limit of an operation that the operator knows, in requests per second.
    fn limit(&self, operation: Operation) -> u32 {
        match self.limits {
            Limits::Aws => operation.requests_per_second(),
            Limits::None => WITHOUT_LIMITS,
        }
    }

    /// Returns the operator's setting of AWS's limits.
    pub(crate) fn request_limits(&self) -> Value {
        let limit = |operation: Operation| json!({"operation": operation.iam_action(), "requestsPerSecond": self.limit(operation)});
        Operation::of_operator().map(limit).collect()
    }

    /// Returns what the operator knows about the service.
    fn profile(&self) -> &'static ServiceProfile {
        profile(match self.service {
            Service::Firehose => ApiService::Firehose,
            Service::Kinesis => ApiService::Kinesis,
        })
    }

    /// Returns the time for one such request about each stream, at the operator's default share of AWS's limit.
    fn time_for(&self, operation: Operation) -> Duration {
        let requests = self.resources.div_ceil(usize::from(self.regions)) as u64;
        let rate = u64::from(self.limit(operation)) * u64::from(DEFAULT_RATE_PERCENT);
        Duration::from_millis(requests * 100_000 / rate)
    }

    /// Returns the time that one Describe of every stream takes at least.
    pub(crate) fn sweep(&self) -> Duration {
        self.time_for(self.profile().describe)
    }

    /// Returns the time until all resources are Ready that the operator cannot undercut with its share of AWS's
    /// limits. An encrypted stream needs one Describe. A stream in plaintext needs a Start between two of them,
    /// and `change`, the time that AWS takes for it. Both settle then.
    pub(crate) fn floor(&self, change: Duration) -> Duration {
        let requests = match self.state {
            State::Encrypted => self.sweep(),
            State::Plaintext => (self.sweep() * 2).max(self.time_for(self.profile().start) + change),
        };
        requests + PROPAGATION_DELAY.unsigned_abs()
    }

    /// Returns the drift interval.
    pub(crate) fn drift_interval(&self) -> Duration {
        let sweep = usize::try_from(self.sweep().as_secs()).unwrap_or(usize::MAX);
        let shortest = if self.events { INTERVAL_WITH_EVENTS } else { SHORTEST_INTERVAL };
        let default = (sweep * 5 / 2).max(self.resources / ADOPTED_PER_SECOND).max(shortest);
        Duration::from_secs(self.drift_interval.unwrap_or(default) as u64)
    }

    /// Returns the scenario in words.
    pub(crate) fn words(&self) -> String {
        format!(
            "{} {} {} streams in {} region(s), limits: {}, {} events, drift interval {} s, {} build",
            self.resources,
            word(&self.state),
            word(&self.service),
            self.regions,
            word(&self.limits),
            if self.events { "with" } else { "no" },
            self.drift_interval().as_secs(),
            if cfg!(debug_assertions) { "debug" } else { "release" },
        )
    }
}

/// Returns a value as the command line spells it.
pub(crate) fn word(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}
