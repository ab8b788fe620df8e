//! The counted values, and the page of metrics, which must list exactly these.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;
use stream_encryption_api::FINALIZER;
use stream_encryption_api::ledger::Owner;
use stream_encryption_api::stream_encryption::{DeletionPolicy, StreamEncryption};
use stream_encryption_core::controller::kube_api::ReconcileEvent;
use stream_encryption_core::controller::memory::Memory;
use stream_encryption_core::controller::stream_api::Priority;
use stream_encryption_core::controller::{Clock, Config, Context};
use stream_encryption_core::model::decision::decide;

use super::*;
use crate::kubernetes::Cluster;

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

fn condition(kind: &str, status: &str, reason: &str) -> serde_json::Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": "x", "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

fn stream(service: &str) -> serde_json::Value {
    json!({"arn": "arn", "service": service, "account": "1", "region": "r", "name": "n"})
}

/// Returns the lines that begin with `name`.
fn lines<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.starts_with(name)).collect()
}

/// Returns the state of these resources at `now`, in a process that has not described their streams; `None` is an invalid one.
fn snapshot<'a>(
    resources: impl IntoIterator<Item = Option<&'a StreamEncryption>>,
    now: Timestamp,
) -> FleetSnapshot {
    let mut fleet = FleetSnapshot::default();
    for resource in resources {
        if let Some(resource) = resource {
            fleet.add(resource, None, now);
        } else {
            fleet.add_invalid(&ObjectMeta::default(), now);
        }
    }
    fleet
}

#[test]
fn requests_are_counted_by_service_and_outcome() {
    let metrics = Metrics::default();
    metrics.described(Service::Firehose, true);
    metrics.described(Service::Firehose, true);
    metrics.described(Service::Kinesis, false);
    metrics.called(Service::Firehose, Action::Start, Ok(()));
    metrics.called(Service::Kinesis, Action::Stop, Err(ErrorKind::LimitReached));
    metrics.reconciled(ReconcileResult::conflict, Duration::from_millis(20));
    let text = metrics.encode(&ScrapeInput::default());
    for line in [
        "stream_encryption_describe_requests_total{aws_service=\"Firehose\",outcome=\"answered\"} 2",
        "stream_encryption_describe_requests_total{aws_service=\"Firehose\",outcome=\"failed\"} 0",
        "stream_encryption_describe_requests_total{aws_service=\"Kinesis\",outcome=\"failed\"} 1",
        "stream_encryption_calls_total{aws_service=\"Firehose\",action=\"Start\",outcome=\"Accepted\"} 1",
        "stream_encryption_calls_total{aws_service=\"Kinesis\",action=\"Stop\",outcome=\"LimitReached\"} 1",
        "stream_encryption_reconciles_total{result=\"conflict\"} 1",
        "stream_encryption_reconcile_duration_seconds_bucket{le=\"0.025\"} 1",
        "stream_encryption_reconcile_duration_seconds_bucket{le=\"0.01\"} 0",
        "stream_encryption_leader 0",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn time_to_encrypted_is_recorded_and_never_negative() {
    let metrics = Metrics::default();
    metrics.encrypted(Service::Kinesis, SignedDuration::from_secs(45));
    // A clock that was set back yields no negative time.
    metrics.encrypted(Service::Kinesis, SignedDuration::from_secs(-5));
    let text = metrics.encode(&ScrapeInput::default());
    let name = "stream_encryption_time_to_encrypted_seconds";
    for line in [
        "count{aws_service=\"Kinesis\"} 2",
        "sum{aws_service=\"Kinesis\"} 45.0",
        "count{aws_service=\"Firehose\"} 0",
    ] {
        assert!(text.contains(&format!("\n{name}_{line}\n")), "{line} is not in\n{text}");
    }
}

#[test]
fn replica_without_resources_reports_no_fleet_gauges() {
    let text = Metrics::default().encode(&ScrapeInput::default());
    for name in ["streams", "resources", "lowest_calls_left", "plaintext_streams", "unusable_keys"] {
        assert!(!text.contains(&format!("stream_encryption_{name}")), "{name}");
    }
}

/// Returns a resource with this desired encryption and this status.
fn resource(encryption: &str, status: &serde_json::Value) -> StreamEncryption {
    let resource = json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption", "metadata": {"name": "n"},
        "spec": {"stream": {"service": "Kinesis", "name": "n"}, "encryption": encryption}, "status": status,
    });
    serde_json::from_value(resource).unwrap()
}

/// Returns a resource whose records have been in plaintext since `since`.
fn plain(encryption: &str, since: &str) -> StreamEncryption {
    let status = json!({
        "encryptionStatus": "DISABLED", "stream": stream("Kinesis"), "calls": {"used": 18, "limit": 20},
        "plaintextSinceTime": since, "lastDescribeTime": since,
        "conditions": [
            condition("Ready", "False", "KeyDisabled"), condition("Reconciling", "True", "KeyDisabled"),
            condition("KeyUsable", "False", "KeyDisabled"),
        ],
    });
    resource(encryption, &status)
}

#[test]
fn resources_are_counted_by_their_status() {
    let encrypted = json!({
        "encryptionStatus": "ENABLED", "stream": stream("Firehose"), "calls": {"used": 1, "limit": 20},
        "conditions": [condition("Ready", "True", "Encrypted"), condition("KeyUsable", "True", "KeyEnabled")],
    });
    let encrypted = resource("Enabled", &encrypted);
    let lost = json!({
        "encryptionStatus": "ENABLED", "stream": stream("Firehose"), "activeKeyUnusableSinceTime": "2026-01-01T00:00:00Z",
        "conditions": [condition("Ready", "False", "KeyNotFound"), condition("KeyUsable", "False", "KeyNotFound")],
    });
    let lost = resource("Enabled", &lost);
    let unvisited = resource("Enabled", &json!(null));
    let (older, newer) = (plain("Enabled", "2026-01-01T00:00:00Z"), plain("Enabled", "2026-01-01T00:30:00Z"));
    let all = [Some(&encrypted), Some(&lost), Some(&older), Some(&newer), Some(&unvisited), None];
    let fleet = snapshot(all, at("2026-01-01T01:00:00Z"));
    let waiting = vec![(Priority::Call, 0), (Priority::Drift, 7)];
    let text = Metrics::default().encode(&ScrapeInput {
        rate_limiter_waiting: waiting,
        fleet: Some(fleet),
        ..ScrapeInput::default()
    });
    for line in [
        "stream_encryption_streams{aws_service=\"Firehose\",status=\"ENABLED\"} 2",
        "stream_encryption_streams{aws_service=\"Kinesis\",status=\"DISABLED\"} 2",
        "stream_encryption_resources{aws_service=\"Firehose\",reason=\"Encrypted\"} 1",
        "stream_encryption_resources{aws_service=\"Kinesis\",reason=\"KeyDisabled\"} 2",
        "stream_encryption_resources{aws_service=\"Kinesis\",reason=\"UNKNOWN\"} 1",
        "stream_encryption_resources{aws_service=\"UNKNOWN\",reason=\"SpecInvalid\"} 1",
        "stream_encryption_lowest_calls_left 2",
        "stream_encryption_plaintext_streams 2",
        "stream_encryption_longest_plaintext_seconds 3600.0",
        "stream_encryption_unusable_keys{key=\"active\"} 1",
        "stream_encryption_unusable_keys{key=\"desired\"} 2",
        "stream_encryption_oldest_describe_age_seconds 3600.0",
        "stream_encryption_rate_limiter_waiting{priority=\"drift\"} 7",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
    }
}

/// A count cannot tell one resource for an hour from many for a minute each.
#[test]
fn longest_time_not_ready_is_reported_by_reason() {
    let now = at("2026-01-01T01:00:00Z");
    let of = |kind: &str, reason: &str, since: &str| {
        let mut why = condition(kind, "True", reason);
        why["lastTransitionTime"] = json!(since);
        // Ready has been False for an hour.
        resource("Enabled", &json!({"conditions": [condition("Ready", "False", reason), why]}))
    };
    let updating = ["2026-01-01T00:58:00Z", "2026-01-01T00:59:00Z"];
    let [older, newer] = updating.map(|since| of("Reconciling", "StreamUpdating", since));
    let refused = of("Stalled", "NotPermitted", "2026-01-01T00:00:00Z");
    let clock_set_back = of("Reconciling", "Enabling", "2026-01-01T02:00:00Z");
    let observed = of("Encrypted", "Drifted", "2026-01-01T00:00:00Z");
    let ready = resource("Enabled", &json!({"conditions": [condition("Ready", "True", "Encrypted")]}));
    let mut unvisited = resource("Enabled", &json!(null));
    unvisited.metadata.creation_timestamp = Some(Time(at("2026-01-01T00:50:00Z")));
    let all = [&older, &newer, &refused, &clock_set_back, &observed, &ready, &unvisited];
    let mut fleet = snapshot(all.map(Some), now);
    let created = Some(Time(at("2026-01-01T00:30:00Z")));
    fleet.add_invalid(&ObjectMeta { creation_timestamp: created, ..ObjectMeta::default() }, now);
    let text = Metrics::default().encode(&ScrapeInput { fleet: Some(fleet), ..ScrapeInput::default() });
    let name = "stream_encryption_longest_not_ready_seconds";
    let mut longest = lines(&text, name);
    longest.sort_unstable();
    assert_eq!(
        longest,
        [
            format!("{name}{{aws_service=\"Kinesis\",reason=\"Enabling\"}} 0.0"),
            format!("{name}{{aws_service=\"Kinesis\",reason=\"NotPermitted\"}} 3600.0"),
            format!("{name}{{aws_service=\"Kinesis\",reason=\"StreamUpdating\"}} 120.0"),
            format!("{name}{{aws_service=\"Kinesis\",reason=\"UNKNOWN\"}} 600.0"),
            format!("{name}{{aws_service=\"UNKNOWN\",reason=\"SpecInvalid\"}} 1800.0"),
        ]
    );
}

#[test]
fn requested_plaintext_is_not_counted() {
    let fleet = snapshot([Some(&plain("Disabled", "2026-01-01T00:00:00Z"))], at("2026-01-01T01:00:00Z"));
    let text = Metrics::default().encode(&ScrapeInput { fleet: Some(fleet), ..ScrapeInput::default() });
    assert_eq!(
        lines(&text, "stream_encryption_longest_plaintext_seconds"),
        ["stream_encryption_longest_plaintext_seconds 0.0"]
    );
}

#[test]
fn plaintext_of_deleted_resources_is_not_counted() {
    let now = at("2026-01-01T01:00:00Z");
    let resources = "stream_encryption_resources{aws_service=\"Kinesis\",reason=\"KeyDisabled\"} 1";
    for (deletion_policy, finalizer, is_counted) in [
        (DeletionPolicy::Disable, FINALIZER, true),
        // The status no longer changes.
        (DeletionPolicy::Disable, "example.com/other", false),
        (DeletionPolicy::Retain, "example.com/other", false),
        (DeletionPolicy::Retain, FINALIZER, false),
    ] {
        let mut deleted = plain("Enabled", "2026-01-01T00:00:00Z");
        deleted.spec.deletion_policy = deletion_policy;
        deleted.metadata.finalizers = Some(vec![finalizer.to_owned()]);
        deleted.metadata.deletion_timestamp = Some(Time(now));
        let fleet = snapshot([Some(&deleted)], now);
        let text = Metrics::default().encode(&ScrapeInput { fleet: Some(fleet), ..ScrapeInput::default() });
        for line in
            ["stream_encryption_plaintext_streams 0", "stream_encryption_longest_plaintext_seconds 0.0"]
        {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
        assert_eq!(text.lines().any(|line| line == resources), is_counted, "{finalizer}\n{text}");
        assert_eq!(text.contains("oldest_describe_age"), is_counted, "{finalizer}\n{text}");
    }
}

#[test]
fn deleted_invalid_resource_counts_only_with_the_finalizer() {
    let line = "stream_encryption_resources{aws_service=\"UNKNOWN\",reason=\"SpecInvalid\"} 1";
    for (is_deleted, finalizer, is_counted) in
        [(true, FINALIZER, true), (true, "example.com/other", false), (false, "example.com/other", true)]
    {
        let (mut fleet, now) = (FleetSnapshot::default(), at("2026-01-01T00:00:00Z"));
        let metadata = ObjectMeta {
            finalizers: Some(vec![finalizer.to_owned()]),
            deletion_timestamp: is_deleted.then_some(Time(now)),
            ..ObjectMeta::default()
        };
        fleet.add_invalid(&metadata, now);
        let text = Metrics::default().encode(&ScrapeInput { fleet: Some(fleet), ..ScrapeInput::default() });
        assert_eq!(text.lines().any(|other| other == line), is_counted, "{is_deleted} {finalizer}\n{text}");
    }
}

#[test]
fn oldest_describe_ignores_streams_not_described() {
    let resource_with = |reason: &str, described: &str| {
        let conditions = [condition("Ready", "True", reason)];
        resource("Enabled", &json!({"lastDescribeTime": described, "conditions": conditions}))
    };
    let suspended = resource_with("Suspended", "2025-01-01T00:00:00Z");
    let refused = resource_with("NotPermitted", "2025-01-01T00:00:00Z");
    let described = resource_with("AwsUnreachable", "2026-01-01T00:50:00Z");
    let now = at("2026-01-01T01:00:00Z");
    let fleet = snapshot([Some(&suspended), Some(&refused), Some(&described)], now);
    let text = Metrics::default().encode(&ScrapeInput { fleet: Some(fleet), ..ScrapeInput::default() });
    let name = "stream_encryption_oldest_describe_age_seconds";
    assert_eq!(lines(&text, name), [format!("{name} 600.0")]);
    assert!(text.contains("stream_encryption_resources{aws_service=\"Kinesis\",reason=\"Suspended\"} 1"));

    let mut fleet = FleetSnapshot::default();
    fleet.add(&described, Some(at("2026-01-01T00:59:00Z")), now);
    let text = Metrics::default().encode(&ScrapeInput { fleet: Some(fleet), ..ScrapeInput::default() });
    assert_eq!(lines(&text, name), [format!("{name} 60.0")], "the status lags");
}

#[test]
fn regions_are_counted_by_whether_their_events_arrive() {
    let minutes = |minutes| Some(Duration::from_mins(minutes));
    let regions = EventRegions::of([minutes(0), minutes(14), minutes(15), None]);
    assert_eq!(regions, EventRegions { arriving: 2, silent: 2 });
    let name = "stream_encryption_aws_event_regions";
    let encode =
        |event_regions| Metrics::default().encode(&ScrapeInput { event_regions, ..ScrapeInput::default() });
    let mut counted = lines(&encode(Some(regions)), name).join(" ");
    assert!(
        counted.contains("{state=\"arriving\"} 2") && counted.contains("{state=\"silent\"} 2"),
        "{counted}"
    );
    counted = lines(&encode(Some(EventRegions::default())), name).join(" ");
    assert!(counted.contains("{state=\"arriving\"} 0"), "a queue without events: {counted}");
    assert!(lines(&encode(None), name).is_empty(), "no queue, or a standby");
}

#[test]
fn watches_not_current_are_counted_by_kind_on_the_leader() {
    let name = "stream_encryption_watches_not_current";
    let encode = |watches_not_current| {
        Metrics::default().encode(&ScrapeInput { watches_not_current, ..ScrapeInput::default() })
    };
    let text = encode(Some(vec![("StreamEncryptions", 2), ("StreamLedgers", 0)]));
    let mut counted = lines(&text, name);
    counted.sort_unstable();
    assert_eq!(
        counted,
        [format!("{name}{{kind=\"StreamEncryptions\"}} 2"), format!("{name}{{kind=\"StreamLedgers\"}} 0")]
    );
    assert!(lines(&encode(None), name).is_empty(), "a standby");
}

#[test]
fn lowest_calls_left_is_absent_without_any_budget() {
    let fleet = snapshot([None], at("2026-01-01T01:00:00Z"));
    let text = Metrics::default().encode(&ScrapeInput { fleet: Some(fleet), ..ScrapeInput::default() });
    assert!(!text.contains("lowest_calls_left"));
    assert!(text.contains("\nstream_encryption_plaintext_streams 0\n"));
}

#[test]
fn calls_of_undescribed_resource_stop_counting_after_a_day() {
    for field in ["suspendedSinceTime", "lastDescribeTime"] {
        assert_calls_count_for_a_day_after(field);
    }
}

fn assert_calls_count_for_a_day_after(field: &str) {
    let with_calls = |used: u32, since: Option<&str>| {
        resource("Enabled", &json!({"calls": {"used": used, "limit": 20}, field: since}))
    };
    let (active, suspended) = (with_calls(5, None), with_calls(19, Some("2026-01-01T00:00:00Z")));
    let name = "stream_encryption_lowest_calls_left";
    for (now, expected) in [
        ("2026-01-01T01:00:00Z", 1),
        ("2026-01-02T00:31:00Z", 1),
        ("2026-01-02T00:31:01Z", 15),
        ("2026-02-01T00:00:00Z", 15),
        // A clock that was set back.
        ("2025-12-01T00:00:00Z", 1),
    ] {
        let fleet = snapshot([Some(&active), Some(&suspended)], at(now));
        let text = Metrics::default().encode(&ScrapeInput { fleet: Some(fleet), ..ScrapeInput::default() });
        assert_eq!(lines(&text, name), [format!("{name} {expected}")], "{now}");
    }
    let fleet = snapshot([Some(&suspended)], at("2026-01-02T00:31:01Z"));
    let text = Metrics::default().encode(&ScrapeInput { fleet: Some(fleet), ..ScrapeInput::default() });
    assert!(lines(&text, name).is_empty(), "no other resource has calls");
}

/// An event of AWS enters the calls of others without a Describe.
#[test]
fn calls_of_others_count_without_a_describe() {
    let denied = json!({
        "calls": {"used": 24, "limit": 25, "external": 24, "nextAvailableTime": "2026-01-03T07:00:00Z"},
        "lastDescribeTime": "2026-01-01T00:00:00Z",
        "conditions": [condition("Ready", "Unknown", "AccessDenied")],
    });
    let name = "stream_encryption_lowest_calls_left";
    // Afterwards, a status that is not updated any more, such as that of an invalid spec, says nothing.
    for (now, expected) in [("2026-01-03T00:00:00Z", Some(1)), ("2026-01-03T07:00:00Z", None)] {
        let fleet = snapshot([Some(&resource("Enabled", &denied))], at(now));
        let text = Metrics::default().encode(&ScrapeInput { fleet: Some(fleet), ..ScrapeInput::default() });
        let expected: Vec<String> = expected.iter().map(|left| format!("{name} {left}")).collect();
        assert_eq!(lines(&text, name), expected, "{now}");
    }
}

/// Returns the cells of the table rows that begin with `beginning`.
fn documented(beginning: &str) -> Vec<Vec<&'static str>> {
    let page = include_str!("../../docs/metrics.md");
    let lines = page.lines().filter(|line| line.starts_with(beginning));
    lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

fn words(cell: &str) -> BTreeSet<String> {
    cell.split(',')
        .map(|word| word.trim().trim_matches('`').to_owned())
        .filter(|word| !word.is_empty())
        .collect()
}

#[test]
fn documented_metrics_match_the_code() {
    let everything = snapshot([Some(&plain("Enabled", "2026-01-01T00:00:00Z"))], at("2026-01-01T01:00:00Z"));
    let waiting = vec![(Priority::Call, 0)];
    let text = Metrics::default().encode(&ScrapeInput {
        rate_limiter_waiting: waiting,
        fleet: Some(everything),
        event_regions: Some(EventRegions::default()),
        watches_not_current: Some(vec![("StreamEncryptions", 0)]),
    });
    let told: BTreeMap<String, (String, BTreeSet<String>)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| {
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            let labels = line.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
            let labels = labels.split(',').filter_map(|label| label.split_once('=')).map(|(label, _)| label);
            let labels = labels.filter(|label| *label != "le").map(ToOwned::to_owned).collect();
            (format!("{name}{suffix}"), (kind.to_owned(), labels))
        })
        .collect();
    let page = documented("| `stream_encryption_").into_iter().map(|cells| {
        let name = cells[0].trim_matches('`').to_owned();
        (name, (cells[1].to_owned(), words(cells[2])))
    });
    assert_eq!(page.collect::<BTreeMap<_, _>>(), told, "left: docs/metrics.md; right: the code");
}

#[test]
fn documented_call_outcomes_match_the_code() {
    let text = Metrics::default().encode(&ScrapeInput::default());
    let told: BTreeSet<&str> = lines(&text, "stream_encryption_calls_total")
        .into_iter()
        .map(|line| line.split("outcome=\"").nth(1).unwrap().split('"').next().unwrap())
        .collect();
    let page = include_str!("../../docs/metrics.md");
    let table = page.split("| outcome |").nth(1).unwrap().split("\n\n").next().unwrap();
    let documented: BTreeSet<&str> =
        table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(documented, told, "left: docs/metrics.md; right: the code");
}

#[tokio::test]
async fn lost_event_is_counted() {
    // Nothing listens at this address, so no event arrives.
    let mut config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    config.default_retry = false;
    let metrics = Metrics::default();
    let cluster = Cluster::new(kube::Client::try_from(config).unwrap(), "operator", None);
    let operator = Context {
        aws: (),
        kube: cluster,
        clock: Clock::system(),
        decide,
        config: Config {
            region: "eu-west-1".parse().unwrap(),
            drift_interval: SignedDuration::from_mins(10),
            drift_interval_with_events: None,
        },
        memory: Memory::default(),
        metrics: Box::new(metrics.clone()),
    };
    let of = Owner { namespace: "data".to_owned(), name: "orders".to_owned(), uid: "1".to_owned() };
    let happening = ReconcileEvent {
        warning: true,
        reason: "KeyDisabled".to_owned(),
        action: "Reconcile",
        note: "The key is disabled.".to_owned(),
    };
    let count = || metrics.encode(&ScrapeInput::default());
    assert_eq!(
        lines(&count(), "stream_encryption_events_lost_total"),
        ["stream_encryption_events_lost_total 0"]
    );
    operator.publish_event(&of, &happening).await;
    assert_eq!(
        lines(&count(), "stream_encryption_events_lost_total"),
        ["stream_encryption_events_lost_total 1"]
    );
}
