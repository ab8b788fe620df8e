//! The signing of requests, for every operation: without credentials, with credentials that cannot sign, and
//! with credentials that AWS no longer accepts.

use aws_credential_types::provider::error::CredentialsError;

use super::*;

#[tokio::test(start_paused = true)]
async fn request_without_credentials_is_known_to_be_unsent() {
    let recorded = ReplayClient::default();
    let nobody = provide_credentials_fn(|| async { Err(CredentialsError::not_loaded("nobody is here")) });
    let loader = loader(&ours()).credentials_provider(nobody).http_client(recorded.http_client());
    let aws = Aws::from_config(
        loader.load().await,
        ours().region,
        RateLimiter::new(ours().rate_percent),
        Arc::new(SystemTime::now),
    );
    for operation in Op::ALL {
        let error = ask(&aws, operation).await.unwrap_err();
        let code = error.code.as_deref();
        assert_eq!(
            (error.kind, code),
            (ErrorKind::NoCredentials, Some("NoCredentials")),
            "{operation:?} {}",
            error.message
        );
    }
    assert_eq!(recorded.sent().len(), 0);
}

/// The SDK's signer ends the process if a header cannot hold the access key id.
#[tokio::test(start_paused = true)]
async fn credentials_with_line_break_are_rejected_before_signing() {
    for (id, token) in [("AKIA\n", None), ("AKIA\r\n", None), ("ASIA", Some("token\n"))] {
        let recorded = ReplayClient::default();
        let broken = Credentials::new(id, "secret", token.map(str::to_owned), None, "test");
        let loader = loader(&ours()).credentials_provider(broken).http_client(recorded.http_client());
        let aws = Aws::from_config(
            loader.load().await,
            ours().region,
            RateLimiter::new(80),
            Arc::new(SystemTime::now),
        );
        for operation in Op::ALL {
            let error = ask(&aws, operation).await.unwrap_err();
            let code = error.code.as_deref();
            assert_eq!((error.kind, code), (ErrorKind::NoCredentials, Some("CredentialsUnsignable")));
            assert!(
                error.message.contains("line break") && !error.message.contains("AKIA"),
                "{}",
                error.message
            );
        }
        assert_eq!(recorded.sent(), []);
    }
}

/// A read is sent again at once with the next session; a call waits for the next reconciliation.
#[tokio::test(start_paused = true)]
async fn expired_session_is_replaced_for_every_operation() {
    for operation in Op::ALL {
        let made = Arc::new(AtomicU64::new(0));
        let provider = provide_credentials_fn(move || {
            let number = made.fetch_add(1, Ordering::Relaxed);
            let token = Some("token".to_owned());
            async move { Ok(Credentials::new(format!("ASIA{number}"), "secret", token, None, "test")) }
        });
        let body = match operation {
            Op::GetCallerIdentity | Op::AssumeRole => {
                "<ErrorResponse><Error><Code>ExpiredToken</Code></Error></ErrorResponse>"
            }
            _ => r#"{"__type":"ExpiredTokenException"}"#,
        };
        let recorded = ReplayClient::answers((0..9).map(|_| (403, body)));
        let loader = loader(&ours()).credentials_provider(provider).http_client(recorded.http_client());
        let aws = Aws::from_config(
            loader.load().await,
            ours().region,
            RateLimiter::new(80),
            Arc::new(SystemTime::now),
        );
        let error = ask(&aws, operation).await.unwrap_err();
        assert_eq!((error.operation, error.kind), (operation, ErrorKind::CredentialsRejected));
        let _ = ask(&aws, operation).await;
        let keys: Vec<String> = recorded.sent().into_iter().map(|sent| sent.access_key_id).collect();
        let expected: &[&str] =
            if reads(operation) { &["ASIA0", "ASIA1", "ASIA1"] } else { &["ASIA0", "ASIA1"] };
        assert_eq!(keys, expected, "{operation:?}");
    }
}

/// AWS returns this error for a region that is not enabled, although the session is valid elsewhere.
#[tokio::test(start_paused = true)]
async fn rejection_in_one_region_keeps_the_session_for_others() {
    let queries = AtomicU64::new(0);
    let provider = provide_credentials_fn(move || {
        let is_first = queries.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            if is_first {
                Ok(Credentials::new("ASIA0", "secret", Some("token".to_owned()), None, "test"))
            } else {
                Err(CredentialsError::provider_error("the agent restarts"))
            }
        }
    });
    let rejected = (400, r#"{"__type":"UnrecognizedClientException"}"#);
    let recorded = ReplayClient::answers([rejected, (400, r#"{"__type":"ResourceNotFoundException"}"#)]);
    let loader = loader(&ours()).credentials_provider(provider).http_client(recorded.http_client());
    let aws =
        Aws::from_config(loader.load().await, ours().region, RateLimiter::new(80), Arc::new(SystemTime::now));
    let elsewhere = "arn:aws:firehose:ap-east-1:111122223333:deliverystream/orders".parse().unwrap();
    let error = aws.describe_stream(&elsewhere, &somebody(), Priority::Drift).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::CredentialsRejected);
    assert_eq!(aws.describe_stream(&stream(Service::Firehose), &somebody(), Priority::Drift).await, Ok(None));
    assert_eq!(recorded.sent().len(), 2);
}

/// Static keys do not change, so another request with the same keys cannot succeed.
#[tokio::test(start_paused = true)]
async fn request_is_sent_once_if_source_has_no_other_credentials() {
    for operation in Op::ALL {
        let (error, sent) = error_of(operation, 403, r#"{"__type":"InvalidClientTokenId"}"#).await;
        let wanted = match operation {
            // A client that expects XML does not parse JSON.
            Op::GetCallerIdentity | Op::AssumeRole => continue,
            _ => ErrorKind::CredentialsRejected,
        };
        assert_eq!((error.kind, sent), (wanted, 1), "{operation:?}");
    }
}

/// Firehose identifies a stream by its name alone: with the credentials of another account, the call would reach
/// that account's stream.
#[tokio::test(start_paused = true)]
async fn call_after_credentials_change_is_not_sent() {
    let follows_describe = |operation: &Op| !reads(*operation) && !Op::OF_QUEUE.contains(operation);
    for operation in Op::ALL.into_iter().filter(follows_describe) {
        let made = Arc::new(AtomicU64::new(0));
        let provider = provide_credentials_fn(move || {
            let number = made.fetch_add(1, Ordering::Relaxed);
            async move { Ok(Credentials::new(format!("AKIA{number}"), "secret", None, None, "test")) }
        });
        let recorded = ReplayClient::answers((0..9).map(|_| (200, "{}")));
        let loader = loader(&ours()).credentials_provider(provider).http_client(recorded.http_client());
        let minutes = Minutes::default();
        let clock = minutes.clone();
        let aws = Aws::from_config(
            loader.load().await,
            ours().region,
            RateLimiter::new(80),
            Arc::new(move || clock.now()),
        );
        let (stream, principal) = (stream(Service::Firehose), somebody());
        let of_describe = signer_of(&aws, &principal).await;
        assert!(aws.acquire_permit(&stream, Action::Start, &principal, &of_describe).await);
        // Keys without a session are read again after 15 minutes.
        minutes.0.store(16, Ordering::Relaxed);
        assert!(!aws.acquire_permit(&stream, Action::Stop, &principal, &of_describe).await, "{operation:?}");
        let error = ask_signed(&aws, operation, &of_describe).await.unwrap_err();
        let what = (error.operation, error.kind, error.code.as_deref());
        assert_eq!(what, (operation, ErrorKind::Transient, Some("SignerChanged")));
        assert_eq!(recorded.sent(), [], "{operation:?}");
        let by_now = signer_of(&aws, &principal).await;
        let _ = ask_signed(&aws, operation, &by_now).await;
        assert_eq!(recorded.sent()[0].access_key_id, "AKIA1", "{operation:?}");
    }
}
