//! Executes the operations of a plan: the actions of users and other tools, and the faults of AWS and of
//! nodes.
//!
//! This module never changes an object or a field that only the operator writes.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use simulated_aws::world::{
    Caller, PlantedStream, Request, Service as AwsService, Snapshot, StreamKey, StreamStatus, World,
};
use stream_encryption_api::stream_encryption::Service;

use crate::caches::WatchKind;
use crate::environment::{
    ACCOUNT, EXTERNAL_ACCESS_KEY, Environment, Event, FOREIGN_ACCESS_KEY, FOREIGN_ACCOUNT,
    OPERATOR_ACCESS_KEY, PlannedFailure, Process, REGION, State,
};
use crate::generator::stream_arn;
use crate::invariants::{NORMAL_SKEW, aws_service};
use crate::keys::{self, ALIAS, KEY_OBJECT};
use crate::plan::{Denial, Operation, Plan, PlannedStream, StreamKind};

/// Creates the initial state of AWS.
pub fn world(plan: &Plan) -> World {
    let mut world = World::new(plan.settings.clone());
    for key in [OPERATOR_ACCESS_KEY, EXTERNAL_ACCESS_KEY] {
        world.plant_account(key, ACCOUNT);
    }
    world.plant_account(FOREIGN_ACCESS_KEY, FOREIGN_ACCOUNT);
    keys::plant(&mut world);
    for stream in &plan.streams {
        if stream.kind != StreamKind::Missing {
            plant(&mut world, stream, ACCOUNT, None);
        }
        // The other account has streams of the same names.
        plant(&mut world, stream, FOREIGN_ACCOUNT, None);
    }
    world
}

fn plant(world: &mut World, stream: &PlannedStream, account: &str, created: Option<Timestamp>) {
    let key = StreamKey::arn(&keys::arn(1));
    let state = match stream.kind {
        StreamKind::Encrypted => Snapshot::enabled(key),
        StreamKind::FailedBefore => Snapshot::enabling_failed(
            key,
            Some(StreamKey::arn(&keys::arn(2))),
            simulated_aws::world::FailureType::KmsAccessDenied,
        ),
        StreamKind::CreationFailed => {
            Snapshot { status: StreamStatus::CreatingFailed, ..Snapshot::default() }
        }
        StreamKind::Plain | StreamKind::NotDirectPut | StreamKind::Missing | StreamKind::Foreign => {
            Snapshot::default()
        }
    };
    let source = if stream.kind == StreamKind::NotDirectPut {
        simulated_aws::world::Source::KinesisStreamAsSource
    } else {
        simulated_aws::world::Source::DirectPut
    };
    world.plant_stream(PlantedStream {
        service: aws_service(stream.service),
        account: account.to_owned(),
        name: stream.name.clone(),
        source,
        created,
        state,
        ..PlantedStream::default()
    });
}

/// Executes one operation of the plan.
#[allow(clippy::too_many_lines, reason = "one arm for each kind of operation")]
pub fn execute(environment: &Environment, plan: &Plan, operation: &Operation) {
    let state = &mut *environment.state();
    let now = state.now;
    state.statistics.count(operation.kind());
    state.trace.record(now, || format!("-> {}: {operation:?}", operation.kind()));
    let stream_of = |number: usize| (&plan.streams[number], stream_arn(&plan.streams[number]));
    match operation {
        Operation::Apply(name, spec) => {
            state.store.apply(name, spec, now);
            state.invariants.last_trigger = now;
        }
        Operation::Retry(name) => {
            state.store.annotate(name, &now.to_string());
            state.invariants.last_trigger = now;
        }
        Operation::Delete(name) => {
            state.store.delete(name, now);
            state.invariants.last_trigger = now;
        }
        Operation::Policies(policies) => {
            state.policies.change(now, policies.clone());
            state.invariants.last_trigger = now;
            for replica in 0..state.replicas.len() {
                let lag = state.replicas[replica].watches.lag(WatchKind::Policies);
                let up_to = state.policies.changes();
                state.events.add(now + lag, Event::PolicyWatch { replica, up_to });
            }
        }
        Operation::ExternalStart(number, key) => {
            let (stream, _) = stream_of(*number);
            external_call(state, stream, "Start", &keys::arn(*key));
        }
        Operation::ExternalStop(number) => {
            let (stream, _) = stream_of(*number);
            external_call(state, stream, "Stop", &keys::arn(1));
        }
        Operation::ExternalCallBurst(number, calls) => {
            let (stream, _) = stream_of(*number);
            for _ in 0..*calls {
                external_call(state, stream, "Start", &keys::arn(1));
            }
        }
        Operation::ExternalFailure(number, failure) => {
            let (stream, arn) = stream_of(*number);
            if let Some(actual) = state.world.stream(&arn, now).cloned()
                && stream.service == Service::Firehose
            {
                let failed =
                    Snapshot::enabling_failed(StreamKey::arn(&keys::arn(2)), actual.active_key, *failure);
                state.world.set_stream(now, &arn, failed);
                state.invariants.external_changes.insert(arn, now);
            }
        }
        Operation::StreamDeleted(number) => {
            let (stream, arn) = stream_of(*number);
            let request = match stream.service {
                Service::Firehose => {
                    Request::firehose("DeleteDeliveryStream", json!({ "DeliveryStreamName": stream.name }))
                }
                Service::Kinesis => Request::kinesis("DeleteStream", json!({ "StreamName": stream.name })),
            };
            state.world.call(now, &Caller::new(EXTERNAL_ACCESS_KEY), REGION, &request);
            state.invariants.external_changes.insert(arn, now);
        }
        Operation::StreamRecreated(number) => {
            let (stream, arn) = stream_of(*number);
            state.world.remove_stream(&arn);
            if stream.kind != StreamKind::Foreign {
                let body = match stream.service {
                    Service::Firehose => json!({ "DeliveryStreamName": stream.name }),
                    Service::Kinesis => json!({ "StreamName": stream.name }),
                };
                let operation =
                    if stream.service == Service::Firehose { "CreateDeliveryStream" } else { "CreateStream" };
                let request =
                    Request { service: aws_service(stream.service), operation: operation.to_owned(), body };
                state.world.call(now, &Caller::new(EXTERNAL_ACCESS_KEY), REGION, &request);
            }
            state.invariants.external_changes.insert(arn, now);
        }
        Operation::Reshard(number) => {
            let (stream, arn) = stream_of(*number);
            if stream.service == Service::Kinesis {
                let request =
                    Request::kinesis("UpdateShardCount", json!({ "StreamARN": arn, "TargetShardCount": 2 }));
                state.world.call(now, &Caller::new(EXTERNAL_ACCESS_KEY), REGION, &request);
            }
        }
        Operation::KeyDisabled(..) | Operation::KeyPendingDeletion(..) | Operation::KeyDenied(..) => {
            change_key(state, operation);
            state.invariants.last_trigger = now;
            record_unusable_keys(state);
        }
        Operation::AliasMoved(number) => {
            state.world.plant_alias(ALIAS, &keys::arn(*number));
            state.invariants.last_trigger = now;
        }
        Operation::KeyObject(number) => {
            let name = ("data".to_owned(), KEY_OBJECT.to_owned());
            state.key_objects = vec![(name, number.map(keys::arn))];
            state.invariants.last_trigger = now;
        }
        Operation::KeyCrd(installed) => {
            state.key_crd_installed = *installed;
            state.invariants.last_trigger = now;
        }
        Operation::AwsFault(rule) => {
            state.world.script((**rule).clone());
        }
        Operation::AwsOutage(rule, time) => {
            let number = state.world.script((**rule).clone());
            state.events.add(now + *time, Event::AwsFaultCleared(number));
        }
        Operation::KubernetesFault(rule) => state.kubernetes_faults.rules.push(*rule),
        Operation::KubernetesDown(time) => state.kubernetes_faults.down_until = now + *time,
        Operation::LedgersForbidden(time) => state.kubernetes_faults.forbidden_until = now + *time,
        Operation::PlannedFailure(replica, after, executed, failure) => {
            state.replicas[*replica].planned_failure =
                Some(PlannedFailure { after: *after, executed: *executed, failure: *failure });
        }
        Operation::Kill(replica, downtime) => {
            let process = Process { replica: *replica, incarnation: state.replicas[*replica].incarnation };
            if state.replicas[*replica].running {
                state.events.add(now, Event::Crash(process));
                state.events.add(now + *downtime, Event::Boot(*replica));
            }
        }
        Operation::ClockSet(replica, error) => set_clock(environment, state, *replica, *error),
        Operation::ForeignCredentials(replica, are_foreign) => {
            // Immediately, or between the Describe and the call, a moment that random times hardly ever hit.
            if state.choices.coin() {
                state.replicas[*replica].foreign_credentials = *are_foreign;
            } else {
                state.replicas[*replica].foreign_credentials_at_call = Some(*are_foreign);
            }
        }
        Operation::SessionNotRenewed(replica, is_stuck) => {
            state.replicas[*replica].session_not_renewed = *is_stuck;
        }
        Operation::WatchLag(replica, lag) => {
            let mask = state.choices.watches();
            state.replicas[*replica].watches.set_lag(mask, *lag);
        }
        Operation::WatchFrozen(replica, time) => {
            let mask = state.choices.watches();
            state.replicas[*replica].watches.freeze(mask, now + *time);
        }
        Operation::WatchDrops(replica, changes) => state.replicas[*replica].watch_drops = *changes,
        Operation::WatchBackInTime(replica, changes) => {
            state.events.add(now, Event::Relist { replica: *replica, behind: *changes });
        }
        Operation::ForgedEvents(..) => {}
    }
    state.send_operation_event(plan, operation);
}

/// Sets a replica's clock. The invariants make allowances for it afterwards.
pub fn set_clock(environment: &Environment, state: &mut State, replica: usize, error: SignedDuration) {
    environment.set_clock_error(state, replica, error);
    if error.abs() > NORMAL_SKEW {
        state.invariants.unusual_skew_until = Timestamp::MAX;
    }
    let now = state.now;
    state.invariants.clock_changes.push(now);
}

type KeyChange = Box<dyn Fn(&mut simulated_aws::world::Key)>;

fn change_key(state: &mut State, operation: &Operation) {
    use simulated_aws::world::KeyState;
    let (number, change): (usize, KeyChange) = match operation {
        Operation::KeyDisabled(number, disabled) => {
            let state = if *disabled { KeyState::Disabled } else { KeyState::Enabled };
            (*number, Box::new(move |key| key.state = state))
        }
        Operation::KeyPendingDeletion(number, pending) => {
            let state = if *pending { KeyState::PendingDeletion } else { KeyState::Enabled };
            (*number, Box::new(move |key| key.state = state))
        }
        Operation::KeyDenied(number, denial) => {
            let denial: Denial = *denial;
            (*number, Box::new(move |key| key.policy = keys::policy(denial)))
        }
        _ => return,
    };
    if let Some(key) = state.world.key_mut(&keys::arn(number)) {
        change(key);
    }
}

/// Sends a request to AWS as another caller, not through the operator.
fn external_call(state: &mut State, stream: &PlannedStream, verb: &str, key: &str) {
    let now = state.now;
    let request = match (stream.service, verb) {
        (Service::Firehose, "Start") => Request::firehose(
            "StartDeliveryStreamEncryption",
            json!({
                "DeliveryStreamName": stream.name,
                "DeliveryStreamEncryptionConfigurationInput": { "KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": key },
            }),
        ),
        (Service::Firehose, _) => {
            Request::firehose("StopDeliveryStreamEncryption", json!({ "DeliveryStreamName": stream.name }))
        }
        (Service::Kinesis, verb) => Request::kinesis(
            if verb == "Start" { "StartStreamEncryption" } else { "StopStreamEncryption" },
            json!({ "StreamName": stream.name, "EncryptionType": "KMS", "KeyId": key }),
        ),
    };
    debug_assert!(matches!(request.service, AwsService::Firehose | AwsService::Kinesis));
    state.world.call(now, &Caller::new(EXTERNAL_ACCESS_KEY), REGION, &request);
    // Regardless of the response of AWS: an error may be returned after the request was executed.
    state.invariants.external_changes.insert(stream_arn(stream), now);
}

/// Records since when each key is unusable.
fn record_unusable_keys(state: &mut State) {
    let now = state.now;
    for number in 0..keys::USABLE_KEYS {
        let arn = keys::arn(number);
        let is_enabled =
            state.world.key(&arn).is_some_and(|key| key.state == simulated_aws::world::KeyState::Enabled);
        if is_enabled {
            state.invariants.unusable_since.remove(&arn);
        } else {
            state.invariants.unusable_since.entry(arn).or_insert(now);
        }
    }
}

/// Ends the faults: no more operations are executed, and everything that can recover by itself recovers.
pub fn end_faults_and_recover(environment: &Environment, plan: &Plan) {
    end_faults(environment, plan);
    let state = &mut *environment.state();
    if plan.keys_recover {
        keys::recover(&mut state.world);
        state.invariants.unusable_since.clear();
        state.key_crd_installed = true;
        state.key_objects = vec![(("data".to_owned(), KEY_OBJECT.to_owned()), Some(keys::arn(0)))];
    }
    state.invariants.last_trigger = state.now;
}

/// Ends the faults of AWS, of the API server and of the processes. The keys stay as they are.
pub fn end_faults(environment: &Environment, plan: &Plan) {
    let state = &mut *environment.state();
    let now = state.now;
    state.trace.record(now, || "-> all faults end".to_owned());
    state.world.clear_faults();
    state.kubernetes_faults = crate::kubernetes_faults::KubernetesFaults::none();
    for replica in &mut state.replicas {
        replica.paused_until = replica.paused_until.min(now);
        replica.planned_failure = None;
        (replica.foreign_credentials, replica.foreign_credentials_at_call) = (false, None);
        replica.session_not_renewed = false;
        replica.watches.end_delays(now);
        replica.watch_drops = 0;
    }
    for (number, error) in plan.clock_errors.iter().enumerate() {
        environment.set_clock_error(state, number, *error);
    }
}
