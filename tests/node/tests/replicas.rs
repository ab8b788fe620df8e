//! Pods that go: the leader's is deleted, all are replaced while streams change. Nothing is lost, and no call is made twice.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use node::commands::{apply, eventually, kubectl};
use node::stage::{OPERATOR, Stage, streams};
use packages::objects::NAMESPACE;
use simulated_aws::world::{PlantedStream, Settings, World};

#[tokio::test(flavor = "multi_thread")]
async fn when_the_leaders_pod_is_deleted_the_other_takes_over_in_under_20_seconds_and_calls_nothing_twice() {
    let names = ["one", "two", "three"];
    let stage = Stage::set(world(&names, 2)).await;
    stage.install().await;
    kubectl("create namespace data").await;
    apply(&streams(&names[..1])).await;
    kubectl("wait --for=condition=Ready strenc/one -n data --timeout=60s").await;

    // As by a drain; and with no time to finish.
    for (how, stream) in [("", "two"), ("--force --grace-period=0", "three")] {
        let first = leader().await;
        let begin = Instant::now();
        kubectl(&format!("delete pod {first} -n {NAMESPACE} --wait=false {how}")).await;
        apply(&streams(&[stream])).await;
        eventually("another leads", 20, async || {
            let now = leader().await;
            !now.is_empty() && now != first
        })
        .await;
        println!("taken over within {:.1} s ({how})", begin.elapsed().as_secs_f64());
        assert!(begin.elapsed() < Duration::from_secs(20));
        kubectl(&format!("wait --for=condition=Ready strenc/{stream} -n data --timeout=60s")).await;
        kubectl(&format!("rollout status {OPERATOR} --timeout=60s")).await;
    }
    assert_eq!(stage.changes(), once(&names));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_50_streams_change_all_pods_are_replaced_and_none_is_lost_or_called_twice() {
    let names: Vec<String> = (0..50).map(|number| format!("stream-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let stage = Stage::set(world(&names, 20)).await;
    stage.install().await;
    kubectl("create namespace data").await;
    apply(&streams(&names)).await;
    eventually("some are under way", 30, async || stage.changes().len() >= 10).await;
    let under_way = stage.changes().len();
    kubectl(&format!("rollout restart {OPERATOR}")).await;
    kubectl(&format!("rollout status {OPERATOR} --timeout=90s")).await;
    println!(
        "{under_way} of 50 were under way when the pods were replaced, {} after it",
        stage.changes().len()
    );
    assert!(under_way < 50, "the restart came too late to show anything");
    kubectl("wait --for=condition=Ready strenc --all -n data --timeout=180s").await;
    let mut changes = stage.changes();
    for outcomes in changes.values_mut() {
        // AWS has not done what it throttles: in the second of the handover the old leader's pace and the new one's add up.
        outcomes.retain(|outcome| outcome != "ThrottlingException");
    }
    assert_eq!(changes, once(&names));
}

/// Streams in plain text, whose encryption takes so many seconds.
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

/// The pod that holds the lease.
async fn leader() -> String {
    kubectl(&format!(
        "get lease/stream-encryption-operator -n {NAMESPACE} -o jsonpath={{.spec.holderIdentity}}"
    ))
    .await
}
