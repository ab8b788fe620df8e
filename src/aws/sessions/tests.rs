//! The session of each principal, the number of requests to STS, and their parameters.

mod renewal;

use std::sync::atomic::{AtomicU64, Ordering};

use aws_credential_types::Credentials;
use aws_credential_types::credential_fn::provide_credentials_fn;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use stream_encryption_core::model::aws_error::ErrorKind;

use super::super::rate_limit::{QuotaScope, RateLimiter};
use super::super::replay::{ReplayClient, assuming, credentials, parameter, somebody};
use super::*;

const SOON: Duration = Duration::from_secs(10);
const DESCRIBE: Operation = Operation::DescribeDeliveryStream;

/// A clock that a test moves, in minutes.
#[derive(Clone, Default)]
struct Minutes(Arc<AtomicU64>);

impl Minutes {
    fn go_to(&self, minutes: u64) {
        self.0.store(minutes, Ordering::Relaxed);
    }

    fn clock(&self) -> Clock {
        let minutes = self.clone();
        Arc::new(move || {
            let since = Duration::from_mins(minutes.0.load(Ordering::Relaxed));
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000) + since
        })
    }
}

/// Returns at most `limit` sessions of roles, with the responses of STS in `recorded`.
fn sessions(
    limit: usize,
    recorded: &ReplayClient,
    minutes: &Minutes,
    rate_limiter: &RateLimiter,
) -> Sessions {
    let provider = SharedCredentialsProvider::new(credentials());
    let region = "eu-west-1".parse().unwrap();
    let requests = RequestSender::new(rate_limiter.clone());
    Sessions::at_most(limit, provider, &recorded.config(), region, requests, minutes.clock())
}

fn of_all_roles(limit: usize, minutes: &Minutes) -> (Sessions, ReplayClient) {
    let recorded = ReplayClient::default().assuming();
    (sessions(limit, &recorded, minutes, &RateLimiter::new(80)), recorded)
}

async fn key_of(sessions: &Sessions, principal: &Principal) -> String {
    let session = sessions.of(DESCRIBE, principal, Priority::Drift, SOON).await.unwrap();
    session.credentials.access_key_id().to_owned()
}

/// Returns the sessions of all roles, with own credentials of this source.
fn of_source(
    provider: impl ProvideCredentials + 'static,
    recorded: &ReplayClient,
    minutes: &Minutes,
) -> Sessions {
    Sessions::new(
        SharedCredentialsProvider::new(provider),
        &recorded.config(),
        "eu-west-1".parse().unwrap(),
        RequestSender::new(RateLimiter::new(80)),
        minutes.clock(),
    )
}

#[tokio::test(start_paused = true)]
async fn assume_role_uses_own_credentials_and_names_the_resource() {
    let (sessions, recorded) = of_all_roles(9, &Minutes::default());
    assert_eq!(key_of(&sessions, &assuming("orders.eu")).await, "ASIA.data.orders.eu.1");
    let [sent] = recorded.sent().try_into().unwrap();
    assert_eq!(
        (sent.host.as_str(), sent.access_key_id.as_str()),
        ("sts.eu-west-1.amazonaws.com", "AKIDEXAMPLE")
    );
    for (name, value) in [
        ("Action", "AssumeRole"),
        ("RoleArn", "arn%3Aaws%3Aiam%3A%3A222222222222%3Arole%2Fstream-encryption"),
        ("ExternalId", "of-the-data-team"),
        ("RoleSessionName", "data.orders.eu"),
        ("DurationSeconds", "3600"),
        ("Tags.member.1.Key", "streamencryption.dev%2Fnamespace"),
        ("Tags.member.1.Value", "data"),
        ("Tags.member.2.Key", "streamencryption.dev%2Fresource"),
        ("Tags.member.2.Value", "orders.eu"),
    ] {
        assert_eq!(parameter(&sent.body, name), Some(value), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn principal_without_role_uses_own_credentials() {
    let (sessions, recorded) = of_all_roles(9, &Minutes::default());
    assert_eq!(key_of(&sessions, &somebody()).await, "AKIDEXAMPLE");
    assert_eq!(recorded.sent(), []);
}

#[tokio::test(start_paused = true)]
async fn role_session_is_reused_until_shortly_before_its_end() {
    let minutes = Minutes::default();
    let (sessions, recorded) = of_all_roles(9, &minutes);
    for now in 0..48 * 60 {
        minutes.go_to(now);
        let session = sessions.of(DESCRIBE, &assuming("orders"), Priority::Drift, SOON).await.unwrap();
        assert_eq!(session.age, Some(Duration::from_mins(now % 60)));
    }
    assert_eq!(recorded.sent().len(), 48);
}

#[tokio::test(start_paused = true)]
async fn each_role_external_id_and_resource_has_its_own_session() {
    let (sessions, recorded) = of_all_roles(9, &Minutes::default());
    let one = assuming("orders");
    let role = one.role.clone().unwrap();
    let other_arn = "arn:aws:iam::333333333333:role/stream-encryption".parse().unwrap();
    let principals = [
        one.clone(),
        Principal { resource: "clicks".to_owned(), ..one.clone() },
        Principal { namespace: "web".to_owned(), ..one.clone() },
        Principal { role: Some(Role { arn: other_arn, ..role.clone() }), ..one.clone() },
        Principal { role: Some(Role { external_id: None, ..role.clone() }), ..one.clone() },
        Principal { role: Some(Role { external_id: Some("another".parse().unwrap()), ..role }), ..one },
    ];
    let mut keys = Vec::new();
    for principal in principals.iter().chain(&principals) {
        keys.push(key_of(&sessions, principal).await);
    }
    let first: std::collections::BTreeSet<_> = keys[..6].iter().collect();
    assert_eq!((first.len(), &keys[..6]), (6, &keys[6..]));
    assert_eq!(recorded.sent().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn full_cache_never_returns_session_of_another_principal() {
    let (sessions, recorded) = of_all_roles(3, &Minutes::default());
    for round in 0..4 {
        for resource in ["a", "b", "c", "d", "e"] {
            let key = key_of(&sessions, &assuming(resource)).await;
            assert!(key.starts_with(&format!("ASIA.data.{resource}.")), "{round} {key}");
        }
    }
    assert!((5..=20).contains(&recorded.sent().len()), "{}", recorded.sent().len());
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_of_a_principal_share_a_session() {
    let (sessions, recorded) = of_all_roles(9, &Minutes::default());
    let principal = assuming("orders");
    let (one, other) = tokio::join!(key_of(&sessions, &principal), key_of(&sessions, &principal));
    assert_eq!((one, recorded.sent().len()), (other, 1));
}

#[tokio::test(start_paused = true)]
async fn denied_assume_role_names_the_permission_and_is_sent_once() {
    let denied = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>not authorized to perform: \
                  sts:TagSession</Message></Error></ErrorResponse>";
    let recorded = ReplayClient::answers([(403, denied)]);
    let sessions = sessions(9, &recorded, &Minutes::default(), &RateLimiter::new(80));
    let error = sessions.of(DESCRIBE, &assuming("orders"), Priority::Drift, SOON).await.unwrap_err();
    assert_eq!((error.operation.iam_action(), error.kind), ("sts:AssumeRole", ErrorKind::Denied));
    assert_eq!(error.code.as_deref(), Some("AccessDenied"));
    assert_eq!(recorded.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn sts_errors_are_retried_and_only_throttling_slows() {
    let error = |code| format!("<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>");
    for (status, code, kind) in
        [(503, "ServiceUnavailable", ErrorKind::Transient), (400, "Throttling", ErrorKind::Throttled)]
    {
        let recorded = ReplayClient::answers((0..9).map(|_| (status, error(code))));
        let rate_limiter = RateLimiter::new(80);
        let sessions = sessions(9, &recorded, &Minutes::default(), &rate_limiter);
        let error = sessions.of(DESCRIBE, &assuming("orders"), Priority::Drift, SOON).await.unwrap_err();
        assert_eq!((error.operation, error.kind), (Operation::AssumeRole, kind));
        assert_eq!(recorded.sent().len(), 3);
        let region = "eu-west-1".parse().unwrap();
        let rate = rate_limiter.rate(&QuotaScope { operation: Operation::AssumeRole, account: None, region });
        assert_eq!(rate < 80_000, kind == ErrorKind::Throttled, "{rate}");
    }
}

#[tokio::test(start_paused = true)]
async fn response_without_credentials_is_an_error() {
    let empty = "<AssumeRoleResponse><AssumeRoleResult/></AssumeRoleResponse>";
    let recorded = ReplayClient::answers([(200, empty), (200, "<html>Welcome</html>")]);
    let sessions = sessions(9, &recorded, &Minutes::default(), &RateLimiter::new(80));
    for _ in 0..2 {
        let error = sessions.of(DESCRIBE, &assuming("orders"), Priority::Drift, SOON).await.unwrap_err();
        assert_eq!((error.operation, error.kind), (Operation::AssumeRole, ErrorKind::Transient), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn role_is_assumed_with_current_own_credentials() {
    let made = Arc::new(AtomicU64::new(0));
    let provider = provide_credentials_fn(move || {
        let number = made.fetch_add(1, Ordering::Relaxed);
        async move {
            let token = Some("token".to_owned());
            match number {
                0 => Err(CredentialsError::not_loaded("nobody is here")),
                _ => Ok(Credentials::new(format!("ASIA{number}"), "secret", token, None, "test")),
            }
        }
    });
    let (recorded, minutes) = (ReplayClient::default().assuming(), Minutes::default());
    let sessions = of_source(provider, &recorded, &minutes);
    // The first attempt finds no credentials, and no request is sent.
    let error = sessions.of(DESCRIBE, &assuming("orders"), Priority::Drift, SOON).await.unwrap_err();
    assert_eq!((error.kind, recorded.sent().len()), (ErrorKind::NoCredentials, 0));
    for hour in 1..13 {
        minutes.go_to(hour * 60);
        key_of(&sessions, &assuming("orders")).await;
    }
    let keys: Vec<String> = recorded.sent().into_iter().map(|sent| sent.access_key_id).collect();
    assert_eq!(keys, [vec!["ASIA1"; 5], vec!["ASIA2"; 5], vec!["ASIA3"; 2]].concat());
}

#[tokio::test(start_paused = true)]
async fn expired_role_session_is_replaced_once_a_minute() {
    let minutes = Minutes::default();
    let (sessions, recorded) = of_all_roles(9, &minutes);
    let principal = assuming("orders");
    let ended = AwsError {
        operation: DESCRIBE,
        kind: ErrorKind::CredentialsRejected,
        code: Some("ExpiredTokenException".to_owned()),
        message: String::new(),
        request_id: None,
    };
    let ended = Some(&ended);
    let session = async || sessions.of(DESCRIBE, &principal, Priority::Drift, SOON).await.unwrap();
    let first = session().await;
    assert!(!sessions.mark_outcome(&principal, &first, None).await);
    let other = sessions.of(DESCRIBE, &assuming("clicks"), Priority::Drift, SOON).await.unwrap();
    assert!(sessions.mark_outcome(&principal, &first, ended).await);
    let second = session().await;
    assert_ne!(first.credentials.access_key_id(), second.credentials.access_key_id());
    // A late rejection of the first session does not discard the second one.
    assert!(sessions.mark_outcome(&principal, &first, ended).await);
    assert!(!sessions.mark_outcome(&principal, &second, ended).await, "within the minute");
    assert_eq!(session().await.credentials.access_key_id(), second.credentials.access_key_id());
    minutes.go_to(1);
    assert!(sessions.mark_outcome(&principal, &second, ended).await);
    session().await;
    let unharmed = sessions.of(DESCRIBE, &assuming("clicks"), Priority::Drift, SOON).await.unwrap();
    assert_eq!(unharmed.credentials.access_key_id(), other.credentials.access_key_id());
    assert_eq!(recorded.sent().len(), 4);
}

fn denied(why: &str) -> AwsError {
    AwsError {
        operation: DESCRIBE,
        kind: ErrorKind::Denied,
        code: Some("AccessDeniedException".to_owned()),
        message: format!("User: operator is not authorized to perform: {} {why}", DESCRIBE.iam_action()),
        request_id: None,
    }
}

#[tokio::test(start_paused = true)]
async fn revoked_role_session_is_replaced() {
    let minutes = Minutes::default();
    let (sessions, recorded) = of_all_roles(9, &minutes);
    let principal = assuming("orders");
    let session = async || sessions.of(DESCRIBE, &principal, Priority::Drift, SOON).await.unwrap();
    let first = session().await;
    for other in
        ["because no identity-based policy allows it", "with an explicit deny in a service control policy"]
    {
        assert!(!sessions.mark_outcome(&principal, &first, Some(&denied(other))).await, "{other}");
    }
    let revoked = denied("with an explicit deny in an identity-based policy");
    // AWS has just accepted the session, so the policy may deny this request only.
    assert!(!sessions.mark_outcome(&principal, &first, Some(&revoked)).await);
    minutes.go_to(2);
    assert!(sessions.mark_outcome(&principal, &first, Some(&revoked)).await);
    assert!(!session().await.is_same(&first));
    assert_eq!(recorded.sent().len(), 2);
}

#[test]
fn revoked_session_counts_as_no_accepted_one() {
    let revoked = denied("with an explicit deny in an identity-based policy");
    assert!(revoked.may_succeed_with_new_session() && !revoked.is_of_accepted_session());
    let other = denied("because no identity-based policy allows it");
    assert!(!other.may_succeed_with_new_session() && other.is_of_accepted_session());
}

#[tokio::test(start_paused = true)]
async fn unsignable_role_session_is_rejected() {
    let broken = super::super::replay::session("ASIA&#10;7");
    let recorded = ReplayClient::answers([(200, broken)]);
    let sessions = sessions(9, &recorded, &Minutes::default(), &RateLimiter::new(80));
    let error = sessions.of(DESCRIBE, &assuming("orders"), Priority::Drift, SOON).await.unwrap_err();
    assert_eq!(
        (error.kind, error.code.as_deref()),
        (ErrorKind::NoCredentials, Some("CredentialsUnsignable"))
    );
}
