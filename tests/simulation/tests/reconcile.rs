//! Single reconciles with one fault each, in scenarios that random environments reach too rarely.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use jiff::SignedDuration;
use simulated_aws::world::{Fault as AwsFault, Rule, Settings};
use simulation::choices::Choices;
use simulation::environment::{Environment, PlannedFailure, ProcessFailure};
use simulation::keys;
use simulation::kubernetes_faults::{KubernetesFault, KubernetesRequest, KubernetesRule};
use simulation::plan::{Plan, PlannedStream, StreamKind};
use simulation::policies::Policy;
use simulation::ports::{AwsPort, KubernetesPort};
use simulation::run::run_until;
use simulation::single;
use simulation::store::Name;
use simulation::wiring::Unmodified;
use stream_encryption_api::condition::{ConditionType, find};
use stream_encryption_api::ledger::StreamLedger;
use stream_encryption_api::stream_encryption::{
    DeletionPolicy, Encryption, KeyReference, KeyType, Mode, Service, StreamEncryptionSpec,
    StreamEncryptionStatus, StreamReference, Verification,
};
use stream_encryption_core::controller::kube_api::KubeError;
use stream_encryption_core::controller::{Context, ReconcileMetrics};

/// Maximum number of reconciles, more than any of these tests needs.
const MAX_RECONCILES: usize = 40;

/// One operator, one stream in plaintext, and one resource.
struct Fixture {
    environment: Arc<Environment>,
    operator: Context<AwsPort, KubernetesPort>,
    name: Name,
}

fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

fn plan() -> Plan {
    Plan {
        events: None,
        seed: 0,
        settings: Settings { enabling: seconds(1), rate_limits: false, ..Settings::default() },
        replicas: 1,
        clock_errors: vec![SignedDuration::ZERO],
        latency: 0,
        drift_interval: seconds(600),
        max_calls: 20,
        allow_disable: true,
        sessions: false,
        streams: vec![PlannedStream {
            service: Service::Firehose,
            name: "s0".to_owned(),
            kind: StreamKind::Plain,
        }],
        keys_recover: true,
        operations: Vec::new(),
    }
}

/// Returns a spec that names a key by its ARN.
fn spec(key: usize) -> StreamEncryptionSpec {
    StreamEncryptionSpec {
        stream: StreamReference {
            arn: Some(simulation::generator::stream_arn(&plan().streams[0])),
            ..StreamReference::default()
        },
        key: Some(KeyReference {
            kind: KeyType::CustomerManaged,
            arn: Some(keys::arn(key)),
            alias: None,
            object_ref: None,
        }),
        encryption: Encryption::Enabled,
        mode: Mode::Enforce,
        deletion_policy: DeletionPolicy::Retain,
        suspend: false,
        verification: Verification::None,
    }
}

impl Fixture {
    fn new(spec: &StreamEncryptionSpec) -> Self {
        let plan = plan();
        let environment = run_until(&plan, &Unmodified, SignedDuration::ZERO);
        environment.state().choices = Choices::none();
        let operator = single::context(&environment, &plan, &Unmodified);
        let fixture = Self { environment, operator, name: ("data".to_owned(), "r0".to_owned()) };
        fixture.apply(spec);
        fixture
    }

    fn apply(&self, spec: &StreamEncryptionSpec) {
        let state = &mut *self.environment.state();
        let now = state.now;
        assert!(state.store.apply(&self.name, spec, now));
    }

    /// Reconciles once, and returns the time until the next reconcile.
    fn reconcile(&self) -> Result<SignedDuration, KubeError> {
        let wake =
            single::reconcile(&self.environment, &self.operator, &self.name).expect("the resource exists");
        wake.map(|wake| wake.duration_since(self.operator.clock.now()).max(SignedDuration::ZERO))
    }

    /// Reconciles at the requested times until `is_done`.
    fn reconcile_until(&self, is_done: impl Fn(&Self) -> bool) {
        for _ in 0..MAX_RECONCILES {
            if is_done(self) {
                return;
            }
            let wait = self.reconcile().unwrap_or(seconds(4));
            if is_done(self) {
                return;
            }
            single::advance_time(&self.environment, wait);
        }
        panic!("not after {MAX_RECONCILES} reconciles: {:?}", self.status());
    }

    fn status(&self) -> StreamEncryptionStatus {
        single::stored(&self.environment, &self.name)
            .and_then(|resource| resource.status.clone())
            .unwrap_or_default()
    }

    /// Returns the status and the reason of a condition.
    fn condition(&self, kind: ConditionType) -> (String, String) {
        let status = self.status();
        find(&status.conditions, kind)
            .map(|found| (found.status.clone(), found.reason.clone()))
            .unwrap_or_default()
    }

    fn is_encrypted(&self) -> bool {
        self.condition(ConditionType::Ready) == ("True".to_owned(), "Encrypted".to_owned())
    }

    fn ledger(&self) -> StreamLedger {
        self.environment.state().store.ledgers().next().cloned().expect("a ledger")
    }
}

/// Counts the reports of finalizers that were removed while encryption stayed on.
struct Removals(Arc<AtomicU32>);

impl ReconcileMetrics for Removals {
    fn encryption_left_on(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn lost_response_to_finalizer_removal_is_reported_once() {
    for (fault, is_applied) in [(KubernetesFault::ResponseLost, true), (KubernetesFault::Refused, false)] {
        let spec = StreamEncryptionSpec { deletion_policy: DeletionPolicy::Disable, ..spec(0) };
        let mut fixture = Fixture::new(&spec);
        let removals = Arc::new(AtomicU32::new(0));
        fixture.operator.metrics = Box::new(Removals(removals.clone()));
        fixture.reconcile_until(Fixture::is_encrypted);
        {
            let state = &mut *fixture.environment.state();
            let now = state.now;
            state.policies.change(now, Vec::<Policy>::new());
            state.store.delete(&fixture.name, now);
            state.kubernetes_faults.rules.push(KubernetesRule {
                on: Some(KubernetesRequest::SetFinalizer),
                skip: 0,
                fault,
            });
        }
        assert!(matches!(fixture.reconcile(), Err(KubeError::Unavailable(_))));
        assert_eq!(removals.load(Ordering::Relaxed), 1, "{fault:?}");
        assert_eq!(single::stored(&fixture.environment, &fixture.name).is_none(), is_applied);
        if !is_applied {
            assert!(fixture.reconcile().is_ok());
            assert!(single::stored(&fixture.environment, &fixture.name).is_none());
            assert_eq!(removals.load(Ordering::Relaxed), 1, "reported by the first attempt");
        }
    }
}

#[test]
fn described_stream_is_not_outdated_if_kms_fails_later() {
    let fixture = Fixture::new(&spec(0));
    fixture.reconcile_until(Fixture::is_encrypted);
    for _ in 0..4 {
        single::advance_time(&fixture.environment, seconds(3600));
        {
            // The requests take so long that the key is described again after the stream, and then KMS fails.
            let world = &mut fixture.environment.state().world;
            world.clear_faults();
            let fails = Rule::always(AwsFault::ServerError { status: 503 }).on("DescribeKey");
            world.script(Rule { skip: 1, ..fails });
            world.script(Rule::once(AwsFault::Slow { by: seconds(6) }).on("DescribeKey"));
            world.script(Rule::once(AwsFault::Slow { by: seconds(6) }).on("DescribeDeliveryStream"));
        }
        fixture.reconcile().expect("Kubernetes responds");
        assert_eq!(fixture.condition(ConditionType::Ready).1, "AwsUnreachable");
        assert_eq!(fixture.condition(ConditionType::Encrypted).0, "True", "{:?}", fixture.status());
        let resource = single::stored(&fixture.environment, &fixture.name).expect("it exists");
        let described = fixture.operator.memory.described_at(&resource).expect("a time");
        assert!(fixture.operator.clock.now().duration_since(described) < seconds(20), "{described}");
    }
}

#[test]
fn stale_describe_response_is_no_drift() {
    let fixture = Fixture::new(&spec(0));
    fixture.reconcile_until(Fixture::is_encrypted);
    single::advance_time(&fixture.environment, seconds(600));
    fixture.apply(&spec(1));
    fixture.reconcile_until(|fixture| fixture.ledger().spec.calls.len() == 2);
    // The user reverts the change. The response of AWS is from before the call, and arrives 32 s after it.
    single::advance_time(&fixture.environment, seconds(24));
    fixture.apply(&spec(0));
    {
        let state = &mut *fixture.environment.state();
        state.world.script(Rule::once(AwsFault::ReadLag { by: seconds(60) }).on("DescribeDeliveryStream"));
        // The resource, the policies, the key and the ledger are read before the Describe.
        let failure = ProcessFailure::Pause(seconds(8));
        state.replicas[0].planned_failure = Some(PlannedFailure { after: 4, executed: true, failure });
    }
    let began = fixture.operator.clock.now();
    fixture.reconcile().expect("Kubernetes responds");
    assert_eq!(fixture.operator.clock.now().duration_since(began), seconds(8), "the response was late");
    let described = fixture.environment.state().world.calls().last().cloned().expect("a request");
    assert_eq!((described.operation.as_str(), described.time), ("DescribeDeliveryStream", began));
    assert!(fixture.ledger().spec.attempts.is_some(), "the attempt with key 1 is not over");
    fixture.reconcile_until(|fixture| fixture.ledger().spec.calls.len() == 3);
    assert!(!fixture.ledger().spec.calls[2].correction, "no other caller has changed the stream");
}

#[test]
fn call_follows_a_recent_description_after_any_pause() {
    let mut calls = 0;
    for after in 0..12 {
        let fixture = Fixture::new(&spec(0));
        {
            let state = &mut *fixture.environment.state();
            let failure = ProcessFailure::Pause(seconds(30));
            state.replicas[0].planned_failure = Some(PlannedFailure { after, executed: true, failure });
            // Slow, but within the timeout.
            let fault = KubernetesFault::Slow(seconds(14));
            state.kubernetes_faults.rules.push(KubernetesRule {
                on: Some(KubernetesRequest::ReadPolicies),
                skip: 0,
                fault,
            });
        }
        fixture.reconcile_until(Fixture::is_encrypted);
        let state = fixture.environment.state();
        let mut described = None;
        for request in state.world.calls() {
            if request.operation == "DescribeDeliveryStream" {
                described = Some(request.time);
            } else if request.changes_encryption() {
                calls += 1;
                let age = request.time.duration_since(described.expect("it was described"));
                assert!(age <= seconds(10), "pause after {after} requests: {age:#}");
            }
        }
    }
    assert!(calls >= 12, "{calls} calls");
}
