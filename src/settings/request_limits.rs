//! The limits of `--aws-request-limits`, as JSON: those that replace the defaults.
//!
//! This module only parses. It rejects at startup what would otherwise be ignored, such as an operation that the
//! operator does not use, so that a typo does not leave a limit unused.

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::Value;
use stream_encryption_core::model::request_limits::{RequestLimit, RequestLimits};
use stream_encryption_core::model::service::Operation;

/// Maximum of a limit, in requests per second: more than AWS grants for any of the operations.
const HIGHEST: u32 = 10_000;

/// One limit, as given.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Given {
    operation: String,
    account: Option<String>,
    region: Option<String>,
    requests_per_second: u32,
}

/// Parses the limits that are given as `flag`.
pub(super) fn request_limits(flag: &str, text: &str) -> anyhow::Result<RequestLimits> {
    let given: Value = serde_json::from_str(text).with_context(|| format!("{flag} is not JSON"))?;
    let mut unknown = Vec::new();
    let given: Vec<Given> = serde_ignored::deserialize(given, |field| unknown.push(field.to_string()))
        .with_context(|| format!("{flag} is not a list of limits"))?;
    ensure!(unknown.is_empty(), "{flag}: unknown field {}", unknown.join(", "));
    let limits = given.into_iter().enumerate().map(|(number, given)| {
        limit(given).with_context(|| format!("{flag}: the limit at index {number} is invalid"))
    });
    Ok(RequestLimits::new(limits.collect::<Result<_, _>>()?))
}

fn limit(given: Given) -> anyhow::Result<RequestLimit> {
    let Given { operation: action, account, region, requests_per_second } = given;
    let operation = Operation::of_operator().find(|operation| operation.iam_action() == action);
    let operation = operation.with_context(|| {
        let actions: Vec<&str> = Operation::of_operator().map(Operation::iam_action).collect();
        format!("operation is {action:?}, but must be one of {}", actions.join(", "))
    })?;
    ensure!(
        (1..=HIGHEST).contains(&requests_per_second),
        "requestsPerSecond is {requests_per_second}, but must be from 1 to {HIGHEST}"
    );
    Ok(RequestLimit {
        operation,
        account: account.map(|account| account.parse()).transpose()?,
        region: region.map(|region| region.parse()).transpose()?,
        requests_per_second,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIBE: &str = "firehose:DescribeDeliveryStream";

    fn parse(text: &str) -> anyhow::Result<RequestLimits> {
        request_limits("--aws-request-limits", text)
    }

    #[test]
    fn limits_name_operation_account_and_region() {
        let limits = parse(&format!(
            r#"[{{"operation":"{DESCRIBE}","requestsPerSecond":10}},
                {{"operation":"{DESCRIBE}","account":"111122223333","region":"eu-west-1","requestsPerSecond":50}}]"#
        ));
        let limit = |account: Option<&str>, region: Option<&str>, requests_per_second| RequestLimit {
            operation: Operation::DescribeDeliveryStream,
            account: account.map(|account| account.parse().unwrap()),
            region: region.map(|region| region.parse().unwrap()),
            requests_per_second,
        };
        let expected = [limit(None, None, 10), limit(Some("111122223333"), Some("eu-west-1"), 50)];
        assert_eq!(limits.unwrap(), RequestLimits::new(expected.into()));
        assert_eq!(parse("[]").unwrap(), RequestLimits::default());
    }

    #[test]
    fn invalid_limits_are_rejected_with_their_index() {
        let with = |field: &str| format!(r#"[{{"operation":"{DESCRIBE}",{field}}}]"#);
        for (text, words) in [
            ("50".to_owned(), "is not a list"),
            ("{".to_owned(), "is not JSON"),
            (with(r#""account":"111122223333""#), "requestsPerSecond"),
            (with(r#""requestsPerSecond":0"#), "at index 0 is invalid: requestsPerSecond is 0"),
            (with(r#""requestsPerSecond":10001"#), "from 1 to 10000"),
            (with(r#""requestsPerSecond":-1"#), "is not a list"),
            (with(r#""requestsPerSecond":50,"acount":"111122223333""#), "unknown field 0.acount"),
            (with(r#""requestsPerSecond":50,"account":"1111""#), "1111"),
            (with(r#""requestsPerSecond":50,"account":"own""#), "own"),
            (with(r#""requestsPerSecond":50,"region":"Ireland""#), "Ireland"),
            (
                r#"[{"operation":"DescribeDeliveryStream","requestsPerSecond":50}]"#.to_owned(),
                "must be one of firehose:DescribeDeliveryStream, ",
            ),
        ] {
            let error = format!("{:#}", parse(&text).unwrap_err());
            assert!(error.starts_with("--aws-request-limits") && error.contains(words), "{text}: {error}");
        }
    }
}
