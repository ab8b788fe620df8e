//! What can happen next: the model that stateright explores.
//!
//! Every step of a replica, every answer of AWS, every fault, every change of mind and every movement of time is an
//! action of its own, so all their orders are tried. It decides nothing; it only offers.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::SignedDuration;
use stateright::{Model, Property};
use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::model::ledger::saturating_add;

use crate::aws::{Counted, bit};
use crate::bounds::{Bounds, FRESH, Fault};
use crate::flaw::Flaw;
use crate::names::{self, Encryption, Wish};
use crate::promise::Promise;
use crate::reached::{about_to_reserve, adopted, as_asked, forgotten, late, never_sent, waiting_for};
use crate::replica::Operator;
use crate::report::{Event, Tally};
use crate::world::{At, Heard, Request, Resource, World};

/// How much later than it was sent a request arrives late.
const LATE: SignedDuration = SignedDuration::from_mins(10);

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A replica begins a visit; `lagging`: its cache holds the resource as it was before the last change.
    Open {
        /// Which.
        replica: usize,
        /// Whether its cache lags.
        lagging: bool,
    },
    /// A replica takes the next step of its visit.
    Step {
        /// Which.
        replica: usize,
    },
    /// A replica looks, and AWS shows what was.
    LookAtThePast {
        /// Which.
        replica: usize,
    },
    /// A replica ends.
    Crash {
        /// Which.
        replica: usize,
    },
    /// A replica stops waiting for an answer.
    TimesOut {
        /// Which.
        replica: usize,
    },
    /// The request number `request` arrives.
    Arrives {
        /// Which.
        request: usize,
    },
    /// It arrives, and the answer is lost.
    ArrivesUnheard {
        /// Which.
        request: usize,
    },
    /// It arrives, and AWS refuses it for its limit.
    MeetsTheLimit {
        /// Which.
        request: usize,
    },
    /// The change under way succeeds.
    Finishes,
    /// The change under way fails.
    Fails,
    /// Somebody else calls AWS.
    Outside(Encryption),
    /// The user asks for something else.
    Wishes(Wish),
    /// A short time passes.
    Pause,
    /// Time passes to the next moment at which something ends.
    Moment,
}

/// The model.
#[derive(Debug)]
pub struct Protocol {
    pub(crate) operator: Operator,
    /// Worlds that are known to come to rest as they should.
    pub(crate) stable_encryption: Mutex<HashSet<u64>>,
    /// Properties whose first witness was found: the checker would go on to later, longer ones.
    found: AtomicU64,
}

impl Protocol {
    /// The product, or with a flaw a wrong operator, held to these promises within these bounds.
    #[must_use]
    pub fn new(bounds: Bounds, flaw: Option<Flaw>, promises: &'static [Promise]) -> Self {
        let permission = names::permission(bounds.limit);
        let operator = Operator { bounds, flaw, promises, permission, tally: Tally::default() };
        Self { operator, stable_encryption: Mutex::default(), found: AtomicU64::new(0) }
    }

    fn allows(&self, world: &World, fault: Fault) -> bool {
        world.faults > 0 && self.operator.bounds.kinds.contains(&fault)
    }

    fn offer_replica(&self, world: &World, replica: usize, offers: &mut Vec<Act>) {
        let Some(visit) = &world.replicas[replica] else {
            offers.push(Act::Open { replica, lagging: false });
            if world.earlier.is_some() {
                offers.push(Act::Open { replica, lagging: true });
            }
            return;
        };
        match visit.at {
            At::Waiting => {
                if self.allows(world, Fault::TimeOut) {
                    offers.push(Act::TimesOut { replica });
                }
            }
            _ => offers.push(Act::Step { replica }),
        }
        if visit.at == At::Opened && world.aws.before.is_some() && self.allows(world, Fault::OldAnswer) {
            offers.push(Act::LookAtThePast { replica });
        }
        // Ending a visit before it has written or sent is the same as not beginning it.
        let has_written = matches!(visit.at, At::Reserved | At::Waiting | At::Answered(_));
        if has_written && self.allows(world, Fault::Crash) {
            offers.push(Act::Crash { replica });
        }
    }

    fn offer_aws(&self, world: &World, offers: &mut Vec<Act>) {
        for (request, sent) in world.wire.iter().enumerate() {
            offers.push(Act::Arrives { request });
            if waiting_for(world, sent).is_some() && self.allows(world, Fault::LostReply) {
                offers.push(Act::ArrivesUnheard { request });
            }
            if self.allows(world, Fault::Refusal) {
                offers.push(Act::MeetsTheLimit { request });
            }
        }
        if world.aws.is_changing() {
            offers.push(Act::Finishes);
            if self.allows(world, Fault::Failure) {
                offers.push(Act::Fails);
            }
        } else if self.allows(world, Fault::Outside) {
            for to in [Encryption::Off, Encryption::Foreign] {
                if world.aws.view.active_key != to {
                    offers.push(Act::Outside(to));
                }
            }
        }
    }

    /// AWS gets a request.
    pub(crate) fn arrive(&self, world: &mut World, request: usize, refused: bool, lost: bool) {
        let Request { id, to, signed, sent } = world.wire.remove(request);
        let service = self.operator.bounds.service;
        if !world.ledger.iter().any(|ledger| ledger.calls.iter().any(|call| call.id == id)) {
            self.operator.breaks(world, Promise::WriteAhead);
        }
        let request = Request { id: id.clone(), to, signed, sent };
        let waiting = waiting_for(world, &request);
        let heard = if refused {
            Heard::LimitReached
        } else if world.aws.is_changing() {
            Heard::InUse
        } else {
            Heard::Accepted
        };
        let late = world.now.duration_since(sent) > LATE;
        let unheard = lost || waiting.is_none();
        if heard == Heard::Accepted || service == Service::Firehose {
            let at = world.now;
            world.aws.log.push(Counted { id, action: to.action(), at, unheard, late });
            let limit = usize::try_from(self.operator.bounds.limit).unwrap_or(usize::MAX);
            if world.aws.used(service) > limit {
                self.operator.breaks(world, Promise::Limit);
            }
        }
        if heard == Heard::Accepted {
            let now = world.now;
            world.aws.begin(to, true, now);
            if now.duration_since(sent) > FRESH {
                // Known, and not covered: a call that arrives late may be adopted, and then be hidden by an old answer.
                world.aws.before = None;
            }
        }
        let Some(replica) = waiting else { return };
        if lost && self.operator.flaw == Some(Flaw::SentTwice) {
            world.wire.push(request);
        } else if let Some(visit) = &mut world.replicas[replica] {
            visit.at = At::Answered(if lost { Heard::Nothing } else { heard });
        }
    }

    fn act(&self, world: &mut World, act: Act) -> Option<()> {
        let operator = &self.operator;
        let now = world.now;
        match act {
            Act::Open { replica, lagging } => {
                let resource = if lagging { world.earlier? } else { world.resource };
                operator.open(world, replica, resource);
            }
            Act::Step { replica } => operator.step(world, replica),
            Act::LookAtThePast { replica } => {
                let visit = world.replicas[replica].clone()?;
                operator.look(world, replica, visit, world.aws.before?);
            }
            Act::Crash { replica } => {
                if world.replicas[replica].as_ref()?.at == At::Reserved {
                    operator.tally.event(Event::CrashBeforeSending);
                }
                world.replicas[replica] = None;
            }
            Act::TimesOut { replica } => {
                world.replicas[replica].as_mut()?.at = At::Answered(Heard::Nothing);
            }
            Act::Arrives { request } => self.arrive(world, request, false, false),
            Act::ArrivesUnheard { request } => self.arrive(world, request, false, true),
            Act::MeetsTheLimit { request } => self.arrive(world, request, true, false),
            Act::Finishes => {
                world.aws.finish(now);
                let had = bit(world.aws.view.active_key);
                world.replicas.iter_mut().flatten().for_each(|visit| visit.had |= had);
            }
            Act::Fails => world.aws.fail(operator.bounds.service, now),
            Act::Outside(to) => {
                world.aws.outside = true;
                world.aws.begin(to, false, now);
            }
            Act::Wishes(wish) => {
                world.earlier = Some(world.resource);
                world.resource = Resource { generation: world.resource.generation + 1, wish };
                world.changes -= 1;
            }
            Act::Pause => {
                world.pauses -= 1;
                world.passes(saturating_add(now, operator.bounds.pause));
            }
            Act::Moment => {
                world.moments -= 1;
                world.passes(operator.next_moment(world)?);
            }
        }
        Some(())
    }

    /// Whether this is the first witness of a property.
    fn first(&self, property: u8, witnessed: bool) -> bool {
        witnessed && self.found.fetch_or(1 << property, Ordering::Relaxed) & (1 << property) == 0
    }

    fn keeps(&self, world: &World, promise: Promise) -> bool {
        !self.first(promise as u8, world.broken == Some(promise))
    }

    fn comes_to_rest(&self, world: &World) -> bool {
        !self.operator.promises.contains(&Promise::Rest) || {
            let restless = world.broken.is_none() && world.is_idle() && !self.settles(world);
            !self.first(Promise::Rest as u8, restless)
        }
    }

    fn is_full(&self, world: &World) -> bool {
        let Bounds { service, limit, .. } = self.operator.bounds;
        u32::try_from(world.aws.used(service)) == Ok(limit)
    }

    /// Remembers worlds that are known to come to rest.
    pub(crate) fn remembers(&self, worlds: &[u64]) {
        self.stable_encryption.lock().unwrap_or_else(PoisonError::into_inner).extend(worlds);
    }

    /// Whether a world is known to come to rest.
    pub(crate) fn knows(&self, world: u64) -> bool {
        self.stable_encryption.lock().unwrap_or_else(PoisonError::into_inner).contains(&world)
    }
}

impl Fault {
    fn of(act: Act) -> Option<Self> {
        match act {
            Act::LookAtThePast { .. } => Some(Self::OldAnswer),
            Act::Crash { .. } => Some(Self::Crash),
            Act::TimesOut { .. } => Some(Self::TimeOut),
            Act::ArrivesUnheard { .. } => Some(Self::LostReply),
            Act::MeetsTheLimit { .. } => Some(Self::Refusal),
            Act::Fails => Some(Self::Failure),
            Act::Outside(_) => Some(Self::Outside),
            Act::Open { .. }
            | Act::Step { .. }
            | Act::Arrives { .. }
            | Act::Finishes
            | Act::Wishes(_)
            | Act::Pause
            | Act::Moment => None,
        }
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.operator.bounds)]
    }

    fn actions(&self, world: &World, offers: &mut Vec<Act>) {
        if world.broken.is_some() {
            return;
        }
        for replica in 0..world.replicas.len() {
            // Two idle replicas that are alike: which of them begins does not matter.
            if replica == 0 || !world.alike || world.replicas[0] != world.replicas[1] {
                self.offer_replica(world, replica, offers);
            }
        }
        self.offer_aws(world, offers);
        if world.changes > 0 {
            let others = self.operator.bounds.wishes.iter().filter(|wish| **wish != world.resource.wish);
            offers.extend(others.map(|wish| Act::Wishes(*wish)));
        }
        if !world.somebody_waits() {
            if world.pauses > 0 {
                offers.push(Act::Pause);
            }
            if world.moments > 0 && self.operator.next_moment(world).is_some() {
                offers.push(Act::Moment);
            }
        }
    }

    fn next_state(&self, before: &World, act: Act) -> Option<World> {
        let mut world = before.clone();
        world.faults -= u8::from(Fault::of(act).is_some());
        self.act(&mut world, act)?;
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let name = Promise::sentence;
        vec![
            Property::always(name(Promise::Limit), |m, w| m.keeps(w, Promise::Limit)),
            Property::always(name(Promise::WriteAhead), |m, w| m.keeps(w, Promise::WriteAhead)),
            Property::always(name(Promise::OneOpenCall), |m, w| m.keeps(w, Promise::OneOpenCall)),
            Property::always(name(Promise::ConditionStatus), |m, w| m.keeps(w, Promise::ConditionStatus)),
            Property::always(name(Promise::NoStop), |m, w| m.keeps(w, Promise::NoStop)),
            Property::always(name(Promise::Memory), |m, w| m.keeps(w, Promise::Memory)),
            Property::always(name(Promise::Rest), Protocol::comes_to_rest),
            Property::sometimes("the budget is used up", |m, w| m.first(16, m.operator.is_used_up(w))),
            Property::sometimes("AWS has counted all calls that are allowed", |m, w| {
                m.first(17, m.is_full(w))
            }),
            Property::sometimes("both replicas are about to reserve", |m, w| {
                m.first(18, about_to_reserve(w))
            }),
            Property::sometimes("a request that nobody waits for", |m, w| m.first(19, forgotten(w))),
            Property::sometimes("a request that is 10 minutes late", |m, w| m.first(20, late(w))),
            Property::sometimes("a call that nobody heard of is adopted", |m, w| m.first(21, adopted(w))),
            Property::sometimes("a call is reserved and never sent", |m, w| m.first(22, never_sent(w))),
            Property::sometimes("as asked after all faults", |m, w| m.first(23, as_asked(w))),
        ]
    }
}
