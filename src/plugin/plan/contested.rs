//! Streams that several resources name. Each object is planned as if it were the only one in the files, so its plan does
//! not show that only one of them can manage the stream. Pure.

use std::collections::{BTreeMap, BTreeSet};

use stream_encryption_api::condition::Reason;

use crate::plugin::fleet::Entry;

/// Returns a sentence for each stream that several resources of the files name, or one of the files and another one of
/// the cluster. `planned` are the resources of the files, each after its stream. `stored` are those of the cluster; empty
/// if the plan itself shows which of them manage a stream.
pub(super) fn warnings(planned: &[(String, String)], stored: &[Entry]) -> Vec<String> {
    let mut streams: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (stream, name) in planned {
        streams.entry(stream).or_default().insert(name);
    }
    let mut warnings = Vec::new();
    for (stream, names) in streams {
        let list = names.iter().copied().collect::<Vec<_>>().join(", ");
        if names.len() > 1 {
            warnings.push(format!(
                "The files have several resources for {stream}: {list}. Each is planned as if it were the only one, but only one can manage the stream: the others will report {}.",
                Reason::StreamAlreadyManaged
            ));
        }
        let others = stored.iter().filter(|entry| may_manage(entry, stream));
        for other in others.map(|entry| format!("{}/{}", entry.namespace, entry.resource)) {
            if !names.contains(other.as_str()) {
                warnings.push(format!(
                    "{other} of the cluster has the stream {stream}, too. While it manages the stream, {list} will report {}.",
                    Reason::StreamAlreadyManaged
                ));
            }
        }
    }
    warnings
}

/// Returns whether a resource of the cluster may manage the stream.
fn may_manage(entry: &Entry, stream: &str) -> bool {
    let manages_none = [Reason::StreamAlreadyManaged, Reason::NotPermitted, Reason::SpecInvalid];
    entry.stream.as_deref() == Some(stream)
        && !manages_none.iter().any(|reason| entry.reason.as_deref() == Some(reason.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(resources: &[(&str, &str)]) -> Vec<(String, String)> {
        resources.iter().map(|(name, stream)| ((*stream).to_owned(), format!("data/{name}"))).collect()
    }

    fn stored(resource: &str, stream: &str, reason: &str) -> Entry {
        Entry {
            namespace: "data".to_owned(),
            resource: resource.to_owned(),
            stream: Some(stream.to_owned()),
            reason: Some(reason.to_owned()),
            ..Entry::default()
        }
    }

    #[test]
    fn two_resources_of_the_files_for_one_stream_are_named() {
        let files = planned(&[("s1", "one"), ("s2", "two"), ("s1b", "one")]);
        let [warning] = &warnings(&files, &[])[..] else { panic!("one warning") };
        assert!(warning.contains("for one: data/s1, data/s1b."), "{warning}");
        assert!(warning.ends_with("StreamAlreadyManaged."), "{warning}");
        // The same object twice has a warning of its own.
        assert!(warnings(&planned(&[("s1", "one"), ("s1", "one")]), &[]).is_empty());
    }

    #[test]
    fn resource_of_the_cluster_for_the_stream_is_named() {
        let others = [
            stored("s1", "one", "Encrypted"),
            stored("s1b", "one", "Encrypted"),
            stored("s2", "two", "Encrypted"),
            stored("s3", "one", "StreamAlreadyManaged"),
        ];
        let [warning] = &warnings(&planned(&[("s1b", "one")]), &others)[..] else { panic!("one warning") };
        assert!(warning.starts_with("data/s1 of the cluster has the stream one"), "{warning}");
    }
}
