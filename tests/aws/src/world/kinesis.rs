//! Kinesis Data Streams: the operations on streams, except those that change the encryption.
//!
//! This module decides the answer of each operation and how it changes the state; the time and the context
//! are passed in. It follows <https://docs.aws.amazon.com/kinesis/latest/APIReference/>.

use serde_json::{Map, Value, json};

use super::input::{constraint, name, number, required, text};
use super::limits::Window;
use super::request::{AwsError, Service};
use super::settings::{KeyIdEcho, ShownWhileUpdating};
use super::state::{Context, State};
use super::stream::{
    EncryptionStatus, Snapshot, Source, Stream, StreamId, StreamKey, StreamMode, StreamStatus, later,
};
use super::tags;

mod encryption;

use encryption::{start, stop, usable_key};

pub(crate) fn call(state: &mut State, context: &mut Context<'_>) -> Result<Value, AwsError> {
    match context.request.operation.as_str() {
        "DescribeStreamSummary" => describe(state, context),
        "StartStreamEncryption" => start(state, context),
        "StopStreamEncryption" => stop(state, context),
        "UpdateShardCount" => reshard(state, context),
        "UpdateStreamMode" => switch_mode(state, context),
        "PutRecord" => put(state, context),
        "CreateStream" => create(state, context),
        "DeleteStream" => delete(state, context),
        "ListStreams" => list(state, context),
        "ListTagsForStream" => {
            let id = id(state, context)?;
            find(state, context, &id)?;
            let stream = state.streams.get(&id).ok_or_else(|| not_found(&id))?;
            tags::page(stream, context.request, 50)
        }
        other => {
            Err(AwsError::new("UnknownOperationException", format!("Kinesis's {other} is not simulated")))
        }
    }
}

/// Returns the stream of `StreamName` or `StreamARN`. An ARN may name another account only if a resource
/// policy allows it; resource policies are not modelled.
fn id(state: &State, context: &Context<'_>) -> Result<StreamId, AwsError> {
    let of = |account: &str, region: &str, name: &str| StreamId {
        service: Service::Kinesis,
        account: account.to_owned(),
        region: region.to_owned(),
        name: name.to_owned(),
    };
    let by_name =
        text(context.request, "StreamName")?.map(|given| name(given, "StreamName", 128)).transpose()?;
    let Some(arn) = text(context.request, "StreamARN")? else {
        let given = by_name.ok_or_else(|| {
            AwsError::new("InvalidArgumentException", "Either StreamName or StreamARN should be provided.")
        })?;
        return Ok(of(&context.account, &context.region, given));
    };
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", _, "kinesis", region, account, resource] = parts.as_slice() else {
        return Err(constraint(
            "StreamARN",
            arn,
            r"Member must satisfy regular expression pattern: arn:aws.*:kinesis:.*:\d{12}:stream/\S+",
        ));
    };
    let Some(given) = resource.strip_prefix("stream/") else {
        return Err(constraint(
            "StreamARN",
            arn,
            r"Member must satisfy regular expression pattern: arn:aws.*:kinesis:.*:\d{12}:stream/\S+",
        ));
    };
    if by_name.is_some_and(|name| name != given) {
        return Err(AwsError::new(
            "InvalidArgumentException",
            "StreamName and StreamARN name different streams.",
        ));
    }
    if *region != context.region {
        let message = format!("The region specified in the ARN '{arn}' does not match the endpoint region");
        return Err(AwsError::new("InvalidArgumentException", message));
    }
    if !state.has_account(account) {
        let message = "No account found for the given parameters";
        return Err(AwsError::new("UnrecognizedClientException", message));
    }
    if *account != context.account {
        return Err(not_found(&of(account, region, given)));
    }
    Ok(of(account, region, given))
}

fn not_found(id: &StreamId) -> AwsError {
    AwsError::new(
        "ResourceNotFoundException",
        format!("Stream {} under account {} not found.", id.name, id.account),
    )
}

fn in_use(id: &StreamId, status: StreamStatus) -> AwsError {
    AwsError::new(
        "ResourceInUseException",
        format!(
            "Stream {} under account {} not ACTIVE, instead in state {}",
            id.name,
            id.account,
            json!(status).as_str().unwrap_or_default()
        ),
    )
}

fn find<'a>(state: &'a State, context: &Context<'_>, id: &StreamId) -> Result<&'a Snapshot, AwsError> {
    state.streams.get(id).and_then(|stream| stream.at(context.now)).ok_or_else(|| not_found(id))
}

fn describe(state: &State, context: &Context<'_>) -> Result<Value, AwsError> {
    let id = id(state, context)?;
    let stream = state.streams.get(&id).ok_or_else(|| not_found(&id))?;
    let seen = stream.at(context.seen()).ok_or_else(|| not_found(&id))?;
    let updating = seen.status == StreamStatus::Updating
        && matches!(seen.encryption, EncryptionStatus::Enabling | EncryptionStatus::Disabling);
    let key = match (updating, state.settings.while_updating, seen.encryption) {
        (true, ShownWhileUpdating::New, EncryptionStatus::Enabling) => seen.requested_key.as_ref(),
        (true, ShownWhileUpdating::New, _) => None,
        _ => seen.active_key.as_ref(),
    };
    let mut description = Map::new();
    let mut put = |name: &str, value: Value| description.insert(name.to_owned(), value);
    put("StreamName", json!(id.name));
    put("StreamARN", json!(id.arn()));
    put("StreamStatus", json!(seen.status));
    put("StreamModeDetails", json!({ "StreamMode": seen.mode }));
    put("RetentionPeriodHours", json!(24));
    put("StreamCreationTimestamp", json!(stream.created.as_duration().as_secs_f64()));
    put("EnhancedMonitoring", json!([{ "ShardLevelMetrics": [] }]));
    put("EncryptionType", json!(if key.is_some() { "KMS" } else { "NONE" }));
    if let Some(key) = key {
        put("KeyId", json!(shown_key(state, key)));
    }
    if !matches!(seen.status, StreamStatus::Creating | StreamStatus::Deleting) {
        put("OpenShardCount", json!(1));
    }
    put("ConsumerCount", json!(0));
    put("ChannelCount", json!(0));
    if seen.mode == StreamMode::OnDemand {
        put("RecordDistributionStrategy", json!("USER_PARTITION_KEY"));
    }
    put("MaxRecordSizeInKiB", json!(1024));
    Ok(json!({ "StreamDescriptionSummary": description }))
}

fn shown_key(state: &State, key: &StreamKey) -> String {
    match key {
        StreamKey::AwsOwned => "alias/aws/kinesis".to_owned(),
        StreamKey::Kms { arn, given } => match state.settings.kinesis_key_id {
            KeyIdEcho::AsGiven => given.clone(),
            KeyIdEcho::KeyArn => arn.clone(),
            KeyIdEcho::Alias => state.keys.alias_of(arn).unwrap_or(arn).to_owned(),
        },
    }
}

/// Refuses a change when `most` of its kind have succeeded in 24 hours. The message was recorded for the quota
/// of mode switches; the quota of Starts and Stops is assumed to have the same.
fn check_limit(
    state: &mut State,
    context: &Context<'_>,
    id: &StreamId,
    window: Window,
    most: usize,
) -> Result<(), AwsError> {
    let used = state.changes.used(context.now, id, window, state.settings.call_window);
    if used < most {
        return Ok(());
    }
    let message = format!("Rate exceeded for stream {} under account {}.", id.name, id.account);
    Err(AwsError::new("LimitExceededException", message))
}

/// The number of mode switches that AWS allows for a stream in 24 hours.
const MODE_SWITCHES: usize = 2;

/// Implements `UpdateStreamMode`. Describe shows the old mode while the stream is UPDATING.
fn switch_mode(state: &mut State, context: &mut Context<'_>) -> Result<Value, AwsError> {
    required(context.request, "StreamARN")?;
    let id = id(state, context)?;
    let mode = match context.request.body.pointer("/StreamModeDetails/StreamMode").and_then(Value::as_str) {
        Some("PROVISIONED") => StreamMode::Provisioned,
        Some("ON_DEMAND") => StreamMode::OnDemand,
        other => {
            let rule = "Member must satisfy enum value set: [PROVISIONED, ON_DEMAND]";
            return Err(constraint("streamModeDetails.streamMode", other.unwrap_or("null"), rule));
        }
    };
    let before = active(state, context, &id)?;
    check_limit(state, context, &id, Window::KinesisModes, MODE_SWITCHES)?;
    state.changes.count(context.now, &id, Window::KinesisModes);
    update(state, context, &id, &before, Snapshot { mode, ..before.clone() });
    Ok(json!({}))
}

/// Implements `UpdateShardCount`. It sets UPDATING for a reason other than encryption.
fn reshard(state: &mut State, context: &Context<'_>) -> Result<Value, AwsError> {
    let id = id(state, context)?;
    let before = active(state, context, &id)?;
    let target = number(context.request, "TargetShardCount", 1, 100_000, 1)?;
    update(state, context, &id, &before, before.clone());
    Ok(
        json!({ "StreamName": id.name, "StreamARN": id.arn(), "CurrentShardCount": 1, "TargetShardCount": target }),
    )
}

/// Returns the state of a stream that accepts a change.
fn active(state: &State, context: &Context<'_>, id: &StreamId) -> Result<Snapshot, AwsError> {
    let snapshot = find(state, context, id)?;
    if snapshot.status == StreamStatus::Active {
        Ok(snapshot.clone())
    } else {
        Err(in_use(id, snapshot.status))
    }
}

/// Sets UPDATING now, and the state in which the change ends.
fn update(state: &mut State, context: &Context<'_>, id: &StreamId, before: &Snapshot, end: Snapshot) {
    let ready = later(context.now, context.takes.unwrap_or(state.settings.updating));
    if let Some(stream) = state.streams.get_mut(id) {
        stream.write(context.now, Snapshot { status: StreamStatus::Updating, ..before.clone() });
        stream.plan(ready, end);
    }
}

/// Implements `PutRecord`. `EncryptionType` follows the active encryption after the settle time.
fn put(state: &mut State, context: &Context<'_>) -> Result<Value, AwsError> {
    let id = id(state, context)?;
    let status = find(state, context, &id)?.status;
    if status == StreamStatus::Creating {
        return Err(not_found(&id));
    }
    let settled = later(context.now, -state.settings.settle);
    let active_key = state.streams.get(&id).and_then(|s| s.at(settled)).and_then(|s| s.active_key.clone());
    let encrypted = active_key.is_some();
    if let Some(key) = active_key.as_ref().and_then(StreamKey::key_arn).map(str::to_owned) {
        usable_key(state, context, &key)?;
    }
    // For a plaintext record, Kinesis returns no encryption type at all.
    let number = format!("{:056}", state.next());
    let mut answer = json!({ "ShardId": "shardId-000000000000", "SequenceNumber": number });
    if encrypted {
        answer["EncryptionType"] = json!("KMS");
    }
    Ok(answer)
}

fn create(state: &mut State, context: &Context<'_>) -> Result<Value, AwsError> {
    required(context.request, "StreamName")?;
    let id = id(state, context)?;
    if state.streams.get(&id).is_some_and(|stream| stream.at(context.now).is_some()) {
        let message = format!("Stream {} under account {} already exists.", id.name, id.account);
        return Err(AwsError::new("ResourceInUseException", message));
    }
    let creating = Snapshot { status: StreamStatus::Creating, ..Snapshot::default() };
    let mut stream = Stream::new(id.clone(), Source::DirectPut, context.now, context.now, creating);
    stream.plan(later(context.now, state.settings.creating), Snapshot::default());
    state.streams.insert(id, stream);
    Ok(json!({}))
}

fn delete(state: &mut State, context: &Context<'_>) -> Result<Value, AwsError> {
    let id = id(state, context)?;
    let deleting = Snapshot { status: StreamStatus::Deleting, ..find(state, context, &id)?.clone() };
    let gone = later(context.now, state.settings.deleting);
    if let Some(stream) = state.streams.get_mut(&id) {
        stream.write(context.now, deleting);
        stream.plan(gone, Snapshot { status: StreamStatus::Gone, ..Snapshot::default() });
    }
    Ok(json!({}))
}

fn list(state: &State, context: &Context<'_>) -> Result<Value, AwsError> {
    let limit = usize::try_from(number(context.request, "Limit", 1, 10_000, 100)?).unwrap_or(100);
    let after = text(context.request, "NextToken")?
        .or(text(context.request, "ExclusiveStartStreamName")?)
        .unwrap_or_default();
    let mut streams: Vec<(&Stream, &Snapshot)> = state
        .streams
        .values()
        .filter(|s| {
            s.id.service == Service::Kinesis
                && s.id.account == context.account
                && s.id.region == context.region
        })
        .filter(|s| s.id.name.as_str() > after)
        .filter_map(|s| s.at(context.now).map(|snapshot| (s, snapshot)))
        .collect();
    let more = streams.len() > limit;
    streams.truncate(limit);
    let names: Vec<&str> = streams.iter().map(|(s, _)| s.id.name.as_str()).collect();
    let summaries: Vec<Value> = streams
        .iter()
        .map(|(stream, snapshot)| {
            json!({
                "StreamName": stream.id.name,
                "StreamARN": stream.id.arn(),
                "StreamStatus": snapshot.status,
                "StreamModeDetails": { "StreamMode": snapshot.mode },
                "StreamCreationTimestamp": stream.created.as_duration().as_secs_f64(),
            })
        })
        .collect();
    let mut answer = json!({ "StreamNames": names, "HasMoreStreams": more, "StreamSummaries": summaries });
    if let Some(last) = streams.last().filter(|_| more) {
        answer["NextToken"] = json!(last.0.id.name);
    }
    Ok(answer)
}
