//! The status of a policy: whether the operator accepts it, and how many namespaces and resources it applies
//! to.
//!
//! Pure. The status is for users only; permissions never depend on it.

use jiff::Timestamp;
use stream_encryption_api::condition::{ConditionStatus, named_condition};
use stream_encryption_api::policy::{StreamEncryptionPolicySpec, StreamEncryptionPolicyStatus};

use super::arn::{AwsAccount, StreamArn};
use super::permission::Policy;

/// The type of the condition.
pub const ACCEPTED: &str = "Accepted";

/// The inputs that are the same for all policies.
pub struct PolicyStatusInput<'a> {
    /// The operator's account; `None` while it is unknown.
    pub operator_account: Option<&'a AwsAccount>,
    /// The namespace and the stream of every `StreamEncryption` whose stream is known.
    pub streams: &'a [(String, StreamArn)],
    /// The current time.
    pub now: Timestamp,
}

/// Returns the status of a policy. `selected` are the namespaces that it selects now, sorted, or the error in
/// its selector; `before` is the previous status.
#[must_use]
pub fn policy_status(
    spec: &StreamEncryptionPolicySpec,
    generation: Option<i64>,
    selected: &Result<Vec<String>, String>,
    before: &StreamEncryptionPolicyStatus,
    fleet: &PolicyStatusInput<'_>,
) -> StreamEncryptionPolicyStatus {
    let (policy, errors) = Policy::read(spec);
    let (accepted, reason, message) = match (&policy, selected) {
        (None, _) => (
            false,
            "InvalidRole",
            format!("The policy allows nothing. Correct spec.role: {}.", list(&errors)),
        ),
        (_, Err(error)) => (
            false,
            "InvalidSelector",
            format!("The policy allows nothing. Correct spec.namespaceSelector: {error}."),
        ),
        (Some(_), Ok(_)) if !errors.is_empty() => (
            false,
            "InvalidPattern",
            format!(
                "The invalid patterns allow nothing, and the others are in effect. Correct: {}.",
                list(&errors)
            ),
        ),
        (Some(_), Ok(selected)) if selected.is_empty() => (
            true,
            ACCEPTED,
            "The policy is in effect, and spec.namespaceSelector selects no namespace.".to_owned(),
        ),
        (Some(_), Ok(_)) => (true, ACCEPTED, "The policy is in effect.".to_owned()),
    };
    let selected = selected.as_deref().unwrap_or_default();
    let selected = if policy.is_some() { selected } else { &[] };
    let conditions = [named_condition(
        &before.conditions,
        ACCEPTED,
        if accepted { ConditionStatus::True } else { ConditionStatus::False },
        reason,
        &message,
        generation,
        fleet.now,
    )];
    StreamEncryptionPolicyStatus {
        observed_generation: generation,
        namespaces: Some(count(selected.len())),
        resources: policy.as_ref().map_or(Some(0), |policy| resources(policy, selected, fleet)),
        conditions: conditions.into(),
    }
}

/// Returns the status of a policy that does not match the schema, for example because it is older than a
/// validation rule.
#[must_use]
pub fn invalid(
    error: &str,
    generation: Option<i64>,
    before: &StreamEncryptionPolicyStatus,
    now: Timestamp,
) -> StreamEncryptionPolicyStatus {
    let message = format!("The policy allows nothing, because it is invalid: {error}. Correct the policy.");
    let (status, reason) = (ConditionStatus::False, "InvalidSpec");
    let condition = named_condition(&before.conditions, ACCEPTED, status, reason, &message, generation, now);
    StreamEncryptionPolicyStatus {
        observed_generation: generation,
        namespaces: Some(0),
        resources: Some(0),
        conditions: [condition].into(),
    }
}

/// Returns the number of resources in the selected namespaces whose stream the policy allows; `None` if that
/// depends on an account that is unknown.
fn resources(policy: &Policy, selected: &[String], fleet: &PolicyStatusInput<'_>) -> Option<u32> {
    let streams = fleet.streams.iter().filter(|(namespace, _)| selected.binary_search(namespace).is_ok());
    let mut allowed = 0;
    for (_, stream) in streams {
        let applies = match fleet.operator_account {
            Some(operator) => policy.applies_to(stream, operator),
            None if policy.streams_depend_on_operator() => return None,
            // No pattern depends on the account.
            None => policy.applies_to(stream, &AwsAccount::of(stream)),
        };
        allowed += usize::from(applies);
    }
    Some(count(allowed))
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX).min(i32::MAX.unsigned_abs())
}

fn list<E: std::fmt::Display>(errors: &[E]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const FIREHOSE: &str = "arn:*:firehose:*:own:deliverystream/*";
    const ROLE: &str = "arn:aws:iam::444455556666:role/operator";

    fn spec(streams: &[&str], role: Option<&str>) -> StreamEncryptionPolicySpec {
        let mut spec: Value = json!({"namespaceSelector": {}, "streams": streams, "keys": ["AWS_OWNED_CMK"]});
        if let Some(role) = role {
            spec["role"] = json!({"arn": role});
        }
        serde_json::from_value(spec).unwrap()
    }

    fn own() -> AwsAccount {
        AwsAccount { account: "111122223333".parse().unwrap(), partition: "aws".parse().unwrap() }
    }

    fn streams() -> Vec<(String, StreamArn)> {
        [
            ("data", "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders"),
            ("data", "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks"),
            ("web", "arn:aws:firehose:eu-west-1:111122223333:deliverystream/visits"),
            ("web", "arn:aws:firehose:eu-west-1:444455556666:deliverystream/visits"),
        ]
        .map(|(namespace, arn)| (namespace.to_owned(), arn.parse().unwrap()))
        .to_vec()
    }

    fn status(
        spec: &StreamEncryptionPolicySpec,
        selected: Result<&[&str], &str>,
        operator_account: Option<&AwsAccount>,
    ) -> StreamEncryptionPolicyStatus {
        let selected = selected.map(|names| names.iter().map(|&name| name.to_owned()).collect());
        let fleet = PolicyStatusInput { operator_account, streams: &streams(), now: Timestamp::UNIX_EPOCH };
        policy_status(
            spec,
            Some(3),
            &selected.map_err(str::to_owned),
            &StreamEncryptionPolicyStatus::default(),
            &fleet,
        )
    }

    fn accepted(status: &StreamEncryptionPolicyStatus) -> (&str, &str, &str) {
        let [condition] = &status.conditions[..] else { panic!("{:?}", status.conditions) };
        assert_eq!((&*condition.type_, condition.observed_generation), (ACCEPTED, Some(3)));
        (&condition.status, &condition.reason, &condition.message)
    }

    #[test]
    fn resources_of_selected_namespaces_and_allowed_streams_count() {
        for (selected, streams, role, resources) in [
            (&["data", "web"][..], FIREHOSE, None, 2),
            (&["data"], FIREHOSE, None, 1),
            (&["web"], FIREHOSE, Some(ROLE), 1),
            (&["data"], FIREHOSE, Some(ROLE), 0),
            (&["data", "other"], "arn:*:kinesis:*:own:stream/c*", None, 1),
            (&[], FIREHOSE, None, 0),
        ] {
            let status = status(&spec(&[streams], role), Ok(selected), Some(&own()));
            let numbers = (status.namespaces, status.resources);
            assert_eq!(
                numbers,
                (u32::try_from(selected.len()).ok(), Some(resources)),
                "{selected:?} {streams}"
            );
            assert_eq!(accepted(&status).0, "True");
        }
    }

    #[test]
    fn resources_are_absent_while_needed_account_is_unknown() {
        let without = |streams, role| status(&spec(&[streams], role), Ok(&["data"]), None).resources;
        assert_eq!(without(FIREHOSE, None), None);
        assert_eq!(without(FIREHOSE, Some(ROLE)), Some(0));
        assert_eq!(without("arn:aws:firehose:*:111122223333:deliverystream/*", None), Some(1));
        let none_selected = status(&spec(&[FIREHOSE], None), Ok(&["other"]), None);
        assert_eq!(none_selected.resources, Some(0), "no stream, so no account is needed");
    }

    #[test]
    fn invalid_policy_is_not_accepted_and_message_says_why() {
        let selected = Ok(&["data"][..]);
        let bad_role = status(&spec(&[FIREHOSE], Some("admin")), selected, Some(&own()));
        let (status_word, reason, message) = accepted(&bad_role);
        assert_eq!((status_word, reason), ("False", "InvalidRole"));
        assert!(message.contains("allows nothing") && message.contains("admin"), "{message}");
        assert_eq!((bad_role.namespaces, bad_role.resources), (Some(0), Some(0)));

        let bad_pattern = status(&spec(&[FIREHOSE, "arn:aws:sqs"], None), selected, Some(&own()));
        let (status_word, reason, message) = accepted(&bad_pattern);
        assert_eq!((status_word, reason), ("False", "InvalidPattern"));
        assert!(message.contains("the others are in effect") && message.contains("arn:aws:sqs"), "{message}");
        assert_eq!((bad_pattern.namespaces, bad_pattern.resources), (Some(1), Some(1)));

        let bad_selector = status(&spec(&[FIREHOSE], None), Err("key: no"), Some(&own()));
        assert_eq!(accepted(&bad_selector).1, "InvalidSelector");
        assert_eq!((bad_selector.namespaces, bad_selector.resources), (Some(0), Some(0)));

        let unparsable = invalid("missing field `streams`", Some(3), &bad_selector, Timestamp::UNIX_EPOCH);
        assert_eq!(accepted(&unparsable).1, "InvalidSpec");
    }

    #[test]
    fn selector_without_namespaces_is_accepted_and_reported() {
        let status = status(&spec(&[FIREHOSE], None), Ok(&[]), Some(&own()));
        let (status_word, reason, message) = accepted(&status);
        assert_eq!((status_word, reason), ("True", "Accepted"));
        assert!(message.contains("selects no namespace"), "{message}");
    }
}
