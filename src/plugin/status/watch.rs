//! `status --watch`: prints the row of a stream again whenever its state changes, and when its resource is deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};

use super::{Arguments, Columns, has_any, table};
use crate::kubernetes::connection::WATCH_SECONDS;
use crate::kubernetes::watches::unwrap_trimmed;
use crate::plugin::cluster::{Cluster, Found, PAGE, Scope};
use crate::plugin::fleet::{Entry, Finding};
use crate::plugin::output::{Format, UntilClosed, printable, stdout, write_next, write_row};
use crate::telemetry::error_chain;

/// Prints the changes after the rows of `seen`, until interrupted or until the reader of the output leaves.
pub(super) async fn run(
    cluster: &Cluster,
    scope: &Scope,
    seen: Vec<Entry>,
    arguments: &Arguments,
) -> anyhow::Result<()> {
    let mut config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
    config.label_selector.clone_from(&scope.selector);
    let events = watcher(cluster.api(scope), config).default_backoff().map_ok(unwrap_trimmed);
    let mut errors = UntilClosed::of(std::io::stderr());
    print_changes(events, scope, seen, arguments, &mut stdout(), &mut errors).await
}

/// Prints the row of each stream whose state changes or whose resource is deleted, and of each new one. Reports a failure of
/// the watch to `errors` and goes on: the watch connects again.
async fn print_changes(
    events: impl Stream<Item = watcher::Result<Event<DynamicObject>>>,
    scope: &Scope,
    seen: Vec<Entry>,
    arguments: &Arguments,
    out: &mut UntilClosed<impl Write>,
    errors: &mut UntilClosed<impl Write>,
) -> anyhow::Result<()> {
    let mut events = std::pin::pin!(events);
    let columns = Columns { namespace: scope.namespace.is_none(), wide: arguments.output == Format::Wide };
    let widths = table(&seen, scope, arguments.output, Timestamp::now()).widths();
    let shown = seen.into_iter().map(|entry| (id(&entry), entry)).collect();
    let mut rows = Rows { only: &arguments.only, shown, listed: BTreeSet::new() };
    while let Some(next) = events.next().await {
        match next {
            Ok(event) => {
                for entry in rows.take(event, Timestamp::now()) {
                    if !write_next(out, arguments.output, &entry)? {
                        write_row(out, &columns.cells(&entry, Timestamp::now()), &widths)?;
                    }
                    out.flush()?;
                }
            }
            Err(error) => {
                let why = error_chain(&error);
                writeln!(errors, "The watch failed and is repeated: {}.", printable(&why))?;
            }
        }
        // The reader, such as `head`, has seen enough.
        if out.is_closed() || errors.is_closed() {
            break;
        }
    }
    Ok(())
}

/// The namespace and the name of a resource.
type Id = (String, String);

fn id(entry: &Entry) -> Id {
    (entry.namespace.clone(), entry.resource.clone())
}

/// The rows that have been printed.
struct Rows<'a> {
    /// The findings of which a stream must have one to be printed; empty for all streams.
    only: &'a [Finding],
    /// The last row of each stream, except for those whose last row shows that they are gone.
    shown: BTreeMap<Id, Entry>,
    /// The resources of a list that is not complete yet.
    listed: BTreeSet<Id>,
}

impl Rows<'_> {
    /// Records an event, and returns the rows to print.
    fn take(&mut self, event: Event<DynamicObject>, now: Timestamp) -> Vec<Entry> {
        let entry = |object| Entry::of(&Found::of(object)).with_age(now);
        match event {
            Event::Apply(object) => self.changed(entry(object)).into_iter().collect(),
            Event::InitApply(object) => {
                let entry = entry(object);
                self.listed.insert(id(&entry));
                self.changed(entry).into_iter().collect()
            }
            Event::Delete(object) => {
                let last = self.shown.remove(&id(&entry(object)));
                last.map(Entry::deleted).into_iter().collect()
            }
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            // A deletion while no watch was connected has no event of its own: the resource is missing in the next list.
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let gone = self.shown.extract_if(.., |id, _| !listed.contains(id));
                gone.map(|(_, last)| last.deleted()).collect()
            }
        }
    }

    /// Returns the row if it is not the last one of its stream. A stream that `--only` no longer selects is printed once more,
    /// so that its last row does not show a state that it has left.
    fn changed(&mut self, entry: Entry) -> Option<Entry> {
        let is_news = if self.only.is_empty() || has_any(&entry, self.only) {
            let last = self.shown.insert(id(&entry), entry.clone());
            last.is_none_or(|last| visible(&last) != visible(&entry))
        } else {
            self.shown.remove(&id(&entry)).is_some()
        };
        is_news.then_some(entry)
    }
}

/// Returns what decides whether a row is printed again.
fn visible(entry: &Entry) -> impl PartialEq + use<> {
    (
        (entry.state, entry.ready, entry.reason.clone(), entry.encryption_status),
        (entry.active_key.clone(), entry.calls_used, entry.next_attempt_time),
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use futures_util::stream;
    use serde_json::{Value, json};

    use super::super::print_entries;
    use super::*;

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        arguments: Arguments,
    }

    type Events = Vec<watcher::Result<Event<DynamicObject>>>;

    fn resource(reason: &str) -> DynamicObject {
        let condition = json!({"type": "Ready", "status": "False", "reason": reason, "message": "why",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let resource = json!({"apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": {"name": "orders", "namespace": "data"},
            "spec": {"stream": {"service": "Kinesis", "name": "Orders"}},
            "status": {"conditions": [condition]}});
        serde_json::from_value(resource).unwrap()
    }

    fn changed(reason: &str) -> Event<DynamicObject> {
        Event::Apply(resource(reason))
    }

    fn listed(reason: &str) -> Event<DynamicObject> {
        Event::InitApply(resource(reason))
    }

    fn deleted() -> Event<DynamicObject> {
        Event::Delete(resource("Encrypted"))
    }

    fn failed() -> watcher::Result<Event<DynamicObject>> {
        Err(watcher::Error::NoResourceVersion)
    }

    /// Returns what a watch with these flags prints that begins with these resources, and its errors.
    async fn watched(flags: &[&str], first: &[DynamicObject], events: Events) -> (String, String) {
        let arguments = Program::parse_from([&["status", "--watch"][..], flags].concat()).arguments;
        let scope = Scope { namespace: Some("data".to_owned()), selector: None };
        let seen: Vec<Entry> = first.iter().map(|object| Entry::of(&Found::of(object.clone()))).collect();
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        print_entries(&seen, &scope, &arguments, Timestamp::UNIX_EPOCH, &mut out).unwrap();
        let mut to = UntilClosed::of(&mut out);
        let mut errors_to = UntilClosed::of(&mut errors);
        let events = stream::iter(events);
        print_changes(events, &scope, seen, &arguments, &mut to, &mut errors_to).await.unwrap();
        (String::from_utf8(out).unwrap(), String::from_utf8(errors).unwrap())
    }

    /// Returns the reasons in the rows of a table.
    fn reasons(table: &str) -> Vec<&str> {
        table.lines().filter_map(|line| line.split(['(', ')']).nth(1)).collect()
    }

    #[tokio::test]
    async fn watch_prints_single_objects_from_the_beginning() {
        for (first, expected) in [
            (&[][..], &["Enabling", "EnablingFailed"][..]),
            (&[resource("Encrypted")], &["Encrypted", "Enabling", "EnablingFailed"]),
        ] {
            let changes = || vec![Ok(changed("Enabling")), Ok(changed("EnablingFailed"))];
            let (json, _) = watched(&["-o", "json"], first, changes()).await;
            let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let (yaml, _) = watched(&["-o", "yaml"], first, changes()).await;
            let documents: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap();
            for objects in [lines, documents] {
                let reasons: Vec<&str> = objects.iter().filter_map(|one| one["reason"].as_str()).collect();
                assert_eq!(reasons, expected, "{json}{yaml}");
            }
            let (csv, _) = watched(&["-o", "csv"], first, changes()).await;
            assert_eq!(csv.lines().count(), 1 + expected.len(), "{csv}");
        }
    }

    #[tokio::test]
    async fn watch_prints_once_that_a_stream_matches_no_longer() {
        let mut events: Events =
            ["Enabling", "Encrypted", "KeyDisabled", "Encrypted"].map(|reason| Ok(changed(reason))).into();
        // Its row already shows that it is gone.
        events.push(Ok(deleted()));
        let (table, _) = watched(&["--only", "attention"], &[resource("KeyDisabled")], events).await;
        assert_eq!(reasons(&table), ["KeyDisabled", "Enabling", "KeyDisabled", "Encrypted"], "{table}");
    }

    #[tokio::test]
    async fn watch_prints_once_that_a_resource_is_deleted() {
        let first = [resource("Encrypted")];
        let events = vec![Ok(deleted()), Ok(deleted()), Ok(changed("Encrypted")), Ok(deleted())];
        let (table, _) = watched(&[], &first, events).await;
        assert_eq!(reasons(&table), ["Encrypted", "Deleted", "Encrypted", "Deleted"], "{table}");
        let (json, _) = watched(&["-o", "json"], &first, vec![Ok(deleted())]).await;
        let last: Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
        let fields = ["namespace", "resource", "service", "name", "state", "ready", "reason"];
        let values = fields.map(|field| last[field].as_str().unwrap_or_default());
        assert_eq!(values, ["data", "orders", "Kinesis", "Orders", "Unknown", "Unknown", "Deleted"]);
    }

    #[tokio::test]
    async fn deletion_missed_by_the_watch_is_printed_after_a_list() {
        let first = [resource("Encrypted")];
        let events = vec![Ok(Event::Init), Ok(Event::InitDone), Ok(Event::Init), Ok(Event::InitDone)];
        let (table, _) = watched(&[], &first, events).await;
        assert_eq!(reasons(&table), ["Encrypted", "Deleted"], "{table}");
        // A list that fails shows no deletion.
        let events =
            vec![Ok(Event::Init), failed(), Ok(Event::Init), Ok(listed("Encrypted")), Ok(Event::InitDone)];
        let (table, _) = watched(&[], &first, events).await;
        assert_eq!(reasons(&table), ["Encrypted"], "{table}");
    }

    #[tokio::test]
    async fn watch_reports_each_failure_and_goes_on() {
        let events = vec![
            failed(),
            Ok(changed("Enabling")),
            failed(),
            failed(),
            // After a failure, the watch lists all objects again.
            Ok(Event::Init),
            Ok(listed("Enabling")),
            Ok(Event::InitDone),
            Ok(changed("EnablingFailed")),
        ];
        let (table, errors) = watched(&[], &[], events).await;
        assert_eq!(reasons(&table), ["Enabling", "EnablingFailed"], "{table}");
        let errors: Vec<&str> = errors.lines().collect();
        assert_eq!(errors.len(), 3, "{errors:?}");
        assert!(errors[0].starts_with("The watch failed and is repeated: "), "{errors:?}");
    }

    #[tokio::test]
    async fn watch_ends_once_its_reader_has_left() {
        let arguments = Program::parse_from(["status", "--watch"]).arguments;
        let scope = Scope { namespace: Some("data".to_owned()), selector: None };
        for first in [Ok(changed("Enabling")), failed()] {
            let (reader, pipe) = std::io::pipe().unwrap();
            drop(reader);
            let (mut out, mut errors) = (UntilClosed::of(&pipe), UntilClosed::of(&pipe));
            let mut events = stream::iter(vec![first, Ok(changed("Encrypted"))]);
            let ended =
                print_changes(&mut events, &scope, Vec::new(), &arguments, &mut out, &mut errors).await;
            ended.unwrap();
            assert!(events.next().await.is_some(), "the watch went on");
        }
    }
}
