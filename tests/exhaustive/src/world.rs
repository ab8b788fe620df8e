//! Everything that there is at one moment, and when two worlds are the same.
//!
//! Two worlds are the same if nothing that can still happen tells them apart: times count relative to now, the replicas
//! may be exchanged where they are alike, and what lies too far back to matter is as far back as anything else. It
//! decides nothing.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::ledger::{Attempts, Call, KnownEncryption, StreamLedgerSpec, Target};
use stream_encryption_core::model::ledger::{
    DAY, MAX_CLOCK_SKEW, PlannedCall, expires_at, in_flight_until, saturating_add,
};

use crate::aws::{Aws, View};
use crate::bounds::Bounds;
use crate::names::{Encryption, Wish, beginning};
use crate::promise::Promise;

/// How far a clock is off where it is.
pub const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// What the user asks for, as one version of the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Resource {
    pub(crate) generation: u8,
    pub(crate) wish: Wish,
}

/// A signed request on its way to AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) id: String,
    pub(crate) to: Encryption,
    /// By the clock of the replica that sent it. AWS takes it for 15 minutes from then.
    pub(crate) signed: Timestamp,
    pub(crate) sent: Timestamp,
}

/// What a replica hears of its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Heard {
    Accepted,
    InUse,
    LimitReached,
    Nothing,
    NotSent,
}

/// Where a replica is in its visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum At {
    /// It has read the ledger.
    Opened,
    /// It has learned something, and rests after it is written.
    Learned,
    /// It has learned something, and the resource still asks for what it did.
    Confirmed,
    /// It has decided to call.
    Decided,
    /// It has read the resource again.
    Checked,
    /// It has reserved.
    Reserved,
    /// It has sent.
    Waiting,
    /// It knows what came of it.
    Answered(Heard),
}

/// The call of a visit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Planned {
    pub(crate) reservation: Arc<PlannedCall>,
    /// Its entry, once it is reserved.
    pub(crate) id: String,
    /// When it was reserved.
    pub(crate) at: Timestamp,
    /// Whether plaintext was asked for when the resource was, or should have been, read again.
    pub(crate) off_was_asked_for: bool,
}

/// A visit under way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Visit {
    pub(crate) at: At,
    pub(crate) resource: Resource,
    /// The ledger as it shall be.
    pub(crate) book: Arc<StreamLedgerSpec>,
    /// Whether nobody has written the ledger since it was read.
    pub(crate) current: bool,
    /// When it looked, and what AWS answered.
    pub(crate) sight: Option<(Timestamp, View)>,
    pub(crate) planned: Option<Planned>,
    /// What has been in force since the ledger was read, as bits: a status is about some moment since then.
    pub(crate) had: u8,
    /// How often it has tried to record the outcome.
    pub(crate) tries: u8,
}

/// Everything that there is at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    pub(crate) now: Timestamp,
    pub(crate) ledger: Option<Arc<StreamLedgerSpec>>,
    pub(crate) resource: Resource,
    /// What a cache that lags still holds.
    pub(crate) earlier: Option<Resource>,
    pub(crate) aws: Aws,
    pub(crate) wire: Vec<Request>,
    pub(crate) replicas: [Option<Visit>; 2],
    pub(crate) faults: u8,
    pub(crate) changes: u8,
    pub(crate) pauses: u8,
    pub(crate) moments: u8,
    pub(crate) alike: bool,
    pub(crate) broken: Option<Promise>,
}

impl World {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        Self {
            now: beginning(),
            ledger: None,
            resource: Resource { generation: 1, wish: bounds.wishes[0] },
            earlier: None,
            aws: Aws::new(bounds.found, beginning()),
            wire: Vec::new(),
            replicas: [None, None],
            faults: bounds.faults,
            changes: bounds.changes,
            pauses: bounds.pauses,
            moments: bounds.moments,
            alike: bounds.replicas_are_alike(),
            broken: None,
        }
    }

    /// Whether somebody waits for an answer: a call has a deadline, so no time passes meanwhile.
    pub(crate) fn somebody_waits(&self) -> bool {
        self.replicas.iter().flatten().any(|visit| visit.at == At::Waiting)
    }

    /// Whether nobody does anything and nothing is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.wire.is_empty() && self.replicas.iter().all(Option::is_none)
    }

    /// Time passes.
    pub(crate) fn passes(&mut self, to: Timestamp) {
        self.now = to;
        self.aws.passes(to);
        self.wire.retain(|request| to < saturating_add(request.signed, MAX_CLOCK_SKEW));
    }

    /// The next moment at which anything ends, on AWS's clock, if anything does.
    pub(crate) fn next_moment(&self, ahead: [SignedDuration; 2], sharp: bool) -> Option<Timestamp> {
        let ledger = self.ledger.as_deref();
        let calls = ledger.map_or(&[][..], |ledger| &ledger.calls[..]);
        let ends = ledger.and_then(in_flight_until).into_iter();
        let ends = ends.chain(calls.iter().map(expires_at));
        let ends = ends.chain(
            calls.iter().filter(|call| sharp || call.correction).map(|call| saturating_add(call.at(), DAY)),
        );
        let waits =
            ledger.and_then(|ledger| ledger.attempts.as_ref()).map(|attempts| attempts.not_before_time.0);
        let of_replicas = ends.chain(waits).flat_map(|end| ahead.map(|ahead| saturating_add(end, -ahead)));
        // The last moment at which a request can arrive.
        let second = SignedDuration::from_secs(1);
        let of_aws = self.wire.iter().map(|request| saturating_add(request.signed, MAX_CLOCK_SKEW - second));
        of_replicas.chain(of_aws).filter(|end| *end > self.now).min()
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { now, ledger, resource, earlier, aws, wire, replicas, .. } = self;
        let Self { faults, changes, pauses, moments, alike, broken, .. } = self;
        let mut same = Same { now: *now, state };
        (resource, earlier, faults, changes, pauses, moments, broken).hash(same.state);
        same.aws(aws);
        same.ledger(ledger.as_deref());
        wire.len().hash(same.state);
        for request in wire {
            same.id(&request.id);
            request.to.hash(same.state);
            same.time(request.signed);
            same.time(request.sent);
        }
        let mut both = replicas.each_ref().map(|visit| {
            let mut hasher = DefaultHasher::new();
            Same { now: *now, state: &mut hasher }.visit(visit.as_ref());
            hasher.finish()
        });
        if *alike {
            both.sort_unstable();
        }
        both.hash(state);
    }
}

/// Feeds what matters into a hash. Each destructures without `..`, so that a new field is not forgotten.
struct Same<'a, H> {
    now: Timestamp,
    state: &'a mut H,
}

impl<H: Hasher> Same<'_, H> {
    fn time(&mut self, time: Timestamp) {
        (time.as_second() - self.now.as_second()).hash(self.state);
    }

    /// A time of which only matters how long ago it is, up to `longest`.
    fn ago(&mut self, time: Timestamp, longest: SignedDuration) {
        (time.as_second() - self.now.as_second()).max(-longest.as_secs()).hash(self.state);
    }

    /// An id begins with the milliseconds of its reservation; before that it is empty.
    fn id(&mut self, id: &str) {
        let base = id.split_once('-').and_then(|(base, number)| Some((base.parse::<i64>().ok()?, number)));
        base.map(|(base, number)| (base - self.now.as_millisecond(), number)).hash(self.state);
    }

    fn target(&mut self, target: &Target) {
        (target.action, Encryption::after(target)).hash(self.state);
    }

    fn aws(&mut self, aws: &Aws) {
        (aws.view, aws.before, aws.outside).hash(self.state);
        for one in [Encryption::Off, Encryption::Owned, Encryption::One, Encryption::Two, Encryption::Foreign]
        {
            aws.ever_had(one).hash(self.state);
        }
        if aws.before.is_some() {
            self.time(aws.changed);
        }
        aws.log.len().hash(self.state);
        for call in &aws.log {
            self.id(&call.id);
            self.time(call.at);
            (call.action, call.unheard, call.late).hash(self.state);
        }
    }

    fn ledger(&mut self, ledger: Option<&StreamLedgerSpec>) {
        let Some(StreamLedgerSpec {
            stream_arn: _,
            owner: _,
            stream_creation_time: _,
            calls,
            known_encryption,
            satisfied,
            attempts,
        }) = ledger
        else {
            return 0.hash(self.state);
        };
        calls.len().hash(self.state);
        for Call { id, target, time, outcome, code, correction, after_failure, confirmed, retry } in calls {
            self.id(id);
            self.target(target);
            self.time(time.0);
            (*outcome as u8, code, correction, after_failure, confirmed, retry).hash(self.state);
        }
        // Only the settle time of 5 seconds is ever measured from these.
        let stable_encryption = SKEW * 3;
        known_encryption.is_some().hash(self.state);
        if let Some(KnownEncryption { key, since_time: since, encrypted_since_time }) = known_encryption {
            key.as_ref().map(|key| &key.arn).hash(self.state);
            self.ago(since.0, stable_encryption);
            encrypted_since_time.is_some().hash(self.state);
            if let Some(since) = encrypted_since_time {
                self.ago(since.0, stable_encryption);
            }
        }
        satisfied.is_some().hash(self.state);
        if let Some(target) = satisfied {
            self.target(target);
        }
        attempts.is_some().hash(self.state);
        if let Some(Attempts { count, not_before_time, target, reason, retry, key_was_unusable }) = attempts {
            self.ago(not_before_time.0, stable_encryption);
            self.target(target);
            (count, reason, retry, key_was_unusable).hash(self.state);
        }
    }

    fn visit(&mut self, visit: Option<&Visit>) {
        let Some(Visit { at, resource, book, current, sight, planned, had, tries }) = visit else {
            return 0.hash(self.state);
        };
        (at, resource, current, had, tries).hash(self.state);
        self.ledger(Some(book));
        if let Some((at, view)) = sight {
            self.time(*at);
            view.hash(self.state);
        }
        if let Some(Planned { reservation, id, at, off_was_asked_for }) = planned {
            let PlannedCall { target, desired_target, retry, correction, after_failure } = &**reservation;
            self.target(target);
            self.target(desired_target);
            (retry, correction, after_failure, off_was_asked_for).hash(self.state);
            self.id(id);
            self.time(*at);
        }
    }
}
