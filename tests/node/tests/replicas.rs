//! Tests the loss of pods: the leader's pod is deleted, and all pods are replaced while streams change. No
//! state is lost, and no call is made twice.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use node::commands::{apply, eventually, kubectl};
use node::stage::{OPERATOR, Stage, streams};
use packages::objects::NAMESPACE;
use simulated_aws::world::{PlantedStream, Settings, World};

#[tokio::test(flavor = "multi_thread")]
async fn deleted_leader_is_replaced_in_40_seconds_without_extra_calls() {
    let names = ["one", "two", "three"];
    let stage = Stage::set(world(&names, 2)).await;
    stage.install().await;
    kubectl("create namespace data").await;
    apply(&streams(&names[..1])).await;
    kubectl("wait --for=condition=Ready strenc/one -n data --timeout=60s").await;

    // First as a drain does, then without a grace period.
    for (how, stream) in [("", "two"), ("--force --grace-period=0", "three")] {
        let first = leader().await;
        let begin = Instant::now();
        kubectl(&format!("delete pod {first} -n {NAMESPACE} --wait=false {how}")).await;
        apply(&streams(&[stream])).await;
        eventually("another leads", 40, async || {
            let now = leader().await;
            !now.is_empty() && now != first
        })
        .await;
        println!("new leader after {:.1} s ({how})", begin.elapsed().as_secs_f64());
        assert!(begin.elapsed() < Duration::from_secs(40));
        kubectl(&format!("wait --for=condition=Ready strenc/{stream} -n data --timeout=60s")).await;
        kubectl(&format!("rollout status {OPERATOR} --timeout=60s")).await;
    }
    assert_eq!(stage.changes(), once(&names));
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_replaced_while_50_streams_change_make_no_extra_calls() {
    let names: Vec<String> = (0..50).map(|number| format!("stream-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let stage = Stage::set(world(&names, 20)).await;
    stage.install().await;
    kubectl("create namespace data").await;
    apply(&streams(&names)).await;
    eventually("some changes are in progress", 30, async || stage.changes().len() >= 10).await;
    let under_way = stage.changes().len();
    kubectl(&format!("rollout restart {OPERATOR}")).await;
    kubectl(&format!("rollout status {OPERATOR} --timeout=90s")).await;
    println!(
        "{under_way} of 50 changes were in progress when the pods were replaced, {} afterwards",
        stage.changes().len()
    );
    assert!(under_way < 50, "the restart came too late to show anything");
    kubectl("wait --for=condition=Ready strenc --all -n data --timeout=180s").await;
    let mut changes = stage.changes();
    for outcomes in changes.values_mut() {
        // AWS does not execute a throttled request. During the second of the handover, the rates of the old
        // and the new leader add up.
        outcomes.retain(|outcome| outcome != "ThrottlingException");
    }
    assert_eq!(changes, once(&names));
}

/// Creates plaintext streams whose encryption takes this many seconds.
fn world(names: &[&str], seconds: i64) -> World {
    let settings = Settings { enabling: SignedDuration::from_secs(seconds), ..Settings::default() };
    let mut world = World::new(settings);
    for name in names {
        world.plant_stream(PlantedStream { name: (*name).to_owned(), ..PlantedStream::default() });
    }
    world
}

fn once(names: &[&str]) -> BTreeMap<String, Vec<String>> {
    names.iter().map(|name| ((*name).to_owned(), vec!["OK".to_owned()])).collect()
}

/// Returns the pod that holds the lease.
async fn leader() -> String {
    kubectl(&format!(
        "get lease/stream-encryption-operator -n {NAMESPACE} -o jsonpath={{.spec.holderIdentity}}"
    ))
    .await
}
