//! What a person can do about a resource: commands to copy, by the reason of Ready. Pure; nothing is run.
//!
//! A person copies a command into a shell, so a text of the status or of the spec gets into it only after it was parsed.

use stream_encryption_api::condition::{Reason, Remedy};
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_api::{RETRY_ANNOTATION, SUSPEND_ANNOTATION};
use stream_encryption_core::model::arn::{KeyArn, check_name};

use super::deletion::Deletion;
use crate::plugin::fleet::Entry;
use crate::plugin::operator_settings::LABEL;

/// The effect of a command that lets a deletion with `deletionPolicy: Disable` continue.
const DISABLES: &str = ", which disables encryption";

/// Returns the actions for a resource, the most useful first. `resource` is `None` if it cannot be read.
pub(super) fn of(
    entry: &Entry,
    resource: Option<&StreamEncryption>,
    operator_namespace: &str,
) -> Vec<String> {
    let reason = entry.reason.as_ref().and_then(|reason| reason.parse::<Reason>().ok());
    let of_reason = |effect: &str| {
        let actions = reason.map(|reason| by_reason(entry, resource, reason, effect, operator_namespace));
        actions.unwrap_or_default()
    };
    match resource.and_then(Deletion::of) {
        None => of_reason(""),
        // The operator makes no call any more. The stream may be encrypted, and then needs its key.
        Some(deletion) if !deletion.disables_encryption => {
            reason.map(|reason| key_commands(entry, reason)).unwrap_or_default()
        }
        Some(_) => {
            let name = name(entry);
            let mut actions = vec![format!(
                "Keep the encryption as it is:  kubectl patch strenc {name} --type=merge -p '{{\"spec\":{{\"deletionPolicy\":\"Retain\"}}}}'"
            )];
            let others =
                if entry.suspended { resume(&name, resource, DISABLES) } else { of_reason(DISABLES) };
            actions.extend(others);
            actions
        }
    }
}

/// Returns the resource as the arguments of a kubectl command.
fn name(entry: &Entry) -> String {
    format!("{} -n {}", entry.resource, entry.namespace)
}

/// Returns the actions for a reason of Ready. The words before a retry or a resumption end with `effect`.
fn by_reason(
    entry: &Entry,
    resource: Option<&StreamEncryption>,
    reason: Reason,
    effect: &str,
    operator_namespace: &str,
) -> Vec<String> {
    let name = name(entry);
    let mut actions = match reason {
        // The operator makes no call with any key of its choice, not even after a retry.
        Reason::ActiveKeyUnknown if entry.desired_key.is_none() => Vec::new(),
        Reason::EnablingFailed
        | Reason::DisablingFailed
        | Reason::NotApplied
        | Reason::CallRefused
        | Reason::KeyAccessDenied
        | Reason::ActiveKeyUnknown
        | Reason::DriftCorrectionLimitReached => vec![format!(
            "Retry at once{effect}, after the cause is fixed:  kubectl annotate strenc {name} --overwrite {RETRY_ANNOTATION}=\"$(date +%s)\""
        )],
        Reason::Drifted => vec![format!(
            "Let the operator correct it:  kubectl patch strenc {name} --type=merge -p '{{\"spec\":{{\"mode\":\"Enforce\"}}}}'"
        )],
        Reason::Suspended => resume(&name, resource, effect),
        Reason::NotPermitted | Reason::ConflictingPolicyRoles | Reason::DisableNotPermitted => {
            vec!["See which policies there are:  kubectl get strencpol".to_owned()]
        }
        Reason::StreamAlreadyManaged => other_resource(entry).into_iter().collect(),
        // If calls are left, the limit is AWS's own, and no policy raises it.
        Reason::CallLimitReached if entry.calls_left() == Some(0) => {
            vec!["See the limits of the policies:  kubectl get strencpol".to_owned()]
        }
        // The name of the Deployment depends on the installation; its label does not.
        Reason::LedgerInvalid => {
            vec![format!("Read the log:  kubectl logs -n {operator_namespace} -l {LABEL} --prefix --tail=-1")]
        }
        Reason::SourceNotDirectPut => vec![format!("Delete the resource:  kubectl delete strenc {name}")],
        _ => Vec::new(),
    };
    actions.extend(key_commands(entry, reason));
    if actions.is_empty() && reason.remedy() == Remedy::Person {
        actions.push(format!("Read what to do about {reason}:  docs/conditions.md#reasons"));
    }
    actions
}

/// Returns the commands that end a suspension. Both the spec and the annotation can cause it.
fn resume(name: &str, resource: Option<&StreamEncryption>, effect: &str) -> Vec<String> {
    let mut actions = Vec::new();
    if resource.is_some_and(|resource| resource.spec.suspend) {
        actions.push(format!(
            "Resume{effect}:  kubectl patch strenc {name} --type=merge -p '{{\"spec\":{{\"suspend\":false}}}}'"
        ));
    }
    let annotations = resource.and_then(|resource| resource.metadata.annotations.as_ref());
    if annotations.is_some_and(|annotations| annotations.contains_key(SUSPEND_ANNOTATION)) {
        actions.push(format!("Resume{effect}:  kubectl annotate strenc {name} {SUSPEND_ANNOTATION}-"));
    }
    actions
}

/// Returns the command that finds the other resource of the stream; `None` if the stream cannot have this name. A name may
/// begin with a hyphen, as a flag does.
fn other_resource(entry: &Entry) -> Option<String> {
    check_name(entry.service?, &entry.name).ok()?;
    Some(format!("Find the other resource:  kubectl streamencryption status -A | grep -e {}", entry.name))
}

/// Returns the AWS commands that make the unusable key usable: the active one if that is lost, otherwise the desired one.
fn key_commands(entry: &Entry, reason: Reason) -> Vec<String> {
    let lost = entry.active_key.as_ref().filter(|_| entry.active_key_unusable_since_time.is_some());
    let Some(key) = lost.or(entry.desired_key.as_ref()) else { return Vec::new() };
    let Ok(key) = key.parse::<KeyArn>() else { return Vec::new() };
    let commands: &[_] = match reason {
        Reason::KeyDisabled => &[("Make the key usable", "enable-key")],
        // KMS leaves the key disabled.
        Reason::KeyPendingDeletion => {
            &[("Keep the key", "cancel-key-deletion"), ("Then make it usable", "enable-key")]
        }
        _ => &[],
    };
    let words = |(what, command): &(&str, &str)| {
        format!("{what}:  aws kms {command} --key-id {key} --region {}", key.region)
    };
    commands.iter().map(words).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use stream_encryption_api::FINALIZER;

    use super::*;
    use crate::plugin::cluster::Found;

    fn explained(spec: &serde_json::Value, reason: &str, more: &serde_json::Value) -> Vec<String> {
        explained_with(&json!({}), spec, reason, more)
    }

    fn explained_with(
        metadata: &serde_json::Value,
        spec: &serde_json::Value,
        reason: &str,
        more: &serde_json::Value,
    ) -> Vec<String> {
        let mut status = json!({"conditions": [{"type": "Ready", "status": "False", "reason": reason,
            "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut object = json!({
            "apiVersion": "streamencryption.dev/v1alpha1",
            "kind": "StreamEncryption",
            "metadata": {"name": "orders", "namespace": "data", "annotations": {SUSPEND_ANNOTATION: "true"}},
            "spec": {"stream": {"service": "Kinesis", "name": "orders"}},
            "status": status,
        });
        object["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let resource: StreamEncryption = serde_json::from_value(object).unwrap();
        let found = Found {
            namespace: "data".to_owned(),
            name: "orders".to_owned(),
            resource: Ok(Box::new(resource.clone())),
        };
        of(&Entry::of(&found), Some(&resource), "encryption")
    }

    #[test]
    fn each_action_names_the_resource() {
        for reason in ["EnablingFailed", "Drifted", "SourceNotDirectPut"] {
            let actions = explained(&json!({}), reason, &json!({}));
            assert!(actions[0].contains("strenc orders -n data"), "{actions:?}");
        }
    }

    /// The message of Ready has the same advice in words.
    #[test]
    fn action_does_not_repeat_the_message() {
        let calls = |used: u32| json!({"calls": {"used": used, "limit": 20}});
        let all_used = explained(&json!({}), "CallLimitReached", &calls(20));
        assert_eq!(all_used, ["See the limits of the policies:  kubectl get strencpol"]);
        let limit_of_aws = explained(&json!({}), "CallLimitReached", &calls(3));
        assert!(limit_of_aws[0].starts_with("Read what to do about CallLimitReached"), "{limit_of_aws:?}");
        let source = explained(&json!({}), "SourceNotDirectPut", &json!({}));
        assert_eq!(source, ["Delete the resource:  kubectl delete strenc orders -n data"]);
    }

    #[test]
    fn retry_is_offered_only_where_it_has_an_effect() {
        let key = json!({"desiredKey": {"type": "AWS_OWNED_CMK"}});
        assert!(explained(&json!({}), "ActiveKeyUnknown", &key)[0].starts_with("Retry"));
        let without_key = explained(&json!({}), "ActiveKeyUnknown", &json!({}));
        assert!(without_key[0].starts_with("Read what to do"), "{without_key:?}");
    }

    #[test]
    fn suspension_by_both_ways_has_two_commands() {
        let actions = explained(&json!({"suspend": true}), "Suspended", &json!({}));
        assert_eq!(actions.len(), 2, "{actions:?}");
        assert!(actions[1].ends_with("streamencryption.dev/suspend-"));
    }

    /// Whoever copies the command must know that it disables encryption.
    #[test]
    fn command_that_continues_a_deletion_names_its_effect() {
        let suspended = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [FINALIZER]});
        let mut resumed = suspended.clone();
        resumed["annotations"] = json!({});
        let disable = json!({"deletionPolicy": "Disable"});
        for (metadata, reason, label) in [
            (&suspended, "Suspended", "Resume, which disables encryption:"),
            (&resumed, "DisablingFailed", "Retry at once, which disables encryption, after"),
        ] {
            let actions = explained_with(metadata, &disable, reason, &json!({}));
            assert_eq!(actions.len(), 2, "{actions:?}");
            assert!(
                actions[0].starts_with("Keep the encryption as it is:  kubectl patch strenc orders -n data")
                    && actions[0].contains(r#"{"deletionPolicy":"Retain"}"#),
                "{actions:?}"
            );
            assert!(actions[1].starts_with(label), "{actions:?}");
        }
        let reasons = ["Suspended", "DisablingFailed"];
        let retained = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        for actions in reasons.map(|reason| explained_with(&retained, &json!({}), reason, &json!({}))) {
            assert!(actions.is_empty(), "the operator does nothing more: {actions:?}");
        }
    }

    #[test]
    fn lost_active_key_is_the_one_to_enable() {
        let key = |id: &str| json!({"type": "CUSTOMER_MANAGED_CMK", "arn": format!("arn:aws:kms:eu-west-1:111122223333:key/{id}")});
        let keys = json!({"activeKey": key("old"), "desiredKey": key("new")});
        let desired = explained(&json!({}), "KeyDisabled", &keys);
        assert!(
            desired[0].contains(
                "enable-key --key-id arn:aws:kms:eu-west-1:111122223333:key/new --region eu-west-1"
            )
        );
        let mut lost = keys;
        lost["activeKeyUnusableSinceTime"] = json!("2026-01-01T00:00:00Z");
        assert!(explained(&json!({}), "KeyDisabled", &lost)[0].contains("key/old"));
    }

    #[test]
    fn text_that_does_not_parse_gets_into_no_command() {
        for (arn, is_command) in [
            ("arn:aws:kms:eu-west-1:111122223333:key/k", true),
            ("arn:aws:kms:eu-west-1:111122223333:key/k;id", false),
            ("arn:aws:kms:$(id):111122223333:key/k", false),
        ] {
            let key = json!({"desiredKey": {"type": "CUSTOMER_MANAGED_CMK", "arn": arn}});
            let actions = explained(&json!({}), "KeyDisabled", &key);
            assert_eq!(actions[0].contains("aws kms enable-key"), is_command, "{actions:?}");
            assert!(is_command || !actions.concat().contains("id"), "{actions:?}");
        }
        for (name, is_command) in [("Orders_EU.1", true), ("-f", true), ("x;id", false), ("", false)] {
            let spec = json!({"stream": {"service": "Kinesis", "name": name}});
            let actions = explained(&spec, "StreamAlreadyManaged", &json!({}));
            assert_eq!(actions[0].ends_with(&format!("| grep -e {name}")), is_command, "{actions:?}");
        }
    }

    #[test]
    fn key_that_is_kept_is_enabled_too() {
        let key = json!({"desiredKey": {"type": "CUSTOMER_MANAGED_CMK", "arn": "arn:aws:kms:eu-west-1:111122223333:key/k"}});
        let actions = explained(&json!({}), "KeyPendingDeletion", &key);
        assert!(
            actions[0].contains("cancel-key-deletion") && actions[1].contains("enable-key"),
            "{actions:?}"
        );
    }

    #[test]
    fn log_is_that_of_the_operator_of_the_flags() {
        let actions = explained(&json!({}), "LedgerInvalid", &json!({}));
        assert!(actions[0].contains("-n encryption -l app.kubernetes.io/name="), "{actions:?}");
    }

    /// A page without the reason would be a dead end.
    #[test]
    fn docs_page_has_each_reason() {
        let page = include_str!("../../../docs/conditions.md");
        for reason in Reason::ALL {
            assert!(page.contains(&format!("`{reason}`")), "{reason}");
        }
    }
}
