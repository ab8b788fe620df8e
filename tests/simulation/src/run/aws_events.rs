//! The delivery of AWS's events in a run: to one process that runs, and again until it has finished with the event.

use super::Run;
use crate::wiring::Wiring;

impl<P: Wiring> Run<'_, P> {
    /// Sends a heartbeat. The processes notice whether events still arrive at the same interval.
    pub(super) fn send_heartbeat(&mut self) {
        for replica in self.replicas.iter_mut().flatten() {
            replica.find_silent(&self.environment);
        }
        self.environment.state().send_heartbeat();
    }

    /// Delivers a message about an event of AWS to a process that runs, and again until it has finished with the event.
    pub(super) fn deliver_event(&mut self, number: usize) {
        let mut state = self.environment.state();
        let now = state.now;
        if let Some((process, event)) = state.messages.received(number)
            && let Some(replica) = &self.replicas[process.replica]
            && replica.process == *process
            && !replica.holds(event)
        {
            // The process has deleted it.
            return;
        }
        let Some(message) = state.messages.deliver(number) else { return };
        let is_paused = |replica: usize| state.replicas[replica].paused_until > now;
        let receiver = (0..self.replicas.len()).find(|at| self.replicas[*at].is_some() && !is_paused(*at));
        let (Some(receiver), event) = (receiver, self.wiring.parse_event(&message, now)) else {
            return state.redeliver(number);
        };
        let Some(event) = event else {
            return state.statistics.count("a message in the queue is no event that the operator uses");
        };
        state.messages.arrived(&event, now);
        state.statistics.count("an event of AWS arrives");
        drop(state);
        let Some(replica) = self.replicas[receiver].as_mut() else { return };
        replica.receive(&self.environment, &event);
        if replica.holds(&event) {
            let mut state = self.environment.state();
            state.messages.hold(number, replica.process, event);
            state.redeliver(number);
        }
    }
}
