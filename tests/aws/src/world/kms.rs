//! Key Management Service: keys, aliases, policies and grants, as far as the operator and its tests need
//! them.
//!
//! This module decides the answer of each operation. There is no cryptography: nothing is actually encrypted.
//! It follows <https://docs.aws.amazon.com/kms/latest/APIReference/>.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::input::{is_alias, number, required, text};
use super::key::{Grant, Key, KeyState, PlantedKey};
use super::request::AwsError;
use super::state::{Context, State};
use super::stream::later;

pub(crate) fn call(state: &mut State, context: &Context<'_>) -> Result<Value, AwsError> {
    // A key whose waiting period is over no longer exists, for any caller.
    let gone: Vec<String> = state
        .keys
        .all()
        .filter(|key| key.deletion.is_some_and(|at| at <= context.now))
        .map(|key| key.arn.clone())
        .collect();
    for arn in gone {
        state.keys.remove(&arn);
    }
    match context.request.operation.as_str() {
        "DescribeKey" => {
            let arn = permitted(state, context)?;
            Ok(json!({ "KeyMetadata": metadata(found(state, &arn)?) }))
        }
        "CreateKey" => create_key(state, context),
        "CreateAlias" | "UpdateAlias" => set_alias(state, context),
        "DeleteAlias" => {
            let alias = alias_arn(context)?;
            if state.keys.remove_alias(&alias) { Ok(json!({})) } else { Err(no_alias(&alias)) }
        }
        "EnableKey" => set_state(state, context, KeyState::Enabled),
        "DisableKey" => set_state(state, context, KeyState::Disabled),
        "ScheduleKeyDeletion" => schedule_deletion(state, context),
        "CancelKeyDeletion" => cancel_deletion(state, context),
        "PutKeyPolicy" => put_policy(state, context),
        "GetKeyPolicy" => {
            let arn = permitted(state, context)?;
            Ok(json!({ "Policy": found(state, &arn)?.policy.to_string(), "PolicyName": "default" }))
        }
        "ListGrants" => list_grants(state, context),
        "ListAliases" => {
            let aliases: Vec<Value> = state
                .keys
                .aliases()
                .iter()
                .filter(|(alias, _)| {
                    alias.starts_with(&format!("arn:aws:kms:{}:{}:", context.region, context.account))
                })
                .map(|(alias, key)| {
                    let name = alias.splitn(6, ':').nth(5).unwrap_or_default();
                    json!({ "AliasName": name, "AliasArn": alias, "TargetKeyId": key.rsplit('/').next() })
                })
                .collect();
            Ok(json!({ "Aliases": aliases, "Truncated": false }))
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
    if let Some(deletion) = key.deletion {
        metadata["DeletionDate"] = json!(deletion.as_duration().as_secs_f64());
    }
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

fn create_key(state: &mut State, context: &Context<'_>) -> Result<Value, AwsError> {
    let request = context.request;
    let policy = text(request, "Policy")?.map(parse_policy).transpose()?;
    let spec =
        text(request, "KeySpec")?.or(text(request, "CustomerMasterKeySpec")?).unwrap_or("SYMMETRIC_DEFAULT");
    let usage = text(request, "KeyUsage")?.unwrap_or("ENCRYPT_DECRYPT");
    let external = text(request, "Origin")? == Some("EXTERNAL");
    let key = PlantedKey {
        account: context.account.clone(),
        region: context.region.clone(),
        id: String::new(),
        state: if external { KeyState::PendingImport } else { KeyState::Enabled },
        usage: usage.to_owned(),
        spec: spec.to_owned(),
        manager: "CUSTOMER".to_owned(),
        policy,
    };
    let description = text(request, "Description")?.unwrap_or_default().to_owned();
    let arn = state.keys.plant(key, context.now);
    if let Some(key) = state.keys.get_mut(&arn) {
        key.description = description;
    }
    Ok(json!({ "KeyMetadata": metadata(found(state, &arn)?) }))
}

fn parse_policy(text: &str) -> Result<Value, AwsError> {
    serde_json::from_str(text).map_err(|e| AwsError::new("MalformedPolicyDocumentException", e.to_string()))
}

fn alias_arn(context: &Context<'_>) -> Result<String, AwsError> {
    let name = required(context.request, "AliasName")?;
    if !is_alias(name) {
        return Err(AwsError::new("InvalidAliasNameException", format!("Invalid alias name {name}")));
    }
    Ok(format!("arn:aws:kms:{}:{}:{name}", context.region, context.account))
}

fn no_alias(alias: &str) -> AwsError {
    AwsError::new("NotFoundException", format!("Alias {alias} is not found."))
}

fn set_alias(state: &mut State, context: &Context<'_>) -> Result<Value, AwsError> {
    let alias = alias_arn(context)?;
    let target = required(context.request, "TargetKeyId")?;
    let exists = state.keys.alias(&alias).is_some();
    if context.request.operation == "CreateAlias" {
        if alias.contains(":alias/aws/") {
            return Err(AwsError::new("NotAuthorizedException", ""));
        }
        if exists {
            let message = format!("An alias with the name {alias} already exists");
            return Err(AwsError::new("AlreadyExistsException", message));
        }
    } else if !exists {
        return Err(no_alias(&alias));
    }
    let key = state.keys.resolve(target, &context.account, &context.region, context.now)?;
    state.keys.set_alias(alias, key);
    Ok(json!({}))
}

fn pending_deletion(arn: &str) -> AwsError {
    AwsError::new("KMSInvalidStateException", format!("{arn} is pending deletion."))
}

fn change<'a>(state: &'a mut State, arn: &str) -> Result<&'a mut Key, AwsError> {
    state
        .keys
        .get_mut(arn)
        .ok_or_else(|| AwsError::new("NotFoundException", format!("Key '{arn}' does not exist")))
}

fn set_state(state: &mut State, context: &Context<'_>, to: KeyState) -> Result<Value, AwsError> {
    let arn = permitted(state, context)?;
    let key = change(state, &arn)?;
    if !matches!(key.state, KeyState::Enabled | KeyState::Disabled) {
        return Err(pending_deletion(&arn));
    }
    key.state = to;
    Ok(json!({}))
}

fn schedule_deletion(state: &mut State, context: &Context<'_>) -> Result<Value, AwsError> {
    let arn = permitted(state, context)?;
    let days = number(context.request, "PendingWindowInDays", 7, 30, 30)?;
    let key = change(state, &arn)?;
    if key.state == KeyState::PendingDeletion {
        return Err(pending_deletion(&arn));
    }
    let deletion = later(context.now, SignedDuration::from_hours(24 * i64::try_from(days).unwrap_or(30)));
    key.state = KeyState::PendingDeletion;
    key.deletion = Some(deletion);
    let date = deletion.as_duration().as_secs_f64();
    Ok(
        json!({ "KeyId": arn, "DeletionDate": date, "KeyState": "PendingDeletion", "PendingWindowInDays": days }),
    )
}

fn cancel_deletion(state: &mut State, context: &Context<'_>) -> Result<Value, AwsError> {
    let arn = permitted(state, context)?;
    let key = change(state, &arn)?;
    if key.state != KeyState::PendingDeletion {
        return Err(AwsError::new("KMSInvalidStateException", format!("{arn} is not pending deletion.")));
    }
    key.state = KeyState::Disabled;
    key.deletion = None;
    Ok(json!({ "KeyId": arn }))
}

fn put_policy(state: &mut State, context: &Context<'_>) -> Result<Value, AwsError> {
    let arn = permitted(state, context)?;
    let policy = parse_policy(required(context.request, "Policy")?)?;
    change(state, &arn)?.policy = policy;
    Ok(json!({}))
}

fn list_grants(state: &mut State, context: &Context<'_>) -> Result<Value, AwsError> {
    let arn = permitted(state, context)?;
    let live = |grant: &&Grant| grant.key_arn == arn && grant.retired.is_none_or(|at| at > context.now);
    let grants: Vec<Value> = state
        .keys
        .grants
        .iter()
        .filter(live)
        .map(|grant| {
            json!({
                "KeyId": grant.key_arn,
                "GrantId": grant.id,
                "Name": grant.stream_arn,
                "CreationDate": grant.created.as_duration().as_secs_f64(),
                "GranteePrincipal": "firehose.amazonaws.com",
                "RetiringPrincipal": "firehose.amazonaws.com",
                "IssuingAccount": format!("arn:aws:iam::{}:root", grant.issuing_account),
                "Operations": ["Encrypt", "Decrypt", "GenerateDataKey", "RetireGrant"],
            })
        })
        .collect();
    Ok(json!({ "Grants": grants, "Truncated": false }))
}
