//! The effects of a plan's events on the environment: what users, other tools, AWS and nodes do.
//!
//! This module never changes what only the operator writes.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use simulated_aws::world::{
    Caller, PlantedStream, Request, Service as AwsService, Snapshot, StreamKey, StreamStatus, World,
};
use stream_encryption_api::stream_encryption::Service;

use crate::caches::Kind;
use crate::environment::{
    ACCOUNT, Doom, Event, FOREIGN_ACCOUNT, MISTAKEN, OPERATOR, OUTSIDER, Process, REGION, Scene, State,
};
use crate::generator::stream_arn;
use crate::invariants::{USUAL_SKEW, aws_service};
use crate::keys::{self, ALIAS, KEY_OBJECT};
use crate::plan::{Denial, Happening, Plan, PlannedStream, StreamKind};

/// Creates the initial state of AWS.
pub fn world(plan: &Plan) -> World {
    let mut world = World::new(plan.settings.clone());
    for key in [OPERATOR, OUTSIDER] {
        world.plant_account(key, ACCOUNT);
    }
    world.plant_account(MISTAKEN, FOREIGN_ACCOUNT);
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
        StreamKind::Broken => Snapshot { status: StreamStatus::CreatingFailed, ..Snapshot::default() },
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

/// Executes one event of the plan.
#[allow(clippy::too_many_lines, reason = "one arm for each kind of happening")]
pub fn act(scene: &Scene, plan: &Plan, happening: &Happening) {
    let state = &mut *scene.state();
    let now = state.now;
    state.tally.fault(happening.kind());
    state.story.tell(now, || format!("-> {}: {happening:?}", happening.kind()));
    let stream_of = |number: usize| (&plan.streams[number], stream_arn(&plan.streams[number]));
    match happening {
        Happening::Apply(name, spec) => {
            state.store.apply(name, spec, now);
            state.promises.stirred = now;
        }
        Happening::Retry(name) => {
            state.store.annotate(name, &now.to_string());
            state.promises.stirred = now;
        }
        Happening::Delete(name) => {
            state.store.delete(name, now);
            state.promises.stirred = now;
        }
        Happening::Policies(policies) => {
            state.policies.change(now, policies.clone());
            state.promises.stirred = now;
            for replica in 0..state.replicas.len() {
                let lag = state.replicas[replica].watches.lag(Kind::Policies);
                let upto = state.policies.changes();
                state.agenda.add(now + lag, Event::PoliciesTold { replica, upto });
            }
        }
        Happening::OutsiderStarts(number, key) => {
            let (stream, _) = stream_of(*number);
            outsider(state, stream, "Start", &keys::arn(*key));
        }
        Happening::OutsiderStops(number) => {
            let (stream, _) = stream_of(*number);
            outsider(state, stream, "Stop", &keys::arn(1));
        }
        Happening::OutsiderBurns(number, calls) => {
            let (stream, _) = stream_of(*number);
            for _ in 0..*calls {
                outsider(state, stream, "Start", &keys::arn(1));
            }
        }
        Happening::OutsiderFails(number, failure) => {
            let (stream, arn) = stream_of(*number);
            if let Some(real) = state.world.stream(&arn, now).cloned()
                && stream.service == Service::Firehose
            {
                let failed =
                    Snapshot::enabling_failed(StreamKey::arn(&keys::arn(2)), real.active_key, *failure);
                state.world.set_stream(now, &arn, failed);
                state.promises.touched.insert(arn, now);
            }
        }
        Happening::StreamDeleted(number) => {
            let (stream, arn) = stream_of(*number);
            let request = match stream.service {
                Service::Firehose => {
                    Request::firehose("DeleteDeliveryStream", json!({ "DeliveryStreamName": stream.name }))
                }
                Service::Kinesis => Request::kinesis("DeleteStream", json!({ "StreamName": stream.name })),
            };
            state.world.call(now, &Caller::new(OUTSIDER), REGION, &request);
            state.promises.touched.insert(arn, now);
        }
        Happening::StreamRecreated(number) => {
            let (stream, arn) = stream_of(*number);
            state.world.remove_stream(&arn);
            if stream.kind != StreamKind::Foreign {
                let name = match stream.service {
                    Service::Firehose => json!({ "DeliveryStreamName": stream.name }),
                    Service::Kinesis => json!({ "StreamName": stream.name }),
                };
                let operation =
                    if stream.service == Service::Firehose { "CreateDeliveryStream" } else { "CreateStream" };
                let request = Request {
                    service: aws_service(stream.service),
                    operation: operation.to_owned(),
                    body: name,
                };
                state.world.call(now, &Caller::new(OUTSIDER), REGION, &request);
            }
            state.promises.touched.insert(arn, now);
        }
        Happening::Reshard(number) => {
            let (stream, arn) = stream_of(*number);
            if stream.service == Service::Kinesis {
                let request =
                    Request::kinesis("UpdateShardCount", json!({ "StreamARN": arn, "TargetShardCount": 2 }));
                state.world.call(now, &Caller::new(OUTSIDER), REGION, &request);
            }
        }
        Happening::KeyDisabled(..) | Happening::KeyPendingDeletion(..) | Happening::KeyDenied(..) => {
            change_key(state, happening);
            state.promises.stirred = now;
            note_unusable_keys(state);
        }
        Happening::AliasMoved(number) => {
            state.world.plant_alias(ALIAS, &keys::arn(*number));
            state.promises.stirred = now;
        }
        Happening::KeyObject(number) => {
            let name = ("data".to_owned(), KEY_OBJECT.to_owned());
            state.key_objects = vec![(name, number.map(keys::arn))];
            state.promises.stirred = now;
        }
        Happening::KeyKind(installed) => {
            state.key_kind = *installed;
            state.promises.stirred = now;
        }
        Happening::Aws(rule) => {
            state.world.script((**rule).clone());
        }
        Happening::AwsFor(rule, time) => {
            let number = state.world.script((**rule).clone());
            state.agenda.add(now + *time, Event::AwsMends(number));
        }
        Happening::Kubernetes(rule) => state.kubernetes.rules.push(*rule),
        Happening::KubernetesDown(time) => state.kubernetes.down_until = now + *time,
        Happening::Forbidden(time) => state.kubernetes.forbidden_until = now + *time,
        Happening::Doom(replica, after, carried_out, fate) => {
            state.replicas[*replica].doom =
                Some(Doom { after: *after, carried_out: *carried_out, fate: *fate });
        }
        Happening::Kill(replica, downtime) => {
            let process = Process { replica: *replica, life: state.replicas[*replica].life };
            if state.replicas[*replica].up {
                state.agenda.add(now, Event::Crash(process));
                state.agenda.add(now + *downtime, Event::Boot(*replica));
            }
        }
        Happening::ClockSet(replica, off) => set_clock(scene, state, *replica, *off),
        Happening::Credentials(replica, mistaken) => {
            // Immediately, or between the Describe and the call, a moment that random times hardly ever hit.
            if state.choices.coin() {
                state.replicas[*replica].mistaken = *mistaken;
            } else {
                state.replicas[*replica].mistaken_soon = Some(*mistaken);
            }
        }
        Happening::SessionStuck(replica, stuck) => state.replicas[*replica].stuck_session = *stuck,
        Happening::WatchLag(replica, lag) => {
            let which = state.choices.watches();
            state.replicas[*replica].watches.set_lag(which, *lag);
        }
        Happening::WatchFrozen(replica, time) => {
            let which = state.choices.watches();
            state.replicas[*replica].watches.freeze(which, now + *time);
        }
        Happening::WatchDrops(replica, changes) => state.replicas[*replica].watch_drops = *changes,
        Happening::WatchBackInTime(replica, changes) => {
            state.agenda.add(now, Event::Relist { replica: *replica, behind: *changes });
        }
    }
}

/// Sets a replica's clock. From then on the promises make allowances for it.
pub fn set_clock(scene: &Scene, state: &mut State, replica: usize, off: SignedDuration) {
    scene.set_offset(state, replica, off);
    if off.abs() > USUAL_SKEW {
        state.promises.wild_until = Timestamp::MAX;
    }
    let now = state.now;
    state.promises.clocks_set.push(now);
}

type KeyChange = Box<dyn Fn(&mut simulated_aws::world::Key)>;

fn change_key(state: &mut State, happening: &Happening) {
    use simulated_aws::world::KeyState;
    let (number, change): (usize, KeyChange) = match happening {
        Happening::KeyDisabled(number, disabled) => {
            let to = if *disabled { KeyState::Disabled } else { KeyState::Enabled };
            (*number, Box::new(move |key| key.state = to))
        }
        Happening::KeyPendingDeletion(number, pending) => {
            let to = if *pending { KeyState::PendingDeletion } else { KeyState::Enabled };
            (*number, Box::new(move |key| key.state = to))
        }
        Happening::KeyDenied(number, denial) => {
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
fn outsider(state: &mut State, stream: &PlannedStream, verb: &str, key: &str) {
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
    state.world.call(now, &Caller::new(OUTSIDER), REGION, &request);
    // Regardless of AWS's answer: an error may be returned after the request was executed.
    state.promises.touched.insert(stream_arn(stream), now);
}

/// Records since when each key is unusable.
fn note_unusable_keys(state: &mut State) {
    let now = state.now;
    for number in 0..keys::GOOD {
        let arn = keys::arn(number);
        let enabled =
            state.world.key(&arn).is_some_and(|key| key.state == simulated_aws::world::KeyState::Enabled);
        if enabled {
            state.promises.unusable.remove(&arn);
        } else {
            state.promises.unusable.entry(arn).or_insert(now);
        }
    }
}

/// Ends the faults: no more events happen, and everything that can recover by itself recovers.
pub fn calm(scene: &Scene, plan: &Plan) {
    end_faults(scene, plan);
    let state = &mut *scene.state();
    if plan.keys_are_mended {
        keys::mend(&mut state.world);
        state.promises.unusable.clear();
        state.key_kind = true;
        state.key_objects = vec![(("data".to_owned(), KEY_OBJECT.to_owned()), Some(keys::arn(0)))];
    }
    state.promises.stirred = state.now;
}

/// Ends the faults of AWS, of the API server and of the processes. The keys stay as they are.
pub fn end_faults(scene: &Scene, plan: &Plan) {
    let state = &mut *scene.state();
    let now = state.now;
    state.story.tell(now, || "-> all faults end".to_owned());
    state.world.clear_faults();
    state.kubernetes = crate::faults::KubernetesFaults::none();
    for replica in &mut state.replicas {
        replica.paused_until = replica.paused_until.min(now);
        replica.doom = None;
        (replica.mistaken, replica.mistaken_soon) = (false, None);
        replica.stuck_session = false;
        replica.watches.catch_up(now);
        replica.watch_drops = 0;
    }
    for (number, skew) in plan.clocks.iter().enumerate() {
        scene.set_offset(state, number, *skew);
    }
}
