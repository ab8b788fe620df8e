//! With what requests are signed, for every operation: with nothing, with what cannot sign, and with what AWS no longer accepts.

use aws_credential_types::provider::error::CredentialsError;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_request_without_credentials_was_not_sent_and_is_not_unknown() {
    let recorded = Recorded::default();
    let nobody = provide_credentials_fn(|| async { Err(CredentialsError::not_loaded("nobody is here")) });
    let loader = loader(&ours()).credentials_provider(nobody).http_client(recorded.http_client());
    let aws =
        Aws::over(loader.load().await, ours().region, Pacer::new(ours().share), Arc::new(SystemTime::now));
    for operation in Op::EACH {
        let fault = ask(&aws, operation).await.unwrap_err();
        let code = fault.code.as_deref();
        assert_eq!(
            (fault.class, code),
            (Class::NoCredentials, Some("NoCredentials")),
            "{operation:?} {}",
            fault.message
        );
    }
    assert_eq!(recorded.sent().len(), 0);
}

/// The SDK's signer ends the process where a header cannot hold the access key id.
#[tokio::test(start_paused = true)]
async fn credentials_with_a_line_break_are_refused_before_the_signer() {
    for (id, token) in [("AKIA\n", None), ("AKIA\r\n", None), ("ASIA", Some("token\n"))] {
        let recorded = Recorded::default();
        let broken = Credentials::new(id, "secret", token.map(str::to_owned), None, "test");
        let loader = loader(&ours()).credentials_provider(broken).http_client(recorded.http_client());
        let aws = Aws::over(loader.load().await, ours().region, Pacer::new(80), Arc::new(SystemTime::now));
        for operation in Op::EACH {
            let fault = ask(&aws, operation).await.unwrap_err();
            let code = fault.code.as_deref();
            assert_eq!((fault.class, code), (Class::NoCredentials, Some("CredentialsUnsignable")));
            assert!(
                fault.message.contains("line break") && !fault.message.contains("AKIA"),
                "{}",
                fault.message
            );
        }
        assert_eq!(recorded.sent(), []);
    }
}

/// A read goes on with the next session at once; a call waits until it is decided again.
#[tokio::test(start_paused = true)]
async fn an_ended_session_is_replaced_whatever_was_asked_for() {
    for operation in Op::EACH {
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
        let recorded = Recorded::answers((0..9).map(|_| (403, body)));
        let loader = loader(&ours()).credentials_provider(provider).http_client(recorded.http_client());
        let aws = Aws::over(loader.load().await, ours().region, Pacer::new(80), Arc::new(SystemTime::now));
        let fault = ask(&aws, operation).await.unwrap_err();
        assert_eq!((fault.operation, fault.class), (operation, Class::CredentialsRejected));
        let _ = ask(&aws, operation).await;
        let keys: Vec<String> = recorded.sent().into_iter().map(|sent| sent.access_key_id).collect();
        let expected: &[&str] =
            if reads(operation) { &["ASIA0", "ASIA1", "ASIA1"] } else { &["ASIA0", "ASIA1"] };
        assert_eq!(keys, expected, "{operation:?}");
    }
}

/// Keys in an environment are what they are: to ask AWS again with the same is no use.
#[tokio::test(start_paused = true)]
async fn rejected_credentials_without_others_are_sent_once() {
    for operation in Op::EACH {
        let (fault, sent) = fault_of(operation, 403, r#"{"__type":"InvalidClientTokenId"}"#).await;
        let wanted = match operation {
            // What speaks XML reads no JSON.
            Op::GetCallerIdentity | Op::AssumeRole => continue,
            _ => Class::CredentialsRejected,
        };
        assert_eq!((fault.class, sent), (wanted, 1), "{operation:?}");
    }
}

/// Firehose knows a stream by its name alone: with another account's credentials it would be that account's stream.
#[tokio::test(start_paused = true)]
async fn changed_credentials_sign_nothing_that_follows_a_look() {
    for operation in Op::EACH.into_iter().filter(|operation| !reads(*operation)) {
        let made = Arc::new(AtomicU64::new(0));
        let provider = provide_credentials_fn(move || {
            let number = made.fetch_add(1, Ordering::Relaxed);
            async move { Ok(Credentials::new(format!("AKIA{number}"), "secret", None, None, "test")) }
        });
        let recorded = Recorded::answers((0..9).map(|_| (200, "{}")));
        let loader = loader(&ours()).credentials_provider(provider).http_client(recorded.http_client());
        let minutes = Minutes::default();
        let clock = minutes.clone();
        let aws =
            Aws::over(loader.load().await, ours().region, Pacer::new(80), Arc::new(move || clock.now()));
        let (stream, by) = (stream(Service::Firehose), somebody());
        let of_look = signer_of(&aws, &by).await;
        assert!(aws.turn(&stream, Action::Start, &by, &of_look).await);
        // Keys without a session are asked for again after a quarter of an hour.
        minutes.0.store(16, Ordering::Relaxed);
        assert!(!aws.turn(&stream, Action::Stop, &by, &of_look).await, "{operation:?}");
        let fault = ask_signed(&aws, operation, &of_look).await.unwrap_err();
        let what = (fault.operation, fault.class, fault.code.as_deref());
        assert_eq!(what, (operation, Class::Transient, Some("SignerChanged")));
        assert_eq!(recorded.sent(), [], "{operation:?}");
        let by_now = signer_of(&aws, &by).await;
        let _ = ask_signed(&aws, operation, &by_now).await;
        assert_eq!(recorded.sent()[0].access_key_id, "AKIA1", "{operation:?}");
    }
}
