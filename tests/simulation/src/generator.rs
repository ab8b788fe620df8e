//! Generates a plan from a seed. The same seed always gives the same plan.
//!
//! Operations come in bursts: a single fault rarely reveals a bug, and the most harmful faults are within
//! seconds of each other.

use jiff::SignedDuration;
use simulated_aws::world::{
    BadKey, FailureType, Fault as AwsFault, FirehoseCounts, KeyAfterDisabled, KeyIdEcho, Rule, SameKey,
    Settings, ShownKey, ShownWhileUpdating,
};
use stream_encryption_api::stream_encryption::{
    DeletionPolicy, Encryption, KeyObjectReference, KeyReference, KeyType, Mode, Service,
    StreamEncryptionSpec, StreamReference, Verification,
};

mod policies;

use crate::aws_events::EventSettings;
use crate::environment::{ACCOUNT, FOREIGN_ACCOUNT, ProcessFailure, REGION};
use crate::keys::{self, ALIAS, FOREIGN_KEY, KEY_OBJECT, USABLE_KEYS};
use crate::kubernetes_faults::{KubernetesFault, KubernetesRequest, KubernetesRule};
use crate::plan::{Denial, FAULTS_END, Operation, Plan, PlannedStream, StreamKind};
use crate::store::Name;

/// Firehose's reaction to a Start with the active key, one for every third seed.
const SAME_KEY: [SameKey; 3] = [SameKey::FailsLater, SameKey::RefusedAtOnce, SameKey::Accepted];

/// The random generator of one plan.
struct Generator {
    rng: fastrand::Rng,
    streams: Vec<PlannedStream>,
    resources: Vec<(Name, usize)>,
    replicas: usize,
}

/// Generates the plan of a seed.
pub fn generate_plan(seed: u64) -> Plan {
    // Plans of adjacent seeds must be independent.
    let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5EED);
    let replicas = [1, 1, 1, 1, 2, 2, 2, 3][rng.usize(..8)];
    let streams = streams(&mut rng);
    let mut resources: Vec<(Name, usize)> =
        (0..streams.len()).map(|stream| (("data".to_owned(), format!("r{stream}")), stream)).collect();
    if rng.u8(..20) == 0 {
        resources.push((("other".to_owned(), "rival".to_owned()), 0));
    }
    let mut generator = Generator { rng, streams, resources, replicas };
    let events = events(seed);
    let same_key = SAME_KEY[usize::try_from(seed % 3).unwrap_or_default()];
    let settings = Settings { same_key, ..generator.settings() };
    let clock_errors = (0..replicas).map(|_| generator.clock_error()).collect();
    Plan {
        seed,
        settings,
        replicas,
        clock_errors,
        latency: [5_000, 40_000, 40_000, 300_000, 3_000_000][generator.rng.usize(..5)],
        drift_interval: SignedDuration::from_mins(
            [10, 60, 180, 360, 360, 720, 720, 720, 720, 720][generator.rng.usize(..10)],
        ),
        max_calls: [1, 2, 2, 3, 3, 4, 6, 20][generator.rng.usize(..8)],
        allow_disable: generator.rng.u8(..10) < 8,
        sessions: generator.rng.u8(..4) == 0,
        keys_recover: generator.rng.u8(..10) < 8,
        operations: generator.operations(seed, events.is_some()),
        events,
        streams: generator.streams,
    }
}

/// Generates another spec for a resource of this plan.
pub fn random_spec(plan: &Plan, (_, name): &Name, seed: u64) -> StreamEncryptionSpec {
    let (rng, streams) = (fastrand::Rng::with_seed(seed), plan.streams.clone());
    let mut generator = Generator { rng, streams, resources: Vec::new(), replicas: plan.replicas };
    let stream = name.strip_prefix('r').and_then(|number| number.parse().ok());
    generator.spec(stream.unwrap_or_default(), stream.is_none())
}

/// Generates how AWS's events arrive, with a separate random generator. Every second operator receives none.
fn events(seed: u64) -> Option<EventSettings> {
    let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0xBF58_476D_1CE4_E5B9) ^ 0xE0E0);
    let silent_from = SignedDuration::from_mins(rng.i64(1..13 * 60));
    rng.bool().then(|| EventSettings {
        max_delay: SignedDuration::from_secs([1, 10, 60, 900][rng.usize(..4)]),
        lost: [0, 0, 10, 50][rng.usize(..4)],
        repeated: [0, 10, 50][rng.usize(..3)],
        silent_from: (rng.u8(..4) == 0).then_some(silent_from),
    })
}

fn streams(rng: &mut fastrand::Rng) -> Vec<PlannedStream> {
    let count = [1, 1, 1, 2][rng.usize(..4)];
    (0..count)
        .map(|number| {
            let service = if rng.u8(..3) == 0 { Service::Kinesis } else { Service::Firehose };
            // A stream that can never be encrypted is reconciled every few minutes without an effect, so a
            // few such streams suffice.
            let kind = match rng.u8(..80) {
                60..=73 => StreamKind::Encrypted,
                74 if service == Service::Firehose => StreamKind::FailedBefore,
                75 if service == Service::Firehose => StreamKind::NotDirectPut,
                76 if service == Service::Firehose => StreamKind::CreationFailed,
                77 => StreamKind::Missing,
                78 => StreamKind::Foreign,
                _ => StreamKind::Plain,
            };
            PlannedStream { service, name: format!("s{number}"), kind }
        })
        .collect()
}

impl Generator {
    fn one_in(&mut self, count: u8) -> bool {
        self.rng.u8(..count) == 0
    }

    fn choose<T: Copy>(&mut self, options: &[T]) -> T {
        options[self.rng.usize(..options.len())]
    }

    /// Returns a duration from seconds to hours; short durations are more frequent.
    fn duration(&mut self, shortest: f64, longest: f64) -> SignedDuration {
        let seconds = shortest * (longest / shortest).powf(self.rng.f64());
        SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::from_secs(1))
    }

    /// Returns a normal error of a clock: up to five minutes in either direction, mostly small.
    fn clock_error(&mut self) -> SignedDuration {
        let max = self.choose(&[0, 0, 200, 2_000, 290_000]);
        if max == 0 { SignedDuration::ZERO } else { SignedDuration::from_millis(self.rng.i64(-max..=max)) }
    }

    fn settings(&mut self) -> Settings {
        let seconds = |seconds| SignedDuration::from_secs(seconds);
        Settings {
            enabling: seconds(self.choose(&[1, 5, 10, 40, 300, 1500])),
            disabling: seconds(self.choose(&[1, 5, 10, 60])),
            updating: seconds(self.choose(&[1, 3, 5, 40, 400])),
            creating: seconds(self.choose(&[1, 20, 60])),
            deleting: seconds(self.choose(&[1, 20, 60])),
            read_lag: seconds(self.choose(&[0, 0, 0, 1, 5, 20])),
            failed_re_key_shows: self.choose(&[ShownKey::Asked, ShownKey::Active]),
            key_after_disabled: self.choose(&[KeyAfterDisabled::Kept, KeyAfterDisabled::Dropped]),
            bad_key: self.choose(&[BadKey::FailsLater, BadKey::RefusedAtOnce]),
            kinesis_key_id: self.choose(&[KeyIdEcho::AsGiven, KeyIdEcho::KeyArn, KeyIdEcho::Alias]),
            while_updating: self.choose(&[ShownWhileUpdating::New, ShownWhileUpdating::Old]),
            firehose_counts: self.choose(&[
                FirehoseCounts::Accepted,
                FirehoseCounts::ReachedTheStream,
                FirehoseCounts::EvenOverTheLimit,
            ]),
            rate_limits: self.one_in(8),
            ..Settings::default()
        }
    }

    /// Returns all operations of the plan, ordered by time.
    fn operations(&mut self, seed: u64, events: bool) -> Vec<(SignedDuration, Operation)> {
        let mut all = Vec::new();
        for resource in 0..self.resources.len() {
            let at = self.duration(0.5, 20.0);
            all.push((at, self.apply_resource(resource)));
        }
        for _ in 0..self.rng.u8(1..=5) {
            let start =
                if self.one_in(3) { self.duration(1.0, 120.0) } else { self.duration(60.0, 13.0 * 3600.0) };
            for _ in 0..self.rng.u8(1..=6) {
                let after = self.duration(0.02, 180.0);
                let operation = self.operation();
                if let Operation::StreamDeleted(stream) = operation
                    && !self.one_in(5)
                {
                    let later = self.duration(20.0, 7200.0);
                    all.push((start + after + later, Operation::StreamRecreated(stream)));
                }
                all.push((start + after, operation));
            }
        }
        for _ in 0..self.rng.u8(..4) {
            let at = self.duration(60.0, 13.5 * 3600.0);
            let operation = self.operation();
            all.push((at, operation));
        }
        // A separate random generator, so that the rest of the seed's plan stays unchanged.
        self.rng = fastrand::Rng::with_seed(seed.wrapping_mul(0xD134_2543_DE82_EF95) ^ 0xB0057);
        if self.one_in(2) {
            all.extend(self.harmful_sequence());
        }
        self.rng = fastrand::Rng::with_seed(seed.wrapping_mul(0xA24B_AED4_963E_E407) ^ 0x90_11C7);
        if self.one_in(3) {
            all.extend(self.policy_changes());
        }
        self.rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9FB2_1C65_1E98_DF25) ^ 0x7_EAA5);
        if self.one_in(10) {
            all.extend(self.ownership_transfer());
        }
        self.rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x8533_8E1B_D1F2_3B4D) ^ 0xF0_96ED);
        if events && self.one_in(4) {
            let (at, count) = (self.duration(1.0, 13.0 * 3600.0), self.choose(&[1, 5, 25, 30, 100]));
            let stream = self.rng.usize(..self.streams.len());
            all.push((at, Operation::ForgedEvents(stream, count)));
        }
        all.retain(|(at, _)| *at < FAULTS_END);
        all.sort_by_key(|(at, _)| *at);
        all
    }

    /// Returns a sequence of operations that rarely occurs at random: the operations cause harm only in this
    /// order.
    fn harmful_sequence(&mut self) -> Vec<(SignedDuration, Operation)> {
        let start = self.duration(60.0, 12.0 * 3600.0);
        let (replica, resource) = (self.rng.usize(..self.replicas), self.rng.usize(..self.resources.len()));
        let mut at = start;
        let mut all = Vec::new();
        match self.rng.u8(..6) {
            // A process is paused before a call, and the spec changes in the meantime.
            0 => {
                let failure = ProcessFailure::Pause(self.duration(60.0, 12.0 * 3600.0));
                let (after, executed) = (self.rng.u32(2..11), self.one_in(2));
                all.push((at, Operation::PlannedFailure(replica, after, executed, failure)));
                all.push((at + SignedDuration::from_millis(1), self.apply_resource(resource)));
                // This is long enough for another replica to take over, if there were a lease.
                at += self.duration(20.0, 300.0);
                all.push((at, self.apply_resource(resource)));
            }
            // A resource is deleted and re-created, twice.
            1 => {
                for _ in 0..self.rng.u8(2..5) {
                    all.push((at, Operation::Delete(self.resources[resource].0.clone())));
                    at += self.duration(1.0, 300.0);
                    all.push((at, self.apply_resource(resource)));
                    at += self.duration(60.0, 3600.0);
                }
            }
            // All processes are killed during the backoff after failed attempts.
            2 => {
                for key in 0..USABLE_KEYS {
                    all.push((at, Operation::KeyDenied(key, Denial::Use)));
                }
                all.push((at, self.apply_resource(resource)));
                at += self.duration(1800.0, 4.0 * 3600.0);
                for replica in 0..self.replicas {
                    all.push((at, Operation::Kill(replica, self.duration(0.5, 60.0))));
                }
            }
            // Another caller disables encryption each time the operator enables it.
            3 => {
                let name = self.resources[resource].0.clone();
                for _ in 0..self.rng.u8(2..7) {
                    all.push((at, Operation::ExternalStop(self.resources[resource].1)));
                    at += self.duration(1.0, 60.0);
                    all.push((at, Operation::Retry(name.clone())));
                    at += self.duration(60.0, 3600.0);
                }
            }
            // Another caller deletes the stream, and a user requests an immediate retry.
            4 => {
                all.push((at, Operation::StreamDeleted(self.resources[resource].1)));
                at += self.duration(0.1, 20.0);
                all.push((at, Operation::Retry(self.resources[resource].0.clone())));
                at += self.duration(60.0, 3600.0);
                all.push((at, Operation::StreamRecreated(self.resources[resource].1)));
            }
            // The watches are frozen while the spec is changed twice.
            _ => {
                let time = self.duration(600.0, 7200.0);
                for replica in 0..self.replicas {
                    all.push((at, Operation::WatchFrozen(replica, time)));
                }
                for _ in 0..self.rng.u8(1..4) {
                    at += self.duration(1.0, 600.0);
                    all.push((at, self.apply_resource(resource)));
                }
            }
        }
        all
    }

    /// Returns a random operation.
    fn operation(&mut self) -> Operation {
        let (replica, resource, stream) = (
            self.rng.usize(..self.replicas),
            self.rng.usize(..self.resources.len()),
            self.rng.usize(..self.streams.len()),
        );
        let name = self.resources[resource].0.clone();
        let flag = self.one_in(2);
        match self.rng.u8(..64) {
            0..=11 => self.apply_resource(resource),
            12 | 13 => Operation::Retry(name),
            14 | 15 => Operation::Delete(name),
            16 | 17 => Operation::ExternalStart(stream, self.rng.usize(..USABLE_KEYS)),
            18 | 19 => Operation::ExternalStop(stream),
            20 => Operation::ExternalCallBurst(stream, self.choose(&[3, 23, 25, 30])),
            21 => Operation::ExternalFailure(stream, FailureType::KmsAccessDenied),
            22 => Operation::StreamDeleted(stream),
            23 => Operation::StreamRecreated(stream),
            24 => Operation::Reshard(stream),
            25 | 26 => Operation::KeyDisabled(self.rng.usize(..USABLE_KEYS), flag),
            27 => Operation::KeyPendingDeletion(self.rng.usize(..USABLE_KEYS), flag),
            28 | 29 => {
                let denial = self.choose(&[Denial::None, Denial::Use, Denial::Use, Denial::Describe]);
                Operation::KeyDenied(self.rng.usize(..USABLE_KEYS), denial)
            }
            30 => Operation::AliasMoved(self.rng.usize(..USABLE_KEYS)),
            31 => match self.rng.u8(..3) {
                0 => Operation::KeyObject(None),
                1 => Operation::KeyCrd(flag),
                _ => Operation::KeyObject(Some(self.rng.usize(..USABLE_KEYS))),
            },
            32..=41 => Operation::AwsFault(Box::new(self.aws_rule())),
            42 | 43 => {
                let rule = Rule { times: None, ..self.outage_rule() };
                Operation::AwsOutage(Box::new(rule), self.duration(5.0, 7200.0))
            }
            44..=49 => Operation::KubernetesFault(self.kubernetes_rule()),
            50 => Operation::KubernetesDown(self.duration(5.0, 7200.0)),
            51 => Operation::LedgersForbidden(self.duration(5.0, 7200.0)),
            52..=56 => {
                let failure = if self.one_in(3) {
                    ProcessFailure::Pause(self.duration(2.0, 12.0 * 3600.0))
                } else {
                    ProcessFailure::Crash(self.duration(0.5, 600.0))
                };
                Operation::PlannedFailure(replica, self.rng.u32(..9), flag, failure)
            }
            57 => Operation::Kill(replica, self.duration(0.5, 3600.0)),
            58 => {
                let normal = self.clock_error();
                let hours = SignedDuration::from_hours(self.choose(&[-48, -1, 1, 48]));
                let minutes = SignedDuration::from_mins(self.rng.i64(-14..=14));
                Operation::ClockSet(replica, self.choose(&[normal, normal, hours, minutes]))
            }
            59 => Operation::ForeignCredentials(replica, flag),
            60 => Operation::SessionNotRenewed(replica, flag),
            61 => Operation::WatchLag(replica, self.duration(0.5, 600.0)),
            62 => match self.rng.u8(..2) {
                0 => Operation::WatchFrozen(replica, self.duration(5.0, 7200.0)),
                _ => Operation::WatchDrops(replica, self.rng.u32(1..=3)),
            },
            _ => Operation::WatchBackInTime(replica, self.rng.usize(1..=5)),
        }
    }

    fn apply_resource(&mut self, resource: usize) -> Operation {
        let (name, stream) = self.resources[resource].clone();
        let by_name = name.1 == "rival";
        let spec = self.spec(stream, by_name);
        Operation::Apply(name, Box::new(spec))
    }

    fn spec(&mut self, stream: usize, by_name: bool) -> StreamEncryptionSpec {
        let planned = &self.streams[stream];
        let is_foreign = planned.kind == StreamKind::Foreign;
        let reference = if by_name && !is_foreign {
            StreamReference {
                service: Some(planned.service),
                name: Some(planned.name.clone()),
                ..Default::default()
            }
        } else {
            StreamReference { arn: Some(stream_arn(planned)), ..Default::default() }
        };
        without_rejected_combination(StreamEncryptionSpec {
            stream: reference,
            key: self.key(),
            encryption: if self.one_in(8) { Encryption::Disabled } else { Encryption::Enabled },
            mode: if self.one_in(12) { Mode::Observe } else { Mode::Enforce },
            deletion_policy: if self.one_in(6) { DeletionPolicy::Disable } else { DeletionPolicy::Retain },
            suspend: self.one_in(16),
            verification: if self.one_in(6) { Verification::PutRecord } else { Verification::None },
        })
    }

    fn key(&mut self) -> Option<KeyReference> {
        let none = KeyReference { kind: KeyType::CustomerManaged, arn: None, alias: None, object_ref: None };
        let key = match self.rng.u8(..40) {
            0..=6 => return None,
            7..=12 => KeyReference { kind: KeyType::AwsOwned, ..none },
            13..=34 => KeyReference { arn: Some(keys::arn(self.rng.usize(..USABLE_KEYS))), ..none },
            35..=37 => KeyReference { alias: Some(ALIAS.to_owned()), ..none },
            38 => KeyReference {
                object_ref: Some(KeyObjectReference {
                    group: "kms.services.k8s.aws".to_owned(),
                    kind: "Key".to_owned(),
                    name: KEY_OBJECT.to_owned(),
                }),
                ..none
            },
            _ => KeyReference { arn: Some(keys::arn(self.rng.usize(USABLE_KEYS..=FOREIGN_KEY))), ..none },
        };
        Some(key)
    }

    fn aws_rule(&mut self) -> Rule {
        let status = self.choose(&[500, 502, 503, 504]);
        let minutes = self.rng.i64(0..15);
        let call_faults = [
            AwsFault::LoseReply,
            AwsFault::LoseReply,
            AwsFault::LoseRequest,
            AwsFault::Late { by: SignedDuration::from_secs(minutes * 60 + 20) },
            AwsFault::Late { by: SignedDuration::from_secs(2 + minutes) },
            AwsFault::Hold,
            AwsFault::Slow { by: SignedDuration::from_secs(1 + minutes) },
            AwsFault::NoOp,
            AwsFault::NoOp,
            AwsFault::FailsLater { failure: FailureType::KmsAccessDenied },
            AwsFault::FailsLater { failure: FailureType::UnknownError },
            AwsFault::Takes { time: SignedDuration::from_mins(minutes * 12) },
            AwsFault::ServerError { status },
            AwsFault::ServerErrorAfterwards { status },
            AwsFault::Throttle,
            AwsFault::AccessDenied,
            refuse("LimitExceededException"),
            refuse("InvalidArgumentException"),
            refuse("ResourceInUseException"),
            refuse("KMSAccessDeniedException"),
        ];
        let read_faults = [
            AwsFault::LoseReply,
            AwsFault::Throttle,
            AwsFault::AccessDenied,
            AwsFault::ServerError { status },
            AwsFault::Slow { by: SignedDuration::from_secs(1 + minutes) },
            AwsFault::ReadLag { by: SignedDuration::from_secs(1 + minutes) },
        ];
        let (fault, request) = if self.one_in(4) {
            let request = self.choose(&["Describe*", "DescribeKey", "Get*", "PutRecord"]);
            (read_faults[self.rng.usize(..read_faults.len())].clone(), request)
        } else {
            let request = self.choose(&["Start*", "Start*", "Stop*", "St*Encryption"]);
            (call_faults[self.rng.usize(..call_faults.len())].clone(), request)
        };
        Rule { times: Some(self.rng.u32(1..=3)), ..Rule::always(fault).on(request) }
    }

    fn outage_rule(&mut self) -> Rule {
        match self.rng.u8(..7) {
            0 => Rule::always(AwsFault::ServerError { status: 503 }),
            1 => Rule::always(AwsFault::LoseRequest),
            2 => Rule::always(AwsFault::Throttle),
            3 => Rule::always(AwsFault::AccessDenied).on("Describe*"),
            4 => Rule::always(AwsFault::AccessDenied).on("St*"),
            5 => Rule::always(AwsFault::NoOp).on("St*"),
            _ => Rule::always(AwsFault::FailsLater { failure: FailureType::KmsAccessDenied }).on("Start*"),
        }
    }

    fn kubernetes_rule(&mut self) -> KubernetesRule {
        let request = self.choose(&[
            KubernetesRequest::ReadResource,
            KubernetesRequest::ReadLedger,
            KubernetesRequest::CreateLedger,
            KubernetesRequest::ReplaceLedger,
            KubernetesRequest::ReplaceLedger,
            KubernetesRequest::ReplaceLedger,
            KubernetesRequest::WriteStatus,
            KubernetesRequest::SetFinalizer,
            KubernetesRequest::ListLedgers,
            KubernetesRequest::DeleteLedger,
        ]);
        let mut faults = vec![
            KubernetesFault::Refused,
            KubernetesFault::ResponseLost,
            KubernetesFault::Slow(self.duration(0.1, 40.0)),
        ];
        if request.writes() {
            faults.push(KubernetesFault::ResponseLost);
            faults.push(KubernetesFault::DelayedWrite(self.duration(0.1, 120.0)));
            faults.push(KubernetesFault::Conflict);
        }
        KubernetesRule {
            on: Some(request),
            skip: self.rng.u32(..3),
            fault: faults[self.rng.usize(..faults.len())],
        }
    }
}

fn refuse(code: &str) -> AwsFault {
    AwsFault::Refuse { code: code.to_owned(), message: String::new(), status: 400 }
}

/// Returns the ARN of a planned stream.
pub fn stream_arn(stream: &PlannedStream) -> String {
    let account = if stream.kind == StreamKind::Foreign { FOREIGN_ACCOUNT } else { ACCOUNT };
    match stream.service {
        Service::Firehose => format!("arn:aws:firehose:{REGION}:{account}:deliverystream/{}", stream.name),
        Service::Kinesis => format!("arn:aws:kinesis:{REGION}:{account}:stream/{}", stream.name),
    }
}

/// Removes a combination that the schema rejects: `mode: Observe` with `deletionPolicy: Disable`.
fn without_rejected_combination(mut spec: StreamEncryptionSpec) -> StreamEncryptionSpec {
    if spec.mode == Mode::Observe {
        spec.deletion_policy = DeletionPolicy::Retain;
    }
    spec
}
