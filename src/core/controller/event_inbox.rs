//! The events of AWS between their arrival and the reconciles that they lead to: which resources an event concerns,
//! the calls that no ledger holds yet, and whether events arrive at all.
//!
//! An event leads at most to a Describe, and what AWS then reports decides what follows. A call that an event reports is
//! entered in the ledger by the reconcile of the ledger's owner. All of this is lost with the process, which is safe: the
//! queue of AWS's events (not the work queue) delivers the calls again that no reconcile has entered, a new process describes
//! every stream, and checks by interval remain. A sender of forged events cannot make this module grow without limit: it
//! holds calls and arrivals only for streams, accounts and regions that a resource has named since this replica became the
//! leader, and a bounded number of calls of each stream.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stream_encryption_api::stream_encryption::StreamEncryption;

use crate::model::arn::{KmsKeyId, StreamArn};
use crate::model::aws_event::{AwsEvent, CallEvent, EventScope, Subject};
use crate::model::ledger::external::insert_bounded;

mod arrivals;
mod noticed;

use arrivals::Arrivals;
pub use arrivals::{SILENCE, Silence};
use noticed::Noticed;

/// The namespace and name of a resource, `data/orders`. Clones share the text.
pub type ResourceName = Arc<str>;

/// The events of AWS that concern resources.
#[derive(Debug, Default)]
pub struct EventInbox(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    resources: HashMap<ResourceName, Registered>,
    /// The resources that name a stream, key or alias, by its hash. A collision leads to a Describe too many.
    by_subject: HashMap<u64, BTreeSet<ResourceName>>,
    /// The accounts and regions of the resources' streams and keys, with the number of resources that name each.
    scopes: HashMap<EventScope, usize>,
    /// The calls that no reconcile has finished with, by the hash of their stream, and in the order of their times.
    calls: HashMap<u64, Vec<CallEvent>>,
    /// The arrivals of events, by account and region. An account and region is missing here until its first event arrives.
    arrivals: HashMap<EventScope, Arrivals>,
    /// The number of the last event, or of the last silence: both are numbered, in one sequence.
    last_number: u64,
}

/// An account and region whose events no longer arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SilentScope {
    /// The account and region.
    pub scope: EventScope,
    /// What is missing.
    pub silence: Silence,
    /// The resources there that are not due already.
    pub resources: Vec<ResourceName>,
}

/// What is known of one resource.
#[derive(Debug, Default)]
struct Registered {
    /// The hashes of its stream, and of the keys and the alias that it depends on.
    subjects: BTreeSet<u64>,
    /// The account and region of its stream.
    scope: Option<EventScope>,
    /// The accounts and regions of its keys, except for `scope`.
    key_scopes: Vec<EventScope>,
    /// The last time, on the monotonic clock, at which one of these happened:
    ///
    /// - An event arrived that requires a Describe.
    /// - The events of its account and region were found missing (`find_silent`).
    /// - A reconcile entered a call of somebody else in the ledger.
    ///
    /// For some time after that, AWS may still report the earlier state.
    unsettled_since: Option<Duration>,
    /// The events that concern it, and whether a reconcile has begun to take them into account.
    noticed: Noticed,
    /// Whether one of the noticed events requires a Describe in any case.
    must_describe: bool,
}

impl Registered {
    /// Returns the accounts and regions of the resource's stream and keys.
    fn scopes(&self) -> impl Iterator<Item = &EventScope> {
        self.scope.iter().chain(&self.key_scopes)
    }

    /// Returns whether the resource's stream or one of its keys is in this account and region.
    fn is_in(&self, scope: &EventScope) -> bool {
        self.scopes().any(|one| one == scope)
    }
}

/// What the events of AWS that concern a resource mean for a reconcile of it: the calls that they report, and whether they
/// require a Describe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notice {
    /// The calls that events report, by the hash of their stream.
    calls: BTreeMap<u64, Vec<CallEvent>>,
    /// Whether the stream must be described even if the ledger knows all calls.
    pub must_describe: bool,
    /// The number of the last event that it covers; `None` if none is new.
    last_number: Option<u64>,
}

impl Notice {
    /// Removes the calls of other streams from this notice, so that the inbox keeps them. Before its first reconcile, a resource
    /// is registered with the stream whose ARN is in its spec or, without that, in its status. The reconcile may resolve another
    /// stream: the operator has credentials of another account now, in which the name stands for another stream. Or the
    /// resource was created again.
    pub fn keep_calls_of(&mut self, stream: &StreamArn) {
        let own = hash_of(stream);
        self.calls.retain(|subject, _| *subject == own);
    }

    /// Returns the calls, oldest first for each stream.
    #[must_use]
    pub fn calls(&self) -> Vec<CallEvent> {
        self.calls.values().flatten().cloned().collect()
    }
}

/// What has become of the calls that a reconcile took into account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallsOutcome {
    /// A stored ledger holds them, except those that [`record_events`](crate::model::ledger::external::record_events) leaves out,
    /// such as the operator's own calls.
    Entered,
    /// The resource must not enter them: it neither owns the ledger nor may claim the stream, its spec is invalid, or it is
    /// being deleted without disabling encryption first. Another resource of the stream may own the ledger, so the calls
    /// are kept until every resource of the stream is reconciled.
    MustNotEnter,
    /// The ledger could not be read or written. The calls are kept for a later reconcile.
    NotEntered,
}

impl EventInbox {
    /// Records on which stream and keys a resource depends according to its spec and its status, before its first
    /// reconcile: after a start, events may arrive earlier.
    pub fn register_from_status(&self, resource: &StreamEncryption) {
        let status = resource.status.as_ref();
        let reported = || status?.stream.as_ref()?.arn.as_ref();
        let stream = resource.spec.stream.arn.as_ref().or_else(reported);
        let Some(stream) = stream.and_then(|arn| arn.parse::<StreamArn>().ok()) else { return };
        let key = resource.spec.key.as_ref();
        let arns = [
            key.and_then(|key| key.arn.as_ref()),
            status.and_then(|status| status.desired_key.as_ref()?.arn.as_ref()),
            status.and_then(|status| status.active_key.as_ref()?.arn.as_ref()),
        ];
        let arns = arns.into_iter().flatten().filter_map(|arn| arn.parse().ok()).map(KmsKeyId::Arn);
        let alias = key.and_then(|key| key.alias.clone()).map(KmsKeyId::Alias);
        self.add_dependencies(resource, &stream, &arns.chain(alias).collect::<Vec<_>>());
    }

    /// Records what a resource depends on, in addition to what was recorded before.
    pub fn add_dependencies(&self, resource: &StreamEncryption, stream: &StreamArn, keys: &[KmsKeyId]) {
        let (mut state, name) = (self.lock(), name_of(resource));
        let mut subjects = subjects_of(stream, keys);
        subjects.extend(state.resources.get(&name).iter().flat_map(|registered| &registered.subjects));
        let mut scopes = key_scopes(stream, keys);
        scopes.extend(state.resources.get(&name).iter().flat_map(|registered| registered.key_scopes.clone()));
        state.register(&name, subjects, EventScope::of(stream), scopes);
    }

    /// Records what a resource depends on, instead of what was recorded before.
    pub fn replace_dependencies(&self, resource: &StreamEncryption, stream: &StreamArn, keys: &[KmsKeyId]) {
        let scopes = key_scopes(stream, keys);
        self.lock().register(&name_of(resource), subjects_of(stream, keys), EventScope::of(stream), scopes);
    }

    /// Evicts a resource that is gone, and the calls that no other resource waits for.
    pub fn evict(&self, name: &str) {
        let mut state = self.lock();
        if let Some((name, registered)) = state.resources.remove_entry(name) {
            state.forget(&name, &registered.subjects);
            state.forget_scopes(registered.scopes());
        }
    }

    /// Evicts everything, when this replica becomes the leader: until then, another replica may have received the events.
    pub fn clear(&self) {
        *self.lock() = State::default();
    }

    /// Takes an event. `now` is the time of its arrival on the monotonic clock, `age` is the time between the event and
    /// its arrival. Returns the resources that are due because of it. An old event does not show that events arrive: the
    /// queue delivers again what nobody has deleted.
    pub fn receive(&self, event: &AwsEvent, now: Duration, age: Duration) -> Vec<ResourceName> {
        let mut state = self.lock();
        if age < SILENCE {
            state.arrived(&event.scope, now);
        }
        if event.subject != Subject::Heartbeat
            && let Some(arrivals) = state.arrivals.get_mut(&event.scope)
        {
            arrivals.record_trail_event(now, age);
        }
        let (subject, call) = match &event.subject {
            Subject::Call(stream, call) => (hash_of(stream), Some(call)),
            Subject::Stream(stream) => (hash_of(stream), None),
            Subject::Key(key) => (hash_of(key), None),
            Subject::Alias(alias) => (hash_of(&(&event.scope, alias)), None),
            Subject::Heartbeat => return Vec::new(),
        };
        let Some(users) = state.by_subject.get(&subject) else { return Vec::new() };
        let resources = users.iter().cloned().collect();
        if let Some(call) = call {
            let calls = state.calls.entry(subject).or_default();
            if calls.iter().any(|held| held.event_id == call.event_id) {
                return Vec::new();
            }
            insert_bounded(calls, call.clone(), |call| (call.time, call.code.as_deref()));
        }
        state.record(resources, call.is_none().then_some(now))
    }

    /// Records that a call of somebody else was entered in the ledger of the resource's stream at `now`, on the monotonic clock.
    /// A Describe may not show its effect yet.
    pub fn record_external_call(&self, resource: &StreamEncryption, now: Duration) {
        if let Some(registered) = self.lock().resources.get_mut(&name_of(resource)) {
            registered.unsettled_since = Some(now);
        }
    }

    /// Records that AWS has accepted an encryption call of the operator, which was sent at this time on the monotonic clock.
    /// An event must report it.
    pub fn record_own_call(&self, scope: &EventScope, sent: Duration) {
        if let Some(arrivals) = self.lock().arrivals.get_mut(scope) {
            arrivals.record_own_call(sent);
        }
    }

    /// Returns the accounts and regions whose events have stopped arriving, with the resources there. What has happened to
    /// these resources since then is unknown. An account and region is returned once for each kind of silence, until its
    /// events arrive again.
    pub fn find_silent(&self, now: Duration) -> Vec<SilentScope> {
        let mut state = self.lock();
        let mut silent = Vec::new();
        for (scope, arrivals) in &mut state.arrivals {
            if let Some(silence) = arrivals.announce_silence(now) {
                silent.push(SilentScope { scope: scope.clone(), silence, resources: Vec::new() });
            }
        }
        silent.sort_unstable_by(|one, other| one.scope.cmp(&other.scope));
        for SilentScope { scope, resources, .. } in &mut silent {
            let there = state.resources.iter().filter(|(_, registered)| registered.is_in(scope));
            let mut there: Vec<ResourceName> = there.map(|(name, _)| name.clone()).collect();
            there.sort_unstable();
            *resources = state.record(there, Some(now));
        }
        silent
    }

    /// Returns whether events report what happens to a resource's stream and keys: those of their accounts and regions arrive,
    /// and the last change that they reported is at least `settling` ago. If it is more recent, the Describe after it may have
    /// failed, or may have shown an old state. `key` is the key that the resource names, which may not be registered yet.
    #[must_use]
    pub fn suffice_for(
        &self,
        resource: &StreamEncryption,
        stream: &StreamArn,
        key: Option<&KmsKeyId>,
        now: Duration,
        settling: Duration,
    ) -> bool {
        let state = self.lock();
        let arrive = |scope: &EventScope| {
            state.arrivals.get(scope).is_some_and(|arrivals| arrivals.silence(now).is_none())
        };
        // Without events nothing has arrived, and no name has to be built.
        arrive(&EventScope::of(stream))
            && key_scopes(stream, key).iter().all(arrive)
            && state.resources.get(&name_of(resource)).is_none_or(|registered| {
                registered.key_scopes.iter().all(arrive)
                    && registered.unsettled_since.is_none_or(|at| now.saturating_sub(at) >= settling)
            })
    }

    /// Returns the accounts and regions in which a resource has its stream or a key, with the time since their last event
    /// arrived; `None` once its events count as lost.
    #[must_use]
    pub fn ages(&self, now: Duration) -> Vec<(EventScope, Option<Duration>)> {
        let state = self.lock();
        let arrivals = state.arrivals.iter().filter(|(scope, _)| state.scopes.contains_key(scope));
        arrivals.map(|(scope, arrivals)| (scope.clone(), arrivals.age(now))).collect()
    }

    /// Returns whether there is an event that concerns this resource and that no reconcile of it has finished with.
    #[must_use]
    pub fn is_noticed(&self, resource: &StreamEncryption) -> bool {
        let state = self.lock();
        // Without events the table is empty, and no name has to be built.
        !state.resources.is_empty()
            && state.resources.get(&name_of(resource)).is_some_and(|one| one.noticed != Noticed::Nothing)
    }

    /// Returns the notice of the events that concern a resource, and records that a reconcile has begun to take them into
    /// account. The inbox keeps them until [`finish_notice`](Self::finish_notice).
    #[must_use]
    pub fn begin_notice(&self, resource: &StreamEncryption) -> Notice {
        let mut state = self.lock();
        if state.resources.is_empty() {
            return Notice::default();
        }
        let State { resources, calls, .. } = &mut *state;
        let Some(registered) = resources.get_mut(&name_of(resource)) else { return Notice::default() };
        registered.noticed.begin();
        let held =
            registered.subjects.iter().filter_map(|subject| Some((*subject, calls.get(subject)?.clone())));
        Notice {
            calls: held.collect(),
            must_describe: registered.must_describe,
            last_number: registered.noticed.last_number(),
        }
    }

    /// Records that a reconcile has finished with what it took into account, and what has become of the calls.
    pub fn finish_notice(&self, resource: &StreamEncryption, notice: &Notice, outcome: CallsOutcome) {
        // A notice may have calls although no event is new for this resource. One cause: this resource had finished with the
        // calls as `MustNotEnter`, and the other resource of the stream was deleted before it entered them.
        if notice.last_number.is_none() && notice.calls.is_empty() {
            return;
        }
        let state = &mut *self.lock();
        let Some(registered) = state.resources.get_mut(&name_of(resource)) else { return };
        if registered.noticed.last_number() == notice.last_number {
            registered.must_describe = false;
            if outcome != CallsOutcome::NotEntered {
                registered.noticed = Noticed::Nothing;
            }
        }
        if outcome == CallsOutcome::NotEntered {
            return;
        }
        let subjects = registered.subjects.clone();
        for subject in subjects {
            let users = state.by_subject.get(&subject);
            let waits = |name: &ResourceName| {
                state.resources.get(name).is_some_and(|registered| registered.noticed != Noticed::Nothing)
            };
            if outcome == CallsOutcome::MustNotEnter && users.is_some_and(|users| users.iter().any(waits)) {
                continue;
            }
            let Some(calls) = state.calls.get_mut(&subject) else { continue };
            let finished = notice.calls.get(&subject).map(Vec::as_slice).unwrap_or_default();
            calls.retain(|call| finished.iter().all(|finished| finished.event_id != call.event_id));
            if calls.is_empty() {
                state.calls.remove(&subject);
            }
        }
    }

    /// Returns whether a call that an event reports waits for a reconcile. While it waits, the queue must keep the event.
    #[must_use]
    pub fn holds(&self, event: &AwsEvent) -> bool {
        let Subject::Call(stream, call) = &event.subject else { return false };
        let state = self.lock();
        let held = state.calls.get(&hash_of(stream));
        held.is_some_and(|calls| calls.iter().any(|held| held.event_id == call.event_id))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Records a new event of these resources. Returns the resources that become due by it. A resource that an earlier event
    /// has made due, and whose reconcile has not begun since, is left out. `describe_required_at` is the present time on the
    /// monotonic clock if the event requires a Describe in any case, and `None` otherwise.
    fn record(
        &mut self,
        resources: Vec<ResourceName>,
        describe_required_at: Option<Duration>,
    ) -> Vec<ResourceName> {
        self.last_number += 1;
        let mut due = Vec::new();
        for name in resources {
            let registered = self.resources.entry(name.clone()).or_default();
            registered.must_describe |= describe_required_at.is_some();
            registered.unsettled_since = describe_required_at.or(registered.unsettled_since);
            if registered.noticed.record(self.last_number) {
                due.push(name);
            }
        }
        due
    }

    /// Records that an event of an account and region has arrived, if a resource names a stream or a key there: whoever can write
    /// to the queue can make up any number of accounts.
    fn arrived(&mut self, scope: &EventScope, now: Duration) {
        if let Some(arrivals) = self.arrivals.get_mut(scope) {
            arrivals.record(now);
        } else if self.scopes.contains_key(scope) {
            self.arrivals.insert(scope.clone(), Arrivals::begin(now));
        }
    }

    /// Sets the subjects of a resource. What was noticed, and the calls of a subject that remains, are kept.
    fn register(
        &mut self,
        name: &ResourceName,
        subjects: BTreeSet<u64>,
        scope: EventScope,
        key_scopes: BTreeSet<EventScope>,
    ) {
        let registered = self.resources.entry(name.clone()).or_default();
        let key_scopes: Vec<EventScope> = key_scopes.into_iter().collect();
        for scope in key_scopes.iter().chain([&scope]) {
            *self.scopes.entry(scope.clone()).or_default() += 1;
        }
        let earlier_scopes = mem::replace(&mut registered.key_scopes, key_scopes);
        let earlier_scope = registered.scope.replace(scope);
        let added = &subjects - &registered.subjects;
        let removed = &registered.subjects - &subjects;
        registered.subjects = subjects;
        self.forget_scopes(earlier_scope.iter().chain(&earlier_scopes));
        self.forget(name, &removed);
        for subject in added {
            self.by_subject.entry(subject).or_default().insert(name.clone());
        }
    }

    /// Counts one resource less for each of these accounts and regions. Removes the arrivals of one that no resource names any
    /// more: nobody has to forward its events, so it must not be reported as silent.
    fn forget_scopes<'a>(&mut self, scopes: impl IntoIterator<Item = &'a EventScope>) {
        for scope in scopes {
            let Some(resources) = self.scopes.get_mut(scope) else { continue };
            *resources -= 1;
            if *resources == 0 {
                self.scopes.remove(scope);
                self.arrivals.remove(scope);
            }
        }
    }

    /// Removes a resource from `by_subject` for these subjects. Also removes the calls of a subject that no resource names any
    /// more.
    fn forget(&mut self, name: &ResourceName, subjects: &BTreeSet<u64>) {
        for subject in subjects {
            let Some(users) = self.by_subject.get_mut(subject) else { continue };
            users.remove(name);
            if users.is_empty() {
                self.by_subject.remove(subject);
                self.calls.remove(subject);
            }
        }
    }
}

/// Returns the hashes of a stream, of keys, and of aliases in the account and region of the stream.
fn subjects_of(stream: &StreamArn, keys: &[KmsKeyId]) -> BTreeSet<u64> {
    let scope = EventScope::of(stream);
    let keys = keys.iter().map(|key| match key {
        KmsKeyId::Arn(arn) => hash_of(arn),
        KmsKeyId::Alias(alias) => hash_of(&(&scope, alias)),
    });
    keys.chain([hash_of(stream)]).collect()
}

/// Returns the accounts and regions of these keys, except for that of the stream.
fn key_scopes<'a>(stream: &StreamArn, keys: impl IntoIterator<Item = &'a KmsKeyId>) -> BTreeSet<EventScope> {
    let scopes = keys.into_iter().filter_map(|key| match key {
        KmsKeyId::Arn(arn) => Some(EventScope { account: arn.account.clone(), region: arn.region.clone() }),
        // An alias is in the account and region of the stream.
        KmsKeyId::Alias(_) => None,
    });
    scopes.filter(|scope| *scope != EventScope::of(stream)).collect()
}

fn name_of(resource: &StreamEncryption) -> ResourceName {
    let metadata = &resource.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    format!("{namespace}/{}", metadata.name.as_deref().unwrap_or_default()).into()
}

fn hash_of(subject: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    subject.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
