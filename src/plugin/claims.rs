//! Whether a resource manages the stream that it names. Whoever may create a resource can name a stream of others, so only
//! the ledger, or what the operator reports of the stream, counts. Pure.

use std::collections::BTreeMap;

use stream_encryption_api::condition::Reason;
use stream_encryption_api::ledger::StreamLedger;
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_core::model::ledger;

use super::cluster::Found;
use super::fleet::Entry;
use super::ledger_calls::is_owner;

/// What is known of a resource and its stream, the surest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claim {
    /// The ledger of the stream names the resource as its owner.
    Owner,
    /// No ledger is known, and the operator describes the stream for the resource, or finds the ledger invalid.
    Reported,
    /// Nothing is known: the operator has not reconciled the resource, or leaves the stream alone before it looks at the owner.
    Unproven,
    /// The ledger names another owner, or policies do not permit the resource to use the stream.
    Excluded,
}

impl Claim {
    /// Returns the claim of a resource. `ledgers` are those that the person may read, by name.
    pub(super) fn of(entry: &Entry, ledgers: &BTreeMap<String, StreamLedger>) -> Self {
        let stream: Option<StreamArn> = entry.stream.as_ref().and_then(|arn| arn.parse().ok());
        match stream.and_then(|stream| ledgers.get(&ledger::name(&stream))) {
            Some(ledger) if is_owner(ledger, entry) => Self::Owner,
            Some(_) => Self::Excluded,
            None if entry.is_denied() => Self::Excluded,
            None if is_reported(entry) => Self::Reported,
            None => Self::Unproven,
        }
    }

    /// Returns whether the resource manages its stream. Without a policy that permits it, not even the owner does.
    pub(super) fn manages(self, entry: &Entry) -> bool {
        self <= Self::Reported && !entry.is_denied()
    }

    /// Returns why the resource does not count as the manager of its stream.
    pub(super) fn doubt(self, entry: &Entry) -> String {
        match &entry.reason {
            _ if self == Self::Excluded && !entry.is_denied() => {
                "the StreamLedger of the stream belongs to another resource".to_owned()
            }
            _ if entry.is_unreadable() => "this version of the plugin cannot read the resource".to_owned(),
            Some(reason) => format!("it reports {reason}"),
            None => "the operator has not reconciled it yet".to_owned(),
        }
    }
}

/// Returns the resources with their claims. Of several resources of one stream, the one that manages it comes first.
pub(super) fn sorted<'a>(
    all: &'a [Found],
    ledgers: &BTreeMap<String, StreamLedger>,
) -> Vec<(&'a Found, Entry, Claim)> {
    let claimed = |found| {
        let entry = Entry::of(found);
        let claim = Claim::of(&entry, ledgers);
        (found, entry, claim)
    };
    let mut claims: Vec<_> = all.iter().map(claimed).collect();
    claims.sort_by_key(|(_, entry, claim)| (entry.is_denied(), *claim));
    claims
}

/// Returns whether the operator has reported a reason that it reports only for a resource that may use the stream, and
/// whose stream no other resource manages.
fn is_reported(entry: &Entry) -> bool {
    let reason = entry.reason.as_ref().and_then(|reason| reason.parse::<Reason>().ok());
    reason.is_some_and(|reason| reason.is_described() || reason == Reason::LedgerInvalid)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ORDERS: &str = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders";

    fn entry(reason: Option<&str>) -> Entry {
        Entry {
            namespace: "data".to_owned(),
            resource: "orders".to_owned(),
            stream: Some(ORDERS.to_owned()),
            reason: reason.map(str::to_owned),
            ..Entry::default()
        }
    }

    #[test]
    fn reason_before_the_owner_is_known_proves_no_claim() {
        for (reason, claim) in [
            (Some("Encrypted"), Claim::Reported),
            (Some("KeyDisabled"), Claim::Reported),
            (Some("LedgerInvalid"), Claim::Reported),
            (Some("Suspended"), Claim::Unproven),
            (Some("DisableNotPermitted"), Claim::Unproven),
            (Some("SpecInvalid"), Claim::Unproven),
            (Some("StreamAlreadyManaged"), Claim::Unproven),
            (Some("OfANewerOperator"), Claim::Unproven),
            (None, Claim::Unproven),
            (Some("NotPermitted"), Claim::Excluded),
        ] {
            assert_eq!(Claim::of(&entry(reason), &BTreeMap::new()), claim, "{reason:?}");
        }
    }

    #[test]
    fn ledger_outweighs_what_the_status_reports() {
        for (owner, claim) in [("data", Claim::Owner), ("other", Claim::Excluded)] {
            let ledger: StreamLedger = serde_json::from_value(json!({
                "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamLedger", "metadata": {"name": "x"},
                "spec": {"streamARN": ORDERS, "owner": {"namespace": owner, "name": "orders", "uid": "1"}},
            }))
            .unwrap();
            let ledgers = BTreeMap::from([(ledger::name(&ORDERS.parse().unwrap()), ledger)]);
            for reason in [Some("Encrypted"), Some("Suspended"), Some("NotPermitted"), None] {
                assert_eq!(Claim::of(&entry(reason), &ledgers), claim, "{owner} {reason:?}");
            }
        }
    }
}
