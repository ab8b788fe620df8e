//! The check of the queue of AWS's events: whether it answers, how many messages it holds, and who may send to it.

use serde_json::Value;
use stream_encryption_core::model::aws_error::{AwsError, ErrorKind};

use super::Check;
use crate::adopt::survey::described;
use crate::aws::{QueueState, QueueUrl};
use crate::plugin::aws::ReadOnly;

const NAME: &str = "AWS's events";
/// Number of waiting messages from which the operator does not keep up, or receives none.
const MANY: u64 = 1000;
/// The action of every request that sends messages, in lower case.
const SEND_MESSAGE: &str = "sqs:sendmessage";
/// The condition keys of the resource, account or organization for which an AWS service sends
/// ([global condition keys](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html)).
const SOURCE_KEYS: [&str; 4] =
    ["aws:SourceArn", "aws:SourceAccount", "aws:SourceOrgID", "aws:SourceOrgPaths"];
/// The condition operators that require one of the given values. `…IfExists` is none of them: it also accepts a request
/// without the key.
const REQUIRES_VALUE: [&str; 5] =
    ["StringEquals", "StringEqualsIgnoreCase", "StringLike", "ArnEquals", "ArnLike"];

/// Checks the queue with this URL.
pub(super) async fn queue(aws: &ReadOnly, url: &str) -> Check {
    match url.parse::<QueueUrl>() {
        Ok(queue) => check(url, aws.queue_state(&queue).await),
        Err(error) => Check::failed(NAME, error.to_string(), "Correct events.queueUrl: docs/events.md."),
    }
}

fn check(url: &str, state: Result<QueueState, AwsError>) -> Check {
    let state = match state {
        Ok(state) => state,
        Err(error) if error.kind == ErrorKind::NotFound => {
            return Check::failed(
                NAME,
                format!("{url} does not exist"),
                "Create it, or correct events.queueUrl: docs/events.md.",
            );
        }
        // The operator has other credentials, and another network.
        Err(error) => return Check::not_checked(NAME, format!("{url}: {}", described(&error))),
    };
    let count =
        |count: Option<u64>| count.map_or("an unknown number of".to_owned(), |count| count.to_string());
    let message =
        format!("{url}: {} messages wait, {} are in progress", count(state.waiting), count(state.received));
    let policy = state.policy.as_deref().and_then(|policy| serde_json::from_str::<Value>(policy).ok());
    let policy = policy.unwrap_or_default();
    if !only_services_send(&policy) {
        return Check::warning(
            NAME,
            format!("{message}; its policy lets others than AWS services send"),
            "Whoever can send can forge events. Set the policy: stream-encryption-operator iam events queue-policy; docs/iam.md.",
        );
    }
    if each(&policy["Statement"]).any(allows_services_of_any_account) {
        return Check::warning(
            NAME,
            format!("{message}; its policy lets AWS services of any account send"),
            "An SNS topic or EventBridge rule of another account can forge events. Set the policy: stream-encryption-operator iam events queue-policy; docs/iam.md.",
        );
    }
    if state.waiting.is_some_and(|waiting| waiting >= MANY) {
        return Check::warning(
            NAME,
            message,
            "Does the operator receive them? See its log; docs/runbooks/StreamEncryptionEventsStopped.md",
        );
    }
    Check::good(NAME, format!("{message}; only AWS services may send"))
}

/// Returns whether a policy of a queue denies everybody who is not an AWS service to send. Without such a statement, the
/// policies of users in the account of the queue can allow it.
fn only_services_send(policy: &Value) -> bool {
    each(&policy["Statement"]).any(denies_all_but_services)
}

fn denies_all_but_services(statement: &Value) -> bool {
    let is_send = |action: &Value| {
        let action = action.as_str().unwrap_or_default().to_ascii_lowercase();
        [SEND_MESSAGE, "sqs:send*", "sqs:*", "*"].contains(&action.as_str())
    };
    let condition = statement["Condition"].as_object();
    // With a further condition, the statement would deny less.
    let is_unless_service = condition.is_some_and(|condition| {
        condition.len() == 1
            && condition.get("Bool").and_then(Value::as_object).is_some_and(|values| {
                values.len() == 1
                    && values.iter().all(|(key, value)| {
                        key.eq_ignore_ascii_case("aws:PrincipalIsAWSService")
                            && each(value).all(|one| one == "false" || one == false)
                    })
            })
    });
    statement["Effect"] == "Deny"
        && is_everyone(&statement["Principal"])
        && each(&statement["Action"]).any(is_send)
        && is_unless_service
}

/// Returns whether a statement allows AWS services to send for any account. The denial of everybody else does not apply
/// to them, so an SNS topic or EventBridge rule of another account could deliver forged events.
fn allows_services_of_any_account(statement: &Value) -> bool {
    let principal = &statement["Principal"];
    // Without Principal and Action, the statement has NotPrincipal and NotAction, which include almost everything.
    let is_service = principal.is_null() || is_everyone(principal) || !principal["Service"].is_null();
    let may_send = statement["Action"].is_null() || each(&statement["Action"]).any(may_include_sending);
    statement["Effect"] == "Allow" && is_service && may_send && !names_sources(&statement["Condition"])
}

/// Returns whether an action includes sending. A wildcard in the middle counts as one at the end, so that no permission
/// is overlooked.
fn may_include_sending(action: &Value) -> bool {
    let action = action.as_str().unwrap_or_default().to_ascii_lowercase();
    match action.split_once(['*', '?']) {
        Some((prefix, _)) => SEND_MESSAGE.starts_with(prefix),
        None => action == SEND_MESSAGE,
    }
}

/// Returns whether a condition requires that an AWS service sends for given resources, accounts or organizations.
fn names_sources(condition: &Value) -> bool {
    let requires_value =
        |operator: &str| REQUIRES_VALUE.contains(&operator.strip_prefix("ForAnyValue:").unwrap_or(operator));
    let operators = condition.as_object().into_iter().flatten();
    operators.filter(|(operator, _)| requires_value(operator)).any(|(_, keys)| {
        let mut keys = keys.as_object().into_iter().flatten();
        keys.any(|(key, values)| {
            SOURCE_KEYS.iter().any(|source| key.eq_ignore_ascii_case(source))
                && each(values).all(|value| names_account(key, value))
        })
    })
}

/// Returns whether a value of this condition key matches only some accounts.
fn names_account(key: &str, value: &Value) -> bool {
    let value = value.as_str().unwrap_or_default();
    let is_arn = key.eq_ignore_ascii_case("aws:SourceArn");
    let account = if is_arn { value.split(':').nth(4).unwrap_or("*") } else { value };
    account != "*"
}

fn is_everyone(principal: &Value) -> bool {
    principal == "*" || each(&principal["AWS"]).any(|one| one == "*")
}

/// Returns the values of a list, or the only one.
fn each(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice).iter()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use stream_encryption_core::model::service::Operation;

    use super::super::Health;
    use super::*;

    const URL: &str = "https://sqs.eu-west-1.amazonaws.com/111122223333/stream-encryption-events";
    const POLICY: &str = include_str!("../../../config/iam/events-queue-policy.json");

    fn state(waiting: u64, policy: Option<&str>) -> QueueState {
        let policy = policy.map(str::to_owned);
        QueueState { waiting: Some(waiting), received: Some(2), policy, visibility_timeout: Some(60) }
    }

    fn failure(kind: ErrorKind) -> AwsError {
        let operation = Operation::GetQueueAttributes;
        AwsError { operation, kind, code: None, message: String::new(), request_id: None }
    }

    #[test]
    fn protected_queue_is_good_with_its_counts() {
        let check = check(URL, Ok(state(3, Some(POLICY))));
        assert_eq!(check.result, Health::Good);
        assert!(check.message.contains("3 messages wait, 2 are in progress"), "{}", check.message);
    }

    #[test]
    fn queue_that_others_can_send_to_is_a_warning() {
        let mut open: Value = serde_json::from_str(POLICY).unwrap();
        open["Statement"].as_array_mut().unwrap().pop();
        for policy in [None, Some(open.to_string().as_str()), Some("{}"), Some("no JSON")] {
            let check = check(URL, Ok(state(0, policy)));
            assert_eq!(check.result, Health::Warning, "{policy:?}");
            assert!(check.message.contains("others than AWS services"), "{}", check.message);
        }
    }

    #[test]
    fn denial_must_cover_everybody_who_is_no_service() {
        let statement = |change: &dyn Fn(&mut Value)| {
            let mut policy: Value = serde_json::from_str(POLICY).unwrap();
            change(&mut policy["Statement"][1]);
            only_services_send(&policy)
        };
        assert!(statement(&|_| {}));
        assert!(statement(&|deny| deny["Principal"] = json!({"AWS": "*"})));
        assert!(statement(&|deny| deny["Action"] = json!(["SQS:*"])));
        assert!(statement(
            &|deny| deny["Condition"] = json!({"Bool": {"aws:principalIsAwsService": [false]}})
        ));
        assert!(!statement(&|deny| deny["Effect"] = json!("Allow")));
        assert!(!statement(&|deny| deny["Principal"] = json!({"AWS": "111122223333"})));
        assert!(!statement(&|deny| deny["Action"] = json!("sqs:ReceiveMessage")));
        assert!(!statement(&|deny| deny["Condition"]["Bool"]["aws:SecureTransport"] = json!("false")));
        assert!(!statement(&|deny| deny["Condition"]["Bool"]["aws:PrincipalIsAWSService"] = json!("true")));
    }

    /// Checks a queue with the shipped policy after a change of its first statement, which allows EventBridge to send.
    fn with_allowance(change: impl FnOnce(&mut Value)) -> Check {
        let mut policy: Value = serde_json::from_str(POLICY).unwrap();
        change(&mut policy["Statement"][0]);
        check(URL, Ok(state(0, Some(policy.to_string().as_str()))))
    }

    #[test]
    fn allowance_without_a_source_is_a_warning() {
        let account = json!("111122223333");
        for (condition, expected) in [
            (json!({"StringEquals": {"aws:SourceAccount": account}}), Health::Good),
            (json!({"StringEquals": {"AWS:sourceOrgId": "o-a1b2c3d4e5"}}), Health::Good),
            (json!({"ForAnyValue:StringLike": {"aws:SourceOrgPaths": ["o-a1b2c3d4e5/*"]}}), Health::Good),
            (json!({"ArnLike": {"aws:SourceArn": "arn:aws:events:*:111122223333:rule/*"}}), Health::Good),
            (Value::Null, Health::Warning),
            (json!({"Bool": {"aws:SecureTransport": "true"}}), Health::Warning),
            (json!({"StringEqualsIfExists": {"aws:SourceAccount": account}}), Health::Warning),
            (json!({"StringNotEquals": {"aws:SourceAccount": account}}), Health::Warning),
            (json!({"StringLike": {"aws:SourceAccount": "*"}}), Health::Warning),
            (json!({"ArnLike": {"aws:SourceArn": ["arn:aws:sns:*:*:*"]}}), Health::Warning),
        ] {
            let check = with_allowance(|allow| allow["Condition"] = condition.clone());
            assert_eq!(check.result, expected, "{condition}: {}", check.message);
            assert_eq!(check.message.contains("of any account"), expected == Health::Warning, "{condition}");
        }
    }

    #[test]
    fn only_services_that_may_send_need_a_source() {
        let everyone = json!("*");
        let owner = json!({"AWS": "arn:aws:iam::111122223333:root"});
        for (principal, action, expected) in [
            (&everyone, "sqs:SendMessage", Health::Warning),
            (&everyone, "SQS:Send*", Health::Warning),
            (&everyone, "*", Health::Warning),
            (&Value::Null, "sqs:SendMessage", Health::Warning),
            (&everyone, "sqs:ReceiveMessage", Health::Good),
            // The denial applies to the queue's own account.
            (&owner, "sqs:*", Health::Good),
        ] {
            let check = with_allowance(|allow| {
                *allow = json!({"Effect": "Allow", "Principal": principal, "Action": action});
            });
            assert_eq!(check.result, expected, "{principal} {action}: {}", check.message);
        }
    }

    #[test]
    fn queue_that_fills_is_a_warning() {
        assert_eq!(check(URL, Ok(state(MANY - 1, Some(POLICY)))).result, Health::Good);
        let check = check(URL, Ok(state(MANY, Some(POLICY))));
        assert_eq!(check.result, Health::Warning);
        assert!(check.remedy.contains("StreamEncryptionEventsStopped"));
    }

    #[test]
    fn missing_queue_fails_and_a_denied_one_is_not_checked() {
        assert_eq!(check(URL, Err(failure(ErrorKind::NotFound))).result, Health::Failed);
        for kind in [ErrorKind::Denied, ErrorKind::Transient] {
            let check = check(URL, Err(failure(kind)));
            assert_eq!(check.result, Health::NotChecked, "{kind:?}");
            assert!(check.message.starts_with(URL), "{}", check.message);
        }
    }
}
