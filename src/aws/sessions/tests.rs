//! Whose session a request gets, how often one is asked of STS, and with which words.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_credential_types::credential_fn::provide_credentials_fn;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_credential_types::provider::error::CredentialsError;

use super::super::pacing::{Pacer, Quota};
use super::super::recorded::{Recorded, assuming, credentials, parameter, somebody};
use super::*;
use crate::model::fault::Class;

const SOON: Duration = Duration::from_secs(10);
const LOOK: Operation = Operation::DescribeDeliveryStream;

/// Minutes on a clock that a test moves.
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

/// At most so many sessions of roles that STS gives by `recorded`.
fn sessions(limit: usize, recorded: &Recorded, minutes: &Minutes, pacer: &Pacer) -> Sessions {
    let provider = SharedCredentialsProvider::new(credentials());
    let region = "eu-west-1".parse().unwrap();
    let requests = Requests::new(pacer.clone());
    Sessions::at_most(limit, provider, &recorded.config(), region, requests, minutes.clock())
}

fn of_all_roles(limit: usize, minutes: &Minutes) -> (Sessions, Recorded) {
    let recorded = Recorded::default().assuming();
    (sessions(limit, &recorded, minutes, &Pacer::new(80)), recorded)
}

async fn key_of(sessions: &Sessions, by: &Principal) -> String {
    let session = sessions.of(LOOK, by, Urgency::Drift, SOON).await.unwrap();
    session.credentials.access_key_id().to_owned()
}

#[tokio::test(start_paused = true)]
async fn sts_is_asked_in_the_operators_region_with_its_own_credentials_and_told_whom_the_session_is_for() {
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
async fn without_a_role_the_operators_own_credentials_are_used_and_sts_is_not_asked() {
    let (sessions, recorded) = of_all_roles(9, &Minutes::default());
    assert_eq!(key_of(&sessions, &somebody()).await, "AKIDEXAMPLE");
    assert_eq!(recorded.sent(), []);
}

#[tokio::test(start_paused = true)]
async fn a_session_is_kept_for_its_hour_and_never_used_to_its_end() {
    let minutes = Minutes::default();
    let (sessions, recorded) = of_all_roles(9, &minutes);
    for now in 0..48 * 60 {
        minutes.go_to(now);
        let session = sessions.of(LOOK, &assuming("orders"), Urgency::Drift, SOON).await.unwrap();
        assert_eq!(session.age, Some(Duration::from_mins(now % 60)));
    }
    assert_eq!(recorded.sent().len(), 48);
}

#[tokio::test(start_paused = true)]
async fn what_differs_in_role_external_id_namespace_or_resource_gets_a_session_of_its_own() {
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
async fn more_principals_than_are_kept_get_the_right_sessions_all_the_same() {
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
async fn requests_of_one_principal_at_the_same_time_share_one_session() {
    let (sessions, recorded) = of_all_roles(9, &Minutes::default());
    let by = assuming("orders");
    let (one, other) = tokio::join!(key_of(&sessions, &by), key_of(&sessions, &by));
    assert_eq!((one, recorded.sent().len()), (other, 1));
}

#[tokio::test(start_paused = true)]
async fn a_role_that_may_not_be_assumed_is_a_fault_that_names_the_right_and_is_asked_for_once() {
    let denied = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>not authorized to perform: \
                  sts:TagSession</Message></Error></ErrorResponse>";
    let recorded = Recorded::answers([(403, denied)]);
    let sessions = sessions(9, &recorded, &Minutes::default(), &Pacer::new(80));
    let fault = sessions.of(LOOK, &assuming("orders"), Urgency::Drift, SOON).await.unwrap_err();
    assert_eq!((fault.operation.iam_action(), fault.class), ("sts:AssumeRole", Class::Denied));
    assert_eq!(fault.code.as_deref(), Some("AccessDenied"));
    assert_eq!(recorded.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_sts_that_fails_or_throttles_is_asked_three_times_and_spoils_no_other_rate() {
    let error = |code| format!("<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>");
    for (status, code, class) in
        [(503, "ServiceUnavailable", Class::Transient), (400, "Throttling", Class::Throttled)]
    {
        let recorded = Recorded::answers((0..9).map(|_| (status, error(code))));
        let pacer = Pacer::new(80);
        let sessions = sessions(9, &recorded, &Minutes::default(), &pacer);
        let fault = sessions.of(LOOK, &assuming("orders"), Urgency::Drift, SOON).await.unwrap_err();
        assert_eq!((fault.operation, fault.class), (Operation::AssumeRole, class));
        assert_eq!(recorded.sent().len(), 3);
        let region = "eu-west-1".parse().unwrap();
        let rate = pacer.rate(&Quota { operation: Operation::AssumeRole, account: None, region });
        assert_eq!(rate < 80_000, class == Class::Throttled, "{rate}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_credentials_is_a_fault() {
    let empty = "<AssumeRoleResponse><AssumeRoleResult/></AssumeRoleResponse>";
    let recorded = Recorded::answers([(200, empty), (200, "<html>Welcome</html>")]);
    let sessions = sessions(9, &recorded, &Minutes::default(), &Pacer::new(80));
    for _ in 0..2 {
        let fault = sessions.of(LOOK, &assuming("orders"), Urgency::Drift, SOON).await.unwrap_err();
        assert_eq!((fault.operation, fault.class), (Operation::AssumeRole, Class::Transient), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_role_is_assumed_with_what_the_operator_has_then() {
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
    let (recorded, minutes) = (Recorded::default().assuming(), Minutes::default());
    let sessions = Sessions::new(
        SharedCredentialsProvider::new(provider),
        &recorded.config(),
        "eu-west-1".parse().unwrap(),
        Requests::new(Pacer::new(80)),
        minutes.clock(),
    );
    // The first try finds nothing, and nothing is sent.
    let fault = sessions.of(LOOK, &assuming("orders"), Urgency::Drift, SOON).await.unwrap_err();
    assert_eq!((fault.class, recorded.sent().len()), (Class::NoCredentials, 0));
    for hour in 1..13 {
        minutes.go_to(hour * 60);
        key_of(&sessions, &assuming("orders")).await;
    }
    let keys: Vec<String> = recorded.sent().into_iter().map(|sent| sent.access_key_id).collect();
    assert_eq!(keys, [vec!["ASIA1"; 5], vec!["ASIA2"; 5], vec!["ASIA3"; 2]].concat());
}

#[tokio::test(start_paused = true)]
async fn an_ended_role_session_is_replaced_once_a_minute() {
    let minutes = Minutes::default();
    let (sessions, recorded) = of_all_roles(9, &minutes);
    let by = assuming("orders");
    let ended = Fault {
        operation: LOOK,
        class: Class::CredentialsRejected,
        code: Some("ExpiredTokenException".to_owned()),
        message: String::new(),
    };
    let ended = Some(&ended);
    let session = async || sessions.of(LOOK, &by, Urgency::Drift, SOON).await.unwrap();
    let first = session().await;
    assert!(!sessions.is_another_due(&by, &first, None).await);
    let other = sessions.of(LOOK, &assuming("clicks"), Urgency::Drift, SOON).await.unwrap();
    assert!(sessions.is_another_due(&by, &first, ended).await);
    let second = session().await;
    assert_ne!(first.credentials.access_key_id(), second.credentials.access_key_id());
    // A late answer about the first one does not end the second one.
    assert!(sessions.is_another_due(&by, &first, ended).await);
    assert!(!sessions.is_another_due(&by, &second, ended).await, "within the minute");
    assert_eq!(session().await.credentials.access_key_id(), second.credentials.access_key_id());
    minutes.go_to(1);
    assert!(sessions.is_another_due(&by, &second, ended).await);
    session().await;
    let unharmed = sessions.of(LOOK, &assuming("clicks"), Urgency::Drift, SOON).await.unwrap();
    assert_eq!(unharmed.credentials.access_key_id(), other.credentials.access_key_id());
    assert_eq!(recorded.sent().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_role_session_that_cannot_sign_is_refused() {
    let broken = super::super::recorded::session("ASIA&#10;7");
    let recorded = Recorded::answers([(200, broken)]);
    let sessions = sessions(9, &recorded, &Minutes::default(), &Pacer::new(80));
    let fault = sessions.of(LOOK, &assuming("orders"), Urgency::Drift, SOON).await.unwrap_err();
    assert_eq!((fault.class, fault.code.as_deref()), (Class::NoCredentials, Some("CredentialsUnsignable")));
}
