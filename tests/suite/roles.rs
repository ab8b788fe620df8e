//! Roles in policies: requests for each team's streams, in an account of its own, use sessions of that
//! account's role.
//!
//! The tests check AWS's log: the principal, its session, and the age of the session. The operator's own
//! permissions reach no team's account.

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulated_aws::world::{Call, PlantedKey, PlantedRole, PlantedStream, Settings};

use crate::harness::{ACCOUNT, Harness, REGION};
use crate::matrix::scenario::START;
use crate::policies;

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

/// The name of a policy of the harness.
fn called(harness: &Harness, name: &str) -> String {
    format!("{}-{name}", harness.namespace)
}

/// Allows the namespace of `harness` all streams and keys in the role's account.
async fn allow(harness: &Harness, name: &str, role: &Value) {
    let keys = ["AWS_OWNED_CMK", "arn:aws:kms:*:own:key/*"];
    let mut policy = policies::policy(harness, &["arn:aws:firehose:*:own:deliverystream/*"], &keys);
    policy["metadata"]["name"] = json!(called(harness, name));
    policy["spec"]["role"] = role.clone();
    policies::allow(harness, &policy).await;
}

/// Three accounts, each with a stream, two keys and a role that requires its external id, and a namespace
/// without any policy.
async fn accounts() -> Harness {
    let five = SignedDuration::from_secs(5);
    let mut harness =
        Harness::start(Settings { enabling: five, disabling: five, ..Settings::default() }).await;
    for account in TEAMS {
        let mut world = harness.aws.world();
        world.plant_stream(PlantedStream { account: account.to_owned(), ..PlantedStream::default() });
        for id in KEYS {
            let (account, id) = (account.to_owned(), id.to_owned());
            world.plant_key(PlantedKey { account, id, ..PlantedKey::default() });
        }
        let external_id = Some(external_id(account));
        world.plant_role(PlantedRole { arn: role(account), external_id, ..PlantedRole::default() });
    }
    harness.policy = None;
    harness.restart();
    harness
}

fn of_team(account: &str) -> Value {
    json!({"arn": role(account), "externalID": external_id(account)})
}

/// AWS's log, without `GetCallerIdentity`.
fn log(harness: &Harness) -> Vec<Call> {
    let world = harness.aws.world();
    let calls = world.calls().iter().filter(|call| call.operation != "GetCallerIdentity");
    calls.cloned().collect()
}

#[tokio::test]
async fn each_account_is_used_by_its_role_with_fresh_sessions() {
    let first = accounts().await;
    let teams = [first.beside().await, first.beside().await, first];
    for (harness, account) in teams.iter().zip(TEAMS) {
        allow(harness, "own", &of_team(account)).await;
    }
    // The key changes every three hours.
    for round in 0..16 {
        for (harness, account) in teams.iter().zip(TEAMS) {
            harness.apply("orders", &spec(account, KEYS[round % 2])).await;
            harness.until_it_says("orders", "Encrypted").await;
        }
        teams[0].let_pass("orders", SignedDuration::from_hours(3)).await;
    }
    let log = log(&teams[0]);
    for (harness, account) in teams.iter().zip(TEAMS) {
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
            assert_eq!(session.name, format!("{}.orders", harness.namespace));
            let namespace = format!("streamencryption.dev/namespace={}", harness.namespace);
            assert_eq!(session.tags, [namespace, "streamencryption.dev/resource=orders".to_owned()]);
        }
    }
    // With its own permissions the operator only assumed those roles.
    for call in log.iter().filter(|call| call.account == ACCOUNT) {
        assert_eq!(call.operation, "AssumeRole");
        assert!(TEAMS.iter().any(|account| call.target == role(account)), "{}", call.target);
    }
}

#[tokio::test]
async fn unassumable_role_names_the_permission_but_no_account() {
    let harness = accounts().await;
    let [account, ..] = TEAMS;
    allow(&harness, "own", &json!({"arn": role(account), "externalID": "of-somebody-else"})).await;
    harness.apply("orders", &spec(account, KEYS[0])).await;
    harness.until_it_says("orders", "AccessDenied").await;
    let status = serde_json::to_string(&harness.status("orders").await.conditions).expect("JSON");
    assert!(status.contains("sts:AssumeRole"), "{status}");
    for secret in ["of-somebody-else", account, ACCOUNT, "assumed-role", "teams/stream-encryption"] {
        assert!(!status.contains(secret), "{status}");
    }
    assert!(log(&harness).iter().all(|call| call.operation == "AssumeRole"));

    allow(&harness, "own", &of_team(account)).await;
    harness.until_it_says("orders", "Encrypted").await;
}
