//! Another session of a role ahead of the end of the cached one: when it is requested, and what a failure changes.

use std::iter::repeat_n;

use tokio::time::{Instant, sleep};

use super::super::super::replay::{sender_with_sts, session};
use super::*;

const MINUTE: Duration = Duration::from_mins(1);

/// Returns the session with which a read is signed.
async fn read(sessions: &Sessions) -> Result<Session, AwsError> {
    let principal = assuming("orders");
    sessions.renew_ahead(&principal, Priority::Drift, MINUTE).await;
    sessions.of(DESCRIBE, &principal, Priority::Drift, MINUTE).await
}

fn key(session: &Session) -> String {
    session.credentials.access_key_id().to_owned()
}

async fn key_of_read(sessions: &Sessions) -> String {
    key(&read(sessions).await.unwrap())
}

fn refusal(code: &str) -> String {
    format!("<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>")
}

/// Returns the sessions of all roles. The source of the own credentials does not answer its second query, which is sent
/// when the role is assumed for the second time.
fn with_source_that_hangs_once(minutes: &Minutes) -> (Sessions, ReplayClient) {
    let queries = AtomicU64::new(0);
    let provider = provide_credentials_fn(move || {
        let hangs = queries.fetch_add(1, Ordering::Relaxed) == 1;
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok(credentials())
        }
    });
    let recorded = ReplayClient::default().assuming();
    let sessions = of_source(provider, &recorded, minutes);
    (sessions, recorded)
}

#[tokio::test(start_paused = true)]
async fn role_session_is_renewed_15_minutes_before_its_end() {
    let minutes = Minutes::default();
    let (sessions, recorded) = of_all_roles(9, &minutes);
    for now in 0..180 {
        minutes.go_to(now);
        assert_eq!(read(&sessions).await.unwrap().age, Some(Duration::from_mins(now % 45)));
    }
    assert_eq!(recorded.sent().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn failed_renewal_ahead_is_repeated_after_a_minute() {
    // A temporary error is repeated twice.
    for (status, code, attempts) in [(503, "ServiceUnavailable", 3), (403, "AccessDenied", 1)] {
        let failures = repeat_n((status, refusal(code)), attempts);
        let answers = [(200, session("ASIA1"))].into_iter().chain(failures).chain([(200, session("ASIA2"))]);
        let (recorded, minutes) = (ReplayClient::answers(answers), Minutes::default());
        let sessions = sessions(9, &recorded, &minutes, &RateLimiter::new(80));
        for (now, expected, sent) in
            [(0, "ASIA1", 1), (45, "ASIA1", 1 + attempts), (46, "ASIA2", 2 + attempts)]
        {
            minutes.go_to(now);
            for _ in 0..3 {
                assert_eq!(key_of_read(&sessions).await, expected, "{code} {now}");
                assert_eq!(recorded.sent().len(), sent, "{code} {now}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn read_fails_if_a_session_that_ends_is_not_renewed() {
    let denied = (403, refusal("AccessDenied"));
    let answers = [(200, session("ASIA1"))].into_iter().chain(repeat_n(denied, 2));
    let (recorded, minutes) = (ReplayClient::answers(answers), Minutes::default());
    let sessions = sessions(9, &recorded, &minutes, &RateLimiter::new(80));
    read(&sessions).await.unwrap();
    minutes.go_to(58);
    assert_eq!(key_of_read(&sessions).await, "ASIA1");
    minutes.go_to(59);
    let error = read(&sessions).await.unwrap_err();
    assert_eq!((error.operation, error.kind), (Operation::AssumeRole, ErrorKind::Denied));
    assert_eq!(recorded.sent().len(), 3);
    // A call requires less.
    assert_eq!(key_of(&sessions, &assuming("orders")).await, "ASIA1");
}

#[tokio::test(start_paused = true)]
async fn hanging_renewal_ahead_delays_only_the_read_that_began_it() {
    let minutes = Minutes::default();
    let (sessions, recorded) = with_source_that_hangs_once(&minutes);
    let first = read(&sessions).await.unwrap();
    minutes.go_to(45);
    let start = Instant::now();
    let timed = async || {
        let session = read(&sessions).await.unwrap();
        sessions.mark_outcome(&assuming("orders"), &session, None).await;
        (session.is_same(&first), start.elapsed())
    };
    assert_eq!(tokio::join!(timed(), timed()), ((true, RENEWAL_WAIT), (true, Duration::ZERO)));
    assert_eq!(timed().await, (true, RENEWAL_WAIT));
    assert_eq!(recorded.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn dropped_renewal_ahead_is_repeated_after_a_minute() {
    let minutes = Minutes::default();
    let (sessions, recorded) = with_source_that_hangs_once(&minutes);
    let first = key_of_read(&sessions).await;
    minutes.go_to(45);
    assert!(timeout(Duration::from_secs(1), read(&sessions)).await.is_err());
    assert_eq!(key_of_read(&sessions).await, first);
    // The query of the source ends.
    sleep(MINUTE).await;
    minutes.go_to(46);
    assert_ne!(key_of_read(&sessions).await, first);
    assert_eq!(recorded.sent().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn session_that_aws_rejects_is_not_used_during_a_renewal() {
    let minutes = Minutes::default();
    let (sessions, recorded) = of_all_roles(9, &minutes);
    let principal = assuming("orders");
    let first = read(&sessions).await.unwrap();
    minutes.go_to(45);
    let code = Some("ExpiredTokenException".to_owned());
    let ended = AwsError { kind: ErrorKind::CredentialsRejected, code, ..denied("") };
    let rejected = async {
        assert!(sessions.mark_outcome(&principal, &first, Some(&ended)).await);
        sessions.of(DESCRIBE, &principal, Priority::Drift, MINUTE).await.unwrap()
    };
    let (renewed, replaced) = tokio::join!(read(&sessions), rejected);
    assert!(!replaced.is_same(&first));
    // The session that replaced the rejected one stays.
    assert!(renewed.unwrap().is_same(&replaced) && read(&sessions).await.unwrap().is_same(&replaced));
    assert_eq!(recorded.sent().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn only_reads_renew_a_role_session_ahead() {
    let (recorded, minutes) = (ReplayClient::default().assuming(), Minutes::default());
    let sender = sender_with_sts(&recorded, minutes.clock());
    let region = "eu-west-1".parse().unwrap();
    let (quota, principal) = (QuotaScope { operation: DESCRIBE, account: None, region }, assuming("orders"));
    let call = async || key(&sender.session(DESCRIBE, &principal).await.unwrap());
    let read = async || {
        let send = async |session: Session| Ok::<_, AwsError>(key(&session));
        sender.read(&quota, &principal, Priority::Drift, send).await.unwrap()
    };
    let first = read().await;
    minutes.go_to(45);
    assert_eq!(call().await, first);
    let second = read().await;
    assert_ne!(second, first);
    assert_eq!((call().await, recorded.sent().len()), (second, 2));
}
