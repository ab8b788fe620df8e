//! A run after an earlier one, whose descriptions may be outdated.

use std::fs;

use jiff::Timestamp;
use simulated_aws::world::Calls as _;
use stream_encryption_operator::adopt::found::{FoundEncryption, FoundStream};
use stream_encryption_operator::adopt::progress_file::ProgressFile;

use super::{KEY, Machine, aws, text};

/// Somebody has changed the key since the earlier run, so the operator would change it back.
#[tokio::test(flavor = "multi_thread")]
async fn new_manifest_ignores_the_key_of_an_earlier_run() {
    let aws = aws().await;
    let machine = Machine::new(&aws);
    let earlier = ProgressFile::open(&machine.path("progress"), Timestamp::now(), false).expect("the file");
    let source = "KinesisStreamAsSource".to_owned();
    for (arn, encryption) in [
        ("arn:aws:kinesis:eu-west-1:111122223333:stream/clicks", FoundEncryption::AwsOwned),
        (
            "arn:aws:firehose:eu-west-1:111122223333:deliverystream/replica",
            FoundEncryption::NotEncryptable(source),
        ),
    ] {
        let (arn, described_time) = (arn.parse().expect("an ARN"), Timestamp::now());
        earlier.add(&FoundStream { arn, described_time, encryption, owners: Some(Vec::new()) });
    }
    let flags = "--region eu-west-1 --write adopted --mode Enforce --progress-file progress";
    let output = machine.adopt(flags).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let manifest = machine.path("adopted/streams/111122223333/eu-west-1/kinesis-clicks.yaml");
    let manifest = fs::read_to_string(manifest).expect("the manifest");
    assert!(manifest.contains(KEY) && manifest.contains("mode: Enforce"), "{manifest}");
    // A stream that gets no manifest is not described again.
    assert_eq!(aws.world().calls().count("DescribeDeliveryStream", "replica"), 0);
}
