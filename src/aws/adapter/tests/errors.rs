//! The error kind and the code of each response, for every operation.

use super::*;

#[tokio::test(start_paused = true)]
async fn each_modelled_error_has_its_error_kind() {
    use ErrorKind::{
        Denied, InUse, Invalid, Key, KeyAccessDenied, LimitReached, NotFound, Throttled, Transient,
    };
    let kinesis_keys = [
        ("KMSDisabledException", 400, Key(KeyProblem::Disabled)),
        ("KMSInvalidStateException", 400, Key(KeyProblem::Unavailable)),
        ("KMSAccessDeniedException", 400, KeyAccessDenied),
        ("KMSNotFoundException", 400, Key(KeyProblem::NotFound)),
        ("KMSOptInRequired", 400, KeyAccessDenied),
        ("KMSThrottlingException", 400, Throttled),
    ];
    let missing = ("ResourceNotFoundException", 400, NotFound);
    let invalid = ("InvalidArgumentException", 400, Invalid);
    let in_use = ("ResourceInUseException", 400, InUse);
    let limit = ("LimitExceededException", 400, LimitReached);
    let denied = ("AccessDeniedException", 400, Denied);
    let kms = ("InvalidKMSResourceException", 400, KeyAccessDenied);
    for (operation, errors) in [
        (Op::DescribeDeliveryStream, vec![missing]),
        (Op::StartDeliveryStreamEncryption, vec![missing, in_use, invalid, limit, kms]),
        (Op::StopDeliveryStreamEncryption, vec![missing, in_use, invalid, limit]),
        (
            Op::PutFirehoseRecord,
            vec![
                missing,
                invalid,
                kms,
                ("InvalidSourceException", 400, Invalid),
                ("ServiceUnavailableException", 503, Transient),
            ],
        ),
        (
            Op::DescribeStreamSummary,
            vec![missing, invalid, denied, ("LimitExceededException", 400, Throttled)],
        ),
        (
            Op::StartStreamEncryption,
            [vec![missing, in_use, invalid, limit, denied], kinesis_keys.to_vec()].concat(),
        ),
        (Op::StopStreamEncryption, vec![missing, in_use, invalid, limit, denied]),
        (
            Op::PutKinesisRecord,
            [
                vec![missing, invalid, denied, ("ProvisionedThroughputExceededException", 400, Throttled)],
                vec![("InternalFailureException", 500, Transient)],
                kinesis_keys.to_vec(),
            ]
            .concat(),
        ),
        (
            Op::DescribeKey,
            vec![
                ("NotFoundException", 400, NotFound),
                ("InvalidArnException", 400, Invalid),
                ("DependencyTimeoutException", 503, Transient),
                ("KMSInternalException", 500, Transient),
            ],
        ),
    ] {
        for (code, status, kind) in errors {
            let body = json!({"__type": format!("com.amazonaws.service#{code}"), "message": "recorded"});
            let (error, _) = error_of(operation, status, &body.to_string()).await;
            assert_eq!((error.operation, error.kind), (operation, kind), "{operation:?} {code}");
            // A missing stream or key is not an error, and has no code.
            if !(reads(operation) && kind == NotFound) {
                assert_eq!(error.code.as_deref(), Some(code), "{operation:?}");
                assert_eq!(error.message, "recorded", "{operation:?} {code}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn kms_code_in_firehose_error_is_not_the_error_code() {
    for (code, kind) in [
        ("DisabledException", ErrorKind::Key(KeyProblem::Disabled)),
        ("NotFoundException", ErrorKind::Key(KeyProblem::NotFound)),
        ("InvalidStateException", ErrorKind::Key(KeyProblem::Unavailable)),
        ("AccessDeniedException", ErrorKind::KeyAccessDenied),
    ] {
        let body =
            json!({"__type": "InvalidKMSResourceException", "code": code, "message": "recorded"}).to_string();
        let (error, _) = error_of(Op::StartDeliveryStreamEncryption, 400, &body).await;
        assert_eq!(
            (error.kind, error.code.as_deref()),
            (kind, Some("InvalidKMSResourceException")),
            "{code}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn unreadable_body_is_no_answer_of_aws() {
    let forbidden = "<html>Forbidden</html>";
    for (operation, status, body, kind) in [
        (Op::DescribeDeliveryStream, 403, forbidden, ErrorKind::Transient),
        (Op::DescribeKey, 404, forbidden, ErrorKind::Transient),
        // A proxy that returned this response may have forwarded the call.
        (Op::StartStreamEncryption, 403, forbidden, ErrorKind::UnknownOutcome),
        (Op::StartStreamEncryption, 502, "<html>Bad Gateway</html>", ErrorKind::UnknownOutcome),
        (Op::DescribeStreamSummary, 502, "<html>Bad Gateway</html>", ErrorKind::Transient),
        (Op::DescribeStreamSummary, 429, "", ErrorKind::Throttled),
        (Op::DescribeStreamSummary, 200, "<html>Welcome</html>", ErrorKind::Transient),
    ] {
        let (error, _) = error_of(operation, status, body).await;
        assert_eq!(error.kind, kind, "{operation:?} {status}");
        let code = (status >= 400).then(|| status.to_string());
        assert_eq!(error.code, code, "{operation:?} {status}");
    }
}

#[tokio::test(start_paused = true)]
async fn xml_error_is_parsed_for_json_operations() {
    // The format of moto with policies enabled.
    let forbidden = "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>";
    for operation in [Op::DescribeDeliveryStream, Op::StartStreamEncryption, Op::DescribeKey] {
        let (error, _) = error_of(operation, 403, forbidden).await;
        assert_eq!((error.kind, error.code.as_deref()), (ErrorKind::Denied, Some("AccessDenied")));
    }
}

#[tokio::test]
async fn call_without_a_connection_counts_as_not_sent() {
    let endpoints = AwsConfig { endpoint_url: Some("http://127.0.0.1:1".to_owned()), ..ours() };
    let config = loader(&endpoints).credentials_provider(credentials()).load().await;
    let aws = Aws::from_config(
        config,
        endpoints.region.clone(),
        RateLimiter::new(endpoints.rate_percent),
        Arc::new(SystemTime::now),
    );
    for operation in [Op::StartDeliveryStreamEncryption, Op::StopStreamEncryption, Op::DescribeKey] {
        let error = ask(&aws, operation).await.unwrap_err();
        assert!(error.is_unsent(), "{error:?}");
        let (kind, code) = (ErrorKind::Transient, Some("NotConnected"));
        assert_eq!((error.kind, error.code.as_deref()), (kind, code), "{}", error.message);
    }
}
