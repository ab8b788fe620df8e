//! The output that a user would see: each change of a resource's `Ready` condition and encryption status as
//! it happens, and the events that no status shows.

use std::collections::HashMap;
use std::time::Instant;

use futures_util::StreamExt as _;
use k8s_openapi::api::events::v1::Event;
use kube::api::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use stream_encryption_api::condition::{ConditionType, Reason, find};
use stream_encryption_api::stream_encryption::{EncryptionStatus, StreamEncryption};

/// Prints a line for each transition and each such event, indefinitely.
pub(crate) async fn tell(client: Client, started: Instant) {
    tokio::join!(transitions(client.clone(), started), events(client, started));
}

/// Prints the events that do not report a change of `Ready`; the others already have a line.
async fn events(client: Client, started: Instant) {
    let api: Api<Event> = Api::namespaced(client, "data");
    let mut events = watcher(api, watcher::Config::default()).default_backoff().applied_objects().boxed();
    while let Some(event) = events.next().await {
        let Ok(event) = event else { continue };
        let reason = event.reason.unwrap_or_default();
        if reason.parse::<Reason>().is_err() {
            let name = event.regarding.and_then(|about| about.name).unwrap_or_default();
            let seconds = started.elapsed().as_secs_f64();
            println!(
                "{seconds:>5.1}s  {name:<10} {:<16} {reason:<18} {:<6} {}",
                "event",
                "",
                event.note.unwrap_or_default()
            );
        }
    }
}

async fn transitions(client: Client, started: Instant) {
    let api: Api<StreamEncryption> = Api::namespaced(client, "data");
    let mut changes = watcher(api, watcher::Config::default()).default_backoff().applied_objects().boxed();
    let mut last: HashMap<String, String> = HashMap::new();
    println!("{:>6}  {:<10} {:<16} {:<18} {:<6} message", "time", "name", "AWS reports", "reason", "calls");
    while let Some(change) = changes.next().await {
        let Ok(resource) = change else { continue };
        let name = resource.name_any();
        let Some(line) = line(&resource) else { continue };
        if last.insert(name.clone(), line.clone()).as_ref() != Some(&line) {
            println!("{:>5.1}s  {name:<10} {line}", started.elapsed().as_secs_f64());
        }
    }
}

fn line(resource: &StreamEncryption) -> Option<String> {
    let status = resource.status.as_ref()?;
    let ready = find(&status.conditions, ConditionType::Ready)?;
    let shown = status.encryption_status.map_or("-", EncryptionStatus::as_str);
    let calls =
        status.calls.as_ref().map_or("-".to_owned(), |calls| format!("{}/{}", calls.used, calls.limit));
    // The account and region are the same in every line.
    let message = ready.message.replace("arn:aws:kms:eu-west-1:111122223333:", "");
    let mut words: String = message.chars().take(110).collect();
    if words.len() < message.len() {
        words.push('…');
    }
    Some(format!("{shown:<16} {:<18} {calls:<6} {words}", ready.reason))
}
