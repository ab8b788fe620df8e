//! Amazon Data Firehose: server-side encryption of delivery streams. Start, Stop, their checks and their limit.
//!
//! This module decides whether a change is accepted and how it will end. It reads no clock. It follows
//! <https://docs.aws.amazon.com/firehose/latest/dev/encryption.html>.

use serde_json::{Value, json};

use super::{find, id};
use crate::world::input::{constraint, is_key_arn_for_sse};
use crate::world::key::{Grant, Key, KeyState};
use crate::world::limits::Window;
use crate::world::request::{AwsError, Service};
use crate::world::settings::{BadKey, FirehoseCounts, SameKey};
use crate::world::state::{Context, State};
use crate::world::stream::{
    EncryptionStatus, End, FailureType, Source, Stream, StreamId, StreamKey, StreamStatus, later,
};

/// Returns the key of a `DeliveryStreamEncryptionConfigurationInput`.
pub(super) fn requested_key(block: Option<&Value>) -> Result<StreamKey, AwsError> {
    let Some(block) = block.filter(|block| !block.is_null()) else { return Ok(StreamKey::AwsOwned) };
    let member = "DeliveryStreamEncryptionConfigurationInput";
    let arn = block.get("KeyARN").and_then(Value::as_str);
    if let Some(arn) = arn.filter(|arn| !is_key_arn_for_sse(arn)) {
        let rule = r"Member must satisfy regular expression pattern: arn:.*:kms:[a-zA-Z0-9\-]+:\d{12}:key/[a-zA-Z_0-9+=,.@\-_/]+";
        return Err(constraint(&format!("{member}.keyARN"), arn, rule));
    }
    match (block.get("KeyType").and_then(Value::as_str), arn) {
        (Some("AWS_OWNED_CMK"), None) => Ok(StreamKey::AwsOwned),
        (Some("AWS_OWNED_CMK"), Some(_)) => Err(AwsError::new(
            "InvalidArgumentException",
            "KeyARN must not be specified with KeyType AWS_OWNED_CMK.",
        )),
        (Some("CUSTOMER_MANAGED_CMK"), Some(arn)) => Ok(StreamKey::arn(arn)),
        (Some("CUSTOMER_MANAGED_CMK"), None) => Err(AwsError::new(
            "InvalidArgumentException",
            "KeyARN must be specified with KeyType CUSTOMER_MANAGED_CMK.",
        )),
        (given, _) => {
            let rule = "Member must satisfy enum value set: [AWS_OWNED_CMK, CUSTOMER_MANAGED_CMK]";
            Err(constraint(&format!("{member}.keyType"), given.unwrap_or("null"), rule))
        }
    }
}

/// Returns the failure that prevents Firehose from using a key, if any.
fn against(state: &State, context: &Context<'_>, key: &StreamKey) -> Option<FailureType> {
    let arn = key.key_arn()?;
    let Some(key) = state.keys.get(arn) else { return Some(FailureType::KmsKeyNotFound) };
    match key.state {
        KeyState::Enabled => {}
        KeyState::Disabled => return Some(FailureType::DisabledKmsKey),
        KeyState::PendingDeletion | KeyState::PendingImport | KeyState::Unavailable => {
            return Some(FailureType::InvalidKmsKey);
        }
    }
    if !key.encrypts() || key.region != context.region {
        return Some(FailureType::InvalidKmsKey);
    }
    if !firehose_may_use(key) || !key.permits(&context.names(), "kms:CreateGrant") {
        return Some(FailureType::KmsAccessDenied);
    }
    let old = context
        .principal
        .session
        .as_ref()
        .is_some_and(|s| later(s.issued, state.settings.session_age) < context.now);
    old.then_some(FailureType::CreateKmsGrantFailed)
}

/// Implements "The key policy mustn't explicitly deny the permission for Firehose to invoke KMS encrypt and
/// decrypt operations."
pub(super) fn firehose_may_use(key: &Key) -> bool {
    let firehose = ["firehose.amazonaws.com".to_owned()];
    ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey"].iter().all(|action| key.permits(&firehose, action))
}

/// Returns KMS's own error code for a failure that is refused at once; `None` for a failed grant.
fn kms_code(failure: FailureType) -> Option<&'static str> {
    match failure {
        FailureType::KmsKeyNotFound => Some("NotFoundException"),
        FailureType::DisabledKmsKey => Some("DisabledException"),
        FailureType::InvalidKmsKey => Some("InvalidStateException"),
        FailureType::KmsAccessDenied => Some("AccessDeniedException"),
        _ => None,
    }
}

/// Counts a Start or Stop that reached the stream; refuses it if the limit is reached.
fn spend(state: &mut State, context: &mut Context<'_>, id: &StreamId) -> Result<(), AwsError> {
    let settings = &state.settings;
    let used = state.changes.used(context.now, id, Window::FirehoseChanges, settings.call_window);
    let over = used >= settings.call_limit;
    let counts = match settings.firehose_counts {
        FirehoseCounts::Accepted => false,
        FirehoseCounts::ReachedTheStream => !over,
        FirehoseCounts::EvenOverTheLimit => true,
    };
    if counts {
        count(state, context, id);
    }
    if over {
        return Err(AwsError::new(
            "LimitExceededException",
            format!(
                "{} calls to start or stop encryption of {} in 24 hours exceed the limit.",
                settings_limit(state),
                id.name
            ),
        ));
    }
    Ok(())
}

fn settings_limit(state: &State) -> usize {
    state.settings.call_limit
}

fn count(state: &mut State, context: &mut Context<'_>, id: &StreamId) {
    if !context.counted {
        context.counted = true;
        state.changes.count(context.now, id, Window::FirehoseChanges);
    }
}

/// Makes the checks that Start and Stop share, in this order: the limit, the status of the stream and of its
/// encryption, the source.
fn check_change(state: &mut State, context: &mut Context<'_>, id: &StreamId) -> Result<(), AwsError> {
    find(state, context, id)?;
    spend(state, context, id)?;
    let (stream, snapshot) = find(state, context, id)?;
    let changing = matches!(snapshot.encryption, EncryptionStatus::Enabling | EncryptionStatus::Disabling);
    if snapshot.status != StreamStatus::Active || changing {
        return Err(AwsError::new(
            "ResourceInUseException",
            format!(
                "Delivery stream {} under account {} is in use: another change is under way.",
                id.name, id.account
            ),
        ));
    }
    if stream.source != Source::DirectPut {
        return Err(AwsError::new(
            "InvalidArgumentException",
            "Server-side encryption is only supported for delivery streams of type DirectPut.",
        ));
    }
    Ok(())
}

pub(super) fn start(state: &mut State, context: &mut Context<'_>) -> Result<Value, AwsError> {
    let id = id(context)?;
    let requested_key =
        requested_key(context.request.body.get("DeliveryStreamEncryptionConfigurationInput"))?;
    check_change(state, context, &id)?;
    let against = check_key(state, context, &id, &requested_key)?;
    let against = check_same_key(state, context, &id, &requested_key, against)?;
    // All checks have passed; the call is accepted.
    count(state, context, &id);
    if !context.no_op {
        enable(state, context, &id, requested_key, against);
    }
    Ok(json!({}))
}

/// Refuses a key at once if the settings require it or if 500 streams use the key; otherwise returns how the
/// change will fail.
pub(super) fn check_key(
    state: &State,
    context: &Context<'_>,
    id: &StreamId,
    requested_key: &StreamKey,
) -> Result<Option<FailureType>, AwsError> {
    let against = against(state, context, requested_key);
    if state.settings.bad_key == BadKey::RefusedAtOnce
        && let Some(code) = against.and_then(kms_code)
    {
        let arn = requested_key.key_arn().unwrap_or_default();
        let mut error =
            AwsError::new("InvalidKMSResourceException", format!("KMS refused the use of {arn}: {code}"));
        error.kms_code = Some(code.to_owned());
        return Err(error);
    }
    if let Some(arn) = requested_key.key_arn() {
        let uses = |stream: &Stream| {
            let last = stream.last();
            let key = if last.encryption == EncryptionStatus::Enabling {
                &last.requested_key
            } else {
                &last.active_key
            };
            stream.id != *id
                && last.status != StreamStatus::Gone
                && key.as_ref().and_then(StreamKey::key_arn) == Some(arn)
        };
        let streams = state.streams.values().filter(|s| s.id.service == Service::Firehose && uses(s)).count();
        if streams >= state.settings.streams_per_key {
            return Err(AwsError::new(
                "LimitExceededException",
                format!("{arn} already encrypts {streams} delivery streams."),
            ));
        }
    }
    Ok(against)
}

/// Returns the failure of a Start with the key that is already active, if there is no other failure.
fn check_same_key(
    state: &State,
    context: &Context<'_>,
    id: &StreamId,
    requested_key: &StreamKey,
    against: Option<FailureType>,
) -> Result<Option<FailureType>, AwsError> {
    let (_, snapshot) = find(state, context, id)?;
    let is_same = match (&snapshot.active_key, requested_key) {
        (Some(StreamKey::AwsOwned), StreamKey::AwsOwned) => true,
        (Some(key), requested_key) => key.key_arn().is_some() && key.key_arn() == requested_key.key_arn(),
        (None, _) => false,
    };
    match state.settings.same_key {
        _ if !is_same => Ok(against),
        SameKey::FailsLater => Ok(against.or(Some(FailureType::UnknownError))),
        SameKey::RefusedAtOnce => Err(AwsError::new(
            "InvalidArgumentException",
            format!("Delivery stream {} is encrypted with this key already.", id.name),
        )),
        SameKey::Accepted => Ok(against),
    }
}

pub(super) fn enable(
    state: &mut State,
    context: &Context<'_>,
    id: &StreamId,
    requested_key: StreamKey,
    against: Option<FailureType>,
) {
    let end = context.end(state.settings.enabling, against);
    let arn = requested_key.key_arn().map(str::to_owned);
    if let End::Succeeds { after } = end {
        retire_grants(state, context, id, after);
        if let Some(key_arn) = arn {
            let grant = Grant {
                id: format!("{:064x}", state.next()),
                key_arn,
                stream_arn: id.arn(),
                issuing_account: context.account.clone(),
                created: context.now,
                retired: None,
            };
            state.keys.grants.push(grant);
        }
    }
    if let Some(stream) = state.streams.get_mut(id) {
        stream.change(context.now, Some(requested_key), end);
    }
}

/// Retires the grant on the old key when the change completes.
pub(super) fn retire_grants(
    state: &mut State,
    context: &Context<'_>,
    id: &StreamId,
    after: jiff::SignedDuration,
) {
    let arn = id.arn();
    for grant in state.keys.grants.iter_mut().filter(|g| g.stream_arn == arn && g.retired.is_none()) {
        grant.retired = Some(later(context.now, after));
    }
}

pub(super) fn stop(state: &mut State, context: &mut Context<'_>) -> Result<Value, AwsError> {
    let id = id(context)?;
    check_change(state, context, &id)?;
    count(state, context, &id);
    if context.no_op {
        return Ok(json!({}));
    }
    let end = context.end(state.settings.disabling, None);
    if let End::Succeeds { after } = end {
        retire_grants(state, context, &id, after);
    }
    if let Some(stream) = state.streams.get_mut(&id) {
        stream.change(context.now, None, end);
    }
    Ok(json!({}))
}
