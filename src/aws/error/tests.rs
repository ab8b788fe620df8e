//! Responses that are broken, huge, or not from AWS, through the real SDKs.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use stream_encryption_core::controller::stream_api::Priority;
use stream_encryption_core::model::arn::{KmsKeyId, StreamArn};
use stream_encryption_core::model::key::Key;
use stream_encryption_core::model::observation::ReportedEncryption;

use super::super::firehose::Firehose;
use super::super::kinesis::Kinesis;
use super::super::kms::Kms;
use super::super::replay::{Answer as Recording, ReplayClient, sender, signer, somebody};
use super::*;

const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

fn firehose_stream() -> StreamArn {
    "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders".parse().unwrap()
}

fn kinesis_stream() -> StreamArn {
    "arn:aws:kinesis:eu-west-1:111122223333:stream/orders".parse().unwrap()
}

fn firehose(recorded: &ReplayClient) -> Firehose {
    Firehose::new(recorded.config(), sender())
}

fn kinesis(recorded: &ReplayClient) -> Kinesis {
    Kinesis::new(recorded.config(), sender(), std::sync::Arc::new(Kms::new(recorded.config(), sender())))
}

/// Runs `work` on a clock that skips every wait.
fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(work)
}

/// Sends Start or Stop of either service, with the responses of `recorded`.
async fn change(recorded: &ReplayClient, operation: Operation) -> Result<(), AwsError> {
    let key = Key::Customer(KEY.parse().unwrap());
    match operation {
        Operation::StartDeliveryStreamEncryption => firehose(recorded)
            .start(&firehose_stream(), &key, &somebody(), &signer(), Timestamp::UNIX_EPOCH)
            .await
            .map(drop),
        Operation::StopDeliveryStreamEncryption => firehose(recorded)
            .stop(&firehose_stream(), &somebody(), &signer(), Timestamp::UNIX_EPOCH)
            .await
            .map(drop),
        Operation::StartStreamEncryption => kinesis(recorded)
            .start(&kinesis_stream(), &key, &somebody(), &signer(), Timestamp::UNIX_EPOCH)
            .await
            .map(drop),
        _ => kinesis(recorded)
            .stop(&kinesis_stream(), Some(&key), &somebody(), &signer(), Timestamp::UNIX_EPOCH)
            .await
            .map(drop),
    }
}

const CHANGES: [Operation; 4] = [
    Operation::StartDeliveryStreamEncryption,
    Operation::StopDeliveryStreamEncryption,
    Operation::StartStreamEncryption,
    Operation::StopStreamEncryption,
];

fn answer(status: u16, body: &str) -> Recording {
    Recording { status, error_type: None, body: body.as_bytes().to_vec() }
}

/// Generates a code of AWS, a text that resembles one, or any text.
fn code() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "LimitExceededException",
        "ResourceInUseException",
        "ResourceNotFoundException",
        "InvalidArgumentException",
        "InvalidKMSResourceException",
        "AccessDeniedException",
        "ThrottlingException",
        "InternalFailure",
        "ServiceUnavailable",
        "RequestTimeoutException",
        "com.amazonaws.firehose#LimitExceededException:http://internal.amazon.com/coral/",
        "",
        "#",
        ":",
    ]);
    prop_oneof![
        6 => known.prop_map(str::to_owned),
        2 => "[ -~]{0,40}",
        1 => "[!-~]{100,400}",
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => code().prop_map(Value::from),
        1 => any::<String>().prop_map(Value::from),
        1 => prop::sample::select(vec![
            json!(null), json!(17), json!(-1.5), json!(true), json!([]), json!({}), json!(["x"]), json!({"__type": "X"}),
        ]),
        1 => Just(Value::from("ö".repeat(10_000))),
    ]
}

/// Generates bodies: AWS's own format with any content, truncated or not, and other formats.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let members = prop::collection::hash_map(
        prop::sample::select(vec!["__type", "code", "Code", "message", "Message", "errorMessage", "other"]),
        value(),
        0..4,
    );
    let cut = prop::option::weighted(0.25, any::<prop::sample::Index>());
    prop_oneof![
        8 => (members, cut).prop_map(|(members, cut)| {
            let mut body = json!(members).to_string().into_bytes();
            body.truncate(cut.map_or(body.len(), |at| at.index(body.len())));
            body
        }),
        1 => prop::collection::vec(any::<u8>(), 0..200),
        1 => prop::sample::select(vec![
            Vec::new(),
            b"null".to_vec(),
            b"\"AccessDeniedException\"".to_vec(),
            b"{\"__type\":\"AccessDenied\xff\"}".to_vec(),
            b"<html><head><title>504 Gateway Time-out</title></head></html>".to_vec(),
            b"<?xml version=\"1.0\"?><ErrorResponse><Error><Code>Throttling</Code></Error></ErrorResponse>".to_vec(),
            [b"{\"message\":".to_vec(), b"[".repeat(50_000)].concat(),
            [b"{\"message\":".to_vec(), b"{\"a\":".repeat(20_000), b"1".to_vec(), b"}".repeat(20_001)].concat(),
            b"[".repeat(50_000),
        ]),
    ]
}

fn recording() -> impl Strategy<Value = Recording> {
    let status = prop_oneof![
        2 => 100_u16..600,
        4 => Just(400),
        2 => prop::sample::select(vec![200_u16, 301, 401, 403, 404, 407, 408, 413, 429, 500, 502, 503, 504]),
    ];
    let error_type = prop::option::weighted(0.3, code());
    (status, error_type, body()).prop_map(|(status, error_type, body)| Recording { status, error_type, body })
}

/// Returns whether a response names an error, in any of the places that AWS uses.
fn names_an_error(answer: &Recording) -> bool {
    let named = |code: &str| !code.trim_end_matches([':', '#']).is_empty();
    let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let member = |name: &str| body.as_ref()?.get(name)?.as_str().map(named);
    answer.error_type.as_deref().is_some_and(named)
        || ["__type", "code", "Code"].into_iter().any(|name| member(name) == Some(true))
        || answer.body.windows(6).any(|bytes| bytes == b"<Code>")
}

/// Checks that an error can be stored: its code in a ledger, its message in a log.
fn can_be_kept(error: &AwsError) -> Result<(), TestCaseError> {
    let code = error.code.as_deref();
    prop_assert!(code.is_none_or(|code| !code.is_empty() && code.chars().count() <= 128), "{:?}", code);
    prop_assert!(error.message.len() <= MAX_MESSAGE_BYTES);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn change_outcome_is_known_only_if_an_error_is_named(
        answer in recording(), operation in prop::sample::select(CHANGES.to_vec()),
    ) {
        let recorded = ReplayClient::raw([answer.clone()]);
        let outcome = run(change(&recorded, operation));
        prop_assert_eq!(recorded.sent().len(), 1, "sent once, whatever comes back");
        let Err(error) = outcome else {
            prop_assert!((200..300).contains(&answer.status));
            return Ok(());
        };
        can_be_kept(&error)?;
        prop_assert_eq!(error.operation, operation);
        if error.kind != ErrorKind::UnknownOutcome {
            prop_assert!(names_an_error(&answer), "{:?} without a word of AWS's", error.kind);
            prop_assert!(!(200..300).contains(&answer.status));
        }
    }

    #[test]
    fn describe_never_panics_on_a_broken_response(
        answer in recording(), kinesis_answers in any::<bool>(),
    ) {
        let recorded = ReplayClient::raw(vec![answer; 5]);
        let description = run(async {
            if kinesis_answers {
                kinesis(&recorded).describe_stream(&kinesis_stream(), &somebody(), Priority::Drift).await
            } else {
                firehose(&recorded).describe_stream(&firehose_stream(), &somebody(), Priority::Drift).await
            }
        });
        prop_assert!(recorded.sent().len() <= 3);
        if let Err(error) = description {
            can_be_kept(&error)?;
            prop_assert_ne!(error.kind, ErrorKind::UnknownOutcome, "a Describe changes nothing");
        }
    }

    #[test]
    fn describe_key_never_panics_on_a_broken_response(answer in recording()) {
        let recorded = ReplayClient::raw(vec![answer; 5]);
        let name = KmsKeyId::Arn(KEY.parse().unwrap());
        let metadata = run(Kms::new(recorded.config(), sender()).describe_key(&firehose_stream(), &name, &somebody(), Priority::Drift));
        if let Err(error) = metadata {
            can_be_kept(&error)?;
        }
    }

    #[test]
    fn described_values_fit_their_size_limits(
        status in value(), source in value(), shown in value(), failure in value(), details in value(),
    ) {
        let description = json!({"DeliveryStreamDescription": {
            "DeliveryStreamARN": firehose_stream().to_string(), "DeliveryStreamName": "orders",
            "DeliveryStreamStatus": status, "DeliveryStreamType": source, "VersionId": "1",
            "HasMoreDestinations": false, "Destinations": [],
            "DeliveryStreamEncryptionConfiguration": {
                "Status": shown, "KeyType": failure, "KeyARN": details,
                "FailureDescription": {"Type": failure, "Details": details},
            },
        }});
        let recorded = ReplayClient::raw(vec![answer(200, &description.to_string()); 5]);
        if let Ok(Some((description, _))) = run(firehose(&recorded).describe_stream(&firehose_stream(), &somebody(), Priority::Drift)) {
            prop_assert!(description.raw_status.len() <= MAX_CODE_BYTES);
            prop_assert!(description.source.is_none_or(|source| source.len() <= MAX_CODE_BYTES));
            match description.encryption {
                ReportedEncryption::Failed { reason, details, .. } => {
                    prop_assert!(reason.len() <= MAX_CODE_BYTES && details.len() <= MAX_MESSAGE_BYTES);
                }
                ReportedEncryption::Unknown(word) => prop_assert!(word.len() <= MAX_CODE_BYTES),
                ReportedEncryption::On(Key::Unresolved(name)) => prop_assert!(name.len() <= MAX_MESSAGE_BYTES),
                ReportedEncryption::On(_) | ReportedEncryption::Off | ReportedEncryption::Enabling | ReportedEncryption::Disabling => {}
            }
        }
    }
}

#[test]
fn foreign_response_leaves_change_outcome_unknown() {
    for (status, body) in [
        (301, "<html>moved</html>"),
        (400, ""),
        (400, "<html>bad request</html>"),
        (400, r#"{"__type":"LimitExc"#),
        (400, r#"{"__type":17,"message":"?"}"#),
        (400, r#"{"__type":""}"#),
        (403, "<html>forbidden by the proxy</html>"),
        (407, ""),
        (408, ""),
        (413, ""),
        (429, "slow down"),
        (502, "<html>bad gateway</html>"),
        (503, r#"{"__type":"ServiceUnavailableException"}"#),
    ] {
        for operation in CHANGES {
            let error = run(change(&ReplayClient::answers([(status, body)]), operation)).unwrap_err();
            assert_eq!(error.kind, ErrorKind::UnknownOutcome, "{status} {body} {operation:?}");
        }
    }
}

#[test]
fn response_to_a_read_without_a_code_is_no_answer_of_aws() {
    for (status, kind) in [
        (400, ErrorKind::Transient),
        (401, ErrorKind::Transient),
        (403, ErrorKind::Transient),
        (404, ErrorKind::Transient),
        (408, ErrorKind::Transient),
        (429, ErrorKind::Throttled),
        (502, ErrorKind::Transient),
    ] {
        let recorded = ReplayClient::answers(vec![(status, "<html></html>"); 3]);
        let error =
            run(firehose(&recorded).describe_stream(&firehose_stream(), &somebody(), Priority::Drift))
                .unwrap_err();
        assert_eq!((error.kind, error.code.as_deref()), (kind, Some(status.to_string().as_str())));
    }
}

#[test]
fn error_code_in_header_alone_is_parsed() {
    let header = Some("AccessDeniedException:http://internal.amazon.com/coral/".to_owned());
    for body in ["", "<html></html>", "{}", r#"{"message":"#, "[]"] {
        for operation in CHANGES {
            let answer = Recording { error_type: header.clone(), ..answer(400, body) };
            let error = run(change(&ReplayClient::raw([answer]), operation)).unwrap_err();
            assert_eq!(
                (error.kind, error.code.as_deref()),
                (ErrorKind::Denied, Some("AccessDeniedException")),
                "{body}"
            );
        }
    }
}
