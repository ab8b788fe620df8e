//! The checks of the resources: what their statuses tell of AWS, of credentials, and of the operator's pace.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::condition::Reason;
use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::model::service::profile;

use super::Check;
use crate::aws::rate_limit::{DEFAULT_RATE_PERCENT, DRIFT_DIVISOR};
use crate::plugin::age::short;
use crate::plugin::cluster::{Cluster, Scope};
use crate::plugin::fleet::{Entry, Finding};

/// Age of a description above which the operator may no longer work; the status lags by up to an hour.
const OLD: SignedDuration = SignedDuration::from_mins(90);
/// The same for an operator that receives AWS's events, and describes each stream every hour.
const OLD_WITH_EVENTS: SignedDuration = SignedDuration::from_mins(150);

/// Runs the checks. `has_events` is whether the operator receives AWS's events.
pub(super) async fn all(cluster: &Cluster, scope: &Scope, has_events: bool) -> Vec<Check> {
    let found = match cluster.resources(scope).await {
        Ok(found) => found,
        Err(error) => return vec![Check::not_checked("resources", format!("{error:#}"))],
    };
    let entries: Vec<Entry> = found.iter().map(Entry::of).collect();
    let selected = scope.namespace.as_ref().map_or("-A".to_owned(), |namespace| format!("-n {namespace}"));
    vec![resources(&entries, &selected), credentials(&entries), pace(&entries, has_events), budgets(&entries)]
}

fn resources(entries: &[Entry], selected: &str) -> Check {
    let name = "resources";
    let unseen = entries.iter().filter(|entry| entry.reason.is_none()).count();
    let count = |finding| entries.iter().filter(|entry| entry.has(finding)).count();
    let (plaintext, attention) = (count(Finding::Plaintext), count(Finding::Attention));
    let message = format!(
        "{} StreamEncryptions: {plaintext} in plaintext, {attention} need attention, {unseen} not reconciled yet",
        entries.len()
    );
    if unseen > 0 {
        return Check::warning(
            name,
            message,
            "If that lasts longer than a minute: does the operator run, and does it watch their namespaces?",
        );
    }
    if attention + plaintext > 0 {
        return Check::warning(
            name,
            message,
            format!("See them: kubectl streamencryption status {selected} --only attention,plaintext"),
        );
    }
    Check::good(name, message)
}

/// What the statuses tell of the operator's own credentials, which nobody else can see.
fn credentials(entries: &[Entry]) -> Check {
    let name = "operator's AWS access";
    if entries.iter().all(|entry| entry.reason.is_none()) {
        return Check::not_checked(
            name,
            "the operator uses its AWS credentials only for a resource, and none is reconciled yet",
        );
    }
    let reasons = [
        Reason::NoCredentials,
        Reason::CredentialsRejected,
        Reason::AccessDenied,
        Reason::AwsUnreachable,
        Reason::SessionTooOld,
    ];
    let failing =
        |entry: &&Entry| reasons.iter().any(|reason| entry.reason.as_deref() == Some(reason.as_str()));
    let failing: Vec<&Entry> = entries.iter().filter(failing).collect();
    match failing.first() {
        None => Check::good(name, "no status reports a problem with credentials, permissions or endpoints"),
        Some(first) => Check::failed(
            name,
            format!(
                "{} resources report a problem, such as {}/{} ({}): {}",
                failing.len(),
                first.namespace,
                first.resource,
                first.reason.as_deref().unwrap_or_default(),
                first.message.as_deref().unwrap_or_default()
            ),
            "docs/iam.md has the permissions that the operator needs.",
        ),
    }
}

/// Whether each stream is described often enough, and how many there are for AWS's limit of each account and region.
fn pace(entries: &[Entry], has_events: bool) -> Check {
    let name = "drift detection";
    let now = Timestamp::now();
    let old = if has_events { OLD_WITH_EVENTS } else { OLD };
    let described = entries.iter().filter(|entry| !entry.suspended);
    let oldest = described.filter_map(|entry| entry.last_describe_time).min();
    let mut fleets: BTreeMap<(&str, &str, _), u32> = BTreeMap::new();
    for entry in entries {
        if let (Some(account), Some(region), Some(service)) = (&entry.account, &entry.region, entry.service) {
            *fleets.entry((account, region, service)).or_default() += 1;
        }
    }
    let seconds = |service, count: u32| f64::from(count) / drift_checks_per_second(service);
    let slowest = fleets
        .iter()
        .map(|((account, region, service), count)| {
            (seconds(*service, *count), *account, *region, *service, *count)
        })
        .max_by(|one, other| one.0.total_cmp(&other.0));
    let interval = slowest.filter(|(seconds, ..)| *seconds > 600.0).map(|(seconds, account, region, service, count)| {
        format!(
            "; {count} {service:?} streams of account {account} in {region} are described every {} at AWS's default limit",
            short(SignedDuration::from_secs_f64(seconds))
        )
    });
    let interval = interval.unwrap_or_default();
    match oldest.map(|at| now.duration_since(at)) {
        None => Check::good(name, format!("no stream has been described yet{interval}")),
        Some(age) if age > old && interval.is_empty() => Check::warning(
            name,
            format!("the oldest description in a status is {} old", short(age)),
            "Statuses lag by up to an hour. If it is older: does the operator run? docs/runbooks/StreamEncryptionNotReconciling.md",
        ),
        Some(age) => {
            Check::good(name, format!("the oldest description in a status is {} old{interval}", short(age)))
        }
    }
}

/// Returns how many Describes a second detect drift, by the operator's default share of AWS's default limit.
fn drift_checks_per_second(service: Service) -> f64 {
    let limit = profile(service).describe.requests_per_second();
    f64::from(limit) * f64::from(DEFAULT_RATE_PERCENT) / 100.0 / f64::from(DRIFT_DIVISOR)
}

fn budgets(entries: &[Entry]) -> Check {
    let name = "encryption calls";
    let few: Vec<&Entry> = entries.iter().filter(|entry| entry.has(Finding::Budget)).collect();
    match few.first() {
        None => Check::good(name, "every stream has more than three calls left"),
        Some(first) => Check::warning(
            name,
            format!(
                "{} streams have three or fewer calls left, such as {}/{}",
                few.len(),
                first.namespace,
                first.resource
            ),
            "See why: kubectl streamencryption explain NAME; docs/runbooks/StreamEncryptionFewCallsLeft.md",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::doctor::Health;

    #[test]
    fn credentials_are_not_checked_before_the_first_reconcile() {
        let reconciled =
            |reason: Option<&str>| Entry { reason: reason.map(ToOwned::to_owned), ..Entry::default() };
        for (entries, expected) in [
            (vec![], Health::NotChecked),
            (vec![reconciled(None)], Health::NotChecked),
            (vec![reconciled(None), reconciled(Some("Encrypted"))], Health::Good),
            (vec![reconciled(None), reconciled(Some("NoCredentials"))], Health::Failed),
        ] {
            assert_eq!(credentials(&entries).result, expected, "{entries:?}");
        }
    }
}
