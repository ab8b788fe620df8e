//! Generates a plan from a seed. The same seed always gives the same plan.
//!
//! Events come in bursts: a single fault is seldom a problem, and the most harmful faults are within seconds
//! of each other.

use jiff::SignedDuration;
use simulated_aws::world::{
    BadKey, FailureType, Fault, FirehoseCounts, KeyAfterDisabled, KeyIdEcho, Rule, SameKey, Settings,
    ShownKey, ShownWhileUpdating,
};
use stream_encryption_api::stream_encryption::{
    DeletionPolicy, Encryption, KeyObjectReference, KeyReference, KeyType, Mode, Service,
    StreamEncryptionSpec, StreamReference, Verification,
};

mod policies;

use crate::environment::{ACCOUNT, FOREIGN_ACCOUNT, Fate, REGION};
use crate::faults::{KubernetesFault, KubernetesRule, Request};
use crate::keys::{self, ALIAS, FOREIGN, GOOD, KEY_OBJECT};
use crate::plan::{CALM, Denial, Happening, Plan, PlannedStream, StreamKind};
use crate::store::Name;

/// Firehose's reaction to a Start with the active key, one for every third seed.
const SAME_KEY: [SameKey; 3] = [SameKey::FailsLater, SameKey::RefusedAtOnce, SameKey::Accepted];

/// The random generator of one plan.
struct Dice {
    #[allow(clippy::struct_field_names, reason = "the dice that are thrown")]
    dice: fastrand::Rng,
    streams: Vec<PlannedStream>,
    resources: Vec<(Name, usize)>,
    replicas: usize,
}

/// Generates the plan of a seed.
pub fn plan(seed: u64) -> Plan {
    // Plans of adjacent seeds must be independent.
    let mut dice = fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5EED);
    let replicas = [1, 1, 1, 1, 2, 2, 2, 3][dice.usize(..8)];
    let streams = streams(&mut dice);
    let mut resources: Vec<(Name, usize)> =
        (0..streams.len()).map(|stream| (("data".to_owned(), format!("r{stream}")), stream)).collect();
    if dice.u8(..20) == 0 {
        resources.push((("other".to_owned(), "rival".to_owned()), 0));
    }
    let mut dice = Dice { dice, streams, resources, replicas };
    let same_key = SAME_KEY[usize::try_from(seed % 3).unwrap_or_default()];
    let settings = Settings { same_key, ..dice.settings() };
    let clocks = (0..replicas).map(|_| dice.skew()).collect();
    Plan {
        seed,
        settings,
        replicas,
        clocks,
        latency: [5_000, 40_000, 40_000, 300_000, 3_000_000][dice.dice.usize(..5)],
        drift_interval: SignedDuration::from_mins(
            [10, 60, 180, 360, 360, 720, 720, 720, 720, 720][dice.dice.usize(..10)],
        ),
        max_calls: [1, 2, 2, 3, 3, 4, 6, 20][dice.dice.usize(..8)],
        allow_disable: dice.dice.u8(..10) < 8,
        sessions: dice.dice.u8(..4) == 0,
        keys_are_mended: dice.dice.u8(..10) < 8,
        happenings: dice.happenings(seed),
        streams: dice.streams,
    }
}

/// Generates another spec for a resource of this plan.
pub fn another_spec(plan: &Plan, (_, name): &Name, seed: u64) -> StreamEncryptionSpec {
    let (dice, streams) = (fastrand::Rng::with_seed(seed), plan.streams.clone());
    let mut dice = Dice { dice, streams, resources: Vec::new(), replicas: plan.replicas };
    let stream = name.strip_prefix('r').and_then(|number| number.parse().ok());
    dice.spec(stream.unwrap_or_default(), stream.is_none())
}

fn streams(dice: &mut fastrand::Rng) -> Vec<PlannedStream> {
    let count = [1, 1, 1, 2][dice.usize(..4)];
    (0..count)
        .map(|number| {
            let service = if dice.u8(..3) == 0 { Service::Kinesis } else { Service::Firehose };
            // A stream that can never be encrypted is reconciled every few minutes without an effect, so a
            // few such streams suffice.
            let kind = match dice.u8(..80) {
                60..=73 => StreamKind::Encrypted,
                74 if service == Service::Firehose => StreamKind::FailedBefore,
                75 if service == Service::Firehose => StreamKind::NotDirectPut,
                76 if service == Service::Firehose => StreamKind::Broken,
                77 => StreamKind::Missing,
                78 => StreamKind::Foreign,
                _ => StreamKind::Plain,
            };
            PlannedStream { service, name: format!("s{number}"), kind }
        })
        .collect()
}

impl Dice {
    fn one_in(&mut self, many: u8) -> bool {
        self.dice.u8(..many) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.dice.usize(..of.len())]
    }

    /// Returns a duration from seconds to hours; short durations are more frequent.
    fn span(&mut self, shortest: f64, longest: f64) -> SignedDuration {
        let seconds = shortest * (longest / shortest).powf(self.dice.f64());
        SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::from_secs(1))
    }

    /// Returns the usual error of a clock: up to five minutes in either direction, mostly small.
    fn skew(&mut self) -> SignedDuration {
        let most = self.pick(&[0, 0, 200, 2_000, 290_000]);
        if most == 0 {
            SignedDuration::ZERO
        } else {
            SignedDuration::from_millis(self.dice.i64(-most..=most))
        }
    }

    fn settings(&mut self) -> Settings {
        let seconds = |seconds| SignedDuration::from_secs(seconds);
        Settings {
            enabling: seconds(self.pick(&[1, 5, 10, 40, 300, 1500])),
            disabling: seconds(self.pick(&[1, 5, 10, 60])),
            updating: seconds(self.pick(&[1, 3, 5, 40, 400])),
            creating: seconds(self.pick(&[1, 20, 60])),
            deleting: seconds(self.pick(&[1, 20, 60])),
            read_lag: seconds(self.pick(&[0, 0, 0, 1, 5, 20])),
            failed_re_key_shows: self.pick(&[ShownKey::Asked, ShownKey::Active]),
            key_after_disabled: self.pick(&[KeyAfterDisabled::Kept, KeyAfterDisabled::Dropped]),
            bad_key: self.pick(&[BadKey::FailsLater, BadKey::RefusedAtOnce]),
            kinesis_key_id: self.pick(&[KeyIdEcho::AsGiven, KeyIdEcho::KeyArn, KeyIdEcho::Alias]),
            while_updating: self.pick(&[ShownWhileUpdating::New, ShownWhileUpdating::Old]),
            firehose_counts: self.pick(&[
                FirehoseCounts::Accepted,
                FirehoseCounts::ReachedTheStream,
                FirehoseCounts::EvenOverTheLimit,
            ]),
            rate_limits: self.one_in(8),
            ..Settings::default()
        }
    }

    fn happenings(&mut self, seed: u64) -> Vec<(SignedDuration, Happening)> {
        let mut all = Vec::new();
        for resource in 0..self.resources.len() {
            let at = self.span(0.5, 20.0);
            all.push((at, self.apply(resource)));
        }
        for _ in 0..self.dice.u8(1..=5) {
            let begin = if self.one_in(3) { self.span(1.0, 120.0) } else { self.span(60.0, 13.0 * 3600.0) };
            for _ in 0..self.dice.u8(1..=6) {
                let after = self.span(0.02, 180.0);
                let happening = self.happening();
                if let Happening::StreamDeleted(stream) = happening
                    && !self.one_in(5)
                {
                    let later = self.span(20.0, 7200.0);
                    all.push((begin + after + later, Happening::StreamRecreated(stream)));
                }
                all.push((begin + after, happening));
            }
        }
        for _ in 0..self.dice.u8(..4) {
            let at = self.span(60.0, 13.5 * 3600.0);
            let happening = self.happening();
            all.push((at, happening));
        }
        // A separate generator, so that the rest of the seed's plan stays unchanged.
        self.dice = fastrand::Rng::with_seed(seed.wrapping_mul(0xD134_2543_DE82_EF95) ^ 0xB0057);
        if self.one_in(2) {
            all.extend(self.mishap());
        }
        self.dice = fastrand::Rng::with_seed(seed.wrapping_mul(0xA24B_AED4_963E_E407) ^ 0x90_11C7);
        if self.one_in(3) {
            all.extend(self.changes_of_policy());
        }
        self.dice = fastrand::Rng::with_seed(seed.wrapping_mul(0x9FB2_1C65_1E98_DF25) ^ 0x7_EAA5);
        if self.one_in(10) {
            all.extend(self.handed_over());
        }
        all.retain(|(at, _)| *at < CALM);
        all.sort_by_key(|(at, _)| *at);
        all
    }

    /// Returns sequences of events that rarely occur at random: several events that cause harm only in this
    /// order.
    fn mishap(&mut self) -> Vec<(SignedDuration, Happening)> {
        let begin = self.span(60.0, 12.0 * 3600.0);
        let (replica, resource) = (self.dice.usize(..self.replicas), self.dice.usize(..self.resources.len()));
        let mut at = begin;
        let mut all = Vec::new();
        match self.dice.u8(..6) {
            // A process is paused before a call, and the spec changes in the meantime.
            0 => {
                let fate = Fate::Pause(self.span(60.0, 12.0 * 3600.0));
                let (after, carried_out) = (self.dice.u32(2..11), self.one_in(2));
                all.push((at, Happening::Doom(replica, after, carried_out, fate)));
                all.push((at + SignedDuration::from_millis(1), self.apply(resource)));
                // This is long enough for another replica to take over, if there were a lease.
                at += self.span(20.0, 300.0);
                all.push((at, self.apply(resource)));
            }
            // A resource is deleted and re-created, twice.
            1 => {
                for _ in 0..self.dice.u8(2..5) {
                    all.push((at, Happening::Delete(self.resources[resource].0.clone())));
                    at += self.span(1.0, 300.0);
                    all.push((at, self.apply(resource)));
                    at += self.span(60.0, 3600.0);
                }
            }
            // All processes are killed during the backoff after failed attempts.
            2 => {
                for key in 0..GOOD {
                    all.push((at, Happening::KeyDenied(key, Denial::Use)));
                }
                all.push((at, self.apply(resource)));
                at += self.span(1800.0, 4.0 * 3600.0);
                for replica in 0..self.replicas {
                    all.push((at, Happening::Kill(replica, self.span(0.5, 60.0))));
                }
            }
            // Another caller disables encryption each time the operator enables it.
            3 => {
                let name = self.resources[resource].0.clone();
                for _ in 0..self.dice.u8(2..7) {
                    all.push((at, Happening::OutsiderStops(self.resources[resource].1)));
                    at += self.span(1.0, 60.0);
                    all.push((at, Happening::Retry(name.clone())));
                    at += self.span(60.0, 3600.0);
                }
            }
            // Another caller deletes the stream, and a user requests an immediate retry.
            4 => {
                all.push((at, Happening::StreamDeleted(self.resources[resource].1)));
                at += self.span(0.1, 20.0);
                all.push((at, Happening::Retry(self.resources[resource].0.clone())));
                at += self.span(60.0, 3600.0);
                all.push((at, Happening::StreamRecreated(self.resources[resource].1)));
            }
            // The watches are frozen while the spec is changed twice.
            _ => {
                let time = self.span(600.0, 7200.0);
                for replica in 0..self.replicas {
                    all.push((at, Happening::WatchFrozen(replica, time)));
                }
                for _ in 0..self.dice.u8(1..4) {
                    at += self.span(1.0, 600.0);
                    all.push((at, self.apply(resource)));
                }
            }
        }
        all
    }

    fn happening(&mut self) -> Happening {
        let (replica, resource, stream) = (
            self.dice.usize(..self.replicas),
            self.dice.usize(..self.resources.len()),
            self.dice.usize(..self.streams.len()),
        );
        let name = self.resources[resource].0.clone();
        let on = self.one_in(2);
        match self.dice.u8(..64) {
            0..=11 => self.apply(resource),
            12 | 13 => Happening::Retry(name),
            14 | 15 => Happening::Delete(name),
            16 | 17 => Happening::OutsiderStarts(stream, self.dice.usize(..GOOD)),
            18 | 19 => Happening::OutsiderStops(stream),
            20 => Happening::OutsiderBurns(stream, self.pick(&[3, 23, 25, 30])),
            21 => Happening::OutsiderFails(stream, FailureType::KmsAccessDenied),
            22 => Happening::StreamDeleted(stream),
            23 => Happening::StreamRecreated(stream),
            24 => Happening::Reshard(stream),
            25 | 26 => Happening::KeyDisabled(self.dice.usize(..GOOD), on),
            27 => Happening::KeyPendingDeletion(self.dice.usize(..GOOD), on),
            28 | 29 => {
                let denial = self.pick(&[Denial::Nothing, Denial::Use, Denial::Use, Denial::Describe]);
                Happening::KeyDenied(self.dice.usize(..GOOD), denial)
            }
            30 => Happening::AliasMoved(self.dice.usize(..GOOD)),
            31 => match self.dice.u8(..3) {
                0 => Happening::KeyObject(None),
                1 => Happening::KeyKind(on),
                _ => Happening::KeyObject(Some(self.dice.usize(..GOOD))),
            },
            32..=41 => Happening::Aws(Box::new(self.aws_rule())),
            42 | 43 => {
                let rule = Rule { times: None, ..self.outage_rule() };
                Happening::AwsFor(Box::new(rule), self.span(5.0, 7200.0))
            }
            44..=49 => Happening::Kubernetes(self.kubernetes_rule()),
            50 => Happening::KubernetesDown(self.span(5.0, 7200.0)),
            51 => Happening::Forbidden(self.span(5.0, 7200.0)),
            52..=56 => {
                let fate = if self.one_in(3) {
                    Fate::Pause(self.span(2.0, 12.0 * 3600.0))
                } else {
                    Fate::Crash(self.span(0.5, 600.0))
                };
                Happening::Doom(replica, self.dice.u32(..9), on, fate)
            }
            57 => Happening::Kill(replica, self.span(0.5, 3600.0)),
            58 => {
                let usual = self.skew();
                let hours = SignedDuration::from_hours(self.pick(&[-48, -1, 1, 48]));
                let minutes = SignedDuration::from_mins(self.dice.i64(-14..=14));
                Happening::ClockSet(replica, self.pick(&[usual, usual, hours, minutes]))
            }
            59 => Happening::Credentials(replica, on),
            60 => Happening::SessionStuck(replica, on),
            61 => Happening::WatchLag(replica, self.span(0.5, 600.0)),
            62 => match self.dice.u8(..2) {
                0 => Happening::WatchFrozen(replica, self.span(5.0, 7200.0)),
                _ => Happening::WatchDrops(replica, self.dice.u32(1..=3)),
            },
            _ => Happening::WatchBackInTime(replica, self.dice.usize(1..=5)),
        }
    }

    fn apply(&mut self, resource: usize) -> Happening {
        let (name, stream) = self.resources[resource].clone();
        let by_name = name.1 == "rival";
        let spec = self.spec(stream, by_name);
        Happening::Apply(name, Box::new(spec))
    }

    fn spec(&mut self, stream: usize, by_name: bool) -> StreamEncryptionSpec {
        let planned = &self.streams[stream];
        let foreign = planned.kind == StreamKind::Foreign;
        let reference = if by_name && !foreign {
            StreamReference {
                service: Some(planned.service),
                name: Some(planned.name.clone()),
                ..Default::default()
            }
        } else {
            StreamReference { arn: Some(stream_arn(planned)), ..Default::default() }
        };
        taken(StreamEncryptionSpec {
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
        let key = match self.dice.u8(..40) {
            0..=6 => return None,
            7..=12 => KeyReference { kind: KeyType::AwsOwned, ..none },
            13..=34 => KeyReference { arn: Some(keys::arn(self.dice.usize(..GOOD))), ..none },
            35..=37 => KeyReference { alias: Some(ALIAS.to_owned()), ..none },
            38 => KeyReference {
                object_ref: Some(KeyObjectReference {
                    group: "kms.services.k8s.aws".to_owned(),
                    kind: "Key".to_owned(),
                    name: KEY_OBJECT.to_owned(),
                }),
                ..none
            },
            _ => KeyReference { arn: Some(keys::arn(self.dice.usize(GOOD..=FOREIGN))), ..none },
        };
        Some(key)
    }

    fn aws_rule(&mut self) -> Rule {
        let status = self.pick(&[500, 502, 503, 504]);
        let minutes = self.dice.i64(0..15);
        let changes = [
            Fault::LoseReply,
            Fault::LoseReply,
            Fault::LoseRequest,
            Fault::Late { by: SignedDuration::from_secs(minutes * 60 + 20) },
            Fault::Late { by: SignedDuration::from_secs(2 + minutes) },
            Fault::Hold,
            Fault::Slow { by: SignedDuration::from_secs(1 + minutes) },
            Fault::NoOp,
            Fault::NoOp,
            Fault::FailsLater { failure: FailureType::KmsAccessDenied },
            Fault::FailsLater { failure: FailureType::UnknownError },
            Fault::Takes { time: SignedDuration::from_mins(minutes * 12) },
            Fault::ServerError { status },
            Fault::ServerErrorAfterwards { status },
            Fault::Throttle,
            Fault::AccessDenied,
            refuse("LimitExceededException"),
            refuse("InvalidArgumentException"),
            refuse("ResourceInUseException"),
            refuse("KMSAccessDeniedException"),
        ];
        let reads = [
            Fault::LoseReply,
            Fault::Throttle,
            Fault::AccessDenied,
            Fault::ServerError { status },
            Fault::Slow { by: SignedDuration::from_secs(1 + minutes) },
            Fault::ReadLag { by: SignedDuration::from_secs(1 + minutes) },
        ];
        let (fault, on) = if self.one_in(4) {
            let operation = self.pick(&["Describe*", "DescribeKey", "Get*", "PutRecord"]);
            (reads[self.dice.usize(..reads.len())].clone(), operation)
        } else {
            let operation = self.pick(&["Start*", "Start*", "Stop*", "St*Encryption"]);
            (changes[self.dice.usize(..changes.len())].clone(), operation)
        };
        Rule { times: Some(self.dice.u32(1..=3)), ..Rule::always(fault).on(on) }
    }

    fn outage_rule(&mut self) -> Rule {
        match self.dice.u8(..7) {
            0 => Rule::always(Fault::ServerError { status: 503 }),
            1 => Rule::always(Fault::LoseRequest),
            2 => Rule::always(Fault::Throttle),
            3 => Rule::always(Fault::AccessDenied).on("Describe*"),
            4 => Rule::always(Fault::AccessDenied).on("St*"),
            5 => Rule::always(Fault::NoOp).on("St*"),
            _ => Rule::always(Fault::FailsLater { failure: FailureType::KmsAccessDenied }).on("Start*"),
        }
    }

    fn kubernetes_rule(&mut self) -> KubernetesRule {
        let on = self.pick(&[
            Request::ReadResource,
            Request::ReadLedger,
            Request::CreateLedger,
            Request::ReplaceLedger,
            Request::ReplaceLedger,
            Request::ReplaceLedger,
            Request::WriteStatus,
            Request::SetFinalizer,
            Request::ListLedgers,
            Request::DeleteLedger,
        ]);
        let mut faults = vec![
            KubernetesFault::Refused,
            KubernetesFault::AnswerLost,
            KubernetesFault::Slow(self.span(0.1, 40.0)),
        ];
        if on.writes() {
            faults.push(KubernetesFault::AnswerLost);
            faults.push(KubernetesFault::Late(self.span(0.1, 120.0)));
            faults.push(KubernetesFault::Conflict);
        }
        KubernetesRule {
            on: Some(on),
            skip: self.dice.u32(..3),
            fault: faults[self.dice.usize(..faults.len())],
        }
    }
}

fn refuse(code: &str) -> Fault {
    Fault::Refuse { code: code.to_owned(), message: String::new(), status: 400 }
}

pub fn stream_arn(stream: &PlannedStream) -> String {
    let account = if stream.kind == StreamKind::Foreign { FOREIGN_ACCOUNT } else { ACCOUNT };
    match stream.service {
        Service::Firehose => format!("arn:aws:firehose:{REGION}:{account}:deliverystream/{}", stream.name),
        Service::Kinesis => format!("arn:aws:kinesis:{REGION}:{account}:stream/{}", stream.name),
    }
}

/// Removes a combination that the schema rejects: `mode: Observe` with `deletionPolicy: Disable`.
fn taken(mut spec: StreamEncryptionSpec) -> StreamEncryptionSpec {
    if spec.mode == Mode::Observe {
        spec.deletion_policy = DeletionPolicy::Retain;
    }
    spec
}
