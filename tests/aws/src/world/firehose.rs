//! Amazon Data Firehose: the operations on delivery streams, except those that change the encryption.
//!
//! This module decides the answer of each operation and how it changes the state. It reads no clock and does
//! not count requests per second; both are passed in. It follows
//! <https://docs.aws.amazon.com/firehose/latest/APIReference/>.

use serde_json::{Map, Value, json};

use super::input::{constraint, name, number, required};
use super::key::KeyState;
use super::request::{AwsError, Service};
use super::settings::{KeyAfterDisabled, ShownKey};
use super::state::{Context, State};
use super::stream::{
    EncryptionStatus, NeverEncryptedShows, Snapshot, Source, Stream, StreamId, StreamKey, StreamStatus, later,
};
use super::tags;

mod encryption;

use encryption::{check_key, enable, firehose_may_use, requested_key, retire_grants, start, stop};

pub(crate) fn call(state: &mut State, context: &mut Context<'_>) -> Result<Value, AwsError> {
    match context.request.operation.as_str() {
        "DescribeDeliveryStream" => describe(state, context),
        "StartDeliveryStreamEncryption" => start(state, context),
        "StopDeliveryStreamEncryption" => stop(state, context),
        "PutRecord" => put(state, context),
        "CreateDeliveryStream" => create(state, context),
        "DeleteDeliveryStream" => delete(state, context),
        "ListDeliveryStreams" => list(state, context),
        "ListTagsForDeliveryStream" => {
            let (stream, _) = find(state, context, &id(context)?)?;
            tags::page(stream, context.request, 50)
        }
        other => {
            Err(AwsError::new("UnknownOperationException", format!("Firehose's {other} is not simulated")))
        }
    }
}

fn id(context: &Context<'_>) -> Result<StreamId, AwsError> {
    let given = required(context.request, "DeliveryStreamName")?;
    let name = name(given, "DeliveryStreamName", 64)?.to_owned();
    Ok(StreamId {
        service: Service::Firehose,
        account: context.account.clone(),
        region: context.region.clone(),
        name,
    })
}

fn not_found(id: &StreamId) -> AwsError {
    AwsError::new(
        "ResourceNotFoundException",
        format!("Firehose {} under account {} not found.", id.name, id.account),
    )
}

fn find<'a>(
    state: &'a State,
    context: &Context<'_>,
    id: &StreamId,
) -> Result<(&'a Stream, &'a Snapshot), AwsError> {
    let stream = state.streams.get(id).ok_or_else(|| not_found(id))?;
    let snapshot = stream.at(context.now).ok_or_else(|| not_found(id))?;
    Ok((stream, snapshot))
}

fn describe(state: &State, context: &Context<'_>) -> Result<Value, AwsError> {
    let id = id(context)?;
    let stream = state.streams.get(&id).ok_or_else(|| not_found(&id))?;
    let seen = stream.at(context.seen()).ok_or_else(|| not_found(&id))?;
    let mut description = Map::new();
    let mut put = |name: &str, value: Value| description.insert(name.to_owned(), value);
    put("DeliveryStreamName", json!(id.name));
    put("DeliveryStreamARN", json!(id.arn()));
    put("DeliveryStreamStatus", json!(seen.status));
    if !(seen.encryption == EncryptionStatus::NeverSet
        && stream.never_encrypted_shows == NeverEncryptedShows::NeitherBlockNorType)
    {
        put("DeliveryStreamType", json!(stream.source));
    }
    put("VersionId", json!("1"));
    put("CreateTimestamp", json!(stream.created.as_duration().as_secs_f64()));
    let updated = stream.since(context.seen()).max(stream.created);
    if updated > stream.created {
        put("LastUpdateTimestamp", json!(updated.as_duration().as_secs_f64()));
    }
    put("Destinations", json!([{ "DestinationId": "destinationId-000000000001" }]));
    put("HasMoreDestinations", json!(false));
    if let Some(failure) = &stream.creation_failure {
        put("FailureDescription", json!({ "Type": failure.failure_type, "Details": failure.details }));
    }
    if let Some(block) = encryption_block(state, stream, seen) {
        put("DeliveryStreamEncryptionConfiguration", block);
    }
    Ok(json!({ "DeliveryStreamDescription": description }))
}

/// Returns `DeliveryStreamEncryptionConfiguration`: the status of the most recent attempt, and a key.
fn encryption_block(state: &State, stream: &Stream, seen: &Snapshot) -> Option<Value> {
    let key = match seen.encryption {
        EncryptionStatus::NeverSet => {
            let shows_block = stream.source == Source::DirectPut
                && stream.never_encrypted_shows == NeverEncryptedShows::Disabled;
            return shows_block.then(|| json!({ "Status": "DISABLED" }));
        }
        EncryptionStatus::Enabling => seen.requested_key.as_ref(),
        EncryptionStatus::EnablingFailed => match state.settings.failed_re_key_shows {
            ShownKey::Asked => seen.requested_key.as_ref(),
            ShownKey::Active => seen.active_key.as_ref().or(seen.requested_key.as_ref()),
        },
        EncryptionStatus::Enabled | EncryptionStatus::Disabling | EncryptionStatus::DisablingFailed => {
            seen.active_key.as_ref()
        }
        EncryptionStatus::Disabled => match state.settings.key_after_disabled {
            KeyAfterDisabled::Kept => seen.requested_key.as_ref(),
            KeyAfterDisabled::Dropped => None,
        },
    };
    let mut block = Map::new();
    block.insert("Status".to_owned(), json!(seen.encryption));
    match key {
        Some(StreamKey::AwsOwned) => {
            block.insert("KeyType".to_owned(), json!("AWS_OWNED_CMK"));
        }
        Some(StreamKey::Kms { arn, .. }) => {
            block.insert("KeyType".to_owned(), json!("CUSTOMER_MANAGED_CMK"));
            block.insert("KeyARN".to_owned(), json!(arn));
        }
        None => {}
    }
    if let Some(failure) = seen.failure {
        let key = seen.requested_key.as_ref().and_then(StreamKey::key_arn).unwrap_or("AWS_OWNED_CMK");
        block.insert(
            "FailureDescription".to_owned(),
            json!({ "Type": failure, "Details": format!("The most recent attempt failed for key {key}.") }),
        );
    }
    Some(Value::Object(block))
}

/// The message for a record that Firehose may not encrypt.
const GRANT_REVOKED: &str = "The grant for the CMK to this delivery stream might have been revoked or caller might not have sufficient permissions for the CMK.";

/// Implements `PutRecord`. `Encrypted` follows the active encryption after the settle time.
fn put(state: &mut State, context: &Context<'_>) -> Result<Value, AwsError> {
    let id = id(context)?;
    let (stream, snapshot) = find(state, context, &id)?;
    if matches!(snapshot.status, StreamStatus::Creating | StreamStatus::CreatingFailed) {
        return Err(not_found(&id));
    }
    if stream.source != Source::DirectPut {
        let source = json!(stream.source);
        let source = source.as_str().unwrap_or_default();
        let message = format!("This operation is not permitted on {source} delivery stream type.");
        return Err(AwsError::new("InvalidArgumentException", message));
    }
    let settled = stream.at(later(context.now, -state.settings.settle)).and_then(|s| s.active_key.clone());
    if let Some(arn) = settled.as_ref().and_then(StreamKey::key_arn) {
        let code = match state.keys.get(arn) {
            None => Some("NotFoundException"),
            Some(key) if key.state == KeyState::Disabled => Some("DisabledException"),
            Some(key) if key.state != KeyState::Enabled => Some("InvalidStateException"),
            Some(key) if !firehose_may_use(key) => Some("AccessDeniedException"),
            Some(_) => None,
        };
        if let Some(code) = code {
            let message = if code == "AccessDeniedException" {
                GRANT_REVOKED.to_owned()
            } else {
                format!("KMS refused the use of {arn}: {code}")
            };
            let mut error = AwsError::new("InvalidKMSResourceException", message);
            error.kms_code = Some(code.to_owned());
            return Err(error);
        }
    }
    let encrypted = settled.is_some();
    Ok(json!({ "RecordId": format!("{:032x}", state.next()), "Encrypted": encrypted }))
}

fn create(state: &mut State, context: &mut Context<'_>) -> Result<Value, AwsError> {
    let id = id(context)?;
    if state.streams.get(&id).is_some_and(|stream| stream.at(context.now).is_some()) {
        return Err(AwsError::new(
            "ResourceInUseException",
            format!("Firehose {} under accountId {} already exists", id.name, id.account),
        ));
    }
    let source = match context.request.body.get("DeliveryStreamType").and_then(Value::as_str) {
        None | Some("DirectPut") => Source::DirectPut,
        Some("KinesisStreamAsSource") => Source::KinesisStreamAsSource,
        Some("MSKAsSource") => Source::MSKAsSource,
        Some("DatabaseAsSource") => Source::DatabaseAsSource,
        Some(other) => {
            return Err(constraint(
                "DeliveryStreamType",
                other,
                "Member must satisfy enum value set: [DirectPut, KinesisStreamAsSource, MSKAsSource, DatabaseAsSource]",
            ));
        }
    };
    let block = context
        .request
        .body
        .get("DeliveryStreamEncryptionConfigurationInput")
        .filter(|block| !block.is_null());
    let requested_key = block.map(|block| requested_key(Some(block))).transpose()?;
    if requested_key.is_some() && source != Source::DirectPut {
        return Err(AwsError::new(
            "InvalidArgumentException",
            "Server-side encryption is only supported for delivery streams of type DirectPut.",
        ));
    }
    let against = requested_key.as_ref().map_or(Ok(None), |key| check_key(state, context, &id, key))?;
    let creating = Snapshot { status: StreamStatus::Creating, ..Snapshot::default() };
    let mut stream = Stream::new(id.clone(), source, context.now, context.now, creating);
    let ready = later(context.now, state.settings.creating);
    stream.plan(ready, Snapshot::default());
    state.streams.insert(id.clone(), stream);
    if let Some(requested_key) = requested_key {
        // Encryption of a new stream starts when the stream has been created.
        let at_ready = Context { now: ready, ..context.clone() };
        enable(state, &at_ready, &id, requested_key, against);
    }
    Ok(json!({ "DeliveryStreamARN": id.arn() }))
}

fn delete(state: &mut State, context: &Context<'_>) -> Result<Value, AwsError> {
    let id = id(context)?;
    let (_, snapshot) = find(state, context, &id)?;
    if matches!(snapshot.encryption, EncryptionStatus::Enabling | EncryptionStatus::Disabling) {
        let status = json!(snapshot.encryption);
        let status = status.as_str().unwrap_or_default();
        let message = format!("Cannot delete firehose {} when encryption is in {status} status", id.name);
        return Err(AwsError::new("ResourceInUseException", message));
    }
    if snapshot.status == StreamStatus::Creating {
        return Err(AwsError::new("ResourceInUseException", format!("Firehose {} is in use.", id.name)));
    }
    let deleting = Snapshot { status: StreamStatus::Deleting, ..snapshot.clone() };
    let after = state.settings.deleting;
    retire_grants(state, context, &id, after);
    if let Some(stream) = state.streams.get_mut(&id) {
        stream.write(context.now, deleting);
        stream
            .plan(later(context.now, after), Snapshot { status: StreamStatus::Gone, ..Snapshot::default() });
    }
    Ok(json!({}))
}

fn list(state: &State, context: &Context<'_>) -> Result<Value, AwsError> {
    let limit = usize::try_from(number(context.request, "Limit", 1, 10_000, 10)?).unwrap_or(10);
    let after = context
        .request
        .body
        .get("ExclusiveStartDeliveryStreamName")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let kind = context.request.body.get("DeliveryStreamType").filter(|kind| !kind.is_null());
    let mut names: Vec<&str> = state
        .streams
        .values()
        .filter(|s| {
            s.id.service == Service::Firehose
                && s.id.account == context.account
                && s.id.region == context.region
        })
        .filter(|s| s.at(context.now).is_some() && kind.is_none_or(|kind| *kind == json!(s.source)))
        .map(|s| s.id.name.as_str())
        .filter(|name| *name > after)
        .collect();
    let more = names.len() > limit;
    names.truncate(limit);
    Ok(json!({ "DeliveryStreamNames": names, "HasMoreDeliveryStreams": more }))
}
