//! The kustomization, which lists the policies and the manifests. Pure.
//!
//! Entries and fields that a person added stay, with their comments.

use std::collections::BTreeSet;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

use super::manifests;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Kustomization<'a> {
    api_version: &'static str,
    kind: &'static str,
    resources: &'a [String],
}

/// How many resources an error names: a folder may have thousands.
const NAMED: usize = 10;

/// Returns the kustomization with all these resources. An entry that is `gone` is left out of a kustomization in
/// `adopt`'s form, because kustomize refuses a resource without a file.
pub fn extended(
    existing: Option<&str>,
    resources: &[String],
    gone: &BTreeSet<String>,
) -> anyhow::Result<String> {
    let Some(text) = existing else { return written(resources) };
    let parsed = serde_saphyr::from_str::<Value>(text).ok();
    let listed = parsed.as_ref().and_then(|parsed| strings(&parsed["resources"]));
    let listed = listed.with_context(|| by_hand("no list of resources", resources))?;
    if written(&listed)? == text {
        let others = listed.into_iter().filter(|path| !resources.contains(path) && !gone.contains(path));
        return written(&resources.iter().cloned().chain(others).collect::<Vec<_>>());
    }
    let is_missing = |path: &&String| !has(&listed, path);
    let missing: Vec<&String> = resources.iter().filter(is_missing).collect();
    if missing.is_empty() {
        return Ok(text.to_owned());
    }
    let longer = inserted(text, &listed, &missing);
    let is_right = |longer: &String| {
        let parsed = serde_saphyr::from_str::<Value>(longer).ok();
        let found = parsed.and_then(|parsed| strings(&parsed["resources"])).unwrap_or_default();
        found.len() == listed.len() + missing.len() && resources.iter().all(|path| has(&found, path))
    };
    longer.filter(is_right).with_context(|| by_hand("another form", missing.iter().copied()))
}

/// The names that kustomize accepts for its file; `adopt` creates the first one.
pub const FILES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// Returns the manifests that the kustomization of a folder may list.
#[must_use]
pub fn manifests_in(text: &str) -> Vec<String> {
    let parsed = serde_saphyr::from_str::<Value>(text).ok();
    let listed = parsed.and_then(|parsed| strings(&parsed["resources"])).unwrap_or_default();
    listed.into_iter().filter(|path| path.starts_with("streams/")).collect()
}

/// Returns the namespace that a kustomization gives to its resources.
#[must_use]
pub fn namespace_of(text: &str) -> Option<String> {
    let parsed = serde_saphyr::from_str::<Value>(text).ok()?;
    Some(parsed["namespace"].as_str()?.to_owned())
}

/// Returns what the person must add to a kustomization that has something else than expected.
fn by_hand<'a>(what: &str, resources: impl IntoIterator<Item = &'a String>) -> String {
    let paths: Vec<&str> = resources.into_iter().map(String::as_str).collect();
    let named = paths.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    let more = match paths.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(", and {more} more manifests below streams"),
    };
    format!("has {what} and was left as it is: add these resources to it: {named}{more}")
}

fn written(resources: &[String]) -> anyhow::Result<String> {
    let (api_version, kind) = ("kustomize.config.k8s.io/v1beta1", "Kustomization");
    manifests::yaml(&Kustomization { api_version, kind, resources })
}

fn strings(list: &Value) -> Option<Vec<String>> {
    list.as_array()?.iter().map(|item| item.as_str().map(ToOwned::to_owned)).collect()
}

fn has(listed: &[String], path: &str) -> bool {
    listed.iter().any(|one| one.trim_start_matches("./") == path)
}

/// Returns the text with more items after the last one that it lists.
fn inserted(text: &str, listed: &[String], missing: &[&String]) -> Option<String> {
    let last = listed.last()?;
    let is_last =
        |line: &&str| line.trim_start().strip_prefix("- ").is_some_and(|item| item.contains(last.as_str()));
    let line = text.lines().rfind(is_last)?;
    let indent = &line[..line.len() - line.trim_start().len()];
    let mut longer: Vec<String> = Vec::new();
    for one in text.lines() {
        longer.push(one.to_owned());
        if std::ptr::eq(one, line) {
            longer.extend(missing.iter().map(|path| format!("{indent}- {path}")));
        }
    }
    Some(longer.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(paths: &[&str]) -> Vec<String> {
        paths.iter().map(|&path| path.to_owned()).collect()
    }

    #[test]
    fn edits_of_a_kustomization_stay() {
        let text =
            "# Ours.\nnamespace: data\nresources:\n  - ./policy.yaml\n  - alarm.yaml # a note\nlabels: []\n";
        let made =
            extended(Some(text), &paths(&["policy.yaml", "streams/a.yaml"]), &BTreeSet::new()).unwrap();
        assert_eq!(made, text.replace("labels", "  - streams/a.yaml\nlabels"));
        assert_eq!(extended(Some(&made), &paths(&["policy.yaml"]), &BTreeSet::new()).unwrap(), made);
    }

    #[test]
    fn resource_of_a_person_stays_and_a_gone_one_does_not() {
        let old = written(&paths(&["policy.yaml", "streams/gone.yaml", "streams/kept.yaml", "alarm.yaml"]))
            .unwrap();
        let gone = paths(&["streams/gone.yaml"]).into_iter().collect();
        let made = extended(Some(&old), &paths(&["policy.yaml", "streams/new.yaml"]), &gone).unwrap();
        let wanted = ["policy.yaml", "streams/new.yaml", "streams/kept.yaml", "alarm.yaml"];
        assert_eq!(made, written(&paths(&wanted)).unwrap());
    }

    #[test]
    fn kustomization_of_another_form_names_the_resources() {
        for text in ["resources: [policy.yaml]\n", "{", "resources: x\n"] {
            let error = extended(Some(text), &paths(&["policy.yaml", "streams/a.yaml"]), &BTreeSet::new());
            assert!(error.unwrap_err().to_string().starts_with("has "), "{text}");
        }
    }
}
