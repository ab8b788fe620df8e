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
use crate::plugin::fleet::{DESCRIBE_TIME_LAG, Entry, Finding};

/// Runs the checks. `drift_interval` is the operator's, between two Describes of a stream at rest.
pub(super) async fn all(cluster: &Cluster, scope: &Scope, drift_interval: SignedDuration) -> Vec<Check> {
    let found = match cluster.resources(scope).await {
        Ok(found) => found,
        Err(error) => return vec![Check::not_checked("resources", format!("{error:#}"))],
    };
    let entries: Vec<Entry> = found.iter().map(Entry::of).collect();
    let selected = scope.namespace.as_ref().map_or("-A".to_owned(), |namespace| format!("-n {namespace}"));
    vec![
        resources(&entries, &selected),
        credentials(&entries),
        pace(&entries, drift_interval, Timestamp::now()),
        budgets(&entries),
    ]
}

fn resources(entries: &[Entry], selected: &str) -> Check {
    let name = "resources";
    let unseen = entries.iter().filter(|entry| !entry.is_reconciled()).count();
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
        Reason::KeyDescribeDenied,
        Reason::KeyAccessDenied,
        Reason::StreamARNMismatch,
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
            "docs/iam.md has the permissions that the operator needs, docs/keys.md those on keys, and docs/policies.md the roles for streams of other accounts.",
        ),
    }
}

/// Whether each stream is described as often as the drift interval and AWS's limit of its account and region permit.
fn pace(entries: &[Entry], drift_interval: SignedDuration, now: Timestamp) -> Check {
    let name = "drift detection";
    let described = || entries.iter().filter(|entry| is_described(entry));
    let mut fleets: BTreeMap<(&str, &str, _), u32> = BTreeMap::new();
    for entry in described() {
        if let (Some(account), Some(region), Some(service)) = (&entry.account, &entry.region, entry.service) {
            *fleets.entry((account, region, service)).or_default() += 1;
        }
    }
    let slowest = fleets
        .iter()
        .map(|((account, region, service), count)| {
            let seconds = f64::from(*count) / drift_checks_per_second(*service);
            (SignedDuration::from_secs_f64(seconds), *account, *region, *service, *count)
        })
        .max_by_key(|(time, ..)| *time)
        .filter(|(time, ..)| *time > drift_interval);
    let limit = slowest.map_or_else(String::new, |(time, account, region, service, count)| {
        format!(
            "; {count} {service:?} streams of account {account} in {region} are described every {} at AWS's default limit",
            short(time)
        )
    });
    let interval = slowest.map_or(drift_interval, |(time, ..)| time);
    let Some(oldest) = described().filter_map(|entry| entry.last_describe_time).min() else {
        return Check::good(name, format!("no stream has been described yet{limit}"));
    };
    let age = now.duration_since(oldest);
    let message = format!("the oldest description in a status is {} old{limit}", short(age));
    // The interval of each stream varies by a tenth.
    if age <= interval + interval / 10 + DESCRIBE_TIME_LAG {
        return Check::good(name, message);
    }
    Check::warning(
        name,
        message,
        format!(
            "A status lags by up to a day, and streams are described every {}. Does the operator run? docs/runbooks/StreamEncryptionNotReconciling.md",
            short(interval)
        ),
    )
}

/// Returns whether the operator describes the stream of this resource. It does not for a suspended resource, for one
/// that no policy permits, or for a stream of another resource.
fn is_described(entry: &Entry) -> bool {
    let reason = entry.reason.as_deref().and_then(|reason| reason.parse::<Reason>().ok());
    !entry.suspended && reason.is_none_or(Reason::is_described)
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

    #[test]
    fn missing_permission_or_wrong_account_fails_the_check() {
        for (reason, expected) in [
            ("CredentialsRejected", Health::Failed),
            ("AccessDenied", Health::Failed),
            ("AwsUnreachable", Health::Failed),
            ("SessionTooOld", Health::Failed),
            ("KeyDescribeDenied", Health::Failed),
            ("KeyAccessDenied", Health::Failed),
            ("StreamARNMismatch", Health::Failed),
            // The operator's access to AWS is not the cause of these.
            ("KeyDisabled", Health::Good),
            ("StreamNotFound", Health::Good),
            ("NotPermitted", Health::Good),
        ] {
            let entry = |reason: &str| Entry { reason: Some(reason.to_owned()), ..Entry::default() };
            let check = credentials(&[entry("Encrypted"), entry(reason)]);
            assert_eq!(check.result, expected, "{reason}: {check:?}");
        }
    }

    #[test]
    fn old_descriptions_are_compared_with_the_possible_interval() {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(10_000);
        let (minutes, hours) = (SignedDuration::from_mins, SignedDuration::from_hours);
        for (streams, reason, age, interval, expected) in [
            (1, "Encrypted", hours(1), minutes(10), Health::Good),
            (1, "Encrypted", hours(25), minutes(10), Health::Warning),
            (1, "Encrypted", hours(25), hours(1), Health::Good),
            (1, "Encrypted", hours(32), hours(12), Health::Good),
            (1, "NotPermitted", hours(300), minutes(10), Health::Good),
            // AWS's limit leaves one Describe a second for 9,000 streams.
            (9_000, "Encrypted", hours(25), minutes(10), Health::Good),
            (9_000, "Encrypted", hours(72), minutes(10), Health::Warning),
            (9_000, "NotPermitted", hours(72), minutes(10), Health::Good),
        ] {
            let entry = Entry {
                reason: Some(reason.to_owned()),
                account: Some("111122223333".to_owned()),
                region: Some("eu-west-1".to_owned()),
                service: Some(Service::Firehose),
                last_describe_time: Some(now - age),
                ..Entry::default()
            };
            let check = pace(&vec![entry; streams], interval, now);
            assert_eq!(check.result, expected, "{streams} {reason} {interval:#}: {check:?}");
        }
    }

    #[test]
    fn one_stream_not_described_by_purpose_hides_no_old_one() {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(10_000);
        let described = |reason: &str, hours| Entry {
            reason: Some(reason.to_owned()),
            last_describe_time: Some(now - SignedDuration::from_hours(hours)),
            ..Entry::default()
        };
        let entries =
            [described("NotPermitted", 300), described("Encrypted", 30), described("Suspended", 900)];
        let check = pace(&entries, SignedDuration::from_mins(10), now);
        assert_eq!(check.result, Health::Warning);
        assert!(check.message.contains(" 30h old"), "{check:?}");
    }
}
