//! The number of requests that are sent, and when: retries of reads, one attempt for calls, the rate limiter.

use super::*;

#[tokio::test(start_paused = true)]
async fn changes_and_record_writes_are_sent_once_on_any_error() {
    for operation in Op::ALL.into_iter().filter(|operation| !reads(*operation)) {
        for (status, code) in [
            (500, "InternalFailure"),
            (503, "ServiceUnavailableException"),
            (400, "LimitExceededException"),
            (400, "ThrottlingException"),
            (400, "RequestTimeTooSkewed"),
        ] {
            let (error, sent) = error_of(operation, status, &json!({"__type": code}).to_string()).await;
            assert_eq!(sent, 1, "{operation:?} {code}");
            let unknown = status >= 500 && operation.is_mutating();
            assert_eq!(error.kind == ErrorKind::UnknownOutcome, unknown, "{operation:?} {code}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn unanswered_request_times_out_and_only_reads_repeat() {
    for operation in Op::ALL {
        let never = NeverClient::new();
        let aws = aws(SharedHttpClient::new(never.clone())).await;
        let start = Instant::now();
        let error = ask(&aws, operation).await.unwrap_err();
        let (sent, kind) = match operation {
            _ if reads(operation) => (3, ErrorKind::Transient),
            _ if operation.is_mutating() => (1, ErrorKind::UnknownOutcome),
            _ => (1, ErrorKind::Transient),
        };
        assert_eq!((never.num_calls(), error.kind, error.code), (sent, kind, None), "{operation:?}");
        let elapsed = start.elapsed();
        // SQS waits up to 20 seconds for a message.
        let deadline = if operation == Op::ReceiveMessage { 30 } else { 10 };
        // The pauses before a read is sent again take 1.2 seconds.
        let pauses = if sent > 1 { 1200 } else { 0 };
        let expected = deadline * 1000 * u128::try_from(sent).unwrap() + pauses;
        assert!((expected..expected + 100).contains(&elapsed.as_millis()), "{operation:?} {elapsed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn read_is_sent_three_times_unless_access_is_denied() {
    for operation in Op::ALL.into_iter().filter(|operation| reads(*operation)) {
        for (status, code, times) in
            [(400, "ThrottlingException", 3), (500, "InternalFailure", 3), (400, "AccessDeniedException", 1)]
        {
            // STS responds in XML.
            let body = match operation {
                Op::GetCallerIdentity | Op::AssumeRole => {
                    format!("<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>")
                }
                _ => json!({"__type": code}).to_string(),
            };
            let (error, sent) = error_of(operation, status, &body).await;
            assert_eq!((sent, error.code.as_deref()), (times, Some(code)), "{operation:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn read_that_succeeds_on_third_attempt_is_no_error() {
    let throttled = (400, r#"{"__type":"ThrottlingException"}"#);
    let missing = (400, r#"{"__type":"ResourceNotFoundException"}"#);
    let recorded = ReplayClient::answers([throttled, throttled, missing]);
    let aws = aws(recorded.http_client()).await;
    assert_eq!(aws.describe_stream(&stream(Service::Firehose), &somebody(), Priority::Drift).await, Ok(None));
    assert_eq!(recorded.sent().len(), 3);
    let quota = QuotaScope::of(Op::DescribeDeliveryStream, &stream(Service::Firehose));
    assert!(aws.rate_limiter().rate(&quota) < 4_000);
}

#[tokio::test(start_paused = true)]
async fn kinesis_limit_of_one_stream_slows_no_other_stream() {
    let clicks = stream(Service::Kinesis);
    for operation in [Op::StartStreamEncryption, Op::StopStreamEncryption] {
        for (message, kind, slowed) in [
            ("Rate exceeded for stream clicks under account 111122223333.", ErrorKind::LimitReached, false),
            ("Rate exceeded for account 111122223333.", ErrorKind::Throttled, true),
        ] {
            let body = json!({"__type": "LimitExceededException", "message": message}).to_string();
            let recorded = ReplayClient::answers([(400, body)]);
            let aws = aws(recorded.http_client()).await;
            let rates = |of: &Aws| Op::ALL.map(|each| of.rate_limiter().rate(&QuotaScope::of(each, &clicks)));
            let before = rates(&aws);
            assert_eq!(ask(&aws, operation).await.unwrap_err().kind, kind, "{operation:?} {message}");
            assert_eq!(rates(&aws) != before, slowed, "{operation:?} {message}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn full_shard_of_one_stream_slows_no_other_stream() {
    for (code, slowed) in
        [("ProvisionedThroughputExceededException", false), ("LimitExceededException", true)]
    {
        let recorded = ReplayClient::answers([(400, json!({"__type": code}).to_string())]);
        let aws = aws(recorded.http_client()).await;
        let quota = QuotaScope::of(Op::PutKinesisRecord, &stream(Service::Kinesis));
        let before = aws.rate_limiter().rate(&quota);
        let error = ask(&aws, Op::PutKinesisRecord).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Throttled);
        assert_eq!(aws.rate_limiter().rate(&quota) < before, slowed, "{code}");
    }
}

/// Otherwise the requests would be permitted at the limiter's rate, and then be sent together.
#[tokio::test(start_paused = true)]
async fn slow_source_of_credentials_causes_no_burst() {
    let provider = provide_credentials_fn(|| async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        Ok(credentials())
    });
    let sent = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = sent.clone();
    let http_client = aws_smithy_http_client::test_util::infallible_client_fn(move |_| {
        noted.lock().unwrap().push(Instant::now());
        http::Response::builder().status(400).body(r#"{"__type":"ResourceNotFoundException"}"#).unwrap()
    });
    let loader = loader(&ours()).credentials_provider(provider).http_client(http_client);
    let clock = Arc::new(SystemTime::now);
    let aws = Aws::from_config(loader.load().await, ours().region, RateLimiter::new(80), clock);
    let (orders, me) = (stream(Service::Firehose), somebody());
    futures_util::future::join_all((0..12).map(|_| aws.describe_stream(&orders, &me, Priority::Changing)))
        .await;
    let sent = sent.lock().unwrap();
    assert_eq!(sent.len(), 12);
    for later in sent.iter().skip(4).zip(sent.iter()).map(|(later, earlier)| *later - *earlier) {
        assert!(later >= Duration::from_secs(1), "5 requests within {later:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rate_limiter_delays_permit_but_not_start() {
    let recorded = ReplayClient::answers((0..9).map(|_| (200, "{}")));
    let aws = aws(recorded.http_client()).await;
    let start = Instant::now();
    for _ in 0..5 {
        assert!(aws.acquire_permit(&stream(Service::Firehose), Action::Start, &somebody(), &signer()).await);
    }
    assert!(start.elapsed() >= Duration::from_secs(1));
    let start = Instant::now();
    for _ in 0..9 {
        aws.start(&stream(Service::Firehose), &Key::AwsOwned, &somebody(), &signer(), Timestamp::UNIX_EPOCH)
            .await
            .unwrap();
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}
