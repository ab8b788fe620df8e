//! Tests of [`super`].

use stream_encryption_api::stream_encryption::{KeyReference, StreamEncryptionSpec, StreamEncryptionStatus};

use super::*;

const OLD_KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/old";
const NEW_KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/new";

fn key_identity(arn: &str) -> KeyIdentity {
    KeyIdentity { kind: KeyType::CustomerManaged, arn: Some(arn.to_owned()) }
}

/// A plan without a step.
fn waiting_plan(reason: Reason, active_key: Option<KeyIdentity>, next_attempt: Option<Timestamp>) -> Preview {
    let stream = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders".parse().unwrap();
    Preview {
        stream: Some(stream),
        active_key,
        step: PlannedStep::Nothing,
        reason: Some(reason),
        message: "why".to_owned(),
        calls: None,
        next_attempt,
    }
}

/// The row of a resource with the new key, for a plan without a step while the old key is active.
fn without_step(reason: Reason, next_attempt: Option<Timestamp>, requested: Option<&str>, mode: Mode) -> Row {
    let plan = waiting_plan(reason, Some(key_identity(OLD_KEY)), next_attempt);
    let key = KeyReference {
        kind: KeyType::CustomerManaged,
        arn: Some(NEW_KEY.to_owned()),
        alias: None,
        object_ref: None,
    };
    let spec = StreamEncryptionSpec { key: Some(key), mode, ..StreamEncryptionSpec::default() };
    let resource = StreamEncryption::new("orders", spec);
    let target = |arn: &str| Target { action: Action::Start, key: Some(key_identity(arn)) };
    let requested = requested.map(target);
    Row::planned("data", &resource, Change::Changed, String::new(), plan, requested.as_ref(), false)
}

fn row(call: Option<&'static str>) -> Row {
    Row { call, change: Some(Change::Changed), message: "why".to_owned(), ..Row::default() }
}

fn text(rows: &[Row]) -> String {
    let mut out = anstream::StripStream::new(Vec::new());
    write_text(&mut out, rows, Timestamp::UNIX_EPOCH).unwrap();
    String::from_utf8(out.into_inner()).unwrap()
}

#[test]
fn test_record_is_no_encryption_call() {
    let record = row(Some(PUT_RECORD));
    assert!(!record.has(Finding::Calls) && row(Some("StartStreamEncryption")).has(Finding::Calls));
    let text = text(&[record]);
    assert!(text.starts_with("= ") && text.contains(": 0 encryption calls, 1 without a call,"), "{text}");
}

#[test]
fn call_at_a_known_time_is_a_later_call() {
    let at = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(4);
    let limit = without_step(Reason::CallLimitReached, Some(at), None, Mode::Enforce);
    assert!(limit.has(Finding::Calls) && limit.has(Finding::Waiting));
    let text = text(&[limit, row(None)]);
    assert!(text.starts_with("~ data/orders "), "{text}");
    assert!(text.contains("    no call yet: why (in 4h)\n"), "{text}");
    assert!(text.contains(": 0 encryption calls, 1 later, 1 without a call, 0 waiting"), "{text}");
}

#[test]
fn change_to_another_encryption_is_followed_by_a_call() {
    for (reason, requested, is_later) in [
        (Reason::Enabling, None, true),
        (Reason::Enabling, Some(OLD_KEY), true),
        (Reason::Enabling, Some(NEW_KEY), false),
        (Reason::Disabling, None, true),
        (Reason::StreamUpdating, None, true),
        (Reason::StreamCreating, None, true),
        (Reason::Settling, None, true),
        (Reason::OutcomeUnknown, None, true),
        (Reason::Encrypted, None, false),
        (Reason::KeyDisabled, None, false),
    ] {
        let row = without_step(reason, None, requested, Mode::Enforce);
        assert_eq!(row.has(Finding::Calls), is_later, "{reason}, {requested:?}");
        // Nothing is called in this mode.
        assert!(!without_step(reason, None, requested, Mode::Observe).has(Finding::Calls), "{reason}");
    }
}

#[test]
fn key_object_of_the_files_is_followed_by_a_call() {
    let resource = StreamEncryption::new("orders", StreamEncryptionSpec::default());
    for (reason, has_key, is_later, is_waiting) in [
        (Reason::KeyReferenceNotReady, true, true, false),
        (Reason::KeyReferenceCRDMissing, true, true, true),
        (Reason::KeyReferenceNotReady, false, false, true),
        (Reason::KeyDisabled, true, false, true),
    ] {
        let (plan, note) = (waiting_plan(reason, None, None), "A note.".to_owned());
        let row = Row::planned("data", &resource, Change::Created, note, plan, None, has_key);
        let found = (row.has(Finding::Calls), row.has(Finding::Waiting));
        assert_eq!(found, (is_later, is_waiting), "{reason}, {has_key}");
        let sign = if is_later { "~ " } else { "? " };
        let text = text(&[row]);
        assert!(text.starts_with(sign), "{text}");
        assert_eq!(text.contains("    A note. The files have the Key of key.objectRef."), is_later, "{text}");
    }
}

#[test]
fn update_of_a_converged_stream_is_followed_by_no_call() {
    let alias = KeyReference {
        kind: KeyType::CustomerManaged,
        arn: None,
        alias: Some("alias/orders".to_owned()),
        object_ref: None,
    };
    let enabled = StreamEncryptionSpec { key: Some(alias), ..StreamEncryptionSpec::default() };
    let disabled =
        StreamEncryptionSpec { encryption: Encryption::Disabled, ..StreamEncryptionSpec::default() };
    let (old, new) = (|| Some(key_identity(OLD_KEY)), || Some(key_identity(NEW_KEY)));
    let hidden = || Some(KeyIdentity { kind: KeyType::CustomerManaged, arn: None });
    let (unchanged, changed) = (Change::Unchanged, Change::Changed);
    for (spec, desired, active, change, observed, is_later) in [
        (&enabled, new(), new(), unchanged, 2, false),
        (&enabled, new(), new(), unchanged, 1, true),
        (&enabled, new(), new(), changed, 2, true),
        (&enabled, new(), old(), unchanged, 2, true),
        (&enabled, new(), None, unchanged, 2, true),
        (&enabled, None, new(), unchanged, 2, true),
        (&enabled, hidden(), hidden(), unchanged, 2, true),
        (&disabled, None, None, unchanged, 2, false),
        (&disabled, None, None, changed, 2, true),
        (&disabled, None, old(), unchanged, 2, true),
    ] {
        let mut resource = StreamEncryption::new("orders", spec.clone());
        resource.metadata.generation = Some(2);
        resource.status = Some(StreamEncryptionStatus {
            observed_generation: Some(observed),
            encryption_status: active.is_none().then_some(EncryptionStatus::Disabled),
            desired_key: desired.clone(),
            ..StreamEncryptionStatus::default()
        });
        let plan = waiting_plan(Reason::StreamUpdating, active.clone(), None);
        let row = Row::planned("data", &resource, change, String::new(), plan, None, false);
        assert_eq!(row.has(Finding::Calls), is_later, "{desired:?}, {active:?}, {change:?}, {observed}");
    }
}

#[test]
fn encryption_of_the_spec_is_known_without_an_alias() {
    let start = |key: Option<KeyIdentity>| Target { action: Action::Start, key };
    let stop = Target { action: Action::Stop, key: None };
    let of_arn = start(Some(key_identity(NEW_KEY)));
    let key = |kind, alias: Option<&str>| {
        Some(KeyReference { kind, arn: None, alias: alias.map(ToOwned::to_owned), object_ref: None })
    };
    let of = |spec: StreamEncryptionSpec, target: &Target| {
        is_desired(&StreamEncryption::new("orders", spec), target)
    };
    let enabled = |key| StreamEncryptionSpec { key, ..StreamEncryptionSpec::default() };
    assert!(of(enabled(None), &of_arn) && !of(enabled(None), &stop), "any key is accepted");
    let alias = || enabled(key(KeyType::CustomerManaged, Some("alias/orders")));
    // The ARN of a key is hidden from a namespace that may not use it.
    let hidden = start(Some(KeyIdentity { kind: KeyType::CustomerManaged, arn: None }));
    assert!(!of(alias(), &of_arn) && !of(alias(), &hidden));
    let aws_owned = start(Some(KeyIdentity { kind: KeyType::AwsOwned, arn: None }));
    assert!(of(enabled(key(KeyType::AwsOwned, None)), &aws_owned));
    let disabled =
        StreamEncryptionSpec { encryption: Encryption::Disabled, ..StreamEncryptionSpec::default() };
    assert!(of(disabled.clone(), &stop) && !of(disabled, &aws_owned));
}

#[test]
fn message_with_escape_sequences_is_shown_escaped() {
    let refused = Row::refused("data", "orders", "No.\u{1b}[1A\n= data/x".to_owned());
    let text = text(&[refused]);
    assert!(text.contains("    No.\\u{1b}[1A\\n= data/x\n"), "{text}");
}

#[test]
fn object_without_a_plan_promises_nothing() {
    let unplanned = Row::unplanned("data", "orders", "AWS did not answer.".to_owned());
    for finding in [Finding::Calls, Finding::Refused, Finding::Waiting] {
        assert!(!unplanned.has(finding), "{finding:?}");
    }
    let text = text(&[unplanned, row(None)]);
    assert!(text.starts_with("x data/orders (not planned)  -\n    AWS did not answer.\n"), "{text}");
    assert!(
        text.contains("1 without a call, 0 waiting for your action, 0 refused, 1 not planned."),
        "{text}"
    );
}

#[test]
fn columns_are_exactly_the_fields() {
    let filled = Row {
        stream: Some("s".to_owned()),
        call_key: Some("k".to_owned()),
        active_key: Some("k".to_owned()),
        reason: Some("r"),
        note: "n".to_owned(),
        calls_used: Some(1),
        calls_limit: Some(2),
        next_attempt_time: Some(Timestamp::UNIX_EPOCH),
        ..row(Some(PUT_RECORD))
    };
    let row = serde_json::to_value(filled).unwrap();
    let mut fields: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
    let mut columns = Row::columns();
    fields.sort_unstable();
    columns.sort_unstable();
    assert_eq!(columns, fields);
}
