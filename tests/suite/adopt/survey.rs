//! The survey in virtual time: its duration, AWS's limits, an interruption, and refusals.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use simulated_aws::world::{
    Calls as _, FailureType, Fault, PlantedStream, Rule, Service as SimulatedService, Snapshot, Source,
    StreamKey, StreamStatus,
};
use stream_encryption_api::stream_encryption::Service;
use stream_encryption_operator::adopt::found::FoundEncryption;
use stream_encryption_operator::adopt::progress_file::ProgressFile;
use stream_encryption_operator::adopt::survey::{PlaceSurvey, survey};
use tokio::time::{Instant, timeout};

use super::virtual_aws::{VirtualAws, place};
use crate::harness::REGION;

const BOTH: [Service; 2] = [Service::Firehose, Service::Kinesis];
const DESCRIBES: [&str; 2] = ["DescribeDeliveryStream", "DescribeStreamSummary"];

async fn survey_of(aws: &VirtualAws, regions: &[&str]) -> Vec<PlaceSurvey> {
    let places: Vec<_> = regions.iter().map(|region| place(region)).collect();
    survey(&aws.adapter(), &places, &BOTH, &ProgressFile::none(), &()).await
}

/// Returns how often each stream was described.
fn describes(aws: &VirtualAws) -> BTreeMap<(SimulatedService, String, String), usize> {
    let mut counts = BTreeMap::new();
    for call in aws.world().calls() {
        if DESCRIBES.contains(&call.operation.as_str()) {
            *counts.entry((call.service, call.region.clone(), call.target.clone())).or_default() += 1;
        }
    }
    counts
}

/// Returns the regions whose Firehose streams were listed.
fn listed(aws: &VirtualAws) -> BTreeSet<String> {
    let world = aws.world();
    let lists = world.calls().iter().filter(|call| call.operation == "ListDeliveryStreams");
    lists.map(|call| call.region.clone()).collect()
}

fn is_none_throttled(aws: &VirtualAws) -> bool {
    aws.world().calls().iter().all(|call| call.outcome == "OK")
}

#[tokio::test(start_paused = true)]
async fn thousand_streams_are_surveyed_within_the_limits() {
    let aws = VirtualAws::start();
    aws.plant(SimulatedService::Firehose, REGION, 600);
    aws.plant(SimulatedService::Kinesis, REGION, 400);
    let start = Instant::now();
    let [survey] = survey_of(&aws, &[REGION]).await.try_into().expect("one place");
    assert_eq!((survey.streams.len(), survey.reused, &survey.problems[..]), (1000, 0, &[][..]));
    assert!(survey.streams.iter().all(|stream| stream.owners.as_deref() == Some(&[])));
    assert!(is_none_throttled(&aws));
    assert_eq!(describes(&aws).len(), 1000);
    // Half of 80 % of five requests a second.
    let seconds = start.elapsed().as_secs();
    assert!((290..=310).contains(&seconds), "{seconds} s");
}

#[tokio::test(start_paused = true)]
async fn regions_are_surveyed_at_the_same_time() {
    let aws = VirtualAws::start();
    let regions = ["eu-west-1", "eu-central-1", "us-east-1", "ap-southeast-2"];
    for region in regions {
        aws.plant(SimulatedService::Firehose, region, 50);
    }
    let start = Instant::now();
    let surveys = survey_of(&aws, &regions).await;
    assert!(surveys.iter().all(|survey| survey.streams.len() == 50 && survey.problems.is_empty()));
    assert!(is_none_throttled(&aws));
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

/// With ten regions of 60 accounts, the connections of all at once would be more than the files that a process may open.
#[tokio::test(start_paused = true)]
async fn many_places_are_surveyed_64_at_a_time_in_their_order() {
    let aws = VirtualAws::start();
    let regions: Vec<String> = (1..=80).map(|number| format!("eu-test-{number}")).collect();
    // The first places take the longest, and none is done at once.
    let streams: Vec<usize> = (0..80).map(|number| 6 - number / 20).collect();
    for (region, count) in regions.iter().zip(&streams) {
        aws.plant(SimulatedService::Firehose, region, *count);
    }
    let names: Vec<&str> = regions.iter().map(String::as_str).collect();
    let begun = timeout(Duration::from_millis(1), survey_of(&aws, &names)).await;
    assert!(begun.is_err(), "a place takes longer than 1 ms");
    assert_eq!(listed(&aws).len(), 64);
    let surveys = survey_of(&aws, &names).await;
    let surveyed: Vec<String> = surveys.iter().map(|survey| survey.place.region.to_string()).collect();
    assert_eq!(surveyed, regions);
    assert_eq!(surveys.iter().map(|survey| survey.streams.len()).collect::<Vec<_>>(), streams);
    assert_eq!(listed(&aws).len(), 80);
}

#[tokio::test(start_paused = true)]
async fn ended_survey_continues_and_describes_no_stream_twice() {
    let aws = VirtualAws::start();
    aws.plant(SimulatedService::Firehose, REGION, 60);
    aws.plant(SimulatedService::Kinesis, REGION, 40);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("progress");
    let open = || ProgressFile::open(&path, Timestamp::now(), false).expect("the file");
    let places = [place(REGION)];
    // The first survey ends after ten seconds, the second after five more.
    for seconds in [10, 5] {
        let (adapter, progress) = (aws.adapter(), open());
        let ended =
            timeout(Duration::from_secs(seconds), survey(&adapter, &places, &BOTH, &progress, &())).await;
        assert!(ended.is_err(), "100 streams take longer than {seconds} s");
    }
    let before = describes(&aws).len();
    assert!((20..90).contains(&before), "{before}");
    let progress = open();
    let [survey] =
        survey(&aws.adapter(), &places, &BOTH, &progress, &()).await.try_into().expect("one place");
    assert_eq!((survey.streams.len(), survey.reused), (100, before));
    let describes = describes(&aws);
    assert_eq!(describes.len(), 100);
    assert!(describes.values().all(|count| *count == 1), "{describes:?}");
    progress.delete().expect("deleted");
    assert!(!path.exists());
}

#[tokio::test(start_paused = true)]
async fn refused_region_and_service_lose_no_other_stream() {
    let aws = VirtualAws::start().with_disabled("ap-east-1");
    for region in [REGION, "ap-east-1"] {
        aws.plant(SimulatedService::Firehose, region, 3);
        aws.plant(SimulatedService::Kinesis, region, 3);
    }
    let denied = Rule {
        service: Some(SimulatedService::Kinesis),
        operation: Some("ListStreams".to_owned()),
        ..Rule::always(Fault::AccessDenied)
    };
    aws.world().script(denied);
    let [open, disabled] = survey_of(&aws, &[REGION, "ap-east-1"]).await.try_into().expect("two places");
    assert_eq!(open.streams.len(), 3);
    let [problem] = &open.problems[..] else { panic!("{:?}", open.problems) };
    assert!(problem.starts_with("kinesis:ListStreams failed: AccessDeniedException"), "{problem}");
    assert_eq!((disabled.streams.len(), disabled.problems.len()), (0, 2));
    assert_eq!((open.listed, disabled.listed), (vec![Service::Firehose], Vec::new()));
    assert!(disabled.problems[0].contains("has not enabled this region"), "{:?}", disabled.problems);
}

#[tokio::test(start_paused = true)]
async fn refused_tags_and_descriptions_are_problems() {
    let aws = VirtualAws::start();
    aws.plant(SimulatedService::Firehose, REGION, 3);
    aws.plant(SimulatedService::Kinesis, REGION, 200);
    for operation in ["ListTagsForDeliveryStream", "DescribeStreamSummary"] {
        let operation = Some(operation.to_owned());
        aws.world().script(Rule { operation, ..Rule::always(Fault::AccessDenied) });
    }
    let [survey] = survey_of(&aws, &[REGION]).await.try_into().expect("one place");
    assert_eq!(survey.streams.len(), 3);
    assert!(survey.streams.iter().all(|stream| stream.owners.is_none()));
    assert_eq!((&survey.listed[..], survey.undescribed.len()), (&BOTH[..], 200));
    let problems = survey.problems.join("\n");
    assert!(problems.contains("the tags of 3 Firehose streams cannot be read (AccessDenied)"), "{problems}");
    assert!(problems.contains("kinesis:DescribeStreamSummary failed: AccessDeniedException"), "{problems}");
    assert!(
        problems.contains("more streams were not requested, because AWS denied the first 50 of them"),
        "{problems}"
    );
    let asked = describes(&aws).keys().filter(|(service, ..)| *service == SimulatedService::Kinesis).count();
    assert!((50..100).contains(&asked), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn streams_after_denied_ones_are_described() {
    let aws = VirtualAws::start();
    aws.plant(SimulatedService::Firehose, REGION, 30);
    for operation in ["ListTagsForDeliveryStream", "DescribeDeliveryStream"] {
        let operation = Some(operation.to_owned());
        aws.world().script(Rule { operation, times: Some(20), ..Rule::always(Fault::AccessDenied) });
    }
    let [survey] = survey_of(&aws, &[REGION]).await.try_into().expect("one place");
    assert_eq!(survey.streams.len(), 10);
    assert!(survey.streams.iter().any(|stream| stream.owners.is_some()), "the tags of the others are read");
    assert!(!survey.problems.join("\n").contains("not requested"), "{:?}", survey.problems);
}

#[tokio::test(start_paused = true)]
async fn survey_ends_when_the_credentials_have_expired() {
    let aws = VirtualAws::start();
    aws.plant(SimulatedService::Firehose, REGION, 200);
    let operation = Some("DescribeDeliveryStream".to_owned());
    aws.world().script(Rule { operation, ..Rule::always(Fault::InvalidToken) });
    let [survey] = survey_of(&aws, &[REGION]).await.try_into().expect("one place");
    let problems = survey.problems.join("\n");
    assert!(problems.contains("AWS rejects the credentials now. Renew them"), "{problems}");
    let asked: usize = describes(&aws).values().sum();
    assert!(asked < 50, "{asked}");
}

#[tokio::test(start_paused = true)]
async fn throttling_and_faults_that_pass_lose_no_stream() {
    let aws = VirtualAws::start();
    aws.plant(SimulatedService::Firehose, REGION, 12);
    for (operation, fault, times) in [
        ("DescribeDeliveryStream", Fault::Throttle, 2),
        ("ListTagsForDeliveryStream", Fault::ServerError { status: 500 }, 4),
        ("ListDeliveryStreams", Fault::Throttle, 1),
    ] {
        let operation = Some(operation.to_owned());
        aws.world().script(Rule { operation, times: Some(times), ..Rule::always(fault) });
    }
    let [survey] = survey_of(&aws, &[REGION]).await.try_into().expect("one place");
    assert_eq!((survey.streams.len(), &survey.problems[..]), (12, &[][..]));
    assert_eq!(survey.undescribed, []);
}

/// A Kinesis stream is UPDATING while it is resharded, and then the encryption that AWS shows may be the old one.
#[tokio::test(start_paused = true)]
async fn changing_stream_is_described_again_after_all_others() {
    let aws = VirtualAws::start();
    // Two streams are described in a second.
    aws.plant(SimulatedService::Kinesis, REGION, 40);
    let active = Snapshot::enabled(StreamKey::AwsOwned);
    let clicks = aws.world().plant_stream(PlantedStream {
        service: SimulatedService::Kinesis,
        name: "clicks".to_owned(),
        state: Snapshot { status: StreamStatus::Updating, ..active.clone() },
        ..PlantedStream::default()
    });
    let end = aws.now() + SignedDuration::from_secs(8);
    assert!(aws.world().set_stream(end, &clicks, active), "a stream");
    let [survey] = survey_of(&aws, &[REGION]).await.try_into().expect("one place");
    let found = survey.streams.iter().find(|stream| stream.arn.to_string() == clicks).expect("the stream");
    assert_eq!(found.encryption, FoundEncryption::AwsOwned);
    assert_eq!((survey.streams.len(), &survey.problems[..]), (41, &[][..]));
    let twice = describes(&aws).into_iter().filter(|(_, count)| *count > 1);
    assert_eq!(twice.map(|((_, _, name), _)| name).collect::<Vec<_>>(), ["clicks"]);
}

#[tokio::test(start_paused = true)]
async fn changing_stream_stays_if_its_second_describe_fails() {
    for fault in [Fault::Throttle, Fault::AccessDenied] {
        let aws = VirtualAws::start();
        aws.plant(SimulatedService::Kinesis, REGION, 3);
        aws.world().plant_stream(PlantedStream {
            service: SimulatedService::Kinesis,
            name: "clicks".to_owned(),
            state: Snapshot { status: StreamStatus::Updating, ..Snapshot::enabled(StreamKey::AwsOwned) },
            ..PlantedStream::default()
        });
        let second = Rule { skip: 1, ..Rule::always(fault) };
        aws.world().script(second.on("DescribeStreamSummary").of("clicks"));
        let [survey] = survey_of(&aws, &[REGION]).await.try_into().expect("one place");
        assert_eq!((survey.streams.len(), &survey.problems[..]), (4, &[][..]));
        assert_eq!(survey.undescribed, []);
        assert!(survey.streams[0].encryption.is_changing(), "{:?}", survey.streams[0]);
        let requests = aws.world().calls().count("DescribeStreamSummary", "clicks");
        assert!(requests > 1, "it is described again");
    }
}

/// AWS reports the failure until the next change.
#[tokio::test(start_paused = true)]
async fn stream_whose_change_has_failed_is_described_once() {
    let aws = VirtualAws::start();
    let state = Snapshot::enabling_failed(StreamKey::AwsOwned, None, FailureType::KmsAccessDenied);
    let name = "orders".to_owned();
    aws.world().plant_stream(PlantedStream { name, state, ..PlantedStream::default() });
    let [survey] = survey_of(&aws, &[REGION]).await.try_into().expect("one place");
    let [orders] = &survey.streams[..] else { panic!("{:?}", survey.streams) };
    assert!(!orders.encryption.is_settled(), "{orders:?}");
    assert_eq!(aws.world().calls().count("DescribeDeliveryStream", "orders"), 1);
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_encryption_is_recognized() {
    let aws = VirtualAws::start();
    let key = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let plant = |name: &str, state: Snapshot, source: Source| {
        let name = name.to_owned();
        aws.world().plant_stream(PlantedStream { name, state, source, ..PlantedStream::default() });
    };
    plant("a", Snapshot::default(), Source::DirectPut);
    plant("b", Snapshot::enabled(StreamKey::AwsOwned), Source::DirectPut);
    plant("c", Snapshot::enabled(StreamKey::arn(key)), Source::DirectPut);
    plant("d", Snapshot::default(), Source::KinesisStreamAsSource);
    let [survey] = survey_of(&aws, &[REGION]).await.try_into().expect("one place");
    let found: Vec<_> = survey.streams.into_iter().map(|stream| stream.encryption).collect();
    assert_eq!(
        found,
        [
            FoundEncryption::Plaintext,
            FoundEncryption::AwsOwned,
            FoundEncryption::Customer(key.parse().expect("a key")),
            FoundEncryption::NotEncryptable("KinesisStreamAsSource".to_owned()),
        ]
    );
}
