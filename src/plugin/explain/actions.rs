//! What a person can do about a resource: commands to copy, by the reason of Ready. Pure; nothing is run.

use stream_encryption_api::condition::{Reason, Remedy};
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_api::{RETRY_ANNOTATION, SUSPEND_ANNOTATION};

use crate::plugin::fleet::Entry;

/// Returns the actions for a resource, the most useful first. `resource` is `None` if its spec is invalid.
pub(super) fn of(entry: &Entry, resource: Option<&StreamEncryption>) -> Vec<String> {
    let Some(reason) = entry.reason.as_ref().and_then(|reason| reason.parse::<Reason>().ok()) else {
        return Vec::new();
    };
    let name = format!("{} -n {}", entry.resource, entry.namespace);
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
            "Retry at once, after the cause is fixed:  kubectl annotate strenc {name} --overwrite {RETRY_ANNOTATION}=\"$(date +%s)\""
        )],
        Reason::Drifted => vec![format!(
            "Let the operator correct it:  kubectl patch strenc {name} --type=merge -p '{{\"spec\":{{\"mode\":\"Enforce\"}}}}'"
        )],
        Reason::Suspended => resume(&name, resource),
        Reason::NotPermitted | Reason::ConflictingPolicyRoles | Reason::DisableNotPermitted => {
            vec!["See which policies there are:  kubectl get strencpol".to_owned()]
        }
        Reason::StreamAlreadyManaged => vec![format!(
            "Find the other resource:  kubectl streamencryption status -A | grep {}",
            entry.name
        )],
        // If calls are left, the limit is AWS's own, and no policy raises it.
        Reason::CallLimitReached if entry.calls_left() == Some(0) => {
            vec!["See the limits of the policies:  kubectl get strencpol".to_owned()]
        }
        Reason::LedgerInvalid => vec![
            "Read the log:  kubectl logs -n stream-encryption-system deploy/stream-encryption-operator --all-pods"
                .to_owned(),
        ],
        Reason::SourceNotDirectPut => vec![format!("Delete the resource:  kubectl delete strenc {name}")],
        _ => Vec::new(),
    };
    actions.extend(key_command(entry, reason));
    if actions.is_empty() && reason.remedy() == Remedy::Person {
        actions.push(format!("Read what to do about {reason}:  docs/conditions.md#reasons"));
    }
    actions
}

/// Returns the commands that end a suspension. Both the spec and the annotation can cause it.
fn resume(name: &str, resource: Option<&StreamEncryption>) -> Vec<String> {
    let mut actions = Vec::new();
    if resource.is_some_and(|resource| resource.spec.suspend) {
        actions.push(format!(
            "Resume:  kubectl patch strenc {name} --type=merge -p '{{\"spec\":{{\"suspend\":false}}}}'"
        ));
    }
    let annotations = resource.and_then(|resource| resource.metadata.annotations.as_ref());
    if annotations.is_some_and(|annotations| annotations.contains_key(SUSPEND_ANNOTATION)) {
        actions.push(format!("Resume:  kubectl annotate strenc {name} {SUSPEND_ANNOTATION}-"));
    }
    actions
}

/// Returns the AWS command that makes the unusable key usable: the active one if that is lost, otherwise the desired one.
fn key_command(entry: &Entry, reason: Reason) -> Option<String> {
    let lost = entry.active_key.as_ref().filter(|_| entry.active_key_unusable_since_time.is_some());
    let key = lost.or(entry.desired_key.as_ref())?;
    let region = key.split(':').nth(3)?;
    let command = match reason {
        Reason::KeyDisabled => "enable-key",
        Reason::KeyPendingDeletion => "cancel-key-deletion",
        _ => return None,
    };
    Some(format!("Make the key usable:  aws kms {command} --key-id {key} --region {region}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin::cluster::Found;

    fn explained(spec: &serde_json::Value, reason: &str, more: &serde_json::Value) -> Vec<String> {
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
        object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let resource: StreamEncryption = serde_json::from_value(object).unwrap();
        let found = Found {
            namespace: "data".to_owned(),
            name: "orders".to_owned(),
            resource: Ok(Box::new(resource.clone())),
        };
        of(&Entry::of(&found), Some(&resource))
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

    /// A page without the reason would be a dead end.
    #[test]
    fn docs_page_has_each_reason() {
        let page = include_str!("../../../docs/conditions.md");
        for reason in Reason::ALL {
            assert!(page.contains(&format!("`{reason}`")), "{reason}");
        }
    }
}
