//! Kinesis Data Streams: server-side encryption. Start, Stop, and the keys that Kinesis can use.
//!
//! This module decides whether a change is accepted. It reads no clock. It follows
//! <https://docs.aws.amazon.com/streams/latest/dev/server-side-encryption.html>.

use serde_json::{Value, json};

use super::{check_limit, find, id, in_use};
use crate::world::input::{constraint, is_kinesis_key_id, required};
use crate::world::key::KeyState;
use crate::world::limits::Window;
use crate::world::request::AwsError;
use crate::world::state::{Context, State};
use crate::world::stream::{Snapshot, StreamId, StreamKey, StreamStatus};

/// Returns `KeyId`, and checks `EncryptionType`, which Start and Stop both need.
fn requested_key<'a>(context: &Context<'a>) -> Result<&'a str, AwsError> {
    match required(context.request, "EncryptionType")? {
        "KMS" => {}
        "NONE" => return Err(AwsError::new("InvalidArgumentException", "Encryption type cannot be NONE.")),
        other => {
            return Err(constraint(
                "EncryptionType",
                other,
                "Member must satisfy enum value set: [KMS, NONE]",
            ));
        }
    }
    let key = required(context.request, "KeyId")?;
    if is_kinesis_key_id(key) {
        Ok(key)
    } else {
        Err(AwsError::new("InvalidArgumentException", format!("Invalid KeyId {key}")))
    }
}

/// Returns the key's ARN if the key is usable now; otherwise KMS's error as Kinesis reports it.
pub(super) fn usable_key(
    state: &mut State,
    context: &Context<'_>,
    given: &str,
) -> Result<StreamKey, AwsError> {
    let arn = state
        .keys
        .resolve(given, &context.account, &context.region, context.now)
        .map_err(|error| AwsError::new("KMSNotFoundException", error.message))?;
    let Some(key) = state.keys.get(&arn) else {
        return Err(AwsError::new("KMSNotFoundException", format!("Key '{arn}' does not exist")));
    };
    match key.state {
        KeyState::Enabled => {}
        KeyState::Disabled => {
            return Err(AwsError::new("KMSDisabledException", format!("{arn} is disabled.")));
        }
        KeyState::PendingDeletion | KeyState::PendingImport | KeyState::Unavailable => {
            return Err(AwsError::new("KMSInvalidStateException", format!("{arn} is {:?}.", key.state)));
        }
    }
    if !key.encrypts() {
        // KMS would return InvalidKeyUsageException, which Kinesis does not model: this code is an
        // assumption.
        return Err(AwsError::new(
            "KMSInvalidStateException",
            format!("{arn} is no symmetric encryption key."),
        ));
    }
    let names = context.names();
    let denied = ["kms:DescribeKey", "kms:GenerateDataKey"].into_iter().find(|a| !key.permits(&names, a));
    if let Some(action) = denied.filter(|_| key.manager != "AWS") {
        let user = &context.principal.arn;
        let message = format!("User: {user} is not authorized to perform: {action} on resource: {arn}");
        return Err(AwsError::new("KMSAccessDeniedException", message));
    }
    Ok(StreamKey::Kms { arn, given: given.to_owned() })
}

pub(super) fn start(state: &mut State, context: &mut Context<'_>) -> Result<Value, AwsError> {
    let given = requested_key(context)?;
    let id = id(state, context)?;
    let status = find(state, context, &id)?.status;
    if status != StreamStatus::Active {
        return Err(in_use(&id, status));
    }
    let key = usable_key(state, context, given)?;
    check_limit(state, context, &id, Window::KinesisStarts, state.settings.call_limit)?;
    accept(state, context, &id, Window::KinesisStarts, Some(key));
    Ok(json!({}))
}

pub(super) fn stop(state: &mut State, context: &mut Context<'_>) -> Result<Value, AwsError> {
    requested_key(context)?;
    let id = id(state, context)?;
    let Snapshot { status, active_key, .. } = find(state, context, &id)?;
    if *status != StreamStatus::Active {
        return Err(in_use(&id, *status));
    }
    if active_key.is_none() {
        let message = "Cannot stop encrypting an unencrypted stream.";
        return Err(AwsError::new("InvalidArgumentException", message));
    }
    check_limit(state, context, &id, Window::KinesisStops, state.settings.call_limit)?;
    accept(state, context, &id, Window::KinesisStops, None);
    Ok(json!({}))
}

fn accept(
    state: &mut State,
    context: &mut Context<'_>,
    id: &StreamId,
    window: Window,
    key: Option<StreamKey>,
) {
    state.changes.count(context.now, id, window);
    context.counted = true;
    if context.no_op {
        return;
    }
    let end = context.end(state.settings.updating, None);
    if let Some(stream) = state.streams.get_mut(id) {
        stream.change(context.now, key, end);
    }
}
