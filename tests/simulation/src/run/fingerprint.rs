//! The state of a run between two reconciles, as a number: runs with the same number go on in the same way.
//!
//! Everything that can still have an effect is part of it, in the form of its `Debug` output: AWS without its log,
//! Kubernetes, the caches, the queues and the memories of the processes, what is scheduled, and the state of the
//! promises. Left out is what only counts. It changes nothing.

use std::fmt::{self, Debug, Write};
use std::hash::{DefaultHasher, Hasher};

use super::Run;
use crate::environment::Event;
use crate::wiring::Parts;

/// Everything that can still have an effect, as text.
#[derive(Default)]
struct Shown(String);

/// Ends the text before the last field of AWS, which is its log.
struct WithoutLog<'a> {
    shown: &'a mut String,
    is_late: bool,
}

impl Write for WithoutLog<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.is_late && text == "calls" {
            return Err(fmt::Error);
        }
        self.is_late |= text == "late";
        self.shown.write_str(text)
    }
}

impl Shown {
    fn add(&mut self, part: &dyn Debug) {
        let _ = write!(self.0, "{part:?};");
    }
}

impl<P: Parts> Run<'_, P> {
    /// Returns the fingerprint of the current state.
    pub(super) fn fingerprint(&self) -> u64 {
        let state = &*self.scene.state();
        let mut shown = Shown::default();
        shown.add(&(state.now, self.happened, self.stable_status.is_some()));
        let _ = write!(WithoutLog { shown: &mut shown.0, is_late: false }, "{:?}", state.world);
        state.store.show(&mut |part| shown.add(part));
        state.promises.show(&mut |part| shown.add(part));
        shown.add(&state.kubernetes);
        shown.add(&state.policies);
        for (at, event) in state.agenda.entries() {
            let is_over = matches!(event, Event::Wake(_))
                || matches!(event, Event::Happening(number) if *number < self.happened);
            if !is_over {
                shown.add(&(at, event));
            }
            if let Event::Late(number) = event {
                shown.add(&state.late[*number]);
            }
        }
        let uids: Vec<&str> = state.store.uids().collect();
        for (number, replica) in self.replicas.iter().enumerate() {
            shown.add(&self.scene.offset(number));
            shown.add(&state.replicas[number]);
            if let Some(replica) = replica {
                // What its watch has not delivered yet.
                shown.add(&state.store.changes().get(replica.told..));
                replica.show(&uids, &mut |part| shown.add(part));
            }
        }
        let mut hasher = DefaultHasher::new();
        hasher.write(shown.0.as_bytes());
        hasher.finish()
    }
}
