//! The calls of other callers: which events of AWS enter the ledger, and which of its entries count.
//!
//! An event is a claim that anybody with access to the queue could have made. It never causes a call, and never
//! leaves the operator more calls than it would have without events. Calls that AWS refused do not count. Up to AWS's limit
//! events are believed, and can use up the budget for a day. If they claim more accepted calls than AWS's limit, some of them
//! are forged. Then no call of others counts, and the operator learns of the limit when AWS refuses a call, as without
//! events. A call that ended with an error of AWS may have been applied. Such calls count as long as they and the accepted
//! calls together are within the limit. Pure.

use jiff::Timestamp;
use stream_encryption_api::ledger::{Action, Call, ExternalCall, Outcome, StreamLedgerSpec};
use stream_encryption_api::stream_encryption::Service;

use super::{DAY, MAX_CLOCK_SKEW, MAX_IN_FLIGHT, REBUILT, saturating_add, truncate_to_micros};
use crate::model::aws_event::CallEvent;
use crate::model::service::{CountedCalls, profile};

/// Maximum number of external calls in a ledger: more than AWS can accept in 24 hours (25 on Firehose, 50 on Kinesis). If there are more, those that
/// AWS refused are left out first, and then the earliest ones.
pub const MAX_EXTERNAL_CALLS: usize = 64;

/// Returns the ledger with the external calls that these events report. An event is left out if it reports a call of
/// the operator; if it reports a refused call that may be the operator's; if the ledger holds it already; or if its time is
/// not within the last 24 hours, give or take [`MAX_CLOCK_SKEW`].
#[must_use]
pub fn record_events(ledger: &StreamLedgerSpec, events: &[CallEvent], now: Timestamp) -> StreamLedgerSpec {
    let mut recorded = ledger.clone();
    for event in events {
        record_event(&mut recorded, event, now);
    }
    recorded
}

fn record_event(ledger: &mut StreamLedgerSpec, event: &CallEvent, now: Timestamp) {
    let is_known = ledger.external_calls.iter().any(|call| call.event_id == event.event_id);
    if is_known || is_own(ledger, event) {
        return;
    }
    if let Some(unanswered) = unanswered_call(ledger, event) {
        // A refused call does not count, whoever made it. If it was made by somebody else, it must not take the place of a call
        // of the operator that AWS may have accepted.
        if may_have_used_limit(event.code.as_deref()) {
            unanswered.request_id = Some(event.request_id.clone());
        }
        return;
    }
    let call = ExternalCall {
        event_id: event.event_id.clone(),
        action: event.action,
        time: truncate_to_micros(event.time),
        caller_type: event.caller_type.clone(),
        code: event.code.clone(),
    };
    if is_outside(event.time, now) {
        return;
    }
    insert_bounded(&mut ledger.external_calls, call, |call| (call.time.0, call.code.as_deref()));
}

/// Returns whether [`record_events`] leaves one of these events out because of its time.
#[must_use]
pub fn is_any_outside(events: &[CallEvent], now: Timestamp) -> bool {
    events.iter().any(|event| is_outside(event.time, now))
}

fn is_outside(time: Timestamp, now: Timestamp) -> bool {
    saturating_add(time, DAY + MAX_CLOCK_SKEW) <= now || time > saturating_add(now, MAX_CLOCK_SKEW)
}

/// Inserts a call into calls that are sorted by time. If there are more than [`MAX_EXTERNAL_CALLS`] then, removes the
/// earliest call that AWS refused, or the earliest one if AWS refused none. `time_and_code` returns the time and the
/// error code of a call.
pub fn insert_bounded<T>(
    calls: &mut Vec<T>,
    call: T,
    time_and_code: impl Fn(&T) -> (Timestamp, Option<&str>),
) {
    let (time, _) = time_and_code(&call);
    calls.insert(calls.partition_point(|earlier| time_and_code(earlier).0 <= time), call);
    if calls.len() > MAX_EXTERNAL_CALLS {
        let refused = calls.iter().position(|call| !may_have_used_limit(time_and_code(call).1));
        calls.remove(refused.unwrap_or(0));
    }
}

/// Returns whether AWS answered a call of the operator with the event's request id.
fn is_own(ledger: &StreamLedgerSpec, event: &CallEvent) -> bool {
    ledger.calls.iter().any(|call| call.request_id.as_ref() == Some(&event.request_id))
}

/// Returns the call of the operator that the event probably reports. Only calls without a request id are considered: AWS's
/// response was lost, or the operator stopped before it recorded the response. Such a call may have reached AWS as long as it
/// counts as in flight. A call that was reserved before the event is preferred: a later one can cause the event only if
/// the operator's clock is ahead of AWS's. Among these, the earliest is preferred: it is in flight for the shortest time, so the
/// events of the others can still be theirs.
///
/// The event may report somebody else's call after all. Then the operator's entry stands for that call. If AWS has received
/// the operator's own call, the event of that call is entered as an external call later. The entries are swapped, and each
/// call is counted once.
fn unanswered_call<'a>(ledger: &'a mut StreamLedgerSpec, event: &CallEvent) -> Option<&'a mut Call> {
    let distance = |call: &Call| event.time.duration_since(call.at()).abs();
    let is_candidate = |call: &&mut Call| {
        may_be_unanswered(call) && call.target.action == event.action && distance(call) <= MAX_IN_FLIGHT
    };
    let is_later = |call: &Call| call.at() > event.time;
    ledger.calls.iter_mut().filter(is_candidate).min_by_key(|call| (is_later(call), call.at()))
}

/// Returns whether AWS may have received the call although the ledger has no response to it. A refused call has a request
/// id, or was not sent. The calls of a rebuilt ledger were answered.
fn may_be_unanswered(call: &Call) -> bool {
    call.request_id.is_none() && call.outcome != Outcome::Refused && !call.id.starts_with(REBUILT)
}

/// Returns when an external call stops counting: 24 hours after AWS received it, plus [`MAX_CLOCK_SKEW`], because the
/// operator's clock may be ahead of AWS's by as much.
#[must_use]
pub fn expires_at(call: &ExternalCall) -> Timestamp {
    saturating_add(call.time.0, DAY + MAX_CLOCK_SKEW)
}

/// Returns the times at which external calls stop counting: those that count now against AWS's limit of this action.
pub(super) fn expirations(
    calls: &[ExternalCall],
    service: Service,
    action: Action,
    now: Timestamp,
) -> Vec<Timestamp> {
    let counts = |call: &&ExternalCall| {
        let is_of_limit = match profile(service).counted {
            CountedCalls::All => true,
            CountedCalls::AppliedPerAction => call.action == action,
        };
        is_of_limit && expires_at(call) > now && may_have_used_limit(call.code.as_deref())
    };
    let counted: Vec<&ExternalCall> = calls.iter().filter(counts).collect();
    if !exceeds_limit(&counted, service) {
        return counted.into_iter().map(expires_at).collect();
    }
    // Not all of them can have used the limit. Those with an error of AWS are the least certain ones.
    let accepted: Vec<&ExternalCall> = counted.into_iter().filter(|call| call.code.is_none()).collect();
    if exceeds_limit(&accepted, service) {
        Vec::new()
    } else {
        accepted.into_iter().map(expires_at).collect()
    }
}

/// Returns whether a call with this error code may count against AWS's limit: it was accepted, or AWS reported an error of
/// its own. Refused calls do not count. AWS does not document whether Firehose counts them, but if they counted here, forged
/// refusals could use up the budget of a stream. If AWS does count them, the operator learns it when AWS refuses a call.
#[must_use]
pub fn may_have_used_limit(code: Option<&str>) -> bool {
    let is_server_error =
        |code: &str| ["Internal", "ServiceUnavailable"].iter().any(|error| code.starts_with(error));
    code.is_none_or(is_server_error)
}

/// Returns whether more of these calls than AWS's limit are within any 24 hours, by AWS's times.
fn exceeds_limit(calls: &[&ExternalCall], service: Service) -> bool {
    let times = || calls.iter().map(|call| call.time.0);
    let within_a_day =
        |end: Timestamp| times().filter(|time| *time <= end && end.duration_since(*time) < DAY).count();
    let limit = usize::try_from(profile(service).calls_per_day).unwrap_or(usize::MAX);
    times().any(|end| within_a_day(end) > limit)
}

#[cfg(test)]
mod tests;
