//! The requests to KMS: a failed one is a problem, so that the exit code is 1. A key that cannot be used is only a reason.

use jiff::Timestamp;
use simulated_aws::world::{Fault, KeyState, PlantedKey, Rule};
use stream_encryption_api::stream_encryption::{Mode, Service};
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_operator::adopt::aliases;
use stream_encryption_operator::adopt::folder::{ExistingManifest, Folder};
use stream_encryption_operator::adopt::found::{FoundEncryption, FoundStream};
use stream_encryption_operator::adopt::keys::{GivenKey, PlaintextKeys};
use stream_encryption_operator::adopt::survey::PlaceSurvey;

use super::virtual_aws::{VirtualAws, place};
use crate::harness::REGION;

const ALIAS: &str = "alias/orders";

/// Returns an AWS with one key, which has an alias.
fn aws(state: KeyState) -> VirtualAws {
    let aws = VirtualAws::start();
    let key = aws.world().plant_key(PlantedKey { state, ..PlantedKey::default() });
    aws.world().plant_alias(ALIAS, &key);
    aws
}

fn deny(aws: &VirtualAws) {
    aws.world().script(Rule::always(Fault::AccessDenied).on("DescribeKey"));
}

fn stream() -> StreamArn {
    "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders".parse().expect("an ARN")
}

/// Returns the survey of a place with one stream in plaintext.
fn survey() -> PlaceSurvey {
    let (described_time, encryption) = (Timestamp::UNIX_EPOCH, FoundEncryption::Plaintext);
    let found = FoundStream { arn: stream(), described_time, encryption, owners: None };
    PlaceSurvey { streams: vec![found], listed: vec![Service::Firehose], ..PlaceSurvey::new(place(REGION)) }
}

#[tokio::test(start_paused = true)]
async fn failed_check_of_a_given_key_is_a_problem() {
    let given: [GivenKey; 1] = [ALIAS.parse().expect("a key")];
    let denied = aws(KeyState::Enabled);
    deny(&denied);
    for (aws, is_problem) in [(denied, true), (aws(KeyState::Disabled), false)] {
        let mut surveys = [survey()];
        let keys = PlaintextKeys::choose(&aws.adapter(), &given, &mut surveys).await;
        let why = keys.of(&stream()).expect_err("no key");
        let problems = if is_problem { vec![why] } else { Vec::new() };
        assert_eq!(surveys[0].problems, problems);
    }
}

#[tokio::test(start_paused = true)]
async fn alias_that_cannot_be_resolved_is_a_problem() {
    let aws = aws(KeyState::Enabled);
    let folder = |alias: &str| {
        let manifest = ExistingManifest {
            path: String::new(),
            name: "orders".to_owned(),
            namespace: None,
            key: Some(format!("arn:aws:kms:eu-west-1:111122223333:{alias}")),
            mode: Mode::Observe,
            resolved: None,
        };
        Folder { manifests: [(stream(), manifest)].into(), ..Folder::default() }
    };
    let mut surveys = [survey()];
    let notes = aliases::resolve(&aws.adapter(), &mut folder("alias/gone"), &mut surveys).await;
    assert!(notes[0].contains("alias/gone does not exist"), "{notes:?}");
    assert_eq!(surveys[0].problems, Vec::<String>::new());
    deny(&aws);
    let notes = aliases::resolve(&aws.adapter(), &mut folder(ALIAS), &mut surveys).await;
    assert_eq!(notes, Vec::<String>::new());
    assert!(surveys[0].problems[0].contains("alias/orders cannot be resolved"), "{:?}", surveys[0].problems);
}
