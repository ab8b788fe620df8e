//! Validates a request against the constraints of the API models, before any other check.
//!
//! Pure. For a missing or malformed member, Firehose and Kinesis return `ValidationException` ("1 validation
//! error detected"), which is how AWS's JSON services report a violated constraint of their model.

use serde_json::Value;

use super::key::looks_like_a_key_id;
use super::request::{AwsError, Request};

/// Returns a text member, if present.
pub(crate) fn text<'a>(request: &'a Request, member: &str) -> Result<Option<&'a str>, AwsError> {
    match request.body.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(AwsError::new(
            "SerializationException",
            format!(
                "{} can not be converted to a String",
                if other.is_number() { "NUMBER_VALUE" } else { "VALUE" }
            ),
        )),
    }
}

/// Returns a required text member.
pub(crate) fn required<'a>(request: &'a Request, member: &str) -> Result<&'a str, AwsError> {
    text(request, member)?.ok_or_else(|| constraint(member, "null", "Member must not be null"))
}

/// Returns a number member.
pub(crate) fn number(
    request: &Request,
    member: &str,
    least: u64,
    most: u64,
    default: u64,
) -> Result<u64, AwsError> {
    match request.body.get(member) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => match value.as_u64() {
            Some(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(constraint(
                member,
                &value.to_string(),
                &format!("Member must have value between {least} and {most}"),
            )),
        },
    }
}

/// Validates a stream's name: `[a-zA-Z0-9_.-]+`, up to 64 (Firehose) or 128 (Kinesis) characters.
pub(crate) fn name<'a>(given: &'a str, member: &str, most: usize) -> Result<&'a str, AwsError> {
    if given.is_empty() {
        return Err(constraint(member, given, "Member must have length greater than or equal to 1"));
    }
    if given.len() > most {
        return Err(constraint(
            member,
            given,
            &format!("Member must have length less than or equal to {most}"),
        ));
    }
    if given.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')) {
        Ok(given)
    } else {
        Err(constraint(member, given, "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"))
    }
}

/// Returns the error for a violated constraint of the API model.
pub(crate) fn constraint(member: &str, value: &str, rule: &str) -> AwsError {
    let mut member = member.to_owned();
    if let Some(first) = member.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    AwsError::new(
        "ValidationException",
        format!(
            "1 validation error detected: Value {} at '{member}' failed to satisfy constraint: {rule}",
            if value == "null" { value.to_owned() } else { format!("'{value}'") },
        ),
    )
}

/// Returns whether the text has the shape `AWSKMSKeyARNForSSE`: a key's ARN, never an alias.
pub(crate) fn is_key_arn_for_sse(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    matches!(parts.as_slice(), ["arn", _, "kms", region, account, resource]
        if !region.is_empty() && is_account(account) && resource.strip_prefix("key/").is_some_and(|id| !id.is_empty()))
        && text.len() <= 512
}

/// Returns whether the text has one of the forms that Kinesis accepts as a `KeyId`: key ARN, alias ARN, UUID,
/// `alias/name`.
pub(crate) fn is_kinesis_key_id(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    match parts.as_slice() {
        ["arn", _, "kms", region, account, resource] => {
            !region.is_empty()
                && is_account(account)
                && (resource.strip_prefix("key/").is_some_and(looks_like_a_key_id) || is_alias(resource))
        }
        [single] => looks_like_a_key_id(single) || is_alias(single),
        _ => false,
    }
}

/// Returns whether the text is an `alias/name`.
pub(crate) fn is_alias(text: &str) -> bool {
    text.strip_prefix("alias/").is_some_and(|name| {
        !name.is_empty()
            && text.len() <= 256
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-'))
    })
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.chars().all(|c| c.is_ascii_digit())
}
