//! Classification of the errors that AWS documents, one by one, and of all others.

use proptest::prelude::*;

use super::*;

fn error(code: &str, message: &str, http: u16) -> RawError<'static> {
    let leak = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
    RawError::Service { code: leak(code), kms_code: None, message: leak(message), http }
}

/// A quota of 24 hours, in Kinesis' wording (recorded for `UpdateStreamMode`).
const OF_STREAM: &str = "Rate exceeded for stream clicks under account 111122223333.";
/// The rate limit of an account, in Kinesis' wording (recorded).
const OF_ACCOUNT: &str = "Rate exceeded for account 111122223333.";

#[test]
fn modelled_errors_are_classified() {
    use ErrorKind::{
        CredentialsRejected, Denied, InUse, Invalid, Key, KeyAccessDenied, LimitReached, NoCredentials,
        NotFound, Throttled, Transient, UnknownOutcome,
    };
    use Operation::{
        DescribeDeliveryStream as Describe, DescribeKey, DescribeStreamSummary,
        StartDeliveryStreamEncryption as Start, StartStreamEncryption, StopStreamEncryption,
    };
    for (operation, answer, kind) in [
        (Start, error("LimitExceededException", "You have already reached the limit", 400), LimitReached),
        (StartStreamEncryption, error("LimitExceededException", OF_STREAM, 400), LimitReached),
        (StopStreamEncryption, error("LimitExceededException", OF_STREAM, 400), LimitReached),
        (StartStreamEncryption, error("LimitExceededException", OF_ACCOUNT, 400), Throttled),
        (StopStreamEncryption, error("LimitExceededException", OF_ACCOUNT, 400), Throttled),
        (DescribeStreamSummary, error("LimitExceededException", OF_STREAM, 400), Throttled),
        (DescribeStreamSummary, error("LimitExceededException", "", 400), Throttled),
        (Describe, error("ThrottlingException", "Rate exceeded", 400), Throttled),
        (Start, error("ResourceInUseException", "", 400), InUse),
        (Describe, error("ResourceNotFoundException", "", 400), NotFound),
        (DescribeKey, error("NotFoundException", "", 400), NotFound),
        (Start, error("InvalidArgumentException", "", 400), Invalid),
        (Describe, error("AccessDeniedException", "", 400), Denied),
        (Describe, error("403", "", 403), Denied),
        (StartStreamEncryption, error("KMSAccessDeniedException", "", 400), KeyAccessDenied),
        (StartStreamEncryption, error("KMSDisabledException", "", 400), Key(KeyProblem::Disabled)),
        (StartStreamEncryption, error("KMSNotFoundException", "", 400), Key(KeyProblem::NotFound)),
        (StartStreamEncryption, error("KMSInvalidStateException", "", 400), Key(KeyProblem::Unavailable)),
        (StartStreamEncryption, error("KMSThrottlingException", "", 400), Throttled),
        (StartStreamEncryption, error("KMSOptInRequired", "", 400), KeyAccessDenied),
        (Describe, error("ServiceUnavailableException", "", 503), Transient),
        (Describe, error("ExpiredTokenException", "", 400), CredentialsRejected),
        (Describe, RawError::NotSigned, NoCredentials),
        (Start, RawError::NotSigned, NoCredentials),
        (Describe, RawError::NoResponse, Transient),
        (Start, RawError::NoResponse, UnknownOutcome),
        (Start, error("InternalFailure", "", 500), UnknownOutcome),
        (Start, error("RequestTimeoutException", "", 400), UnknownOutcome),
        (Start, error("Timeout", "", 408), UnknownOutcome),
        (Describe, error("RequestTimeoutException", "", 400), Transient),
        (Describe, error("Timeout", "", 408), Transient),
        (Start, RawError::NotBuilt, Transient),
        (Start, error("SomethingNew", "", 400), Invalid),
    ] {
        assert_eq!(classify(operation, answer), kind, "{operation:?} {answer:?}");
    }
}

#[test]
fn kms_code_inside_firehose_error_decides_class() {
    for (kms_code, kind) in [
        (Some("DisabledException"), ErrorKind::Key(KeyProblem::Disabled)),
        (Some("NotFoundException"), ErrorKind::Key(KeyProblem::NotFound)),
        (Some("InvalidStateException"), ErrorKind::Key(KeyProblem::Unavailable)),
        (Some("AccessDeniedException"), ErrorKind::KeyAccessDenied),
        (None, ErrorKind::KeyAccessDenied),
    ] {
        let answer =
            RawError::Service { code: "InvalidKMSResourceException", kms_code, message: "", http: 400 };
        assert_eq!(classify(Operation::StartDeliveryStreamEncryption, answer), kind, "{kms_code:?}");
    }
}

/// Recorded 2026-09 from Kinesis, for a `StreamARN` whose 12 digits are not an account.
#[test]
fn unknown_account_is_not_a_credentials_error() {
    let unknown = "UnrecognizedClientException";
    for operation in Operation::ALL {
        for (message, kind) in [
            ("No account found for the given parameters", ErrorKind::NotFound),
            ("The security token included in the request is invalid.", ErrorKind::CredentialsRejected),
            ("", ErrorKind::CredentialsRejected),
        ] {
            assert_eq!(classify(operation, error(unknown, message, 400)), kind, "{operation:?} {message}");
        }
    }
}

/// The errors in the services' API models, with the HTTP status of each.
#[test]
fn documented_errors_are_classified_per_operation() {
    let kinesis = [
        ("InvalidArgumentException", 400, ErrorKind::Invalid),
        ("ResourceInUseException", 400, ErrorKind::InUse),
        ("ResourceNotFoundException", 400, ErrorKind::NotFound),
        ("AccessDeniedException", 400, ErrorKind::Denied),
    ];
    let of_keys = [
        ("KMSDisabledException", 400, ErrorKind::Key(KeyProblem::Disabled)),
        ("KMSInvalidStateException", 400, ErrorKind::Key(KeyProblem::Unavailable)),
        ("KMSAccessDeniedException", 400, ErrorKind::KeyAccessDenied),
        ("KMSNotFoundException", 400, ErrorKind::Key(KeyProblem::NotFound)),
        ("KMSOptInRequired", 400, ErrorKind::KeyAccessDenied),
        ("KMSThrottlingException", 400, ErrorKind::Throttled),
    ];
    let firehose = [
        ("ResourceNotFoundException", 400, ErrorKind::NotFound),
        ("ResourceInUseException", 400, ErrorKind::InUse),
        ("InvalidArgumentException", 400, ErrorKind::Invalid),
    ];
    let limit = |kind| [("LimitExceededException", 400, kind)];
    for (operation, errors) in [
        (
            Operation::StartDeliveryStreamEncryption,
            [
                &firehose[..],
                &limit(ErrorKind::LimitReached),
                &[("InvalidKMSResourceException", 400, ErrorKind::KeyAccessDenied)],
            ]
            .concat(),
        ),
        (Operation::StopDeliveryStreamEncryption, [&firehose[..], &limit(ErrorKind::LimitReached)].concat()),
        (Operation::DescribeDeliveryStream, firehose[..1].to_vec()),
        (
            Operation::PutFirehoseRecord,
            vec![
                ("ResourceNotFoundException", 400, ErrorKind::NotFound),
                ("InvalidArgumentException", 400, ErrorKind::Invalid),
                ("InvalidKMSResourceException", 400, ErrorKind::KeyAccessDenied),
                ("InvalidSourceException", 400, ErrorKind::Invalid),
                ("ServiceUnavailableException", 500, ErrorKind::Transient),
            ],
        ),
        (
            Operation::StartStreamEncryption,
            [&kinesis[..], &of_keys, &limit(ErrorKind::LimitReached)].concat(),
        ),
        (Operation::StopStreamEncryption, [&kinesis[..], &limit(ErrorKind::LimitReached)].concat()),
        (Operation::DescribeStreamSummary, [&kinesis[..], &limit(ErrorKind::Throttled)].concat()),
        (
            Operation::DescribeKey,
            vec![
                ("NotFoundException", 400, ErrorKind::NotFound),
                ("InvalidArnException", 400, ErrorKind::Invalid),
                ("DependencyTimeoutException", 503, ErrorKind::Transient),
                ("KMSInternalException", 500, ErrorKind::Transient),
            ],
        ),
        (
            Operation::AssumeRole,
            vec![
                ("ExpiredTokenException", 400, ErrorKind::CredentialsRejected),
                ("PackedPolicyTooLarge", 400, ErrorKind::Invalid),
                ("MalformedPolicyDocument", 400, ErrorKind::Invalid),
                ("RegionDisabledException", 403, ErrorKind::CredentialsRejected),
                ("AccessDenied", 403, ErrorKind::Denied),
            ],
        ),
    ] {
        for (code, http, kind) in errors {
            assert_eq!(classify(operation, error(code, "", http)), kind, "{operation:?} {code}");
        }
    }
}

/// [Common errors](https://docs.aws.amazon.com/firehose/latest/APIReference/CommonErrors.html) and those of
/// signatures.
#[test]
fn known_code_takes_precedence_over_http_status() {
    for (kind, codes) in [
        (
            ErrorKind::Throttled,
            &[
                "ThrottlingException",
                "Throttling",
                "RequestLimitExceeded",
                "TooManyRequestsException",
                "ProvisionedThroughputExceededException",
                "SlowDown",
            ][..],
        ),
        (
            ErrorKind::Denied,
            &["AccessDeniedException", "AccessDenied", "UnauthorizedOperation", "NotAuthorized"],
        ),
        (
            ErrorKind::CredentialsRejected,
            &[
                "ExpiredToken",
                "ExpiredTokenException",
                "RequestExpired",
                "RequestTimeTooSkewed",
                "RequestInTheFuture",
                "UnrecognizedClientException",
                "InvalidClientTokenId",
                "InvalidAccessKeyId",
                "InvalidSignatureException",
                "SignatureDoesNotMatch",
                "MissingAuthenticationToken",
                "MissingAuthenticationTokenException",
                "IncompleteSignature",
                "IncompleteSignatureException",
                "AuthFailure",
                "OptInRequired",
                "SubscriptionRequiredException",
                "RegionDisabledException",
            ],
        ),
        (
            ErrorKind::Invalid,
            &[
                "InvalidArgumentException",
                "ValidationException",
                "ValidationError",
                "SerializationException",
                "InvalidArnException",
                "InvalidParameterValue",
            ],
        ),
        (ErrorKind::NotFound, &["ResourceNotFoundException", "NotFoundException"]),
        (ErrorKind::InUse, &["ResourceInUseException"]),
    ] {
        for code in codes {
            for http in [400, 403, 404, 408, 429, 500, 503] {
                for operation in Operation::ALL {
                    assert_eq!(
                        classify(operation, error(code, "", http)),
                        kind,
                        "{operation:?} {code} {http}"
                    );
                }
            }
        }
    }
}

#[test]
fn unknown_code_is_classified_by_http_status() {
    for (http, of_reads, of_changes) in [
        (400, ErrorKind::Invalid, ErrorKind::Invalid),
        (404, ErrorKind::Invalid, ErrorKind::Invalid),
        (401, ErrorKind::Denied, ErrorKind::Denied),
        (403, ErrorKind::Denied, ErrorKind::Denied),
        (407, ErrorKind::Transient, ErrorKind::Transient),
        (408, ErrorKind::Transient, ErrorKind::UnknownOutcome),
        (429, ErrorKind::Throttled, ErrorKind::Throttled),
        (499, ErrorKind::Invalid, ErrorKind::Invalid),
        (500, ErrorKind::Transient, ErrorKind::UnknownOutcome),
        (503, ErrorKind::Transient, ErrorKind::UnknownOutcome),
    ] {
        for operation in Operation::ALL {
            let kind = if operation.is_mutating() { of_changes } else { of_reads };
            assert_eq!(classify(operation, error("SomethingNew", "", http)), kind, "{operation:?} {http}");
        }
    }
}

#[test]
fn error_display_names_action_and_code() {
    let error = |code: Option<&str>| AwsError {
        operation: Operation::DescribeKey,
        kind: ErrorKind::Transient,
        code: code.map(str::to_owned),
        message: "AWS's words".to_owned(),
        request_id: None,
    };
    assert_eq!(error(Some("InternalFailure")).to_string(), "kms:DescribeKey failed: InternalFailure");
    assert_eq!(error(None).to_string(), "kms:DescribeKey failed: no error code");
}

#[test]
fn status_without_a_code_is_no_answer_of_aws() {
    for http in [400, 401, 403, 404, 407, 408, 429, 500, 503] {
        let kind = |operation| classify(operation, error("", "Forbidden", http));
        let read = if http == 429 { ErrorKind::Throttled } else { ErrorKind::Transient };
        assert_eq!(kind(Operation::DescribeKey), read, "{http}");
        assert_eq!(kind(Operation::StartStreamEncryption), ErrorKind::UnknownOutcome, "{http}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn unknown_outcome_only_for_calls_that_change_streams(
        operation in prop::sample::select(Operation::ALL.to_vec()),
        code in any::<String>(),
        kms_code in prop::option::of(any::<String>()),
        message in any::<String>(),
        http in any::<u16>(),
    ) {
        let answer = RawError::Service { code: &code, kms_code: kms_code.as_deref(), message: &message, http };
        let kind = classify(operation, answer);
        let is_unknown = code.is_empty() || http >= 500 || http == 408;
        prop_assert_eq!(kind == ErrorKind::UnknownOutcome, operation.is_mutating() && is_unknown);
        for answer in [RawError::NoResponse, RawError::NotBuilt, RawError::NotSigned] {
            let unknown = classify(operation, answer) == ErrorKind::UnknownOutcome;
            prop_assert_eq!(unknown, operation.is_mutating() && matches!(answer, RawError::NoResponse));
        }
    }
}
