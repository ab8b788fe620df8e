//! The next event of a run with a list of choices.
//!
//! Nothing takes time by itself, so many events wait at one moment: the continuations of the reconciles, what the
//! watches deliver, what is due. By default a reconcile goes on until it waits for a time, and then comes the event
//! that has waited longest; so each reconcile happens as a whole. Each other event that waits is an alternative, and
//! so is the next event of the plan, ahead of its time. This module only selects; it must never change what happens.

use jiff::{SignedDuration, Timestamp};

use super::Run;
use crate::choices::Choices;
use crate::environment::{Event, State};
use crate::event_queue::Entry;
use crate::explore::bounds::Limit;
use crate::wiring::Parts;

/// The time that passes before an event of the plan that happens ahead of its time.
const MOMENT: SignedDuration = SignedDuration::from_millis(1);

impl<P: Parts> Run<'_, P> {
    /// Returns the next event until `end`, and advances the time to it.
    pub(super) fn next_until(&mut self, end: Timestamp) -> Option<Event> {
        loop {
            let scene = self.scene.clone();
            let state = &mut *scene.state();
            let at = state.agenda.next_at().filter(|at| *at <= end)?;
            scene.advance(state, at);
            let mut waiting = state.agenda.take_until(state.now);
            waiting.retain(|entry| self.matters(state, &entry.event));
            if waiting.is_empty() {
                continue;
            }
            // By default, the reconcile that was polled last goes on.
            let goes_on = |entry: &Entry<Event>| entry.event == Event::Wake(self.current);
            if let Some(first) = waiting.iter().position(goes_on) {
                waiting[..=first].rotate_right(1);
            }
            let selected = self.select(state, &waiting);
            let selected = selected.map(|at| waiting.remove(at));
            for entry in waiting {
                state.agenda.put_back(entry);
            }
            let Some(entry) = selected else {
                // No two events of the plan happen at the same time.
                let later = state.now + MOMENT;
                scene.advance(state, later);
                return Some(Event::Happening(self.happened));
            };
            return Some(entry.event);
        }
    }

    /// Selects one of the waiting events; `None` for the next event of the plan.
    fn select(&self, state: &mut State, waiting: &[Entry<Event>]) -> Option<usize> {
        let Choices::Listed(listed) = &mut state.choices else { return Some(0) };
        let has_come = waiting.iter().any(|entry| matches!(entry.event, Event::Happening(_)));
        let act = self.happened < self.plan.happenings.len() && !has_come;
        let others = (1..waiting.len()).map(|_| Limit::Orders).chain(act.then_some(Limit::Acts));
        let selected = listed.select(state.now, others);
        if selected > 0 {
            let (now, point) = (state.now, listed.points() - 1);
            let what = waiting
                .get(selected)
                .map_or("the next event of the plan".to_owned(), |entry| format!("{:?}", entry.event));
            state.story.tell(now, || format!("-> choice {point}: {what} before {:?}", waiting[0].event));
        }
        (selected < waiting.len()).then_some(selected)
    }

    /// Returns whether an event still has an effect.
    fn matters(&self, state: &State, event: &Event) -> bool {
        let runs = |process| self.replicas.iter().flatten().any(|replica| replica.process == process);
        match event {
            Event::Wake(task) => self.tasks.contains_key(task),
            Event::Happening(number) => *number >= self.happened,
            Event::Due { process, name } => self.replicas[process.replica]
                .as_ref()
                .is_some_and(|replica| replica.process == *process && replica.is_due(name, state.now)),
            Event::Watch { process, upto } => self.replicas[process.replica]
                .as_ref()
                .is_some_and(|replica| replica.process == *process && replica.told < *upto),
            Event::Retire(process) | Event::Crash(process) => runs(*process),
            Event::Boot(replica) => !state.replicas[*replica].up,
            Event::PoliciesTold { .. }
            | Event::Late(_)
            | Event::AwsMends(_)
            | Event::Relist { .. }
            | Event::Calm
            | Event::Reckoning => true,
        }
    }

    /// Returns whether the state may be compared with those of other runs: no reconcile is in progress, nothing else
    /// happens at this moment, and every choice of the list has been made. After the last choice point, one
    /// comparison is enough.
    pub(super) fn is_comparable(&mut self) -> bool {
        let state = self.scene.state();
        let Some(listed) = state.choices.list() else { return false };
        let is_at_rest = self.tasks.is_empty() && state.agenda.next_at().is_some_and(|next| next > state.now);
        let comparable = is_at_rest && listed.is_done() && !self.compared;
        self.compared |= comparable && listed.is_over(state.now);
        comparable
    }
}
