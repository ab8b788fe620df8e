//! The next event of a run with a list of choices.
//!
//! No request takes time by itself, so many events wait at one moment: the continuations of reconciles, the
//! deliveries of watches, and resources that are due. By default a reconcile continues until it waits for a
//! time, and the event that has waited longest comes next, so each reconcile runs without interruption. Each
//! other waiting event is an alternative. The next operation of the plan, ahead of its time, is another one.
//! This module only selects an event; it must never change its effect.

use jiff::{SignedDuration, Timestamp};

use super::Run;
use crate::choices::Choices;
use crate::environment::{Event, State};
use crate::event_queue::Entry;
use crate::explore::bounds::Limit;
use crate::wiring::Wiring;

/// The time that passes before an operation of the plan that is executed ahead of its time.
const EARLY_OPERATION_DELAY: SignedDuration = SignedDuration::from_millis(1);

impl<P: Wiring> Run<'_, P> {
    /// Returns the next event until `end`, and advances the time to it.
    pub(super) fn next_until(&mut self, end: Timestamp) -> Option<Event> {
        loop {
            let environment = self.environment.clone();
            let state = &mut *environment.state();
            let at = state.events.next_at().filter(|at| *at <= end)?;
            environment.advance(state, at);
            let mut waiting = state.events.take_until(state.now);
            waiting.retain(|entry| self.has_effect(state, &entry.event));
            if waiting.is_empty() {
                continue;
            }
            // By default, the reconcile that was polled last continues.
            let continues = |entry: &Entry<Event>| entry.event == Event::Wake(self.last_polled);
            if let Some(first) = waiting.iter().position(continues) {
                waiting[..=first].rotate_right(1);
            }
            let selected = self.select(state, &waiting);
            let selected = selected.map(|at| waiting.remove(at));
            for entry in waiting {
                state.events.put_back(entry);
            }
            let Some(entry) = selected else {
                // No two operations of the plan are executed at the same time.
                let later = state.now + EARLY_OPERATION_DELAY;
                environment.advance(state, later);
                return Some(Event::Operation(self.operations_done));
            };
            return Some(entry.event);
        }
    }

    /// Selects one of the waiting events; `None` for the next operation of the plan.
    fn select(&self, state: &mut State, waiting: &[Entry<Event>]) -> Option<usize> {
        let Choices::Listed(listed) = &mut state.choices else { return Some(0) };
        let is_due = waiting.iter().any(|entry| matches!(entry.event, Event::Operation(_)));
        let may_be_early = self.operations_done < self.plan.operations.len() && !is_due;
        let others =
            (1..waiting.len()).map(|_| Limit::Orders).chain(may_be_early.then_some(Limit::EarlyOperations));
        let selected = listed.select(state.now, others);
        if selected > 0 {
            let (now, point) = (state.now, listed.points() - 1);
            let selected_event = waiting
                .get(selected)
                .map_or("the next operation of the plan".to_owned(), |entry| format!("{:?}", entry.event));
            state
                .trace
                .record(now, || format!("-> choice {point}: {selected_event} before {:?}", waiting[0].event));
        }
        (selected < waiting.len()).then_some(selected)
    }

    /// Returns whether an event still has an effect.
    fn has_effect(&self, state: &State, event: &Event) -> bool {
        let is_running = |process| self.replicas.iter().flatten().any(|replica| replica.process == process);
        match event {
            Event::Wake(task) => self.tasks.contains_key(task),
            Event::Operation(number) => *number >= self.operations_done,
            Event::Due { process, name } => self.replicas[process.replica]
                .as_ref()
                .is_some_and(|replica| replica.process == *process && replica.is_due(name, state.now)),
            Event::Watch { process, up_to } => self.replicas[process.replica]
                .as_ref()
                .is_some_and(|replica| replica.process == *process && replica.delivered < *up_to),
            Event::LedgerGc(process) | Event::Crash(process) => is_running(*process),
            Event::Boot(replica) => !state.replicas[*replica].running,
            Event::PolicyWatch { .. }
            | Event::DelayedWrite(_)
            | Event::AwsFaultCleared(_)
            | Event::Relist { .. }
            | Event::AwsEvent(_)
            | Event::Heartbeat
            | Event::FaultsEnd
            | Event::ConvergenceCheck => true,
        }
    }

    /// Returns whether the state may be compared with those of other runs: no reconcile is in progress, no
    /// other event is due at this moment, and every choice of the list has been made. After the last choice
    /// point, one comparison is enough.
    pub(super) fn is_comparable(&mut self) -> bool {
        let state = self.environment.state();
        let Some(listed) = state.choices.list() else { return false };
        let is_idle = self.tasks.is_empty() && state.events.next_at().is_some_and(|next| next > state.now);
        let is_comparable = is_idle && listed.is_done() && !self.compared;
        self.compared |= is_comparable && listed.is_over(state.now);
        is_comparable
    }
}
