//! Evaluates a key policy, as far as it is simulated: whether a principal may perform an action.
//!
//! Pure, over the policy document. Deny takes precedence, then Allow; the default is deny. `Condition`,
//! `NotAction` and `NotPrincipal` are not modelled: a statement applies as if its condition were true.

use serde_json::{Value, json};

/// Returns KMS's default policy for a key of this account: the account may perform all actions.
pub(crate) fn default_policy(account: &str) -> Value {
    json!({
        "Version": "2012-10-17",
        "Id": "key-default-1",
        "Statement": [{
            "Sid": "Enable IAM User Permissions",
            "Effect": "Allow",
            "Principal": {"AWS": format!("arn:aws:iam::{account}:root")},
            "Action": "kms:*",
            "Resource": "*",
        }],
    })
}

/// The result of a policy for one action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A statement denies it.
    Denied,
    /// A statement allows it, and none denies it.
    Allowed,
    /// No statement applies to it.
    Silent,
}

/// Evaluates whether the policy allows `action` to a principal, given its names: its ARN, its role's ARN, its
/// account, a service.
pub(crate) fn judge(policy: &Value, names: &[String], action: &str) -> Verdict {
    let mut verdict = Verdict::Silent;
    for statement in many(policy.get("Statement")) {
        let about = many(statement.get("Action")).any(|a| a.as_str().is_some_and(|p| matches(p, action)))
            && speaks_of(statement.get("Principal"), names);
        match statement.get("Effect").and_then(Value::as_str) {
            Some("Deny") if about => return Verdict::Denied,
            Some("Allow") if about => verdict = Verdict::Allowed,
            _ => {}
        }
    }
    verdict
}

/// Matches an IAM pattern such as `kms:*` or `kms:Describe*`: `*` matches any text. The match is
/// case-insensitive.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_ascii_lowercase(), text.to_ascii_lowercase());
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn speaks_of(principal: Option<&Value>, names: &[String]) -> bool {
    match principal {
        Some(Value::String(everyone)) => everyone == "*",
        Some(Value::Object(kinds)) => {
            kinds.values().flat_map(|value| many(Some(value))).filter_map(Value::as_str).any(|pattern| {
                pattern == "*"
                    || names
                        .iter()
                        .any(|name| name == pattern || account_of(name).is_some_and(|a| is_root(pattern, a)))
            })
        }
        _ => false,
    }
}

fn is_root(pattern: &str, account: &str) -> bool {
    pattern == account || pattern == format!("arn:aws:iam::{account}:root")
}

fn account_of(arn: &str) -> Option<&str> {
    arn.split(':').nth(4)
}

fn many(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    match value {
        Some(Value::Array(values)) => values.as_slice(),
        Some(value) => std::slice::from_ref(value),
        None => &[],
    }
    .iter()
}
