//! The scenario: the actions of the people in the samples, and the conditions that must hold at the end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use kube::api::Api;
use simulated_aws::samples::{DENIED, DISABLED, mended};
use simulated_aws::world::{Calls as _, EncryptionStatus as Shown, PlantedStream, Snapshot};
use stream_encryption_api::condition::{ConditionType, find};
use stream_encryption_api::stream_encryption::{EncryptionStatus, StreamEncryption, StreamEncryptionStatus};

use crate::stage::Stage;

const ACCOUNT: &str = "arn:aws:kms:eu-west-1:111122223333:key";

/// Performs all actions, each as soon as its precondition holds.
pub(crate) async fn play(stage: &Stage) -> anyhow::Result<()> {
    stage.kubectl(&["apply", "-k", concat!(env!("CARGO_MANIFEST_DIR"), "/config/samples")]).await?;
    let all = async {
        tokio::try_join!(re_key(stage), disabled_key(stage), behind_our_back(stage), the_rest(stage))
    };
    tokio::time::timeout(Duration::from_mins(2), all).await.context("not within 2 minutes")??;
    Ok(())
}

/// Re-keys to a key whose policy denies access: the old key stays active, and a retry succeeds once the
/// policy is fixed.
async fn re_key(stage: &Stage) -> anyhow::Result<()> {
    until(stage, "payments", says("Encrypted")).await?;
    person("payments is re-keyed to a key whose policy denies it (04-re-key-to-a-denied-key.yaml)");
    stage.apply("04-re-key-to-a-denied-key.yaml").await?;
    let failed = until(stage, "payments", says("EnablingFailed")).await?;
    let known_encryption = failed.active_key.and_then(|key| key.arn).unwrap_or_default();
    if failed.encryption_status != Some(EncryptionStatus::EnablingFailed)
        || !known_encryption.contains("22222222")
    {
        bail!("after the failed key change the old key must be active, not {known_encryption:?}");
    }
    person(
        "somebody fixes the key policy and requests a retry: kubectl annotate strenc payments streamencryption.dev/retry=…",
    );
    stage.aws.world().plant_key(mended(DENIED));
    let retry = format!("streamencryption.dev/retry={}", jiff::Timestamp::now());
    stage.kubectl(&["annotate", "strenc", "payments", "-n", "data", "--overwrite", &retry]).await?;
    until(stage, "payments", says("Encrypted")).await.map(|_| ())
}

/// Checks that a disabled key consumes no calls, and that encryption starts once the key is enabled.
async fn disabled_key(stage: &Stage) -> anyhow::Result<()> {
    until(stage, "audit", says("KeyDisabled")).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    if stage.aws.world().calls().count("StartDeliveryStreamEncryption", "audit") > 0 {
        bail!("a call was made with a disabled key");
    }
    person("somebody enables the key of audit");
    stage.aws.world().plant_key(mended(DISABLED));
    until(stage, "audit", says("Encrypted")).await.map(|_| ())
}

/// Disables encryption outside the operator, and checks that the operator enables it again.
async fn behind_our_back(stage: &Stage) -> anyhow::Result<()> {
    until(stage, "orders", says("Encrypted")).await?;
    person("somebody disables the encryption of orders outside the operator");
    let off = Snapshot { encryption: Shown::Disabled, ..Snapshot::default() };
    stage.aws.world().plant_stream(PlantedStream {
        name: "orders".to_owned(),
        state: off,
        ..PlantedStream::default()
    });
    until(stage, "orders", says("Enabling")).await?;
    until(stage, "orders", says("Encrypted")).await.map(|_| ())
}

async fn the_rest(stage: &Stage) -> anyhow::Result<()> {
    until(stage, "clicks", says("Encrypted")).await?;
    until(stage, "telemetry", says("Encrypted")).await?;
    until(stage, "replica", says("SourceNotDirectPut")).await.map(|_| ())
}

fn person(does: &str) {
    println!("        -> {does}");
}

fn says(reason: &str) -> impl Fn(&StreamEncryptionStatus) -> bool {
    move |status| find(&status.conditions, ConditionType::Ready).is_some_and(|ready| ready.reason == reason)
}

async fn until(
    stage: &Stage,
    name: &str,
    is_so: impl Fn(&StreamEncryptionStatus) -> bool,
) -> anyhow::Result<StreamEncryptionStatus> {
    let api: Api<StreamEncryption> = Api::namespaced(stage.client(), "data");
    let end = Instant::now() + Duration::from_secs(90);
    loop {
        let status = api.get_opt(name).await?.and_then(|resource| resource.status).unwrap_or_default();
        if is_so(&status) {
            return Ok(status);
        }
        if Instant::now() > end {
            bail!("{name} has not reached the expected state after 90 s: {status:#?}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A condition that must hold at the end.
pub(crate) struct Check {
    pub(crate) sentence: &'static str,
    pub(crate) holds: bool,
}

/// Evaluates the conditions at the end, by the simulated AWS's own log and the objects in the cluster.
pub(crate) async fn checks(stage: &Stage) -> anyhow::Result<Vec<Check>> {
    let starts = |name: &str| {
        let world = stage.aws.world();
        world.calls().count("StartDeliveryStreamEncryption", name)
            + world.calls().count("StartStreamEncryption", name)
    };
    let payments = stage
        .kubectl(&["get", "strenc", "payments", "-n", "data", "-o", "jsonpath={.status.activeKey.arn}"])
        .await?;
    let events = stage.kubectl(&["get", "events", "-n", "data", "-o", "jsonpath={.items[*].reason}"]).await?;
    let check = |sentence, holds| Check { sentence, holds };
    Ok(vec![
        check("clicks: encrypted with the AWS-owned key, by one Start", starts("clicks") == 1),
        check(
            "telemetry: a Kinesis data stream encrypted with its own key, by one Start",
            starts("telemetry") == 1,
        ),
        check(
            "payments: one Start, one that failed, one after the policy was fixed",
            starts("payments") == 3,
        ),
        check("payments: the desired key is active", payments == format!("{ACCOUNT}/{DENIED}")),
        check("audit: no Start while its key was disabled, one after that", starts("audit") == 1),
        check("replica: not DirectPut, so refused without a call", starts("replica") == 0),
        check("orders: one Start, and one to correct drift", starts("orders") == 2),
        check("orders: an event reports the correction", events.contains("DriftCorrected")),
    ])
}
