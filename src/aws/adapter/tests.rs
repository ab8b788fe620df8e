//! The behaviour of every operation, through the port: the error kind of each response, and the number of
//! requests sent.

mod accounts;
mod endpoints;
mod signing;

use std::sync::atomic::{AtomicU64, Ordering};

use aws_credential_types::Credentials;
use aws_credential_types::credential_fn::provide_credentials_fn;
use aws_sdk_sts::config::SharedHttpClient;
use aws_smithy_async::time::TimeSource;
use aws_smithy_http_client::test_util::NeverClient;
use jiff::SignedDuration;
use serde_json::json;
use stream_encryption_core::model::arn::KeyArn;
use stream_encryption_core::model::aws_error::ErrorKind;
use stream_encryption_core::model::key::KeyProblem;
use stream_encryption_core::model::service::Operation as Op;
use tokio::time::Instant;

use super::super::replay::{ReplayClient, assuming, credentials, signer, somebody};
use super::*;

fn ours() -> AwsConfig {
    AwsConfig::of("eu-west-1".parse().unwrap())
}

fn customer() -> KeyArn {
    "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab".parse().unwrap()
}

fn stream(service: Service) -> StreamArn {
    let arn = match service {
        Service::Firehose => "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders",
        Service::Kinesis => "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks",
    };
    arn.parse().unwrap()
}

/// Returns AWS over `http_client`, configured as in production.
async fn aws(http_client: SharedHttpClient) -> Aws {
    let loader = loader(&ours()).credentials_provider(credentials()).http_client(http_client);
    Aws::from_config(
        loader.load().await,
        ours().region,
        RateLimiter::new(ours().rate_percent),
        Arc::new(SystemTime::now),
    )
}

/// Returns the signer of the next call for `by`; if nothing can sign it, any signer.
async fn signer_of(aws: &Aws, principal: &Principal) -> Signer {
    aws.sender
        .session(Op::GetCallerIdentity, principal)
        .await
        .map_or_else(|_| signer(), |session| session.signer())
}

/// Sends the operation, a call with the current signer. A missing stream or key counts as an error.
async fn ask(aws: &Aws, operation: Op) -> Result<(), AwsError> {
    let signer = if reads(operation) { signer() } else { signer_of(aws, &somebody()).await };
    ask_signed(aws, operation, &signer).await
}

/// Sends the operation, a call after a Describe that `signer` signed.
async fn ask_signed(aws: &Aws, operation: Op, signer: &Signer) -> Result<(), AwsError> {
    let (firehose, kinesis) = (stream(Service::Firehose), stream(Service::Kinesis));
    let missing = || AwsError { operation, kind: ErrorKind::NotFound, code: None, message: String::new() };
    let key = Key::Customer(customer());
    match operation {
        Op::DescribeDeliveryStream => {
            aws.describe_stream(&firehose, &somebody(), Priority::Drift).await?.map(drop).ok_or_else(missing)
        }
        Op::DescribeStreamSummary => {
            aws.describe_stream(&kinesis, &somebody(), Priority::Drift).await?.map(drop).ok_or_else(missing)
        }
        Op::DescribeKey => {
            let name = KmsKeyId::Arn(customer());
            aws.describe_key(&firehose, &name, &somebody(), Priority::Drift)
                .await?
                .map(drop)
                .ok_or_else(missing)
        }
        Op::StartDeliveryStreamEncryption => {
            aws.start(&firehose, &key, &somebody(), signer, Timestamp::UNIX_EPOCH).await
        }
        Op::StopDeliveryStreamEncryption => {
            aws.stop(&firehose, None, &somebody(), signer, Timestamp::UNIX_EPOCH).await
        }
        Op::StartStreamEncryption => {
            aws.start(&kinesis, &key, &somebody(), signer, Timestamp::UNIX_EPOCH).await
        }
        Op::StopStreamEncryption => {
            aws.stop(&kinesis, None, &somebody(), signer, Timestamp::UNIX_EPOCH).await
        }
        Op::PutFirehoseRecord => aws.put_record(&firehose, "marked", &somebody(), signer).await.map(drop),
        Op::PutKinesisRecord => aws.put_record(&kinesis, "marked", &somebody(), signer).await.map(drop),
        Op::GetCallerIdentity => aws.identity().await.map(drop),
        Op::AssumeRole => {
            aws.describe_stream(&firehose, &assuming("orders"), Priority::Drift).await.map(drop)
        }
    }
}

/// Returns the error of the operation, and the number of requests that were sent while AWS kept returning
/// this response.
async fn error_of(operation: Op, status: u16, body: &str) -> (AwsError, usize) {
    let recorded = ReplayClient::answers((0..9).map(|_| (status, body)));
    let error = ask(&aws(recorded.http_client()).await, operation).await.unwrap_err();
    (error, recorded.sent().len())
}

fn reads(operation: Op) -> bool {
    matches!(
        operation,
        Op::DescribeDeliveryStream
            | Op::DescribeStreamSummary
            | Op::DescribeKey
            | Op::GetCallerIdentity
            | Op::AssumeRole
    )
}

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
        assert_eq!(elapsed.as_secs(), 10 * u64::try_from(sent).unwrap(), "{operation:?} {elapsed:?}");
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
async fn unreadable_body_is_classified_by_its_status() {
    let forbidden = "<html>Forbidden</html>";
    for (operation, status, body, kind) in [
        (Op::DescribeDeliveryStream, 403, forbidden, ErrorKind::Denied),
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
async fn refused_connection_counts_as_no_response() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let endpoints = AwsConfig { endpoint_url: Some(format!("http://{closed}")), ..ours() };
    let config = loader(&endpoints).credentials_provider(credentials()).load().await;
    let aws = Aws::from_config(
        config,
        endpoints.region.clone(),
        RateLimiter::new(endpoints.rate_percent),
        Arc::new(SystemTime::now),
    );
    for (operation, kind) in [
        (Op::StartDeliveryStreamEncryption, ErrorKind::UnknownOutcome),
        (Op::StopStreamEncryption, ErrorKind::UnknownOutcome),
        (Op::DescribeKey, ErrorKind::Transient),
    ] {
        let error = ask(&aws, operation).await.unwrap_err();
        assert_eq!((error.kind, error.code), (kind, None), "{}", error.message);
    }
}

#[tokio::test(start_paused = true)]
async fn endpoint_url_replaces_that_of_every_service() {
    let endpoints = AwsConfig { endpoint_url: Some("http://aws.test:4566".to_owned()), ..ours() };
    for operation in Op::ALL {
        let recorded = ReplayClient::answers((0..3).map(|_| (400, "{}")));
        let loader =
            loader(&endpoints).credentials_provider(credentials()).http_client(recorded.http_client());
        let aws = Aws::from_config(
            loader.load().await,
            endpoints.region.clone(),
            RateLimiter::new(endpoints.rate_percent),
            Arc::new(SystemTime::now),
        );
        let _ = ask(&aws, operation).await;
        let hosts: Vec<String> = recorded.sent().into_iter().map(|sent| sent.host).collect();
        assert_eq!(hosts, ["aws.test"], "{operation:?}");
    }
}

#[tokio::test]
async fn invalid_endpoint_or_share_is_rejected() {
    for url in ["", "aws.test:4566", "ftp://aws.test", "http://", "https:///path", "http://a b"] {
        let endpoints = AwsConfig { endpoint_url: Some(url.to_owned()), ..ours() };
        assert_eq!(Aws::new(endpoints).await.err(), Some(InvalidAwsConfig::Url(url.to_owned())));
    }
    for rate_percent in [0, 101] {
        assert_eq!(
            Aws::new(AwsConfig { rate_percent, ..ours() }).await.err(),
            Some(InvalidAwsConfig::RatePercent(rate_percent))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn rate_limiter_delays_turn_but_not_start() {
    let recorded = ReplayClient::answers((0..9).map(|_| (200, "{}")));
    let aws = aws(recorded.http_client()).await;
    let start = Instant::now();
    for _ in 0..4 {
        assert!(aws.acquire_permit(&stream(Service::Firehose), Action::Start, &somebody(), &signer()).await);
    }
    for _ in 0..9 {
        aws.start(&stream(Service::Firehose), &Key::AwsOwned, &somebody(), &signer(), Timestamp::UNIX_EPOCH)
            .await
            .unwrap();
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(aws.acquire_permit(&stream(Service::Firehose), Action::Start, &somebody(), &signer()).await);
    assert!(start.elapsed() >= Duration::from_secs(1));
}

/// A clock of a test in minutes, for both the operator and the SDK.
#[derive(Clone, Debug, Default)]
struct Minutes(Arc<AtomicU64>);

impl Minutes {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl TimeSource for Minutes {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_683_200 + 60 * self.get())
    }
}

/// Returns AWS on the clock of a test, with a provider whose session was created at the minute that `made_at`
/// returns.
async fn on(minutes: &Minutes, recorded: &ReplayClient, made_at: fn(u64) -> u64) -> Aws {
    let at = minutes.clone();
    let provider = provide_credentials_fn(move || {
        let made = made_at(at.get());
        let expiry = at.now() + Duration::from_hours(12);
        async move {
            Ok(Credentials::new(format!("ASIA{made}"), "secret", Some("token".into()), Some(expiry), "test"))
        }
    });
    let loader = loader(&ours()).credentials_provider(provider).http_client(recorded.http_client());
    let clock = minutes.clone();
    Aws::from_config(
        loader.time_source(minutes.clone()).load().await,
        ours().region,
        RateLimiter::new(ours().rate_percent),
        Arc::new(move || clock.now()),
    )
}

#[tokio::test(start_paused = true)]
async fn start_never_uses_session_older_than_six_hours() {
    let recorded = ReplayClient::answers((0..2000).map(|_| (200, "{}")));
    let minutes = Minutes::default();
    let aws = on(&minutes, &recorded, |now| now).await;
    let mut sessions = std::collections::BTreeSet::new();
    for now in (0..48 * 60).step_by(10) {
        minutes.0.store(now, Ordering::Relaxed);
        let (stream, key) = (stream(Service::Firehose), Key::Customer(customer()));
        let signer = signer_of(&aws, &somebody()).await;
        aws.start(&stream, &key, &somebody(), &signer, minutes.now().try_into().unwrap()).await.unwrap();
        let made: u64 =
            recorded.sent().last().unwrap().access_key_id.strip_prefix("ASIA").unwrap().parse().unwrap();
        assert!(now - made <= 5 * 60, "{now} {made}");
        let age = SignedDuration::from_mins(i64::try_from(now - made).unwrap());
        assert_eq!(signer.session_age, Some(age));
        sessions.insert(made);
    }
    // One session in five hours, not one for each call.
    assert_eq!(sessions.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn stale_session_blocks_only_firehose_start_with_customer_key() {
    let recorded = ReplayClient::answers((0..2000).map(|_| (200, "{}")));
    let minutes = Minutes::default();
    let aws = on(&minutes, &recorded, |_| 0).await;
    for now in (0..48 * 60).step_by(10) {
        minutes.0.store(now, Ordering::Relaxed);
        let before = recorded.sent().len();
        match ask(&aws, Op::StartDeliveryStreamEncryption).await {
            Ok(()) => assert!(now < 6 * 60, "{now}"),
            Err(error) => {
                assert!(now >= 6 * 60, "{now} {}", error.message);
                assert_eq!(
                    (error.kind, error.code.as_deref()),
                    (ErrorKind::NoCredentials, Some("SessionTooOld"))
                );
                assert_eq!(recorded.sent().len(), before);
            }
        }
    }
    let signer = signer_of(&aws, &somebody()).await;
    aws.start(&stream(Service::Firehose), &Key::AwsOwned, &somebody(), &signer, Timestamp::UNIX_EPOCH)
        .await
        .unwrap();
    ask(&aws, Op::StartStreamEncryption).await.unwrap();
    ask(&aws, Op::StopDeliveryStreamEncryption).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn reads_use_operator_clock_and_calls_reservation_time() {
    // AWS would reject both, and must: the same clock counts the calls of a day.
    let dates = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = dates.clone();
    let two_days_behind = aws_smithy_http_client::test_util::infallible_client_fn(move |request| {
        let date = request.headers().get("x-amz-date").and_then(|date| date.to_str().ok());
        seen.lock().unwrap().push(date.unwrap_or_default().to_owned());
        let answer = http::Response::builder().status(400).header("date", "Wed, 19 Nov 2025 00:00:00 GMT");
        answer.body(r#"{"__type":"RequestTimeTooSkewed"}"#).unwrap()
    });
    let loader = loader(&ours()).credentials_provider(credentials()).http_client(two_days_behind);
    let clock = Minutes::default();
    let config = loader.time_source(clock.clone()).load().await;
    let aws = Aws::from_config(
        config,
        ours().region,
        RateLimiter::new(ours().rate_percent),
        Arc::new(move || clock.now()),
    );
    let signing_time = "2025-11-20T23:59:55Z".parse().unwrap();
    for service in [Service::Firehose, Service::Kinesis] {
        let stream = stream(service);
        for _ in 0..2 {
            aws.describe_stream(&stream, &somebody(), Priority::Drift).await.unwrap_err();
            aws.start(&stream, &Key::AwsOwned, &somebody(), &signer(), signing_time).await.unwrap_err();
            aws.stop(&stream, None, &somebody(), &signer(), signing_time).await.unwrap_err();
        }
    }
    let one_round = ["20251121T000000Z", "20251120T235955Z", "20251120T235955Z"];
    assert_eq!(*dates.lock().unwrap(), one_round.repeat(4));
}
