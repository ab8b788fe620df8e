//! Messages about requests and calls that failed: the cause, and the remedy.

use super::*;

#[test]
fn missing_and_rejected_credentials_and_no_answer_differ() {
    let look = Operation::DescribeDeliveryStream;
    let expired = "Signature expired: 20260101T000000Z is now earlier than 20260101T001500Z";
    for (kind, code, message, pieces) in [
        (
            ErrorKind::NoCredentials,
            Some("NoCredentials"),
            "",
            &["no request was sent", "service account has no role"][..],
        ),
        (
            ErrorKind::NoCredentials,
            Some("CredentialsMisconfigured"),
            "",
            &["no request was sent", "docs/install.md"],
        ),
        (
            ErrorKind::NoCredentials,
            Some("CredentialsSourceFailed"),
            "",
            &["no request was sent", "trust policy"],
        ),
        (
            ErrorKind::NoCredentials,
            Some("CredentialsTimedOut"),
            "",
            &["no request was sent", "does not respond"],
        ),
        (ErrorKind::NoCredentials, Some("CredentialsUnsignable"), "", &["line break", "from the Secret"]),
        (ErrorKind::CredentialsRejected, Some("ExpiredTokenException"), "", &["has ended", "renew"]),
        (
            ErrorKind::CredentialsRejected,
            Some("UnrecognizedClientException"),
            "",
            &["does not recognize", "access key"],
        ),
        (ErrorKind::CredentialsRejected, Some("InvalidSignatureException"), expired, &["clock", "node"]),
        (ErrorKind::CredentialsRejected, Some("RequestTimeTooSkewed"), "", &["clock"]),
        (ErrorKind::CredentialsRejected, Some("SignatureDoesNotMatch"), "", &["secret access key"]),
        (ErrorKind::CredentialsRejected, Some("OptInRequired"), "", &["region is not enabled"]),
        (ErrorKind::Transient, None, "", &["No readable response to", "network"]),
        (
            ErrorKind::Transient,
            Some("InternalFailure"),
            "",
            &["AWS returned an internal error", "InternalFailure"],
        ),
        (ErrorKind::Transient, Some("502"), "", &["HTTP status 502", "proxy"]),
        (ErrorKind::Transient, Some("InvalidResponse"), "", &["is not valid"]),
        (ErrorKind::Throttled, Some("ThrottlingException"), "", &["throttling"]),
    ] {
        let asked = |operation| AwsError {
            operation,
            kind,
            code: code.map(str::to_owned),
            message: message.to_owned(),
            request_id: None,
        };
        let seen = Scenario::of(Service::Firehose).with(|s| s.sight = Sight::Failed(asked(look)));
        for words in [identity(&asked(Operation::GetCallerIdentity)), says(&seen, kind.reason())] {
            for piece in pieces {
                assert!(words.contains(piece), "{kind:?} {code:?} without {piece:?}: {words}");
            }
            assert!(!words.contains("Grant") && !words.contains("20260101"), "{words}");
            assert_eq!(
                words.contains("network and endpoint"),
                (kind, code) == (ErrorKind::Transient, None),
                "{words}"
            );
        }
    }
    let strange =
        AwsError { operation: Operation::GetCallerIdentity, ..aws_error(ErrorKind::Invalid, "Strange") };
    assert!(identity(&strange).contains("AWS refused sts:GetCallerIdentity"));
}

/// The region of the stream is enabled: the request for the session goes to the region of the operator.
#[test]
fn inactive_sts_of_a_spoke_concerns_the_operators_region() {
    let refused = aws_error(ErrorKind::CredentialsRejected, "RegionDisabledException");
    let error = AwsError { operation: Operation::AssumeRole, ..refused };
    let seen = Scenario::of(Service::Kinesis).with(|s| s.sight = Sight::Failed(error));
    let words = says(&seen, Reason::CredentialsRejected);
    for piece in
        ["STS in the operator's region is not active in the account of the role", "enabled by default"]
    {
        assert!(words.contains(piece), "{words}");
    }
    assert!(!words.contains("set another region"), "{words}");
}

/// A permission for the role does not help then. AWS's own words may name accounts and policies of others.
#[test]
fn policy_that_denies_the_request_is_named_by_its_kind() {
    let role =
        "sts:AssumeRole or sts:TagSession on the role that the StreamEncryptionPolicy sets for this stream";
    let stream = format!("kinesis:DescribeStreamSummary on {KINESIS}");
    for (phrase, policy, remedy) in [
        (
            "explicit deny in an identity-based policy",
            "A policy of the operator's role",
            "Remove the statement",
        ),
        ("explicit deny in a resource-based policy", "A resource-based policy", "Remove the statement"),
        ("explicit deny in the role trust policy", "A resource-based policy", "Remove the statement"),
        ("explicit deny in a service control policy", "A service control policy", "AWS organization"),
        ("no service control policy allows", "A service control policy", "AWS organization"),
        ("explicit deny in a resource control policy", "A resource control policy", "AWS organization"),
        (
            "explicit deny in a permissions boundary",
            "The permissions boundary of",
            "in the permissions boundary",
        ),
        ("no permissions boundary allows", "The permissions boundary of", "in the permissions boundary"),
        ("explicit deny in a session policy", "A session policy of", "in the session policy"),
        ("no session policy allows", "A session policy of", "in the session policy"),
        ("explicit deny in a VPC endpoint policy", "The policy of a VPC endpoint", "of the endpoint"),
        ("no VPC endpoint policy allows", "The policy of a VPC endpoint", "of the endpoint"),
    ] {
        let message =
            format!("User: secret-role is not authorized to perform: x on resource: y, {phrase}: secret-arn");
        for (operation, denied) in
            [(Operation::DescribeStreamSummary, stream.as_str()), (Operation::AssumeRole, role)]
        {
            let message = message.clone();
            let error =
                AwsError { operation, message, ..aws_error(ErrorKind::Denied, "AccessDeniedException") };
            let seen = Scenario::of(Service::Kinesis).with(|s| s.sight = Sight::Failed(error));
            let words = says(&seen, Reason::AccessDenied);
            assert!(words.starts_with(policy) && words.contains(remedy), "{phrase}: {words}");
            assert!(words.contains(&format!(" denies {denied}. ")), "{phrase}: {words}");
            assert!(!words.contains("secret") && !words.contains("Grant"), "{phrase}: {words}");
        }
    }
    let missing = "because no identity-based policy allows the action";
    let error = AwsError { message: missing.to_owned(), ..aws_error(ErrorKind::Denied, "AccessDenied") };
    let seen = Scenario::of(Service::Kinesis).with(|s| s.sight = Sight::Failed(error));
    assert!(says(&seen, Reason::AccessDenied).contains("Grant"));
}

#[test]
fn credentials_refusal_message_depends_on_code() {
    for (code, kind, piece) in [
        ("ExpiredTokenException", ErrorKind::CredentialsRejected, "has ended"),
        ("SessionTooOld", ErrorKind::NoCredentials, "older than 6 hours"),
        ("NotConnected", ErrorKind::Transient, "could not connect"),
        ("NotReserved", ErrorKind::Transient, "did not acknowledge"),
        ("OperatorPaused", ErrorKind::Transient, "did not run for some seconds"),
        ("SignerChanged", ErrorKind::Transient, "credentials changed"),
    ] {
        let refused = seen(Observation::Off).calls().refused(kind, code).after(1).sees(Observation::Off);
        let decision = refused.decide();
        assert_eq!(decision.reason, kind.reason());
        let words = ready(&refused.input(), &decision);
        assert!(words.contains(piece) && words.contains("Next attempt at"), "{words}");
    }
}

#[test]
fn server_error_is_distinguished_from_no_response() {
    let unknown = |code| seen(Observation::Off).calls().refused(ErrorKind::UnknownOutcome, code);
    let words = says(&unknown("InternalFailure"), Reason::OutcomeUnknown);
    assert!(words.contains("without a definite answer (InternalFailure)"), "{words}");
    let silent = says(&seen(Observation::Off), Reason::OutcomeUnknown);
    assert!(silent.contains("received no response"), "{silent}");
}

#[test]
fn documented_failure_has_specific_advice() {
    let nothing = advice("SOMETHING_NEW");
    assert!(nothing.contains("log"), "{nothing}");
    for (codes, piece) in [
        (&["KMS_ACCESS_DENIED", "KMSAccessDeniedException"][..], "policy"),
        (&["DISABLED_KMS_KEY", "KMSDisabledException"], "Enable it"),
        (&["KMS_KEY_NOT_FOUND", "KMSNotFoundException"], "does not exist"),
        (&["INVALID_KMS_KEY", "KMSInvalidStateException"], "current state"),
        (&["CREATE_KMS_GRANT_FAILED"], "Allow kms:CreateGrant"),
        (&["RETIRE_KMS_GRANT_FAILED"], "Do not revoke a grant on the key in status.activeKey"),
        (&["KMS_OPT_IN_REQUIRED", "KMSOptInRequired"], "subscribe"),
        (&["InvalidKMSResourceException"], "KMS rejects the key"),
        (&["AccessDeniedException"], "lacks a permission"),
        (&["LimitExceededException"], "limit"),
        (&["NOT_APPLIED"], "is unchanged"),
        (&["NotConnected", "NotReserved", "OperatorPaused", "SignerChanged"], "did not send the call"),
        (&["NoCredentials"], "no request was sent"),
        (&["SessionTooOld"], "older than 6 hours"),
    ] {
        for code in codes {
            assert!(advice(code).contains(piece), "{code}: {}", advice(code));
        }
    }
}

#[test]
fn call_without_effect_is_not_reported_as_a_failure_code() {
    let started = Scenario::of(Service::Kinesis).sees(Observation::Off).calls().accepted();
    let stopped = Scenario::of(Service::Kinesis).converged().wants(DesiredEncryption::Off);
    let stopped = stopped.calls().accepted();
    for (unchanged, reason, words) in [
        (
            started.after(60).sees(Observation::Off),
            Reason::EnablingFailed,
            format!(
                "AWS accepted the call to encrypt with {KEY_1}, and the stream is unchanged. Records are in plaintext."
            ),
        ),
        (
            stopped.after(60).sees(Observation::On(key(1))),
            Reason::DisablingFailed,
            format!(
                "AWS accepted the call to disable encryption, and the stream is unchanged. {KEY_1} is the active key."
            ),
        ),
    ] {
        let decision = unchanged.decide();
        assert_eq!(decision.reason, reason);
        let message = ready(&unchanged.input(), &decision);
        assert!(message.starts_with(&words) && !message.contains("NOT_APPLIED"), "{message}");
    }
}
