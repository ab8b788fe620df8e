//! One reconcile, as a table of contents: resolve, open the ledger, decide, describe, execute, report,
//! requeue.
//!
//! Each step decides only what its own file states; [`crate::model::decision::decide`] makes the decision.
//! The steps reach AWS through [`StreamApi`] and Kubernetes through [`KubeApi`] only, so the same code runs
//! in the simulation. A call or a test record requires a Describe that this reconcile has sent after it read
//! the ledger. The description of an earlier reconcile suffices for a status, but never for a call or a test record.
//!
//! The resource, the policies and the ledger come from the caches of watches. A stale cache cannot cause a wrong
//! change: immediately before a call or a test record, the resource, the policies and (for a test record) the ledger
//! are read from the API server again. While a resource is not being deleted, the policies are also read again before
//! the finalizer is added, and before it is removed because they do not allow disabling encryption. While a resource is
//! being deleted, the policies and the ledger are read again before a decision removes the finalizer. Every write names
//! the version that was read.

use jiff::Timestamp;
use stream_encryption_api::stream_encryption::StreamEncryption;
use tracing::{Instrument as _, debug, error_span, warn};

use crate::model::decision::{Decision, Ownership};
use crate::model::ledger::external;
use crate::model::schedule;
use crate::model::status_fields;

pub mod annotations;
pub mod change_hash;
mod clock;
mod context;
pub mod due_work;
pub mod event_inbox;
mod event_interest;
mod execute;
mod finalize;
mod interruption;
pub mod kube_api;
pub mod ledger_gc;
pub mod ledger_store;
pub mod memory;
mod observe;
mod outdated_status;
mod policies;
pub mod preview;
mod previous_status;
mod publish;
mod recheck;
mod report;
mod resolve;
mod state;
pub mod stream_api;
mod term_end;

use event_inbox::CallsOutcome;
use interruption::Interruption;
use kube_api::{KubeApi, KubeError, ReadFrom};
use ledger_store::LedgerHandle;
use memory::LastReconcile;
use resolve::{ResolveError, ResolvedSpec};
use state::ReconcileState;
use stream_api::StreamApi;

pub use clock::{Clock, Moment};
pub use context::{Config, Context, Decide, NoMetrics, ReconcileMetrics};
pub use finalize::is_deleted_without_disabling;
pub use publish::report_invalid_object;
pub use term_end::TermEnd;

/// Reconciles one resource once, and returns the time of the next reconcile. `cached` is the resource in the
/// cache of the watch. If this process has seen another version of it, the API server is asked instead.
///
/// Returns an error if a request to Kubernetes failed; every other problem is reported in the resource's
/// status.
pub async fn reconcile<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    cached: &StreamEncryption,
) -> Result<Timestamp, KubeError> {
    reconcile_in_term(context, cached, &TermEnd::default()).await.map(|reconciled| reconciled.wake)
}

/// The end of a reconcile.
#[derive(Clone, Copy, Debug)]
pub struct Reconciled {
    /// When the resource is to be reconciled again.
    pub wake: Timestamp,
    /// Whether the reconcile was given up: what it was based on was no longer current.
    pub is_outdated: bool,
    /// Whether AWS responds, as far as this reconcile shows it:
    ///
    /// - `Some(true)`: AWS answered the last Describe of the stream. A refusal is an answer, too.
    /// - `Some(false)`: AWS did not respond to that Describe, or to a request that must precede it.
    /// - `None`: the reconcile does not show it. For example, it needed no Describe, or had no credentials for one.
    pub answered: Option<bool>,
}

/// Reconciles as [`reconcile`] does, but ends early if the term ends while the reconcile waits for AWS.
pub async fn reconcile_in_term<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    cached: &StreamEncryption,
    end: &TermEnd,
) -> Result<Reconciled, KubeError> {
    let me = ledger_store::resource_identity(cached);
    let from = context.memory.read_from(cached);
    let Some(resource) = &context.kube.resource(&me.namespace, &me.name, from).await? else {
        let wake = context.clock.now() + context.config.drift_interval;
        return Ok(Reconciled { wake, is_outdated: false, answered: None });
    };
    // At the level of errors, so that the lines of each log level name the resource.
    let span = error_span!("reconcile", namespace = me.namespace, resource = me.name);
    let mut answered = None;
    let ended = run_steps(context, resource, from, end, &mut answered).instrument(span).await;
    let ends_with = |wake| Reconciled { wake, is_outdated: false, answered };
    match ended {
        Ok(wake) | Err(Interruption::Ended(wake)) => Ok(ends_with(wake)),
        Err(Interruption::Outdated) => {
            // The uid of the resource that was read, which differs from the cached one if the resource was deleted and
            // created again.
            let uid = ledger_store::resource_identity(resource).uid;
            context.memory.record_interruption(resource);
            context.memory.forget_version(&uid);
            let conflicts = context.memory.count_failure(&uid);
            let wait = schedule::after_conflict(&uid, conflicts);
            if wait == schedule::AFTER_CONFLICT {
                debug!(namespace = me.namespace, name = me.name, "state changed, requeueing");
            } else {
                warn!(
                    namespace = me.namespace,
                    name = me.name,
                    conflicts,
                    "state changed again, or responses take too long; requeueing later"
                );
            }
            Ok(Reconciled { is_outdated: true, ..ends_with(context.clock.now() + wait) })
        }
        Err(Interruption::RememberedNotFresh) => {
            context.memory.record_interruption(resource);
            Ok(ends_with(context.clock.now()))
        }
        Err(Interruption::Kubernetes(error)) => Err(error),
    }
}

/// Runs the steps for the resource that was read from this source, with policies from the same source. The ledger is from
/// that source, too, or from the API server if the cache of ledgers may lag. Returns the time of the next reconcile. Also sets
/// `answered` ([`Reconciled::answered`]) if the resolve step fails, or once the decide step has ended. If the steps end in
/// between, it stays `None`.
async fn run_steps<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
    from: ReadFrom,
    end: &TermEnd,
    answered: &mut Option<bool>,
) -> Result<Timestamp, Interruption> {
    let mut last = context.memory.recall_unexpired(resource, context.clock.now());
    // What AWS's events report about this resource: calls, and whether a Describe is required. The inbox keeps it until
    // `finish_notice`, and with `keep_calls_of` only the calls on the stream.
    let mut notice = context.memory.events.begin_notice(resource);
    let mut is_for_event = false;
    if notice.must_describe {
        is_for_event = last.require_describe();
    }
    if finalize::is_deleted_without_disabling(resource) {
        // The resource is being deleted, and `remove_unwanted_finalizer` ends this reconcile and every later one before the
        // ledger is opened. The finalizer of another client may keep the resource for a long time. So the notice ends
        // here: otherwise its calls, and their messages in the queue of AWS's events, would be held for as long.
        context.memory.events.finish_notice(resource, &notice, CallsOutcome::MustNotEnter);
    }
    // Each finalizer step ends the reconcile if it changed the resource. A change that fails is reported as an error at
    // the end, after everything else was done.
    let mut finalizer_failure = finalize::remove_unwanted_finalizer(context, resource).await?;
    let resolving = resolve::resolve(context, resource, &last, from);
    let mut spec = match end.in_term(&context.clock, resolving).await? {
        Ok(spec) => spec,
        Err(why) => {
            let is_final = matches!(why, ResolveError::Spec(_));
            *answered = why.answered();
            let wake = report::unresolved(context, resource, &last, why, finalizer_failure).await;
            // The notice is kept if a later reconcile can resolve this spec.
            if is_final {
                context.memory.events.finish_notice(resource, &notice, CallsOutcome::MustNotEnter);
            }
            return wake;
        }
    };
    finalizer_failure = finalizer_failure.or(finalize::sync_finalizer(context, resource, &spec).await?);
    event_interest::add_desired(context, resource, &spec);
    notice.keep_calls_of(&spec.stream);
    let mut ledger = open_ledger(context, resource, &spec, &last, from).await?;
    if let Some(unwritten) = &last.unwritten_encryption {
        ledger.restore_encryption(unwritten);
    }
    for (id, cause) in &last.unsent_calls {
        ledger.record_unsent(id, cause, context.clock.now());
    }
    last.known_call = state::known_call(&ledger, last.known_call.as_deref(), context.clock.monotonic());
    context.memory.record_known_call(resource, last.known_call.clone());
    let may_claim = spec.claim().allowed;
    let reported = notice.calls();
    let has_news = ledger.record_events(&reported, may_claim, context.clock.now());
    if has_news {
        context.memory.events.record_external_call(resource, context.clock.monotonic());
    }
    // Whether the time of a reported call is outside the last 24 hours, give or take the 15 minutes by which a clock may be wrong.
    // Then the event came late, its time is wrong, or the operator's clock is wrong. A Describe shows whether it is the clock: AWS
    // refuses a request whose date is wrong.
    let is_time_in_doubt = external::is_any_outside(&reported, context.clock.now());
    if (has_news || is_time_in_doubt) && last.require_describe() {
        is_for_event = true;
        // KMS's response was discarded, too. The spec was resolved with that response. Resolving the spec again asks KMS.
        let resolving = resolve::resolve(context, resource, &last, from);
        spec = match end.in_term(&context.clock, resolving).await? {
            Ok(again) if again.stream == spec.stream && again.permission == spec.permission => again,
            Ok(_) => return Err(Interruption::Outdated),
            Err(why) => {
                *answered = why.answered();
                return report::unresolved(context, resource, &last, why, finalizer_failure).await;
            }
        };
    }
    if has_news {
        spec.drift_interval = spec.drift_interval.min(schedule::AFTER_EXTERNAL_CALL);
    }
    let expected = context.memory.change_times().expected(spec.stream.service);
    let mut state = ReconcileState::new(context.clock.now(), spec, ledger, last, resource, expected);
    state.term_end = end.clone();
    state.finalizer_failure = finalizer_failure;
    state.is_for_event = is_for_event;
    let decided = decide_with_description(context, resource, &mut state).await;
    *answered = state.answered;
    let decision = decided?;
    execute::execute(context, resource, &mut state, &decision).await?;
    // If the term ends, this request is given up. The reconcile goes on, because it must report the outcome of a call.
    end.unless_ended(observe::describe_active_key(context, &mut state)).await;
    // The active key according to the ledger, not `state.active_key_report`, which is missing if KMS did not answer.
    let active_key = status_fields::active_customer_key(&state.input());
    event_interest::replace(context, resource, &state.spec, active_key);
    let calls = match state.ledger.ownership {
        Ownership::LedgerInvalid => CallsOutcome::NotEntered,
        // `record_events` left calls out because their times are not in the last 24 hours by the operator's clock. AWS has not
        // accepted this clock, so it may be wrong, and the calls may count for AWS. The inbox keeps them.
        _ if state.ledger.may_record_events(may_claim) && is_time_in_doubt && state.is_clock_in_doubt() => {
            CallsOutcome::NotEntered
        }
        _ if state.ledger.may_record_events(may_claim) => CallsOutcome::Entered,
        Ownership::Owned | Ownership::Another => CallsOutcome::MustNotEnter,
    };
    let wake = report::report(context, resource, state).await;
    // Even if the status could not be written: the ledger and the memory hold what the events led to.
    context.memory.events.finish_notice(resource, &notice, calls);
    wake
}

/// Returns the decision, for which the stream is described first if the decision requires that.
async fn decide_with_description<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
    state: &mut ReconcileState,
) -> Result<Decision, Interruption> {
    loop {
        let decision = (context.decide)(&state.input());
        if execute::prepare(context, state, &decision).await? {
            return Ok(decision);
        }
        observe::describe_stream(context, resource, state).await?;
    }
}

/// Opens the ledger of a resource's stream. If the cached ledger has an unconfirmed call
/// ([`LedgerHandle::unconfirmed_call`]) that this process did not know, the cache may lag: the stored ledger may already have
/// the outcome or the confirmation of this call, or a later call. The ledger is then read from the API server.
async fn open_ledger<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
    spec: &ResolvedSpec,
    last: &LastReconcile,
    from: ReadFrom,
) -> Result<LedgerHandle, KubeError> {
    let open = async |from| {
        ledger_store::open(context, resource, &spec.claim(), last.ledger_version.as_deref(), from).await
    };
    let ledger = open(from).await?;
    let is_known = |id: &str| last.known_call.as_ref().is_some_and(|known| known.id == id);
    let is_new = ledger.unconfirmed_call().is_some_and(|call| !is_known(&call.id));
    if from == ReadFrom::Cache && is_new { open(ReadFrom::ApiServer).await } else { Ok(ledger) }
}

#[cfg(test)]
mod tests;
