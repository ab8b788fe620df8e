//! The state of a run between two reconciles as a hash: runs with the same hash continue in the same way.
//!
//! Everything that can still have an effect is part of it, in the form of its `Debug` output: AWS without its
//! log, Kubernetes, the caches, the queues and the memories of the processes, the scheduled events, and the
//! state of the invariants. Mere counters are left out. The fingerprint changes nothing.

use std::fmt::{self, Debug, Write};
use std::hash::{DefaultHasher, Hasher};

use super::Run;
use crate::environment::Event;
use crate::wiring::Wiring;

/// Everything that can still have an effect, as text.
#[derive(Default)]
struct StateText(String);

/// Ends the text before the last field of AWS, which is its log.
struct WithoutLog<'a> {
    text: &'a mut String,
    is_late: bool,
}

impl Write for WithoutLog<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.is_late && text == "calls" {
            return Err(fmt::Error);
        }
        self.is_late |= text == "late";
        self.text.write_str(text)
    }
}

impl StateText {
    fn add(&mut self, value: &dyn Debug) {
        let _ = write!(self.0, "{value:?};");
    }
}

impl<P: Wiring> Run<'_, P> {
    /// Returns the fingerprint of the current state.
    pub(super) fn fingerprint(&self) -> u64 {
        let state = &*self.environment.state();
        let mut text = StateText::default();
        text.add(&(state.now, self.operations_done, self.stable_counts.is_some()));
        let _ = write!(WithoutLog { text: &mut text.0, is_late: false }, "{:?}", state.world);
        state.store.add_to_fingerprint(&mut |value| text.add(value));
        state.invariants.add_to_fingerprint(&mut |value| text.add(value));
        text.add(&state.kubernetes_faults);
        text.add(&state.policies);
        for (at, event) in state.events.entries() {
            let is_over = matches!(event, Event::Wake(_))
                || matches!(event, Event::Operation(number) if *number < self.operations_done);
            if !is_over {
                text.add(&(at, event));
            }
            if let Event::DelayedWrite(number) = event {
                text.add(&state.delayed_writes[*number]);
            }
        }
        let uids: Vec<&str> = state.store.uids().collect();
        for (number, replica) in self.replicas.iter().enumerate() {
            text.add(&self.environment.clock_error(number));
            text.add(&state.replicas[number]);
            if let Some(replica) = replica {
                // The changes that its watch has not delivered yet.
                text.add(&state.store.changes().get(replica.delivered..));
                replica.add_to_fingerprint(&uids, &mut |value| text.add(value));
            }
        }
        let mut hasher = DefaultHasher::new();
        hasher.write(text.0.as_bytes());
        hasher.finish()
    }
}
