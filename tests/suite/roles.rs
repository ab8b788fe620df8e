//! Roles that policies name: each team's streams, in an account of its own, are asked about in sessions of that account's role.
//!
//! What is checked is AWS's log: who asked, in which session, how old it was. The operator's own rights reach no team's account.

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulated_aws::world::{Call, PlantedKey, PlantedRole, PlantedStream, Settings};
use stream_encryption_operator::api::condition::ConditionType;

use crate::play::{ACCOUNT, Play, REGION, message, reason, truth};
use crate::policies;

const START: &str = "StartDeliveryStreamEncryption";
/// The accounts of three teams.
const TEAMS: [&str; 3] = ["222222222222", "333333333333", "444444444444"];
const KEYS: [&str; 2] = ["1234abcd-12ab-34cd-56ef-000000000001", "1234abcd-12ab-34cd-56ef-000000000002"];

fn role(account: &str) -> String {
    format!("arn:aws:iam::{account}:role/teams/stream-encryption")
}

fn external_id(account: &str) -> String {
    format!("the-id-of-{account}")
}

fn stream(account: &str) -> String {
    format!("arn:aws:firehose:{REGION}:{account}:deliverystream/orders")
}

fn spec(account: &str, key: &str) -> Value {
    let arn = format!("arn:aws:kms:{REGION}:{account}:key/{key}");
    json!({"stream": {"arn": stream(account)}, "key": {"type": "CUSTOMER_MANAGED_CMK", "arn": arn}})
}

/// What a policy of the play is called.
fn called(play: &Play, name: &str) -> String {
    format!("{}-{name}", play.namespace)
}

/// Allows the namespace of `play` whatever is in the account of the role.
async fn allow(play: &Play, name: &str, role: &Value) {
    let keys = ["AWS_OWNED_CMK", "arn:aws:kms:*:own:key/*"];
    let mut policy = policies::policy(play, &["arn:aws:firehose:*:own:deliverystream/*"], &keys);
    policy["metadata"]["name"] = json!(called(play, name));
    policy["spec"]["role"] = role.clone();
    policies::allow(play, &policy).await;
}

/// Three accounts, each with a stream, two keys and a role that demands its external id; and a namespace without any policy.
async fn accounts() -> Play {
    let five = SignedDuration::from_secs(5);
    let mut play = Play::start(Settings { enabling: five, disabling: five, ..Settings::default() }).await;
    for account in TEAMS {
        let mut world = play.aws.world();
        world.plant_stream(PlantedStream { account: account.to_owned(), ..PlantedStream::default() });
        for id in KEYS {
            let (account, id) = (account.to_owned(), id.to_owned());
            world.plant_key(PlantedKey { account, id, ..PlantedKey::default() });
        }
        let external_id = Some(external_id(account));
        world.plant_role(PlantedRole { arn: role(account), external_id, ..PlantedRole::default() });
    }
    play.policy = None;
    play.restart();
    play
}

fn of_team(account: &str) -> Value {
    json!({"arn": role(account), "externalID": external_id(account)})
}

/// AWS's log, without the questions about who the operator is.
fn log(play: &Play) -> Vec<Call> {
    let world = play.aws.world();
    let calls = world.calls().iter().filter(|call| call.operation != "GetCallerIdentity");
    calls.cloned().collect()
}

#[tokio::test]
async fn three_accounts_are_worked_in_for_two_days_each_by_its_role_and_in_no_old_session() {
    let first = accounts().await;
    let teams = [first.beside().await, first.beside().await, first];
    for (play, account) in teams.iter().zip(TEAMS) {
        allow(play, "own", &of_team(account)).await;
    }
    // A new key every three hours.
    for round in 0..16 {
        for (play, account) in teams.iter().zip(TEAMS) {
            play.apply("orders", &spec(account, KEYS[round % 2])).await;
            play.until_it_says("orders", "Encrypted").await;
        }
        teams[0].let_pass("orders", SignedDuration::from_hours(3)).await;
    }
    let log = log(&teams[0]);
    for (play, account) in teams.iter().zip(TEAMS) {
        let starts = log.iter().filter(|call| call.operation == START && call.account == account);
        assert_eq!(starts.clone().count(), 16);
        for start in starts {
            let session = start.principal.session.as_ref().expect("a session");
            let age = start.time.duration_since(session.issued);
            assert!(age < SignedDuration::from_hours(6), "{age:#}");
        }
        for call in log.iter().filter(|call| call.account == account) {
            let session = call.principal.session.as_ref().expect("a session");
            assert_eq!(session.role, role(account), "{}", call.operation);
            assert_eq!(session.external_id, Some(external_id(account)));
            assert_eq!(session.name, format!("{}.orders", play.namespace));
            let namespace = format!("streamencryption.dev/namespace={}", play.namespace);
            assert_eq!(session.tags, [namespace, "streamencryption.dev/resource=orders".to_owned()]);
        }
    }
    // With its own rights it did nothing but assume those roles.
    for call in log.iter().filter(|call| call.account == ACCOUNT) {
        assert_eq!(call.operation, "AssumeRole");
        assert!(TEAMS.iter().any(|account| call.target == role(account)), "{}", call.target);
    }
}

#[tokio::test]
async fn of_two_roles_for_one_stream_none_is_used_and_the_conflict_is_told() {
    let play = accounts().await;
    let [account, ..] = TEAMS;
    allow(&play, "one", &of_team(account)).await;
    allow(&play, "two", &json!({"arn": role(account)})).await;
    play.apply("orders", &spec(account, KEYS[0])).await;
    play.until_it_says("orders", "RolesDiffer").await;
    let status = play.status("orders").await;
    assert_eq!(truth(&status, ConditionType::Stalled), "True");
    assert!(message(&status).contains("different roles"), "{}", message(&status));
    assert!(!message(&status).contains(account), "{}", message(&status));
    assert_eq!(log(&play), Vec::new());
    policies::forbid(&play, &called(&play, "two")).await;
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 1);
    // It holds for what is encrypted, too.
    allow(&play, "two", &json!({"arn": role(TEAMS[1]), "externalID": external_id(TEAMS[1])})).await;
    play.visit("orders").await.expect("a visit");
    assert_eq!(
        reason(&play.status("orders").await),
        "Encrypted",
        "the other role's `own` is another account"
    );
}

#[tokio::test]
async fn a_role_that_cannot_be_assumed_is_told_by_the_right_that_is_missing_and_no_account_is_named() {
    let play = accounts().await;
    let [account, ..] = TEAMS;
    allow(&play, "own", &json!({"arn": role(account), "externalID": "of-somebody-else"})).await;
    play.apply("orders", &spec(account, KEYS[0])).await;
    play.until_it_says("orders", "AccessDenied").await;
    let status = serde_json::to_string(&play.status("orders").await.conditions).expect("JSON");
    assert!(status.contains("sts:AssumeRole"), "{status}");
    for secret in ["of-somebody-else", account, ACCOUNT, "assumed-role", "teams/stream-encryption"] {
        assert!(!status.contains(secret), "{status}");
    }
    assert!(log(&play).iter().all(|call| call.operation == "AssumeRole"));

    allow(&play, "own", &of_team(account)).await;
    play.until_it_says("orders", "Encrypted").await;
}

/// A role that is taken away is not used any more, though its session is still good.
#[tokio::test]
async fn another_role_is_used_from_the_next_request_on() {
    let play = accounts().await;
    let [account, ..] = TEAMS;
    let other = format!("arn:aws:iam::{account}:role/another");
    play.aws.world().plant_role(PlantedRole { arn: other.clone(), ..PlantedRole::default() });
    allow(&play, "own", &of_team(account)).await;
    play.apply("orders", &spec(account, KEYS[0])).await;
    play.until_it_says("orders", "Encrypted").await;
    let before = log(&play).len();
    allow(&play, "own", &json!({ "arn": other })).await;
    play.apply("orders", &spec(account, KEYS[1])).await;
    play.until_it_says("orders", "Encrypted").await;
    let after = log(&play).split_off(before);
    let used = after.iter().filter_map(|call| call.principal.session.as_ref());
    assert!(used.clone().count() > 2);
    assert!(used.clone().all(|session| session.role == other));
}
