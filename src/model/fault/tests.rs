//! What each error of AWS means: those that AWS documents, one by one, and all others.

use proptest::prelude::*;

use super::*;

fn error(code: &str, message: &str, http: u16) -> Answer<'static> {
    let leak = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
    Answer::Error { code: leak(code), kms_code: None, message: leak(message), http }
}

/// A quota of 24 hours, as Kinesis was recorded to word it (of `UpdateStreamMode`).
const OF_STREAM: &str = "Rate exceeded for stream clicks under account 111122223333.";
/// The rate of all calls of an account, as Kinesis was recorded to word it.
const OF_ACCOUNT: &str = "Rate exceeded for account 111122223333.";

#[test]
fn each_modelled_error_has_its_class() {
    use Class::{
        CredentialsRejected, Denied, InUse, Invalid, Key, KeyRefused, LimitReached, NoCredentials, NotFound,
        Throttled, Transient, UnknownOutcome,
    };
    use Operation::{
        DescribeDeliveryStream as Describe, DescribeKey, DescribeStreamSummary,
        StartDeliveryStreamEncryption as Start, StartStreamEncryption, StopStreamEncryption,
    };
    for (operation, answer, class) in [
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
        (StartStreamEncryption, error("KMSAccessDeniedException", "", 400), KeyRefused),
        (StartStreamEncryption, error("KMSDisabledException", "", 400), Key(KeyProblem::Disabled)),
        (StartStreamEncryption, error("KMSNotFoundException", "", 400), Key(KeyProblem::Missing)),
        (StartStreamEncryption, error("KMSInvalidStateException", "", 400), Key(KeyProblem::Unavailable)),
        (StartStreamEncryption, error("KMSThrottlingException", "", 400), Throttled),
        (StartStreamEncryption, error("KMSOptInRequired", "", 400), KeyRefused),
        (Describe, error("ServiceUnavailableException", "", 503), Transient),
        (Describe, error("ExpiredTokenException", "", 400), CredentialsRejected),
        (Describe, Answer::NotSigned, NoCredentials),
        (Start, Answer::NotSigned, NoCredentials),
        (Describe, Answer::None, Transient),
        (Start, Answer::None, UnknownOutcome),
        (Start, error("InternalFailure", "", 500), UnknownOutcome),
        (Start, error("RequestTimeoutException", "", 400), UnknownOutcome),
        (Start, error("Timeout", "", 408), UnknownOutcome),
        (Describe, error("RequestTimeoutException", "", 400), Transient),
        (Describe, error("Timeout", "", 408), Transient),
        (Start, Answer::NotSent, Transient),
        (Start, error("SomethingNew", "", 400), Invalid),
    ] {
        assert_eq!(classify(operation, answer), class, "{operation:?} {answer:?}");
    }
}

#[test]
fn the_code_of_kms_inside_a_firehose_error_is_read() {
    for (kms_code, class) in [
        (Some("DisabledException"), Class::Key(KeyProblem::Disabled)),
        (Some("NotFoundException"), Class::Key(KeyProblem::Missing)),
        (Some("InvalidStateException"), Class::Key(KeyProblem::Unavailable)),
        (Some("AccessDeniedException"), Class::KeyRefused),
        (None, Class::KeyRefused),
    ] {
        let answer = Answer::Error { code: "InvalidKMSResourceException", kms_code, message: "", http: 400 };
        assert_eq!(classify(Operation::StartDeliveryStreamEncryption, answer), class, "{kms_code:?}");
    }
}

/// Recorded 2026-09 of Kinesis, of a `StreamARN` with 12 digits that are no account.
#[test]
fn an_account_that_does_not_exist_is_no_matter_of_credentials() {
    let unknown = "UnrecognizedClientException";
    for operation in Operation::EACH {
        for (message, class) in [
            ("No account found for the given parameters", Class::NotFound),
            ("The security token included in the request is invalid.", Class::CredentialsRejected),
            ("", Class::CredentialsRejected),
        ] {
            assert_eq!(classify(operation, error(unknown, message, 400)), class, "{operation:?} {message}");
        }
    }
}

/// The errors in the services' models, with the status that each has.
#[test]
fn each_documented_error_of_each_operation_has_its_class() {
    let kinesis = [
        ("InvalidArgumentException", 400, Class::Invalid),
        ("ResourceInUseException", 400, Class::InUse),
        ("ResourceNotFoundException", 400, Class::NotFound),
        ("AccessDeniedException", 400, Class::Denied),
    ];
    let of_keys = [
        ("KMSDisabledException", 400, Class::Key(KeyProblem::Disabled)),
        ("KMSInvalidStateException", 400, Class::Key(KeyProblem::Unavailable)),
        ("KMSAccessDeniedException", 400, Class::KeyRefused),
        ("KMSNotFoundException", 400, Class::Key(KeyProblem::Missing)),
        ("KMSOptInRequired", 400, Class::KeyRefused),
        ("KMSThrottlingException", 400, Class::Throttled),
    ];
    let firehose = [
        ("ResourceNotFoundException", 400, Class::NotFound),
        ("ResourceInUseException", 400, Class::InUse),
        ("InvalidArgumentException", 400, Class::Invalid),
    ];
    let limit = |class| [("LimitExceededException", 400, class)];
    for (operation, errors) in [
        (
            Operation::StartDeliveryStreamEncryption,
            [
                &firehose[..],
                &limit(Class::LimitReached),
                &[("InvalidKMSResourceException", 400, Class::KeyRefused)],
            ]
            .concat(),
        ),
        (Operation::StopDeliveryStreamEncryption, [&firehose[..], &limit(Class::LimitReached)].concat()),
        (Operation::DescribeDeliveryStream, firehose[..1].to_vec()),
        (
            Operation::PutFirehoseRecord,
            vec![
                ("ResourceNotFoundException", 400, Class::NotFound),
                ("InvalidArgumentException", 400, Class::Invalid),
                ("InvalidKMSResourceException", 400, Class::KeyRefused),
                ("InvalidSourceException", 400, Class::Invalid),
                ("ServiceUnavailableException", 500, Class::Transient),
            ],
        ),
        (Operation::StartStreamEncryption, [&kinesis[..], &of_keys, &limit(Class::LimitReached)].concat()),
        (Operation::StopStreamEncryption, [&kinesis[..], &limit(Class::LimitReached)].concat()),
        (Operation::DescribeStreamSummary, [&kinesis[..], &limit(Class::Throttled)].concat()),
        (
            Operation::DescribeKey,
            vec![
                ("NotFoundException", 400, Class::NotFound),
                ("InvalidArnException", 400, Class::Invalid),
                ("DependencyTimeoutException", 503, Class::Transient),
                ("KMSInternalException", 500, Class::Transient),
            ],
        ),
        (
            Operation::AssumeRole,
            vec![
                ("ExpiredTokenException", 400, Class::CredentialsRejected),
                ("PackedPolicyTooLarge", 400, Class::Invalid),
                ("MalformedPolicyDocument", 400, Class::Invalid),
                ("RegionDisabledException", 403, Class::CredentialsRejected),
                ("AccessDenied", 403, Class::Denied),
            ],
        ),
    ] {
        for (code, http, class) in errors {
            assert_eq!(classify(operation, error(code, "", http)), class, "{operation:?} {code}");
        }
    }
}

/// [Common errors](https://docs.aws.amazon.com/firehose/latest/APIReference/CommonErrors.html) and those of signatures.
#[test]
fn a_code_that_is_known_says_more_than_the_status_under_which_it_comes() {
    for (class, codes) in [
        (
            Class::Throttled,
            &[
                "ThrottlingException",
                "Throttling",
                "RequestLimitExceeded",
                "TooManyRequestsException",
                "ProvisionedThroughputExceededException",
                "SlowDown",
            ][..],
        ),
        (Class::Denied, &["AccessDeniedException", "AccessDenied", "UnauthorizedOperation", "NotAuthorized"]),
        (
            Class::CredentialsRejected,
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
            Class::Invalid,
            &[
                "InvalidArgumentException",
                "ValidationException",
                "ValidationError",
                "SerializationException",
                "InvalidArnException",
                "InvalidParameterValue",
            ],
        ),
        (Class::NotFound, &["ResourceNotFoundException", "NotFoundException"]),
        (Class::InUse, &["ResourceInUseException"]),
    ] {
        for code in codes {
            for http in [400, 403, 404, 408, 429, 500, 503] {
                for operation in Operation::EACH {
                    assert_eq!(
                        classify(operation, error(code, "", http)),
                        class,
                        "{operation:?} {code} {http}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_code_that_nobody_knows_is_judged_by_the_status_under_which_it_comes() {
    for (http, of_reads, of_changes) in [
        (400, Class::Invalid, Class::Invalid),
        (404, Class::Invalid, Class::Invalid),
        (401, Class::Denied, Class::Denied),
        (403, Class::Denied, Class::Denied),
        (407, Class::Transient, Class::Transient),
        (408, Class::Transient, Class::UnknownOutcome),
        (429, Class::Throttled, Class::Throttled),
        (499, Class::Invalid, Class::Invalid),
        (500, Class::Transient, Class::UnknownOutcome),
        (503, Class::Transient, Class::UnknownOutcome),
    ] {
        for operation in Operation::EACH {
            let class = if operation.changes() { of_changes } else { of_reads };
            assert_eq!(classify(operation, error("SomethingNew", "", http)), class, "{operation:?} {http}");
        }
    }
}

#[test]
fn the_rights_that_people_are_told_to_grant_are_those_of_iam() {
    // Service Authorization Reference.
    let actions = Operation::EACH.map(Operation::iam_action);
    assert_eq!(
        actions,
        [
            "firehose:DescribeDeliveryStream",
            "firehose:StartDeliveryStreamEncryption",
            "firehose:StopDeliveryStreamEncryption",
            "firehose:PutRecord",
            "kinesis:DescribeStreamSummary",
            "kinesis:StartStreamEncryption",
            "kinesis:StopStreamEncryption",
            "kinesis:PutRecord",
            "kms:DescribeKey",
            "sts:GetCallerIdentity",
            "sts:AssumeRole",
        ]
    );
    for service in [Service::Firehose, Service::Kinesis] {
        let named = |operation: Operation, verb: &str| {
            let (of, action) = operation.iam_action().split_once(':').unwrap();
            of == format!("{service:?}").to_lowercase() && action.starts_with(verb)
        };
        assert!(named(Operation::look(service), "Describe"));
        assert!(named(Operation::change(service, Action::Start), "Start"));
        assert!(named(Operation::change(service, Action::Stop), "Stop"));
    }
}

#[test]
fn a_fault_tells_the_log_what_was_asked_and_what_came_back() {
    let fault = |code: Option<&str>| Fault {
        operation: Operation::DescribeKey,
        class: Class::Transient,
        code: code.map(str::to_owned),
        message: "AWS's words".to_owned(),
    };
    assert_eq!(fault(Some("InternalFailure")).to_string(), "kms:DescribeKey failed: InternalFailure");
    assert_eq!(fault(None).to_string(), "kms:DescribeKey failed: no answer");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_answer_has_a_class_and_only_a_change_has_an_unknown_outcome(
        operation in prop::sample::select(Operation::EACH.to_vec()),
        code in any::<String>(),
        kms_code in prop::option::of(any::<String>()),
        message in any::<String>(),
        http in any::<u16>(),
    ) {
        let answer = Answer::Error { code: &code, kms_code: kms_code.as_deref(), message: &message, http };
        let class = classify(operation, answer);
        prop_assert_eq!(class == Class::UnknownOutcome, operation.changes() && (http >= 500 || http == 408));
        for answer in [Answer::None, Answer::NotSent, Answer::NotSigned] {
            let unknown = classify(operation, answer) == Class::UnknownOutcome;
            prop_assert_eq!(unknown, operation.changes() && matches!(answer, Answer::None));
        }
    }
}
