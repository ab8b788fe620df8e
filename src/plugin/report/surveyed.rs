//! What a survey of AWS adds to a report: the state of each stream now, and the streams that no resource of the report has.
//!
//! Whether a stream is managed is decided by all resources of the cluster, also by those that the report does not show.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use stream_encryption_api::condition::whole_second;
use stream_encryption_api::ledger::StreamLedger;
use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::controller::stream_api::StreamApi as _;
use stream_encryption_core::model::arn::{Account, AwsAccount, Region, StreamArn};

use super::Report;
use super::streams::{Manager, ReportedStream};
use crate::adopt::managed::Managed;
use crate::adopt::progress_file::ProgressFile;
use crate::adopt::survey::{PlaceSurvey, described, survey};
use crate::plugin::bars::Bars;
use crate::plugin::claims;
use crate::plugin::cluster::{Cluster, Found, Scope};
use crate::plugin::places::PlaceArguments;
use crate::telemetry::error_chain;

/// Adds every stream of these accounts and regions, and what AWS says of those that are there already. `shown` are the
/// resources of the report, and `ledgers` those that the person may read.
pub(super) async fn add(
    report: &mut Report,
    cluster: &Cluster,
    scope: &Scope,
    shown: &[Found],
    ledgers: &BTreeMap<String, StreamLedger>,
    arguments: &PlaceArguments,
) -> anyhow::Result<()> {
    let aws = arguments.connect().await?;
    let own = aws.identity().await;
    if let (Err(error), []) = (&own, arguments.roles()) {
        anyhow::bail!("your AWS account is not known: {}", described(error));
    }
    let own = own.ok();
    let places = arguments.places(own.as_ref())?;
    let mut managers = Managers::of(shown, ledgers, own.as_ref(), arguments.regions());
    if !scope.is_everything() {
        match cluster.resources(&Scope { namespace: None, selector: None }).await {
            Ok(all) => managers = Managers::of(&all, ledgers, own.as_ref(), arguments.regions()),
            Err(error) => {
                managers.are_all = false;
                report.unread.push(format!(
                    "It is not known which streams are managed by resources outside of {scope}: {}",
                    error_chain(error.as_ref())
                ));
            }
        }
    }
    let bars = Bars::new();
    let surveys = survey(&aws, &places, &arguments.services(), &ProgressFile::none(), &bars).await;
    bars.end();
    report.take(surveys, &managers);
    Ok(())
}

/// The resources of the cluster, by the streams that they name.
pub(super) struct Managers {
    /// By the ARN of a status or of a spec.
    by_arn: BTreeMap<String, Manager>,
    /// By a name that the operator has not resolved yet.
    by_name: Managed,
    /// Whether these are all resources of the cluster.
    are_all: bool,
}

impl Managers {
    fn of(
        all: &[Found],
        ledgers: &BTreeMap<String, StreamLedger>,
        own: Option<&AwsAccount>,
        regions: &[Region],
    ) -> Self {
        let mut managers = Self { by_arn: BTreeMap::new(), by_name: Managed::default(), are_all: true };
        for (found, entry, claim) in claims::sorted(all, ledgers) {
            let name = format!("{}/{}", found.namespace, found.name);
            let is_denied = entry.is_denied();
            let doubt = (!claim.manages(&entry)).then(|| claim.doubt(&entry));
            if let Some(arn) = entry.stream {
                let manager = match (entry.reason, doubt) {
                    (Some(reason), _) if is_denied => Manager::Refused(name, reason),
                    (_, Some(doubt)) => Manager::Unproven(name, doubt),
                    (_, None) => Manager::Outside(name),
                };
                managers.by_arn.entry(arn).or_insert(manager);
            } else {
                let resource = found.resource.as_deref().ok();
                managers.by_name.add(&found.namespace, &found.name, resource, own, regions);
            }
        }
        managers
    }
}

impl Report {
    /// Takes what a survey has found. The report is of now: the survey may have taken an hour.
    pub(super) fn take(&mut self, surveys: Vec<PlaceSurvey>, managers: &Managers) {
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        for (at, stream) in self.streams.iter().enumerate() {
            known.extend(stream.entry.stream.clone().map(|arn| (arn, at)));
        }
        let found = surveys.iter().flat_map(|survey| &survey.streams);
        let mut named: BTreeMap<String, usize> = BTreeMap::new();
        for name in found.filter_map(|found| managers.by_name.of(&found.arn)) {
            *named.entry(name.to_owned()).or_default() += 1;
        }
        let mut lists: BTreeSet<(Account, Region, Service)> = BTreeSet::new();
        // Listed streams, also those that could not be described.
        let mut existing: BTreeSet<StreamArn> = BTreeSet::new();
        for PlaceSurvey { place, streams, listed, undescribed, problems, .. } in surveys {
            let list = |service| (place.account.account.clone(), place.region.clone(), service);
            lists.extend(listed.into_iter().map(list));
            let place = format!("{} in {}", place.account.account, place.region);
            self.unread.extend(problems.iter().map(|problem| format!("{place}: {problem}")));
            self.accounts.push(place);
            for found in &streams {
                let at = match known.get(&found.arn.to_string()) {
                    Some(at) => *at,
                    None => self.place_of(&found.arn, managers, &named),
                };
                self.streams[at].observe(found);
            }
            existing.extend(streams.into_iter().map(|found| found.arn).chain(undescribed));
        }
        for stream in &mut self.streams {
            let arn: Option<StreamArn> = stream.entry.stream.as_ref().and_then(|arn| arn.parse().ok());
            let Some(arn) = arn.filter(|arn| !existing.contains(arn)) else { continue };
            // Without a list of the stream's account, region and service, the status stays.
            if lists.contains(&(arn.account, arn.region, arn.service)) {
                stream.observe_missing(arn.service);
            }
        }
        self.generated_time = whole_second(Timestamp::now()).0;
        self.aws = true;
    }

    /// Returns the index of a stream that no resource of the report has by its ARN: that of the one resource that names it,
    /// or that of a new entry.
    fn place_of(&mut self, arn: &StreamArn, managers: &Managers, named: &BTreeMap<String, usize>) -> usize {
        let by_name = managers.by_name.of(arn);
        if let Some(name) = by_name.filter(|name| named.get(*name) == Some(&1)) {
            let is_named =
                |stream: &ReportedStream| stream.resource() == name && stream.entry.stream.is_none();
            if let Some(at) = self.streams.iter().position(is_named) {
                self.streams[at].entry.set_arn(arn);
                return at;
            }
        }
        let manager = match (managers.by_arn.get(&arn.to_string()), by_name) {
            // Another resource, which could not be read, may manage it.
            (Some(Manager::Refused(..)), None) if !managers.are_all => Manager::Unknown,
            (Some(manager), None) | (Some(manager @ Manager::Outside(_)), Some(_)) => manager.clone(),
            (_, Some(name)) => Manager::Perhaps(name.to_owned()),
            (None, None) if managers.are_all => Manager::Nobody,
            (None, None) => Manager::Unknown,
        };
        self.streams.push(ReportedStream::of_aws(arn, &manager));
        self.streams.len() - 1
    }
}

/// Leaves one entry of each stream: that of the resource that manages it. Of those that may as well manage it, the one in the
/// worst state stays, so that no other resource hides a stream in plaintext. Returns a sentence for each other resource.
pub(super) fn one_per_stream(streams: &mut Vec<ReportedStream>) -> Vec<String> {
    let mut order: Vec<usize> = (0..streams.len()).collect();
    order.sort_by_key(|at| (streams[*at].claim, streams[*at].entry.state));
    let mut owners: BTreeMap<String, usize> = BTreeMap::new();
    let mut others = BTreeMap::new();
    for at in order {
        let Some(arn) = streams[at].entry.stream.clone() else { continue };
        let owner = *owners.entry(arn).or_insert(at);
        if owner != at {
            let words = format!(
                "{} has the stream of {}, too: it counts once.",
                streams[at].resource(),
                streams[owner].resource()
            );
            others.insert(at, words);
        }
    }
    let mut at = 0;
    streams.retain(|_| {
        at += 1;
        !others.contains_key(&(at - 1))
    });
    others.into_values().collect()
}

/// Returns the stream of a survey, for the tests.
#[cfg(test)]
pub(super) fn found(
    arn: &str,
    encryption: crate::adopt::found::FoundEncryption,
) -> crate::adopt::found::FoundStream {
    crate::adopt::found::FoundStream {
        arn: arn.parse().expect("an ARN"),
        described_time: "2026-01-02T00:00:00Z".parse().expect("a time"),
        encryption,
        owners: Some(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use stream_encryption_core::model::ledger;

    use super::super::controls::{CONTROLS, Verdict};
    use super::*;
    use crate::adopt::found::FoundEncryption;
    use crate::adopt::survey::Place;
    use crate::plugin::fleet::State;

    const ORDERS: &str = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders";

    fn resource(namespace: &str, name: &str, stream: &Value, reason: &str) -> Found {
        let condition = json!({"type": "Ready", "status": "False", "reason": reason, "message": "why",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        Found::of(
            serde_json::from_value(json!({
                "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
                "metadata": {"name": name, "namespace": namespace}, "spec": {"stream": stream},
                "status": {"conditions": [condition]},
            }))
            .unwrap(),
        )
    }

    /// Returns `data/orders` with this status of Ready and Encrypted.
    fn with_status(status: &str, reason: &str) -> Found {
        let condition = |kind: &str| {
            json!({"type": kind, "status": status, "reason": reason, "message": "why",
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        Found::of(
            serde_json::from_value(json!({
                "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
                "metadata": {"name": "orders", "namespace": "data"}, "spec": {"stream": {"arn": ORDERS}},
                "status": {"conditions": [condition("Ready"), condition("Encrypted")]},
            }))
            .unwrap(),
        )
    }

    /// Returns the ledgers if the stream belongs to the resource `orders` of this namespace.
    fn ledgers_of(namespace: &str) -> BTreeMap<String, StreamLedger> {
        let ledger = json!({"apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamLedger",
            "metadata": {"name": "x"}, "spec": {"streamARN": ORDERS,
                "owner": {"namespace": namespace, "name": "orders", "uid": "1"}}});
        BTreeMap::from([(ledger::name(&ORDERS.parse().unwrap()), serde_json::from_value(ledger).unwrap())])
    }

    fn report(shown: &[Found]) -> Report {
        Report {
            generated_time: Timestamp::UNIX_EPOCH,
            version: "",
            server: String::new(),
            scope: "namespace data".to_owned(),
            aws: false,
            accounts: Vec::new(),
            warnings: Vec::new(),
            unread: Vec::new(),
            streams: shown.iter().map(|found| ReportedStream::of(found, &BTreeMap::new())).collect(),
        }
    }

    fn managers(all: &[Found]) -> Managers {
        let own = AwsAccount::of(&ORDERS.parse().unwrap());
        Managers::of(
            all,
            &BTreeMap::new(),
            Some(&own),
            &["eu-west-1", "eu-central-1"].map(|region| region.parse().unwrap()),
        )
    }

    fn surveyed(arns: &[&str], problems: &[&str]) -> Vec<PlaceSurvey> {
        let arn: StreamArn = ORDERS.parse().unwrap();
        let place = Place { account: AwsAccount::of(&arn), region: arn.region, role: None };
        let streams = arns.iter().map(|arn| found(arn, FoundEncryption::Plaintext)).collect();
        let problems = problems.iter().map(|problem| (*problem).to_owned()).collect();
        vec![PlaceSurvey { streams, listed: vec![arn.service], problems, ..PlaceSurvey::new(place) }]
    }

    /// Returns the stream of `data/orders`, which is encrypted according to its status, after these surveys.
    fn encrypted_after(surveys: Vec<PlaceSurvey>) -> ReportedStream {
        let all = [with_status("True", "Encrypted")];
        let mut report = report(&all);
        report.streams[0].entry.active_key = Some("AWS_OWNED_CMK".to_owned());
        report.take(surveys, &managers(&all));
        report.streams.remove(0)
    }

    fn message(stream: &ReportedStream) -> &str {
        stream.entry.message.as_deref().unwrap_or_default()
    }

    #[test]
    fn stream_of_a_resource_outside_of_the_scope_is_managed() {
        let all = [resource("other", "orders", &json!({"arn": ORDERS}), "Encrypted")];
        let mut report = report(&[]);
        report.take(surveyed(&[ORDERS], &[]), &managers(&all));
        let [stream] = &report.streams[..] else { panic!("one stream") };
        assert_eq!((stream.resource(), stream.entry.state), ("other/orders".to_owned(), State::Plaintext));
        assert!(message(stream).contains("not part of this report"), "{}", message(stream));
    }

    #[test]
    fn resource_that_may_not_touch_the_stream_does_not_manage_it() {
        let cases = [("NotPermitted", false), ("ConflictingPolicyRoles", false), ("LedgerInvalid", true)];
        for (reason, managed) in cases {
            let all = [resource("other", "orders", &json!({"arn": ORDERS}), reason)];
            let mut report = report(&[]);
            report.take(surveyed(&[ORDERS], &[]), &managers(&all));
            let stream = serde_json::to_value(&report.streams[0]).unwrap();
            assert_eq!((&stream["managed"], stream.get("resource").is_some()), (&json!(managed), managed));
            let words = message(&report.streams[0]);
            assert_eq!(words.contains(&format!("does not manage it: {reason}")), !managed, "{words}");
            let mut some = self::report(&[]);
            some.take(surveyed(&[ORDERS], &[]), &Managers { are_all: false, ..managers(&all) });
            let claimed = serde_json::to_value(&some.streams[0]).unwrap()["managed"].clone();
            assert_eq!(claimed, if managed { json!(true) } else { Value::Null });
        }
    }

    /// Another tenant's resource may name any stream.
    #[test]
    fn unproven_resource_leaves_open_whether_it_manages_stream() {
        for (reason, words) in [("Suspended", "may not manage it: it reports Suspended."), ("", "it reports")]
        {
            let others = resource("a", "orders", &json!({"arn": ORDERS}), reason);
            let mut report = report(&[]);
            report.take(surveyed(&[ORDERS], &[]), &managers(std::slice::from_ref(&others)));
            let stream = serde_json::to_value(&report.streams[0]).unwrap();
            assert_eq!((&stream["managed"], stream.get("resource")), (&Value::Null, None), "{reason}");
            assert!(message(&report.streams[0]).contains(words), "{}", message(&report.streams[0]));
            let all = [others, resource("data", "orders", &json!({"arn": ORDERS}), "Encrypted")];
            let mut known = self::report(&[]);
            known.take(surveyed(&[ORDERS], &[]), &managers(&all));
            assert_eq!(known.streams[0].resource(), "data/orders");
        }
    }

    #[test]
    fn denied_resource_is_not_said_to_manage_its_stream() {
        for (reason, managed) in
            [("NotPermitted", Value::Null), ("Suspended", Value::Null), ("Encrypted", json!(true))]
        {
            let all = [resource("data", "orders", &json!({"arn": ORDERS}), reason)];
            let mut report = report(&all);
            report.take(surveyed(&[ORDERS], &[]), &managers(&all));
            let [stream] = &report.streams[..] else { panic!("one stream") };
            assert_eq!(serde_json::to_value(stream).unwrap()["managed"], managed, "{reason}");
            let mut out = anstream::StripStream::new(Vec::new());
            super::super::write_tables(&mut out, &report).unwrap();
            let table = String::from_utf8(out.into_inner()).unwrap();
            let is_unknown = table.contains("not known (named by data/orders)");
            assert!(table.contains("data/orders") && is_unknown == managed.is_null(), "{reason}: {table}");
        }
    }

    #[test]
    fn resource_that_names_the_region_is_not_said_to_lack_it() {
        let spec = json!({"service": "Firehose", "name": "orders", "region": "eu-west-1"});
        let mut report = report(&[]);
        report.take(surveyed(&[ORDERS], &[]), &managers(&[resource("other", "orders", &spec, "Enabling")]));
        let words = message(&report.streams[0]);
        assert!(words.contains("other/orders may manage") && !words.contains("without a region"), "{words}");
    }

    #[test]
    fn unmanaged_is_claimed_only_if_all_resources_are_known() {
        let cases =
            [(true, json!(false), "No StreamEncryption manages"), (false, Value::Null, "not known whether")];
        for (are_all, managed, words) in cases {
            let mut report = report(&[]);
            report.take(surveyed(&[ORDERS], &[]), &Managers { are_all, ..managers(&[]) });
            assert_eq!(serde_json::to_value(&report.streams[0]).unwrap()["managed"], managed);
            assert!(message(&report.streams[0]).contains(words), "{}", message(&report.streams[0]));
        }
    }

    #[test]
    fn stream_that_a_resource_names_is_not_listed_twice() {
        let by_name =
            [resource("data", "orders", &json!({"service": "Firehose", "name": "orders"}), "Enabling")];
        let mut one = report(&by_name);
        one.take(surveyed(&[ORDERS], &[]), &managers(&by_name));
        let [stream] = &one.streams[..] else { panic!("one stream") };
        assert_eq!(
            (stream.resource(), stream.entry.stream.as_deref()),
            ("data/orders".to_owned(), Some(ORDERS))
        );
        // Without a region in the spec, it could be either of two.
        let elsewhere = ORDERS.replace("eu-west-1", "eu-central-1");
        let mut two = report(&by_name);
        two.take(surveyed(&[ORDERS, &elsewhere], &[]), &managers(&by_name));
        assert_eq!(two.streams.len(), 3);
        assert!(two.streams[1..].iter().all(|stream| message(stream).contains("data/orders may manage")));
    }

    #[test]
    fn evidence_has_the_time_of_each_description() {
        let mut surveys = surveyed(&[ORDERS, &ORDERS.replace("orders", "audit")], &[]);
        let (first, last) = (surveys[0].streams[0].described_time, Timestamp::now());
        surveys[0].streams[1].described_time = last;
        let mut report = report(&[]);
        report.take(surveys, &managers(&[]));
        let times: Vec<_> = report.streams.iter().map(|stream| stream.entry.last_describe_time).collect();
        assert_eq!(times, [Some(first), Some(whole_second(last).0)]);
        assert!(report.generated_time >= whole_second(last).0, "{}", report.generated_time);
    }

    #[test]
    fn stream_that_aws_does_not_list_passes_no_control() {
        let stream = encrypted_after(surveyed(&[], &[]));
        assert_eq!((stream.entry.state, &stream.entry.active_key), (State::Unknown, &None));
        let verdicts: Vec<_> = CONTROLS.iter().filter_map(|control| stream.verdict(control)).collect();
        assert_eq!(verdicts, [Verdict::Unknown; 3]);
        assert!(
            message(&stream).starts_with("AWS does not list this stream. Create"),
            "{}",
            message(&stream)
        );
    }

    #[test]
    fn status_stays_where_no_complete_list_was_read() {
        let survey = surveyed(&[], &[]).remove(0);
        let region = Place { region: "eu-central-1".parse().unwrap(), ..survey.place.clone() };
        let number = "444455556666".parse().unwrap();
        let account = AwsAccount { account: number, ..survey.place.account.clone() };
        let account = Place { account, ..survey.place.clone() };
        for survey in [
            PlaceSurvey { listed: Vec::new(), ..survey.clone() },
            PlaceSurvey { listed: vec![Service::Kinesis], ..survey.clone() },
            PlaceSurvey { undescribed: vec![ORDERS.parse().unwrap()], ..survey.clone() },
            PlaceSurvey { place: region, ..survey.clone() },
            PlaceSurvey { place: account, ..survey.clone() },
        ] {
            let stream = encrypted_after(vec![survey.clone()]);
            assert_eq!((stream.entry.state, message(&stream)), (State::Encrypted, "why"), "{survey:?}");
        }
    }

    #[test]
    fn problem_names_its_account_and_region() {
        let mut report = report(&[]);
        report.take(surveyed(&[], &["AccessDenied"]), &managers(&[]));
        assert_eq!(report.unread, ["111122223333 in eu-west-1: AccessDenied"]);
    }

    #[test]
    fn stream_of_two_resources_counts_once_as_its_owners() {
        let shown = [
            resource("data", "a", &json!({"arn": ORDERS}), "StreamAlreadyManaged"),
            resource("data", "b", &json!({"arn": ORDERS}), "Encrypted"),
            resource("data", "c", &json!({"service": "Kinesis", "name": "c"}), "NotPermitted"),
        ];
        let mut report = report(&shown);
        let others = one_per_stream(&mut report.streams);
        let names: Vec<String> = report.streams.iter().map(ReportedStream::resource).collect();
        assert_eq!(names, ["data/b", "data/c"]);
        assert_eq!(others, ["data/a has the stream of data/b, too: it counts once."]);
    }

    /// Another tenant's namespace may come first, and its resource may name any stream.
    #[test]
    fn resource_of_others_does_not_hide_stream_in_plaintext() {
        let stream = json!({"arn": ORDERS});
        let kept = |reason: &str, others: &str, ledgers: &BTreeMap<String, StreamLedger>| {
            let shown = [resource("a", "orders", &stream, others), with_status("False", reason)];
            let mut streams = shown.iter().map(|found| ReportedStream::of(found, ledgers)).collect();
            one_per_stream(&mut streams);
            let [kept] = &streams[..] else { panic!("one stream") };
            assert_eq!(kept.fails_a_control(), kept.resource() == "data/orders", "{reason} {others}");
            kept.resource()
        };
        let none = BTreeMap::new();
        for others in ["Suspended", "DisableNotPermitted", "StreamAlreadyManaged", "NotPermitted", ""] {
            for reason in ["KeyDisabled", "Suspended", "LedgerInvalid"] {
                assert_eq!(kept(reason, others, &none), "data/orders", "{reason} {others}");
            }
        }
        let owned = ledgers_of("data");
        for others in ["Encrypted", "KeyDisabled", "LedgerInvalid"] {
            assert_eq!(kept("Suspended", others, &owned), "data/orders", "{others}");
        }
        assert_eq!(kept("KeyDisabled", "Suspended", &ledgers_of("a")), "a/orders");
    }
}
