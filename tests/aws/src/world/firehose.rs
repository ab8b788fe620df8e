//! Amazon Data Firehose: the operations on delivery streams.
//!
//! It decides what each operation answers and how it changes the state. It reads no clock and counts no calls per second; those come
//! in. Follows <https://docs.aws.amazon.com/firehose/latest/APIReference/>.

use serde_json::{Map, Value, json};

use super::input::{constraint, is_key_arn_for_sse, name, number, required};
use super::key::{Grant, Key, KeyState};
use super::limits::Window;
use super::request::{AwsError, Service};
use super::settings::{BadKey, FirehoseCounts, KeyAfterDisabled, SameKey, ShownKey};
use super::state::{Context, State};
use super::stream::{
    EncryptionStatus, End, FailureType, NeverEncryptedShows, Snapshot, Source, Stream, StreamId, StreamKey,
    StreamStatus, later,
};

pub(crate) fn call(state: &mut State, context: &mut Context<'_>) -> Result<Value, AwsError> {
    match context.request.operation.as_str() {
        "DescribeDeliveryStream" => describe(state, context),
        "StartDeliveryStreamEncryption" => start(state, context),
        "StopDeliveryStreamEncryption" => stop(state, context),
        "PutRecord" | "PutRecordBatch" => put(state, context),
        "CreateDeliveryStream" => create(state, context),
        "DeleteDeliveryStream" => delete(state, context),
        "ListDeliveryStreams" => list(state, context),
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
    put("DeliveryStreamType", json!(stream.source));
    put("VersionId", json!("1"));
    put("CreateTimestamp", json!(stream.created.as_duration().as_secs_f64()));
    let updated = stream.since(context.seen()).max(stream.created);
    if updated > stream.created {
        put("LastUpdateTimestamp", json!(updated.as_duration().as_secs_f64()));
    }
    put("Destinations", json!([{ "DestinationId": "destinationId-000000000001" }]));
    put("HasMoreDestinations", json!(false));
    if let Some(block) = encryption_block(state, stream, seen) {
        put("DeliveryStreamEncryptionConfiguration", block);
    }
    Ok(json!({ "DeliveryStreamDescription": description }))
}

/// `DeliveryStreamEncryptionConfiguration`: the status of the most recent attempt, and a key.
fn encryption_block(state: &State, stream: &Stream, seen: &Snapshot) -> Option<Value> {
    let key = match seen.encryption {
        EncryptionStatus::NeverSet => {
            return (stream.never_encrypted_shows == NeverEncryptedShows::Disabled)
                .then(|| json!({ "Status": "DISABLED" }));
        }
        EncryptionStatus::Enabling => seen.asked.as_ref(),
        EncryptionStatus::EnablingFailed => match state.settings.failed_re_key_shows {
            ShownKey::Asked => seen.asked.as_ref(),
            ShownKey::InForce => seen.in_force.as_ref().or(seen.asked.as_ref()),
        },
        EncryptionStatus::Enabled | EncryptionStatus::Disabling | EncryptionStatus::DisablingFailed => {
            seen.in_force.as_ref()
        }
        EncryptionStatus::Disabled => match state.settings.key_after_disabled {
            KeyAfterDisabled::Kept => seen.asked.as_ref(),
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
        let key = seen.asked.as_ref().and_then(StreamKey::key_arn).unwrap_or("AWS_OWNED_CMK");
        block.insert(
            "FailureDescription".to_owned(),
            json!({ "Type": failure, "Details": format!("The most recent attempt failed for key {key}.") }),
        );
    }
    Some(Value::Object(block))
}

/// The key of a `DeliveryStreamEncryptionConfigurationInput`.
fn asked_key(block: Option<&Value>) -> Result<StreamKey, AwsError> {
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

/// What stands against Firehose's use of a key.
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

/// "The key policy mustn't explicitly deny the permission for Firehose to invoke KMS encrypt and decrypt operations."
fn firehose_may_use(key: &Key) -> bool {
    let firehose = ["firehose.amazonaws.com".to_owned()];
    ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey"].iter().all(|action| key.permits(&firehose, action))
}

/// KMS's own error for a failure that is refused at once; a failed grant has none.
fn kms_code(failure: FailureType) -> Option<&'static str> {
    match failure {
        FailureType::KmsKeyNotFound => Some("NotFoundException"),
        FailureType::DisabledKmsKey => Some("DisabledException"),
        FailureType::InvalidKmsKey => Some("InvalidStateException"),
        FailureType::KmsAccessDenied => Some("AccessDeniedException"),
        _ => None,
    }
}

/// Counts a Start or Stop that reached the stream; at the limit it is refused.
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

/// What Start and Stop check alike, in this order: the limit, the stream's and the encryption's status, the source.
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

fn start(state: &mut State, context: &mut Context<'_>) -> Result<Value, AwsError> {
    let id = id(context)?;
    let asked = asked_key(context.request.body.get("DeliveryStreamEncryptionConfigurationInput"))?;
    check_change(state, context, &id)?;
    let against = check_key(state, context, &id, &asked)?;
    let against = check_same_key(state, context, &id, &asked, against)?;
    // All checks passed: from here on it is accepted.
    count(state, context, &id);
    if !context.no_op {
        enable(state, context, &id, asked, against);
    }
    Ok(json!({}))
}

/// Refuses a key at once where the settings say so or 500 streams use it; else says how it will fail.
fn check_key(
    state: &State,
    context: &Context<'_>,
    id: &StreamId,
    asked: &StreamKey,
) -> Result<Option<FailureType>, AwsError> {
    let against = against(state, context, asked);
    if state.settings.bad_key == BadKey::RefusedAtOnce
        && let Some(code) = against.and_then(kms_code)
    {
        let arn = asked.key_arn().unwrap_or_default();
        let mut error =
            AwsError::new("InvalidKMSResourceException", format!("KMS refused the use of {arn}: {code}"));
        error.kms_code = Some(code.to_owned());
        return Err(error);
    }
    if let Some(arn) = asked.key_arn() {
        let uses = |stream: &Stream| {
            let last = stream.last();
            let key =
                if last.encryption == EncryptionStatus::Enabling { &last.asked } else { &last.in_force };
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

/// What stands against a Start with the key that is in force already, where nothing else does.
fn check_same_key(
    state: &State,
    context: &Context<'_>,
    id: &StreamId,
    asked: &StreamKey,
    against: Option<FailureType>,
) -> Result<Option<FailureType>, AwsError> {
    let (_, snapshot) = find(state, context, id)?;
    let is_same = match (&snapshot.in_force, asked) {
        (Some(StreamKey::AwsOwned), StreamKey::AwsOwned) => true,
        (Some(key), asked) => key.key_arn().is_some() && key.key_arn() == asked.key_arn(),
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

fn enable(
    state: &mut State,
    context: &Context<'_>,
    id: &StreamId,
    asked: StreamKey,
    against: Option<FailureType>,
) {
    let end = context.end(state.settings.enabling, against);
    let arn = asked.key_arn().map(str::to_owned);
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
        stream.change(context.now, Some(asked), end);
    }
}

/// The grant on the old key goes when the change is done.
fn retire_grants(state: &mut State, context: &Context<'_>, id: &StreamId, after: jiff::SignedDuration) {
    let arn = id.arn();
    for grant in state.keys.grants.iter_mut().filter(|g| g.stream_arn == arn && g.retired.is_none()) {
        grant.retired = Some(later(context.now, after));
    }
}

fn stop(state: &mut State, context: &mut Context<'_>) -> Result<Value, AwsError> {
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

/// `PutRecord` and `PutRecordBatch`. `Encrypted` follows the encryption in force by the settle time.
fn put(state: &mut State, context: &Context<'_>) -> Result<Value, AwsError> {
    let id = id(context)?;
    let (stream, snapshot) = find(state, context, &id)?;
    if matches!(snapshot.status, StreamStatus::Creating | StreamStatus::CreatingFailed) {
        return Err(not_found(&id));
    }
    if stream.source != Source::DirectPut {
        return Err(AwsError::new(
            "InvalidSourceException",
            "Only requests from the stream's source are allowed.",
        ));
    }
    let settled = stream.at(later(context.now, -state.settings.settle)).and_then(|s| s.in_force.clone());
    if let Some(arn) = settled.as_ref().and_then(StreamKey::key_arn) {
        let code = match state.keys.get(arn) {
            None => Some("NotFoundException"),
            Some(key) if key.state == KeyState::Disabled => Some("DisabledException"),
            Some(key) if key.state != KeyState::Enabled => Some("InvalidStateException"),
            Some(key) if !firehose_may_use(key) => Some("AccessDeniedException"),
            Some(_) => None,
        };
        if let Some(code) = code {
            let mut error =
                AwsError::new("InvalidKMSResourceException", format!("KMS refused the use of {arn}: {code}"));
            error.kms_code = Some(code.to_owned());
            return Err(error);
        }
    }
    let encrypted = settled.is_some();
    let mut record = || json!({ "RecordId": format!("{:032x}", state.next()) });
    if context.request.operation == "PutRecord" {
        let mut answer = record();
        answer["Encrypted"] = json!(encrypted);
        return Ok(answer);
    }
    let records = context.request.body.get("Records").and_then(Value::as_array).map_or(0, Vec::len);
    if !(1..=500).contains(&records) {
        return Err(constraint("records", "null", "Member must have length between 1 and 500"));
    }
    let responses: Vec<Value> = (0..records).map(|_| record()).collect();
    Ok(json!({ "FailedPutCount": 0, "Encrypted": encrypted, "RequestResponses": responses }))
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
    let asked = block.map(|block| asked_key(Some(block))).transpose()?;
    if asked.is_some() && source != Source::DirectPut {
        return Err(AwsError::new(
            "InvalidArgumentException",
            "Server-side encryption is only supported for delivery streams of type DirectPut.",
        ));
    }
    let against = asked.as_ref().map_or(Ok(None), |key| check_key(state, context, &id, key))?;
    let creating = Snapshot { status: StreamStatus::Creating, ..Snapshot::default() };
    let mut stream = Stream::new(id.clone(), source, context.now, context.now, creating);
    let ready = later(context.now, state.settings.creating);
    stream.plan(ready, Snapshot::default());
    state.streams.insert(id.clone(), stream);
    if let Some(asked) = asked {
        // Encryption of a new stream starts when the stream is there.
        let at_ready = Context { now: ready, ..context.clone() };
        enable(state, &at_ready, &id, asked, against);
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
