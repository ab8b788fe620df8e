//! The story: the world in which the samples live, what its people do, and what must be true at the end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use jiff::SignedDuration;
use kube::api::Api;
use serde_json::{Value, json};
use simulated_aws::world::{
    Calls as _, EncryptionStatus as Shown, KeyState, PlantedKey, PlantedStream, Service, Settings, Snapshot,
    Source, World,
};
use stream_encryption_operator::api::condition::{ConditionType, find};
use stream_encryption_operator::api::stream_encryption::{
    EncryptionStatus, StreamEncryption, StreamEncryptionStatus,
};

use crate::stage::Stage;

const ACCOUNT: &str = "arn:aws:kms:eu-west-1:111122223333:key";
const DENIED: &str = "44444444-4444-4444-8444-444444444444";
const DISABLED: &str = "55555555-5555-4555-8555-555555555555";

/// The streams and keys of `config/samples`. ENABLING takes 3 seconds here; AWS takes some seconds to minutes.
pub(crate) fn world() -> World {
    let three = SignedDuration::from_secs(3);
    let settings = Settings { enabling: three, disabling: three, updating: three, ..Settings::default() };
    let mut world = World::new(settings);
    for name in ["clicks", "payments", "audit", "orders"] {
        world.plant_stream(PlantedStream { name: name.to_owned(), ..PlantedStream::default() });
    }
    let source = Source::KinesisStreamAsSource;
    world.plant_stream(PlantedStream { name: "replica".to_owned(), source, ..PlantedStream::default() });
    world.plant_stream(PlantedStream {
        service: Service::Kinesis,
        name: "telemetry".to_owned(),
        ..PlantedStream::default()
    });
    let payments = world.plant_key(key("22222222-2222-4222-8222-222222222222"));
    world.plant_alias("alias/payments", &payments);
    world.plant_key(key("33333333-3333-4333-8333-333333333333"));
    world.plant_key(PlantedKey { policy: Some(policy(&["Allow", "Deny"])), ..key(DENIED) });
    world.plant_key(PlantedKey { state: KeyState::Disabled, ..key(DISABLED) });
    world
}

fn key(id: &str) -> PlantedKey {
    PlantedKey { id: id.to_owned(), ..PlantedKey::default() }
}

/// A key policy: everybody may do everything, and with "Deny" nobody may make a grant.
fn policy(effects: &[&str]) -> Value {
    let statement = |effect: &&str| {
        let action = if *effect == "Deny" { "kms:CreateGrant" } else { "kms:*" };
        json!({"Effect": effect, "Principal": "*", "Action": action, "Resource": "*"})
    };
    json!({"Version": "2012-10-17", "Statement": effects.iter().map(statement).collect::<Vec<_>>()})
}

/// What people do, each when it is their turn.
pub(crate) async fn play(stage: &Stage) -> anyhow::Result<()> {
    stage.kubectl(&["apply", "-k", concat!(env!("CARGO_MANIFEST_DIR"), "/config/samples")]).await?;
    let all = async {
        tokio::try_join!(re_key(stage), disabled_key(stage), behind_our_back(stage), the_rest(stage))
    };
    tokio::time::timeout(Duration::from_mins(2), all).await.context("not within 2 minutes")??;
    Ok(())
}

/// A re-key to a key that is denied fails, with the old key in force, and heals once the policy is mended.
async fn re_key(stage: &Stage) -> anyhow::Result<()> {
    until(stage, "payments", says("Encrypted")).await?;
    person("payments is re-keyed to a key whose policy denies it (04-re-key-to-a-denied-key.yaml)");
    stage.apply("04-re-key-to-a-denied-key.yaml").await?;
    let failed = until(stage, "payments", says("EnablingFailed")).await?;
    let in_force = failed.key_in_force.and_then(|key| key.arn).unwrap_or_default();
    if failed.encryption_status != Some(EncryptionStatus::EnablingFailed) || !in_force.contains("22222222") {
        bail!("after the failed re-key the old key must be in force, not {in_force:?}");
    }
    person(
        "somebody mends the key policy, and asks for a retry: kubectl annotate strenc payments streamencryption.dev/retry=…",
    );
    stage.aws.world().plant_key(PlantedKey { policy: Some(policy(&["Allow"])), ..key(DENIED) });
    let retry = format!("streamencryption.dev/retry={}", jiff::Timestamp::now());
    stage.kubectl(&["annotate", "strenc", "payments", "-n", "data", "--overwrite", &retry]).await?;
    until(stage, "payments", says("Encrypted")).await.map(|_| ())
}

/// A disabled key waits without a call, and goes on once it is enabled.
async fn disabled_key(stage: &Stage) -> anyhow::Result<()> {
    until(stage, "audit", says("KeyDisabled")).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    if stage.aws.world().calls().count("StartDeliveryStreamEncryption", "audit") > 0 {
        bail!("a call was spent on a disabled key");
    }
    person("somebody enables the key of audit");
    stage.aws.world().plant_key(key(DISABLED));
    until(stage, "audit", says("Encrypted")).await.map(|_| ())
}

/// Encryption is turned off by somebody, and on again by the operator.
async fn behind_our_back(stage: &Stage) -> anyhow::Result<()> {
    until(stage, "orders", says("Encrypted")).await?;
    person("somebody turns the encryption of orders off, behind the operator's back");
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
            bail!("{name} is not as it should be after 90 s: {status:#?}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// One thing that must be true at the end.
pub(crate) struct Check {
    pub(crate) sentence: &'static str,
    pub(crate) holds: bool,
}

/// What must be true at the end, by the simulated AWS's own log.
pub(crate) async fn checks(stage: &Stage) -> anyhow::Result<Vec<Check>> {
    let starts = |name: &str| {
        let world = stage.aws.world();
        world.calls().count("StartDeliveryStreamEncryption", name)
            + world.calls().count("StartStreamEncryption", name)
    };
    let payments = stage
        .kubectl(&["get", "strenc", "payments", "-n", "data", "-o", "jsonpath={.status.keyInForce.arn}"])
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
            "payments: one Start, one that failed, one after the policy was mended",
            starts("payments") == 3,
        ),
        check("payments: the key asked for is in force", payments == format!("{ACCOUNT}/{DENIED}")),
        check("audit: no Start while its key was disabled, one after that", starts("audit") == 1),
        check("replica: not DirectPut, so refused without any call", starts("replica") == 0),
        check("orders: one Start, and one to correct what somebody changed", starts("orders") == 2),
        check("orders: the correction was told in an event", events.contains("DriftCorrected")),
    ])
}
