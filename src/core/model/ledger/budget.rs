//! The budget of a stream: how many calls count now, of the operator and of other callers, how many may, and when there
//! is room again. The policies limit the operator's own calls, AWS limits those of all callers. Pure.

use jiff::Timestamp;
use stream_encryption_api::ledger::{Action, Outcome, StreamLedgerSpec};
use stream_encryption_api::stream_encryption::Service;

use super::{MAX_LEDGER_ENTRIES, expires_at, external, is_unsent};
use crate::model::service::{CountedCalls, profile};

/// The budget of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Number of calls that count now. If the ledger holds [`MAX_LEDGER_ENTRIES`] entries, this is at least `limit`, so
    /// that no call may be made.
    pub used: u32,
    /// Number of these calls that other callers made.
    pub external: u32,
    /// Maximum number of calls that may count: the number that the policies allow the operator, plus the number of calls of
    /// other callers, but at most AWS's limit.
    pub limit: u32,
    /// If the limit is reached: when the next call may be made. Otherwise: when the oldest call stops
    /// counting. `None` if there is no such time.
    pub next_available_time: Option<Timestamp>,
}

impl Budget {
    /// Returns whether a call may be made now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.used < self.limit
    }
}

/// Returns the budget of one action on a stream.
///
/// The service determines which calls count. A call whose outcome is unknown always counts, and one that was not sent never
/// does. An entry dated in the future (the clock was set back) counts.
#[must_use]
pub fn budget(
    ledger: &StreamLedgerSpec,
    service: Service,
    action: Action,
    limit: u32,
    now: Timestamp,
) -> Budget {
    let profile = profile(service);
    let own_limit = limit.min(profile.calls_per_day);
    let recent = ledger.calls.iter().filter(|call| expires_at(call) > now);
    let own: Vec<Timestamp> = recent
        .clone()
        .filter(|call| match profile.counted {
            CountedCalls::All => !is_unsent(call),
            CountedCalls::AppliedPerAction => {
                call.target.action == action && call.outcome != Outcome::Refused
            }
        })
        .map(expires_at)
        .collect();
    let external = external::expirations(&ledger.external_calls, service, action, now);
    let of_others = count(&external);
    let budget = Budget {
        used: count(&own).saturating_add(of_others),
        external: of_others,
        limit: own_limit.saturating_add(of_others).min(profile.calls_per_day),
        next_available_time: None,
    };
    let all = || own.iter().chain(&external).copied().collect::<Vec<_>>();
    let entries: Vec<Timestamp> = recent.map(expires_at).collect();
    let limits = [(own.clone(), own_limit), (all(), profile.calls_per_day), (entries, MAX_LEDGER_ENTRIES)];
    let reached: Vec<_> = limits.into_iter().filter(|(counted, limit)| count(counted) >= *limit).collect();
    if reached.is_empty() {
        return Budget { next_available_time: all().into_iter().min(), ..budget };
    }
    let available = reached.into_iter().map(|(counted, limit)| available_at(counted, limit));
    let next_available_time = available.collect::<Option<Vec<_>>>().and_then(|times| times.into_iter().max());
    Budget { used: budget.used.max(budget.limit), next_available_time, ..budget }
}

fn count(times: &[Timestamp]) -> u32 {
    u32::try_from(times.len()).unwrap_or(u32::MAX)
}

/// Returns when fewer than `limit` of these entries are left; `None` without entries, or if `limit` is 0.
fn available_at(mut expirations: Vec<Timestamp>, limit: u32) -> Option<Timestamp> {
    expirations.sort_unstable();
    let excess = expirations.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    expirations.get(excess).copied()
}
