//! The age of the session that signs a call, and the time with which it is signed.

use super::*;

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
async fn reads_are_dated_by_clock_and_calls_by_reservation() {
    // AWS would reject the reads and the calls, and must: if the SDK corrected the date, the ledger would count by
    // another clock than AWS.
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
