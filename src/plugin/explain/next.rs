//! What the operator does next about a resource, as a sentence, by the reason of Ready. Pure.

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::condition::{ReadyState, Reason};
use stream_encryption_api::stream_encryption::{Mode, StreamEncryption};

use crate::plugin::age::relative;
use crate::plugin::fleet::Entry;

/// Time after which a call that was due and is not in the status is worth a look.
const LATE: SignedDuration = SignedDuration::from_mins(1);

/// Returns what the operator does next. `resource` is `None` if it cannot be read.
pub(super) fn of(entry: &Entry, resource: Option<&StreamEncryption>, now: Timestamp) -> String {
    if entry.is_unreadable() {
        return "This version of the plugin does not know what the operator does next.".to_owned();
    }
    let Some(reason) = entry.reason.as_deref().filter(|_| !entry.outdated) else {
        return "The operator has not reconciled this resource yet. If that lasts longer than a minute, check that the operator runs and watches this namespace.".to_owned();
    };
    let Ok(reason) = reason.parse::<Reason>() else {
        return format!("This version of the plugin does not know the reason {reason}. Update the plugin.");
    };
    if let Some(at) = entry.next_attempt_time.filter(|at| now.duration_since(*at) > LATE) {
        return format!(
            "The operator was to make the next encryption call at {at} ({}), and the status has not changed since. Check that the operator runs: kubectl streamencryption doctor.",
            relative(at, now)
        );
    }
    if let Some(at) = entry.next_attempt_time {
        return format!(
            "The operator makes the next encryption call at {at} ({}), if it is still needed.",
            relative(at, now)
        );
    }
    let observes = resource.is_some_and(|resource| resource.spec.mode == Mode::Observe);
    match reason.ready_state() {
        ReadyState::Ready if !observes => {
            "The operator describes the stream at each drift interval, and corrects drift."
        }
        ReadyState::Ready | ReadyState::Reported => {
            "The operator describes the stream at each drift interval, and makes no encryption call."
        }
        ReadyState::Progressing => {
            "The operator checks again within seconds to minutes, and continues as soon as it can."
        }
        ReadyState::Unknown => {
            "The operator sends the request again, with growing delays, until AWS answers."
        }
        ReadyState::Stalled => stalled(entry, reason).unwrap_or("The operator cannot continue by itself."),
        ReadyState::Unchanged => "Nothing happens while the resource is suspended.",
    }
    .to_owned()
}

/// Returns what must change before the operator continues: nothing that would not help for this reason. `None` for a
/// reason that is not stalled.
fn stalled(entry: &Entry, reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::KeyNotSymmetric
        | Reason::KeyUsageWrong
        | Reason::KeyManagedByAws
        | Reason::KeyInOtherRegion => {
            "The operator makes no encryption call with this key. It continues once spec.key selects another one."
        }
        Reason::SourceNotDirectPut => {
            "The operator makes no encryption call: AWS cannot encrypt this stream."
        }
        Reason::StreamAlreadyManaged => {
            "The operator leaves the stream to the other resource. It continues once that resource is deleted, or no policy allows that resource to use the stream any more."
        }
        Reason::NotPermitted => {
            "The operator makes no encryption call. It continues once a policy allows what the spec requires."
        }
        Reason::ConflictingPolicyRoles => {
            "The operator makes no encryption call. It continues once all policies that allow this stream specify the same role and external id."
        }
        Reason::DisableNotPermitted => {
            "The operator makes no encryption call. It continues once a policy allows it to disable encryption, or the spec no longer requires it."
        }
        // Without a key in the spec, a retry has no effect.
        Reason::ActiveKeyUnknown if entry.desired_key.is_none() => {
            "The operator makes no encryption call. It continues once the spec sets a key."
        }
        Reason::ActiveKeyUnknown => {
            "The operator makes no encryption call. It continues once spec.key selects another key, or you request a retry."
        }
        Reason::SpecInvalid => "The operator does nothing. It continues once the spec is corrected.",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin::cluster::Found;

    fn explained(spec: &serde_json::Value, reason: Reason, more: &serde_json::Value) -> String {
        let mut object = json!({
            "apiVersion": "streamencryption.dev/v1alpha1",
            "kind": "StreamEncryption",
            "metadata": {"name": "orders", "namespace": "data"},
            "spec": {"stream": {"service": "Firehose", "name": "orders"}},
            "status": {"conditions": [{"type": "Ready", "status": "False", "reason": reason.as_str(),
                "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        });
        object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        object["status"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let resource: StreamEncryption = serde_json::from_value(object).unwrap();
        let found = Found {
            namespace: "data".to_owned(),
            name: "orders".to_owned(),
            resource: Ok(Box::new(resource.clone())),
        };
        of(&Entry::of(&found), Some(&resource), Timestamp::UNIX_EPOCH)
    }

    /// What does not help for a reason is not named: nobody looks for another resource that does not exist.
    #[test]
    fn stalled_reason_names_what_can_help_only() {
        for reason in Reason::ALL.iter().filter(|reason| reason.ready_state() == ReadyState::Stalled) {
            let next = explained(&json!({}), *reason, &json!({}));
            assert_ne!(
                next, "The operator cannot continue by itself.",
                "{reason} has no sentence of its own"
            );
            let has = |word: &str| next.contains(word);
            assert_eq!(has("other resource"), *reason == Reason::StreamAlreadyManaged, "{reason}: {next}");
            let by_policy = matches!(
                reason,
                Reason::StreamAlreadyManaged
                    | Reason::NotPermitted
                    | Reason::ConflictingPolicyRoles
                    | Reason::DisableNotPermitted
            );
            assert_eq!(has("polic"), by_policy, "{reason}: {next}");
            assert_eq!(has("It continues"), *reason != Reason::SourceNotDirectPut, "{reason}: {next}");
        }
    }

    #[test]
    fn retry_is_named_only_with_a_key_in_the_spec() {
        let without = explained(&json!({}), Reason::ActiveKeyUnknown, &json!({}));
        assert!(!without.contains("retry"), "{without}");
        let key = json!({"desiredKey": {"type": "AWS_OWNED_CMK"}});
        let with = explained(&json!({}), Reason::ActiveKeyUnknown, &key);
        assert!(with.contains("retry"), "{with}");
    }

    #[test]
    fn call_that_is_overdue_is_not_announced() {
        let at = |seconds: i64| {
            let at = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
            explained(&json!({}), Reason::EnablingFailed, &json!({"nextAttemptTime": at.to_string()}))
        };
        assert!(at(3600).starts_with("The operator makes the next encryption call at"), "{}", at(3600));
        assert!(at(-3600).contains("Check that the operator runs"), "{}", at(-3600));
    }

    #[test]
    fn reason_of_a_newer_operator_asks_for_an_update() {
        let entry = Entry { reason: Some("FutureReason".to_owned()), ready: "False", ..Entry::default() };
        assert_eq!(
            of(&entry, None, Timestamp::UNIX_EPOCH),
            "This version of the plugin does not know the reason FutureReason. Update the plugin."
        );
    }

    #[test]
    fn observed_resource_that_is_ready_is_not_corrected() {
        let enforced = explained(&json!({}), Reason::Encrypted, &json!({}));
        assert!(enforced.ends_with("and corrects drift."), "{enforced}");
        let observed = explained(&json!({"mode": "Observe"}), Reason::Encrypted, &json!({}));
        assert!(observed.ends_with("and makes no encryption call."), "{observed}");
    }
}
