//! The steps of a visit, in the order of `src/core/controller.rs` and `src/core/controller/execute.rs`.
//!
//! Between two steps anything may happen: the other replica, AWS, a fault, time. Each step does what the product does
//! there, with the product's functions; a flaw does one thing otherwise. What the process remembers from one visit to
//! the next is left out: it may save a look, and never leads to a call.

use std::sync::Arc;

use jiff::Timestamp;
use stream_encryption_api::ledger::{Action, Outcome, StreamLedgerSpec};
use stream_encryption_core::model::aws_error::{AwsError, ErrorKind};
use stream_encryption_core::model::decision::{Decision, DecisionInput, LastObservation, Ownership, Step};
use stream_encryption_core::model::ledger;
use stream_encryption_core::model::observation::Observation;
use stream_encryption_core::model::permission::EffectivePolicy;
use stream_encryption_core::model::service::Operation;

use crate::aws::{View, bit};
use crate::bounds::{Bounds, FRESH};
use crate::flaw::{Flaw, decided};
use crate::names::{self, Encryption};
use crate::promise::{Promise, is_true, may_replace};
use crate::report::{Event, Tally};
use crate::world::{At, Heard, Planned, Request, Resource, Visit, World};

/// What a replica works with.
#[derive(Debug)]
pub(crate) struct Operator {
    pub(crate) bounds: Bounds,
    pub(crate) flaw: Option<Flaw>,
    pub(crate) promises: &'static [Promise],
    pub(crate) permission: EffectivePolicy,
    pub(crate) tally: Tally,
}

impl Operator {
    fn clock(&self, world: &World, replica: usize) -> Timestamp {
        ledger::saturating_add(world.now, self.bounds.ahead[replica])
    }

    pub(crate) fn breaks(&self, world: &mut World, promise: Promise) {
        if self.promises.contains(&promise) && world.broken.is_none() {
            world.broken = Some(promise);
        }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// The next moment at which anything ends, if anything does.
    pub(crate) fn next_moment(&self, world: &World) -> Option<Timestamp> {
        // AWS's day as such ends nothing for the product.
        world.next_moment(self.bounds.ahead, self.has(Flaw::SharpWindow))
    }

    /// A visit begins: with the resource as the cache has it, and the ledger as it is.
    pub(crate) fn open(&self, world: &mut World, replica: usize, resource: Resource) {
        let stream = names::stream(self.bounds.service);
        let book = world.ledger.clone().unwrap_or_else(|| Arc::new(ledger::new(stream, names::owner())));
        // A wrong operator looks first, and reads the ledger a step later.
        let sight = self.has(Flaw::LookOlderThanLedger).then_some((world.now, world.aws.view));
        let had = bit(world.aws.view.active_key);
        let at = At::Opened;
        world.replicas[replica] =
            Some(Visit { at, resource, book, current: true, sight, planned: None, had, tries: 0 });
    }

    /// The next step of a visit.
    pub(crate) fn step(&self, world: &mut World, replica: usize) {
        let Some(visit) = world.replicas[replica].clone() else { return };
        match visit.at {
            At::Opened => self.look(world, replica, visit, world.aws.view),
            At::Learned => self.check_before_noting(world, replica, visit),
            At::Confirmed => self.save(world, replica, &visit),
            At::Decided => self.check(world, replica, visit),
            At::Checked => self.reserve(world, replica, visit),
            At::Reserved => self.send(world, replica, visit),
            At::Waiting => {}
            At::Answered(heard) => self.record(world, replica, visit, heard),
        }
    }

    /// It looks; the ledger learns; it decides.
    pub(crate) fn look(&self, world: &mut World, replica: usize, mut visit: Visit, shown: View) {
        let now = self.clock(world, replica);
        let shown = visit.sight.take().map_or(shown, |(_, view)| view);
        if self.has(Flaw::LookOlderThanLedger) {
            visit.book = world.ledger.clone().unwrap_or(visit.book);
            visit.current = true;
        }
        let observation = shown.observation(self.bounds.service);
        let wanted = visit.resource.wish.desired().encryption.target();
        let believed = match &observation {
            Observation::InProgress(Some(Action::Start)) if self.has(Flaw::EnablingTakenForEnabled) => visit
                .resource
                .wish
                .desired()
                .encryption
                .target()
                .and_then(|target| target.key)
                .map_or(observation.clone(), |key| {
                    Observation::On(stream_encryption_core::model::key::Key::of(&key))
                }),
            seen => seen.clone(),
        };
        let updated = ledger::apply_observation(&visit.book, &believed, None, wanted.as_ref(), false, now);
        self.tell_what_was_learned(&visit.book, &updated);
        let nothing_new = updated == *visit.book;
        let nothing_to_keep =
            world.ledger.is_none() && updated.known_encryption.is_none() && updated.calls.is_empty();
        visit.book = Arc::new(updated);
        visit.sight = Some((now, shown));
        let decision = self.decide(&visit, &observation, now);
        self.tally.reason(decision.reason);
        match decision.step {
            Step::ChangeEncryption(reservation) => {
                let reservation = Arc::new(reservation);
                let planned =
                    Planned { reservation, id: String::new(), at: world.now, off_was_asked_for: false };
                world.replicas[replica] = Some(Visit { at: At::Decided, planned: Some(planned), ..visit });
            }
            Step::Wait if nothing_new || nothing_to_keep => self.report(world, replica, &visit),
            Step::Wait => world.replicas[replica] = Some(Visit { at: At::Learned, ..visit }),
            step @ (Step::Describe | Step::Verify | Step::RemoveFinalizer) => {
                unreachable!("nobody asks for {step:?} here")
            }
        }
    }

    fn decide(&self, visit: &Visit, observation: &Observation, now: Timestamp) -> Decision {
        decided(self.flaw, &self.input(visit, observation, now))
    }

    fn input<'a>(
        &'a self,
        visit: &'a Visit,
        observation: &'a Observation,
        now: Timestamp,
    ) -> DecisionInput<'a> {
        DecisionInput {
            now,
            stream: names::stream(self.bounds.service),
            desired: visit.resource.wish.desired(),
            permission: &self.permission,
            ownership: Ownership::Owned,
            other_owner: None,
            ledger: &visit.book,
            last_observation: visit
                .sight
                .map_or(LastObservation::NotYet, |(at, _)| LastObservation::At(at, observation)),
            active_key_problem: None,
            session_age: None,
            last_reason: None,
            drift_interval: ledger::DAY,
        }
    }

    /// Writes the ledger against the version that was read. `false`: somebody else wrote first.
    fn write(&self, world: &mut World, replica: usize, visit: &Visit) -> bool {
        if !visit.current && !self.has(Flaw::NoCompareAndSwap) {
            self.tally.event(Event::Conflict);
            return false;
        }
        let stream = names::stream(self.bounds.service);
        let clock = self.clock(world, replica);
        let old = world.ledger.clone();
        if old.as_ref() == Some(&visit.book) {
            return true;
        }
        if !may_replace(world, stream, old.as_deref(), &visit.book, clock) {
            self.breaks(world, Promise::Memory);
        }
        world.ledger = Some(visit.book.clone());
        if let Some(other) = &mut world.replicas[1 - replica] {
            other.current = false;
        }
        true
    }

    fn save(&self, world: &mut World, replica: usize, visit: &Visit) {
        if self.write(world, replica, visit) {
            self.report(world, replica, visit);
        } else {
            world.replicas[replica] = None;
        }
    }

    /// What was learned is written down for the resource as it is now, or not at all.
    fn check_before_noting(&self, world: &mut World, replica: usize, visit: Visit) {
        let changed = visit.resource != world.resource && !self.has(Flaw::NoLiveReadOfTheResource);
        if changed {
            self.tally.event(Event::ResourceChanged);
        }
        world.replicas[replica] = (!changed).then_some(Visit { at: At::Confirmed, ..visit });
    }

    /// The live resource must still be the one that was decided about.
    fn check(&self, world: &mut World, replica: usize, mut visit: Visit) {
        if visit.resource != world.resource && !self.has(Flaw::NoLiveReadOfTheResource) {
            self.tally.event(Event::ResourceChanged);
            world.replicas[replica] = None;
            return;
        }
        let off = world.resource.wish == names::Wish::Off;
        visit.planned.iter_mut().for_each(|planned| planned.off_was_asked_for = off);
        visit.at = At::Checked;
        if self.has(Flaw::SendBeforeReserve) {
            self.reserved(world, replica, &mut visit);
            self.put_on_the_wire(world, replica, &visit);
        }
        world.replicas[replica] = Some(visit);
    }

    fn reserved(&self, world: &World, replica: usize, visit: &mut Visit) {
        let Some(planned) = &mut visit.planned else { return };
        let shorter = visit.sight.map(|(verified_now, _)| ledger::prune_expired(&visit.book, verified_now));
        let before = shorter.as_ref().unwrap_or(&visit.book);
        let (book, id) = ledger::reserve(before, &planned.reservation, self.clock(world, replica));
        visit.book = Arc::new(book);
        planned.id = id;
        planned.at = world.now;
    }

    fn reserve(&self, world: &mut World, replica: usize, mut visit: Visit) {
        if !self.has(Flaw::SendBeforeReserve) {
            self.reserved(world, replica, &mut visit);
        }
        let written = self.write(world, replica, &visit);
        visit.at =
            if self.has(Flaw::SendBeforeReserve) { At::Answered(Heard::Nothing) } else { At::Reserved };
        world.replicas[replica] = written.then_some(visit);
    }

    fn send(&self, world: &mut World, replica: usize, mut visit: Visit) {
        let reserved = visit.planned.as_ref().map_or(world.now, |planned| planned.at);
        if world.now.duration_since(reserved) > FRESH {
            self.tally.event(Event::NotSent);
            visit.at = At::Answered(Heard::NotSent);
        } else {
            self.put_on_the_wire(world, replica, &visit);
            visit.at = At::Waiting;
        }
        world.replicas[replica] = Some(visit);
    }

    fn put_on_the_wire(&self, world: &mut World, replica: usize, visit: &Visit) {
        let Some(planned) = &visit.planned else { return };
        let target = &planned.reservation.target;
        if !world.wire.is_empty() || world.aws.is_changing_for_us() {
            self.breaks(world, Promise::OneOpenCall);
        }
        if target.action == Action::Stop && !planned.off_was_asked_for {
            self.breaks(world, Promise::NoStop);
        }
        // It is dated as of its reservation.
        let signed = self.clock(world, replica) - world.now.duration_since(planned.at);
        let to = Encryption::after(target);
        world.wire.push(Request { id: planned.id.clone(), to, signed, sent: world.now });
    }

    /// Writes the outcome: against the version of the reservation, and from a fresh read where somebody else wrote.
    fn record(&self, world: &mut World, replica: usize, mut visit: Visit, heard: Heard) {
        let Some(planned) = &visit.planned else { return };
        let before = visit.book.clone();
        let fault = self.fault(heard, planned.reservation.target.action);
        let outcome = fault.as_ref().map_or(Ok(()), Err);
        let mut book = ledger::record_outcome(&visit.book, &planned.id, outcome, self.clock(world, replica));
        if self.has(Flaw::RefundOfUnknownCalls) && heard == Heard::Nothing {
            book.calls.retain(|call| call.id != planned.id);
        }
        visit.book = Arc::new(book);
        if self.write(world, replica, &visit) {
            self.report(world, replica, &visit);
        } else if visit.tries < 2 {
            visit.book = world.ledger.clone().unwrap_or(before);
            visit.current = true;
            visit.tries += 1;
            world.replicas[replica] = Some(visit);
        } else {
            // Told in the log only; the reservation stands, as pending.
            self.report(world, replica, &visit);
        }
    }

    fn fault(&self, heard: Heard, action: Action) -> Option<AwsError> {
        let (kind, code) = match heard {
            Heard::Accepted => return None,
            Heard::InUse => (ErrorKind::InUse, Some("ResourceInUseException")),
            Heard::LimitReached => (ErrorKind::LimitReached, Some("LimitExceededException")),
            Heard::Nothing => (ErrorKind::UnknownOutcome, None),
            Heard::NotSent => (ErrorKind::Transient, Some("OperatorPaused")),
        };
        let operation = Operation::change(self.bounds.service, action);
        Some(AwsError { operation, kind, code: code.map(str::to_owned), message: String::new() })
    }

    /// The visit ends, and says how things stand.
    fn report(&self, world: &mut World, replica: usize, visit: &Visit) {
        if let Some((_, shown)) = visit.sight {
            let now = self.clock(world, replica);
            let observation = shown.observation(self.bounds.service);
            let reason = self.decide(visit, &observation, now).reason;
            let input = self.input(visit, &observation, now);
            if !is_true(world, &input, reason, visit, shown) {
                self.breaks(world, Promise::ConditionStatus);
            }
        }
        world.replicas[replica] = None;
    }

    fn tell_what_was_learned(&self, before: &StreamLedgerSpec, after: &StreamLedgerSpec) {
        if let (Some(was), Some(is)) = (before.calls.last(), after.calls.last())
            && was.outcome != is.outcome
        {
            let event =
                if was.outcome == Outcome::Unknown { Event::AdoptedUnknown } else { Event::AdoptedPending };
            self.tally.event(event);
        }
    }

    /// Whether there is no budget for another Start.
    pub(crate) fn is_used_up(&self, world: &World) -> bool {
        let Some(spec) = &world.ledger else { return false };
        let Bounds { service, limit, .. } = self.bounds;
        !ledger::budget(&spec.calls, service, Action::Start, limit, world.now).has_room()
    }
}
