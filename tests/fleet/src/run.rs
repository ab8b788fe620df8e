//! One operator with its fleet: all resources exist before it starts, as after an upgrade.
//!
//! The clock is tokio's, paused: it advances when every task waits. So a run takes as long as the operator computes,
//! and a day of waiting takes no time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::policy::{PolicyRole, StreamEncryptionPolicySpec};
use stream_encryption_api::stream_encryption::{
    Service, StreamEncryption, StreamEncryptionSpec, StreamReference,
};
use stream_encryption_core::controller::memory::Memory;
use stream_encryption_core::controller::{Clock, Config, Context, NoMetrics};
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_core::model::aws_event::{AwsEvent, EventScope, Subject};
use stream_encryption_core::model::decision::{PROPAGATION_DELAY, decide};
use stream_encryption_core::model::request_limits::RequestLimits;
use stream_encryption_core::model::service::{Operation, profile};
use stream_encryption_operator::aws::rate_limit::{DEFAULT_RATE_PERCENT, RateLimiter};
use stream_encryption_operator::kubernetes::store::Key;
use stream_encryption_operator::metrics::Metrics;
use stream_encryption_operator::operator::dispatcher::{Dispatcher, Reconciler, Trigger, Waiting};
use tokio::sync::{SetOnce, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::aws::FleetAws;
use crate::kubernetes::FleetKube;

/// A fleet.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// The service of the streams.
    pub service: Service,
    /// The number of resources, by namespace. Each has a stream of its own.
    pub namespaces: Vec<(String, usize)>,
    /// The number of accounts. Each namespace has its streams in one of them, spread over the regions.
    pub accounts: usize,
    /// The number of regions.
    pub regions: usize,
    /// Whether the streams are encrypted already when the operator starts.
    pub encrypted: bool,
    /// AWS's limits, which the operator knows.
    pub limits: RequestLimits,
    /// The time that AWS takes to encrypt a stream.
    pub change: Duration,
    /// The drift interval.
    pub drift_interval: Duration,
    /// The drift interval while AWS's events arrive; `None` if the operator receives none.
    pub drift_interval_with_events: Option<Duration>,
    /// Maximum number of concurrent reconciles.
    pub concurrency: u16,
}

impl Fleet {
    /// Returns a fleet of plaintext Firehose streams in one namespace, account and region.
    #[must_use]
    pub fn of(streams: usize) -> Self {
        Self {
            service: Service::Firehose,
            namespaces: vec![("data".to_owned(), streams)],
            accounts: 1,
            regions: 1,
            encrypted: false,
            limits: RequestLimits::default(),
            change: Duration::from_secs(5),
            drift_interval: Duration::from_hours(1),
            drift_interval_with_events: None,
            concurrency: 32,
        }
    }

    /// Returns the number of streams.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.namespaces.iter().map(|(_, streams)| streams).sum()
    }

    /// Returns the time until all resources are Ready that the operator cannot undercut with its share of AWS's
    /// limits, in the account and region with the most streams. An encrypted stream needs one Describe, a stream in
    /// plaintext two with a Start between them. Both settle then.
    #[must_use]
    pub fn floor(&self) -> Duration {
        let streams = self.streams().div_ceil(self.accounts * self.regions) as u64;
        let any = self.stream(0, 0);
        let time_for = |operation: Operation| {
            let limit = self.limits.of(operation, Some(&any.account), &any.region);
            let rate = u64::from(limit) * u64::from(DEFAULT_RATE_PERCENT);
            Duration::from_millis(streams * 100_000 / rate)
        };
        let profile = profile(self.service);
        let requests = if self.encrypted {
            time_for(profile.describe)
        } else {
            (time_for(profile.describe) * 2).max(time_for(profile.start) + self.change)
        };
        requests + PROPAGATION_DELAY.unsigned_abs()
    }

    /// Returns the account of the namespace with this number.
    fn account(&self, namespace: usize) -> String {
        format!("{:012}", 100_000_000_000 + namespace % self.accounts)
    }

    /// Returns a stream of the namespace with this number.
    ///
    /// # Panics
    /// Never: the parts are valid.
    #[must_use]
    pub fn stream(&self, namespace: usize, number: usize) -> StreamArn {
        let (account, region) = (self.account(namespace), number % self.regions + 1);
        let (service, kind) = (profile(self.service).arn_service, profile(self.service).arn_type);
        let arn =
            format!("arn:aws:{service}:eu-west-{region}:{account}:{kind}/orders-{namespace:04}-{number:05}");
        arn.parse().expect("an ARN")
    }

    /// Returns the policy of each namespace, with the role that the operator assumes in its account.
    fn policies(&self) -> HashMap<String, StreamEncryptionPolicySpec> {
        let of = |(number, (namespace, _)): (usize, &(String, usize))| {
            let arn = format!("arn:aws:iam::{}:role/stream-encryption", self.account(number));
            let role = Some(PolicyRole { arn, external_id: None });
            let policy = StreamEncryptionPolicySpec { role, ..StreamEncryptionPolicySpec::own_account() };
            (namespace.clone(), policy)
        };
        self.namespaces.iter().enumerate().map(of).collect()
    }
}

/// A running operator with its fleet.
pub struct Run {
    /// The operator, with its streams and resources.
    pub operator: Arc<Context<FleetAws, FleetKube>>,
    start: Instant,
    triggers: mpsc::UnboundedSender<Trigger>,
    end: CancellationToken,
    task: JoinHandle<()>,
}

impl Run {
    /// Creates the streams and their resources, and starts an operator. The clock must be paused.
    ///
    /// # Panics
    /// Never: the region is valid.
    #[must_use]
    pub fn start(fleet: &Fleet) -> Self {
        let limiter = RateLimiter::with_limits(DEFAULT_RATE_PERCENT, fleet.limits.clone());
        let start = Instant::now();
        let context = Arc::new(Context {
            aws: FleetAws::new(limiter.clone(), fleet.limits.clone(), fleet.change),
            kube: FleetKube::new(fleet.policies()),
            clock: clock(start),
            decide,
            config: Config {
                region: "eu-west-1".parse().expect("a region"),
                drift_interval: signed(fleet.drift_interval),
                drift_interval_with_events: fleet.drift_interval_with_events.map(signed),
            },
            memory: Memory::default(),
            metrics: Box::new(NoMetrics),
        });
        let (triggers, mut triggered) = mpsc::unbounded_channel();
        let end = CancellationToken::new();
        let reconciler = Reconciler {
            context: context.clone(),
            resources: context.kube.store(),
            metrics: Metrics::default(),
        };
        let dispatcher = Dispatcher::new(reconciler, limiter, fleet.concurrency, Waiting::default());
        let stream = futures_util::stream::poll_fn(move |cx| triggered.poll_recv(cx)).boxed();
        let ended = end.clone();
        let task = tokio::spawn(async move {
            let filled = SetOnce::new();
            let listed = async {
                // The clock advances once all resources are scheduled.
                tokio::time::sleep(Duration::from_millis(1)).await;
                // Nobody else sets it.
                let _ = filled.set(());
            };
            tokio::join!(listed, dispatcher.run(stream, &filled, &ended));
        });
        let run = Self { operator: context, start, triggers, end, task };
        for (place, (namespace, streams)) in fleet.namespaces.iter().enumerate() {
            for number in 0..*streams {
                run.create(namespace, fleet.stream(place, number), fleet.encrypted);
            }
        }
        run
    }

    /// Creates a stream and its resource.
    pub fn create(&self, namespace: &str, stream: StreamArn, encrypted: bool) {
        let reference = StreamReference { arn: Some(stream.to_string()), ..StreamReference::default() };
        let spec = StreamEncryptionSpec { stream: reference, ..StreamEncryptionSpec::default() };
        let mut resource = StreamEncryption::new(stream.name(), spec);
        resource.metadata.namespace = Some(namespace.to_owned());
        self.operator.aws.create(stream, encrypted);
        let created = self.operator.kube.create(resource);
        // The dispatcher runs as long as this exists.
        let _ = self.triggers.send(Trigger::One(created));
    }

    /// Receives a heartbeat of the account and region of a stream.
    pub fn receive_heartbeat(&self, stream: &StreamArn) {
        let event = AwsEvent {
            scope: EventScope::of(stream),
            time: self.operator.clock.now(),
            subject: Subject::Heartbeat,
        };
        // A heartbeat concerns no resource.
        let _ = self.operator.memory.events.receive(&event, self.operator.clock.monotonic(), Duration::ZERO);
    }

    /// Wakes the resources whose events no longer arrive, as the operator does every second.
    pub fn find_silent(&self) {
        for silent in self.operator.memory.events.find_silent(self.operator.clock.monotonic()) {
            for name in silent.resources {
                let _ = self.triggers.send(Trigger::One(Key::of_path(name)));
            }
        }
    }

    /// Waits until as many resources have become Ready, and returns the times from the start, in order.
    pub async fn wait_for_ready(&self, number: usize) -> Vec<Duration> {
        self.operator.kube.wait_for_ready(number).await;
        let since = |at: Instant| at.duration_since(self.start);
        self.operator.kube.ready().iter().map(|ready| since(ready.at)).collect()
    }

    /// Returns when half of the resources that are Ready now were Ready, by namespace.
    #[must_use]
    pub fn halves(&self) -> BTreeMap<String, Duration> {
        let mut by_namespace: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
        for ready in self.operator.kube.ready() {
            by_namespace.entry(ready.namespace).or_default().push(ready.at.duration_since(self.start));
        }
        by_namespace.into_iter().map(|(namespace, times)| (namespace, times[times.len() / 2])).collect()
    }

    /// Returns the time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Ends the operator, after the reconciles that are running.
    pub async fn end(self) {
        self.end.cancel();
        // It has not panicked, or its panic has ended the test.
        let _ = self.task.await;
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// Returns a clock that follows tokio's.
fn clock(start: Instant) -> Clock {
    let begin: Timestamp = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 365 * 56);
    let elapsed = move || start.elapsed();
    Clock::new(move || begin + SignedDuration::try_from(elapsed()).unwrap_or(SignedDuration::MAX), elapsed)
}
