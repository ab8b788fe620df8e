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
    Some(format!("{shown:<16} {:<18} {calls:<6} {}", ready.reason, shortened(&ready.message)))
}

/// Returns a message with its keys in short, `key/22222222-…`. The rest is whole, because a message ends with the remedy.
fn shortened(message: &str) -> String {
    // The account and region are the same in every line.
    let message = message.replace("arn:aws:kms:eu-west-1:111122223333:", "");
    let mut parts = message.split("key/");
    let mut words = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let id = part.chars().take_while(|c| c.is_ascii_hexdigit() || *c == '-').count();
        let short = if id == KEY_ID { format!("{}…", &part[..9]) } else { part[..id].to_owned() };
        words.push_str("key/");
        words.push_str(&short);
        words.push_str(&part[id..]);
    }
    words
}

/// Number of characters of a key's id.
const KEY_ID: usize = 36;

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn message_keeps_its_remedy() {
        let [denied, active] = ["4", "2"].map(|digit| {
            let part = |length: usize| digit.repeat(length);
            format!(
                "arn:aws:kms:eu-west-1:111122223333:key/{}-{}-{}-{}-{}",
                part(8),
                part(4),
                part(4),
                part(4),
                part(12)
            )
        });
        let remedy = "Fix the key or its policy, then change the annotation streamencryption.dev/retry to retry immediately.";
        assert_eq!(
            shortened(&format!(
                "AWS could not encrypt with {denied}: KMS_ACCESS_DENIED. {active} is the active key. {remedy}"
            )),
            format!(
                "AWS could not encrypt with key/44444444-…: KMS_ACCESS_DENIED. key/22222222-… is the active key. {remedy}"
            )
        );
    }
}
