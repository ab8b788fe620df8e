//! What the operator does next about a resource, as a sentence, by the reason of Ready. Pure.

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::condition::{ReadyState, Reason};
use stream_encryption_api::stream_encryption::{Mode, StreamEncryption};

use super::deletion::Deletion;
use crate::plugin::age::relative;
use crate::plugin::fleet::Entry;

/// Time after which a call that was due and is not in the status is worth a look.
const LATE: SignedDuration = SignedDuration::from_mins(1);

/// What to do if the operator does not reconcile a resource.
const NOT_RECONCILED: &str =
    "If that lasts longer than a minute, check that the operator runs and watches this namespace.";

/// Returns what the operator does next. `resource` is `None` if it cannot be read.
pub(super) fn of(entry: &Entry, resource: Option<&StreamEncryption>, now: Timestamp) -> String {
    if entry.is_unreadable() {
        return "This version of the plugin does not know what the operator does next.".to_owned();
    }
    if let Some(deletion) = resource.and_then(Deletion::of) {
        return of_deletion(deletion, entry, now);
    }
    if !entry.is_reconciled() {
        return format!("The operator has not reconciled this resource yet. {NOT_RECONCILED}");
    }
    let observes = resource.is_some_and(|resource| resource.spec.mode == Mode::Observe);
    match known_reason(entry) {
        Ok(reason) => next_call(entry, "encryption call", now)
            .unwrap_or_else(|| without_call(entry, reason, observes).to_owned()),
        Err(unknown) => unknown,
    }
}

/// Returns what the operator does next about a resource that is being deleted.
fn of_deletion(deletion: Deletion, entry: &Entry, now: Timestamp) -> String {
    let since = format!("Being deleted since {} ({}).", deletion.since, relative(deletion.since, now));
    if !deletion.disables_encryption {
        return format!("{since} The operator leaves the encryption of the stream as it is.");
    }
    if entry.suspended {
        return format!(
            "{since} Nothing happens while the resource is suspended. Once it is resumed, the operator disables the encryption of the stream, as deletionPolicy: Disable requires."
        );
    }
    let first = format!(
        "{since} The operator first disables the encryption of the stream, as deletionPolicy: Disable requires."
    );
    if !entry.is_reconciled() {
        return format!("{first} It has not reconciled the deletion yet. {NOT_RECONCILED}");
    }
    let more = match known_reason(entry) {
        Ok(reason) => {
            next_call(entry, "call to disable encryption", now).or_else(|| match reason.ready_state() {
                ReadyState::Progressing | ReadyState::Unknown | ReadyState::Stalled => {
                    Some(without_call(entry, reason, false).to_owned())
                }
                // These words are about a resource that stays.
                ReadyState::Ready | ReadyState::Reported | ReadyState::Unchanged => None,
            })
        }
        Err(unknown) => Some(unknown),
    };
    match more {
        Some(more) => format!("{first} {more}"),
        None => first,
    }
}

/// Returns the reason of Ready. If this version does not know it, returns a sentence that says so.
fn known_reason(entry: &Entry) -> Result<Reason, String> {
    let reason = entry.reason.as_deref().unwrap_or_default();
    reason.parse::<Reason>().map_err(|()| {
        format!("This version of the plugin does not know the reason {reason}. Update the plugin.")
    })
}

/// Returns when the operator makes its next call, which is named `call`; `None` if the status announces none.
fn next_call(entry: &Entry, call: &str, now: Timestamp) -> Option<String> {
    let at = entry.next_attempt_time?;
    let when = relative(at, now);
    Some(if now.duration_since(at) > LATE {
        format!(
            "The operator was to make the next {call} at {at} ({when}), and the status has not changed since. Check that the operator runs: kubectl streamencryption doctor."
        )
    } else {
        format!("The operator makes the next {call} at {at} ({when}), if it is still needed.")
    })
}

/// Returns what the operator does next if the status announces no call.
fn without_call(entry: &Entry, reason: Reason, observes: bool) -> &'static str {
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
    use stream_encryption_api::FINALIZER;

    use super::*;
    use crate::plugin::cluster::Found;

    fn explained(spec: &serde_json::Value, reason: Reason, more: &serde_json::Value) -> String {
        explained_with(&json!({}), spec, reason, more)
    }

    fn explained_with(
        metadata: &serde_json::Value,
        spec: &serde_json::Value,
        reason: Reason,
        more: &serde_json::Value,
    ) -> String {
        let mut object = json!({
            "apiVersion": "streamencryption.dev/v1alpha1",
            "kind": "StreamEncryption",
            "metadata": {"name": "orders", "namespace": "data"},
            "spec": {"stream": {"service": "Firehose", "name": "orders"}},
            "status": {"conditions": [{"type": "Ready", "status": "False", "reason": reason.as_str(),
                "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        });
        object["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
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
    fn deletion_states_its_effect_on_the_encryption() {
        let deleted = "1969-12-31T12:00:00Z";
        let since = "Being deleted since 1969-12-31T12:00:00Z (12h ago).";
        let none = json!({});
        let retained =
            explained_with(&json!({"deletionTimestamp": deleted}), &none, Reason::DisablingFailed, &none);
        assert_eq!(retained, format!("{since} The operator leaves the encryption of the stream as it is."));
        let held = json!({"deletionTimestamp": deleted, "finalizers": [FINALIZER]});
        let disable = json!({"deletionPolicy": "Disable"});
        let suspended = json!({"deletionPolicy": "Disable", "suspend": true});
        let at = json!({"nextAttemptTime": "1970-01-01T01:00:00Z"});
        for (spec, reason, status, words) in [
            (
                &suspended,
                Reason::Suspended,
                &none,
                "Once it is resumed, the operator disables the encryption",
            ),
            (&disable, Reason::DisablingFailed, &at, "makes the next call to disable encryption at 1970"),
            (&disable, Reason::DisableNotPermitted, &none, "once a policy allows it to disable encryption"),
            (&disable, Reason::Encrypted, &none, "as deletionPolicy: Disable requires."),
        ] {
            let next = explained_with(&held, spec, reason, status);
            assert!(next.starts_with(since) && next.contains(words), "{reason}: {next}");
            assert!(!next.contains("corrects drift"), "{reason}: {next}");
        }
        let outdated = json!({"observedGeneration": 1});
        let mut changed = held;
        changed["generation"] = json!(2);
        let next = explained_with(&changed, &disable, Reason::Encrypted, &outdated);
        assert!(next.contains("has not reconciled the deletion yet"), "{next}");
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
