//! The flag `--default-policy`: the spec of a policy as JSON, for the operator and for a plan. No schema has rejected
//! invalid values, so this module does.

use anyhow::Context as _;
use serde_json::Value;
use stream_encryption_api::policy::{LabelOperator, StreamEncryptionPolicySpec};
use stream_encryption_core::model::permission::Policy;
use stream_encryption_core::model::service::AWS_LIMIT;

/// Parses the flag, whose name the caller adds to the error.
pub(crate) fn parse(text: &str) -> anyhow::Result<StreamEncryptionPolicySpec> {
    let given: Value = serde_json::from_str(text).context("not JSON")?;
    // A typo in `matchLabels` would otherwise select every namespace.
    let mut unknown = Vec::new();
    let spec: StreamEncryptionPolicySpec =
        serde_ignored::deserialize(given, |field| unknown.push(field.to_string()))
            .context("not the spec of a StreamEncryptionPolicy")?;
    anyhow::ensure!(unknown.is_empty(), "unknown field {}", unknown.join(", ").replace(".?", ""));
    let (_, malformed) = Policy::read(&spec);
    if let Some(error) = malformed.into_iter().next() {
        return Err(error.into());
    }
    // As the rule of the CustomResourceDefinition. Kubernetes' own selector drops the values of Exists, and would select more.
    for condition in &spec.namespace_selector.match_expressions {
        let takes_values = matches!(condition.operator, LabelOperator::In | LabelOperator::NotIn);
        anyhow::ensure!(
            takes_values != condition.values.is_empty(),
            "namespaceSelector: {}: values must be set for In and NotIn, and must be empty for Exists and DoesNotExist",
            condition.key
        );
    }
    let calls = spec.max_calls_per_day;
    anyhow::ensure!((1..=AWS_LIMIT).contains(&calls), "maxCallsPerDay must be from 1 to 25");
    Ok(spec)
}
