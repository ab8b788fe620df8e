//! Key Management Service: `DescribeKey`. Tests plant keys and aliases, and change them without a request.
//!
//! This module decides the answer. There is no cryptography: nothing is actually encrypted.
//! It follows <https://docs.aws.amazon.com/kms/latest/APIReference/>.

use serde_json::{Value, json};

use super::input::required;
use super::key::{Key, KeyState};
use super::request::AwsError;
use super::state::{Context, State};

pub(crate) fn call(state: &mut State, context: &Context<'_>) -> Result<Value, AwsError> {
    match context.request.operation.as_str() {
        "DescribeKey" => {
            let arn = permitted(state, context)?;
            Ok(json!({ "KeyMetadata": metadata(found(state, &arn)?) }))
        }
        other => Err(AwsError::new("UnknownOperationException", format!("KMS's {other} is not simulated"))),
    }
}

/// Returns the key of `KeyId`, if its policy allows the caller this operation.
fn permitted(state: &mut State, context: &Context<'_>) -> Result<String, AwsError> {
    let given = required(context.request, "KeyId")?;
    let arn = state.keys.resolve(given, &context.account, &context.region, context.now)?;
    let action = format!("kms:{}", context.request.operation);
    let key = found(state, &arn)?;
    if key.permits(&context.names(), &action) {
        return Ok(arn);
    }
    Err(AwsError::new(
        "AccessDeniedException",
        format!(
            "User: {} is not authorized to perform: {action} on resource: {arn} because no resource-based policy allows the {action} action",
            context.principal.arn
        ),
    ))
}

fn found<'a>(state: &'a State, arn: &str) -> Result<&'a Key, AwsError> {
    state
        .keys
        .get(arn)
        .ok_or_else(|| AwsError::new("NotFoundException", format!("Key '{arn}' does not exist")))
}

fn metadata(key: &Key) -> Value {
    let mut metadata = json!({
        "AWSAccountId": key.account,
        "KeyId": key.id,
        "Arn": key.arn,
        "CreationDate": key.created.as_duration().as_secs_f64(),
        "Enabled": key.state == KeyState::Enabled,
        "Description": key.description,
        "KeyUsage": key.usage,
        "KeyState": key.state,
        "Origin": if key.state == KeyState::PendingImport { "EXTERNAL" } else { "AWS_KMS" },
        "KeyManager": key.manager,
    });
    if key.spec.is_empty() {
        return metadata;
    }
    metadata["CustomerMasterKeySpec"] = json!(key.spec);
    metadata["KeySpec"] = json!(key.spec);
    metadata["MultiRegion"] = json!(key.id.starts_with("mrk-"));
    let algorithms = match (key.usage.as_str(), key.spec.as_str()) {
        ("ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT") => json!(["SYMMETRIC_DEFAULT"]),
        ("ENCRYPT_DECRYPT", _) => json!(["RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256"]),
        _ => return metadata,
    };
    metadata["EncryptionAlgorithms"] = algorithms;
    metadata
}
