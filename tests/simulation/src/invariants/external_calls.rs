//! P1 and P10: the calls of other callers in a ledger are those that AWS received, each once and with AWS's time, and
//! are kept while AWS counts them. With all of them in the ledger, AWS refuses no call because of its limit.

use jiff::{SignedDuration, Timestamp};
use simulated_aws::world::{Call as AwsCall, FirehoseCounts, Service as AwsService};
use stream_encryption_api::ledger::{ExternalCall, StreamLedgerSpec};
use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_core::model::ledger::DAY;
use stream_encryption_core::model::ledger::external::MAX_EXTERNAL_CALLS;

use super::{Invariants, aws_service};
use crate::aws_events::{is_external, logged_call, logged_request};
use crate::environment::{ACCOUNT, REGION, State};

/// The most by which a time in whole seconds differs from the exact one.
const ROUNDING: SignedDuration = SignedDuration::from_secs(1);

/// A call of another caller that AWS received.
#[derive(Clone, Debug)]
pub(super) struct LoggedCall {
    /// The number in AWS's log.
    number: u64,
    time: Timestamp,
    /// Whether AWS counts it against its limit.
    is_counted: bool,
}

impl Invariants {
    /// Records a call of another caller.
    pub(super) fn record_external_call(&mut self, call: &AwsCall) {
        if is_external(call)
            && call.changes_encryption()
            && call.outcome != "RequestLost"
            && call.account == ACCOUNT
        {
            let logged = LoggedCall { number: call.id, time: call.time, is_counted: call.counted };
            self.external_calls.entry((call.service, call.target.clone())).or_default().push(logged);
            // A call may arrive long after it was sent.
            let resource = if call.service == AwsService::Firehose {
                format!("firehose:{REGION}:{ACCOUNT}:deliverystream")
            } else {
                format!("kinesis:{REGION}:{ACCOUNT}:stream")
            };
            let changed = self
                .external_changes
                .entry(format!("arn:aws:{resource}/{}", call.target))
                .or_insert(call.time);
            *changed = call.time.max(*changed);
        }
    }

    /// P1, P10: checks the calls of other callers in a ledger that is written.
    pub(super) fn check_external_calls(
        &mut self,
        before: Option<&StreamLedgerSpec>,
        after: Option<&StreamLedgerSpec>,
        now: Timestamp,
    ) {
        let Some(after) = after else { return };
        if after.external_calls.is_empty() && before.is_none_or(|before| before.external_calls.is_empty()) {
            return;
        }
        let Ok(stream) = after.stream_arn.parse::<StreamArn>() else { return };
        let key = (aws_service(stream.service), stream.name().to_owned());
        let logged = self.external_calls.get(&key).cloned().unwrap_or_default();
        // The number in AWS's log, and the call, of each that an event of AWS reported.
        let reported =
            || after.external_calls.iter().filter_map(|call| Some((logged_call(&call.event_id)?, call)));
        // A forged event can stand for a call of the operator that received no response. The event of that call then
        // counts as one of another caller, and may count for longer than the call itself.
        let is_forged = |id: &String| logged_request(id).is_none();
        let ids = after.calls.iter().filter_map(|call| call.request_id.clone()).filter(is_forged);
        let forged = self.forged_requests.entry(key).or_default();
        forged.extend(ids);
        let forged = forged.len();
        if reported().count() > logged.len() + forged {
            let (count, calls) = (reported().count(), logged.len());
            self.record_violation("P1", now, || {
                format!("the ledger of {stream} counts {count} calls of others, who made {calls}")
            });
        }
        for (number, call) in reported() {
            let same = logged.iter().find(|logged| logged.number == number);
            if let Some(same) = same
                && call.time.0.duration_since(same.time).abs() > ROUNDING
            {
                let (entered, received) = (call.time.0, same.time);
                self.record_violation("P1", now, || {
                    format!("event-{number} counts from {entered}, but AWS received the call at {received}")
                });
            }
        }
        let is_kept =
            |call: &ExternalCall| after.external_calls.iter().any(|kept| kept.event_id == call.event_id);
        let dropped = before.iter().flat_map(|before| &before.external_calls).find(|call| {
            !is_kept(call)
                && now.duration_since(call.time.0) < DAY
                && after.external_calls.len() < MAX_EXTERNAL_CALLS
        });
        if let Some(dropped) = dropped {
            let (id, age) = (dropped.event_id.clone(), now.duration_since(dropped.time.0));
            self.record_violation("P10", now, || format!("{id} was dropped {age:#} after the call"));
        }
    }
}

impl State {
    /// P1: checks a call that AWS refused because of its limit: the ledger did not know all calls of others.
    pub(super) fn check_refusal_by_limit(&mut self, stream: &StreamArn, ledger: &StreamLedgerSpec) {
        // The operator counts no call that AWS refused; AWS does not document whether Firehose does.
        let counts_refused = stream.service == Service::Firehose
            && self.world.settings().firehose_counts != FirehoseCounts::Accepted;
        let is_injected = self.world.calls().last().is_none_or(|call| call.fault.is_some());
        if self.messages.settings.is_none() || counts_refused || is_injected {
            return;
        }
        let now = self.now;
        let key: (AwsService, String) = (aws_service(stream.service), stream.name().to_owned());
        let logged = self.invariants.external_calls.get(&key).cloned().unwrap_or_default();
        let is_known = |number: u64| {
            ledger.external_calls.iter().any(|call| logged_call(&call.event_id) == Some(number))
        };
        let mut counted = logged.iter().filter(|call| call.is_counted && now.duration_since(call.time) < DAY);
        let forged = ledger.external_calls.iter().any(|call| logged_call(&call.event_id).is_none());
        if !forged && counted.all(|call| is_known(call.number)) {
            self.invariants.record_violation("P1", now, || {
                format!("AWS refuses a call for {stream}, of which the ledger knows all calls")
            });
        }
    }
}
