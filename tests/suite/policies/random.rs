//! Random policies and resources of two teams, on the real API server with the operator's own adapters: AWS
//! receives no request on behalf of a team that no policy allows.
//!
//! The tests compute the meaning of a policy from how it was generated, not with the operator's pattern
//! parser. For more cases run `RANDOM_POLICIES=3000 cargo test --test suite random_policies`.

use futures_util::future::join_all;
use jiff::SignedDuration;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{RngSeed, TestRunner};
use serde_json::{Value, json};
use simulated_aws::world::{Call, PlantedKey, PlantedStream, Service, Settings, Snapshot, StreamKey};
use stream_encryption_api::policy::StreamEncryptionPolicy;
use stream_encryption_api::stream_encryption::StreamEncryption;

use super::ELSEWHERE;
use crate::harness::{ACCOUNT, Harness, REGION, reason};

/// Number of cases, unless the environment sets another.
const CASES: usize = 500;
/// Number of worlds in parallel, each with its own AWS and two teams. Most of the time is spent waiting for
/// the API server.
const WORLDS: usize = 6;
const NAMES: [&str; 3] = ["orders", "orders-eu", "clicks"];
const SERVICES: [Service; 2] = [Service::Firehose, Service::Kinesis];
const KEYS: [(&str, &str); 3] = [
    (ACCOUNT, "1234abcd-12ab-34cd-56ef-00000000000a"),
    (ACCOUNT, "1234abcd-12ab-34cd-56ef-00000000000b"),
    (ELSEWHERE, "1234abcd-12ab-34cd-56ef-00000000000c"),
];

/// A generated policy.
#[derive(Clone, Debug)]
struct Drawn {
    /// One of the two teams; `None`: both.
    team: Option<usize>,
    /// Whether it names the role in the other account. `own` means that account then.
    role: bool,
    /// The account in the patterns; `None`: `own`.
    account: Option<&'static str>,
    /// The service; `None`: both.
    service: Option<Service>,
    name: Name,
    aws_owned: bool,
    key: Option<Keys>,
    disable: bool,
}

#[derive(Clone, Copy, Debug)]
enum Name {
    Is(&'static str),
    BeginsWith(&'static str),
    EndsWith(&'static str),
    Any,
}

#[derive(Clone, Copy, Debug)]
enum Keys {
    One(usize),
    AllOfOwn,
}

#[derive(Clone, Copy, Debug)]
enum DesiredEncryption {
    Any,
    AwsOwned,
    Customers(usize),
}

/// A generated resource.
#[derive(Clone, Debug)]
struct Asked {
    team: usize,
    account: &'static str,
    service: Service,
    name: &'static str,
    key: DesiredEncryption,
    off: bool,
}

fn a_policy() -> impl Strategy<Value = Drawn> {
    let names = prop_oneof![
        2 => prop::sample::select(NAMES.to_vec()).prop_map(Name::Is),
        2 => Just(Name::BeginsWith("orders")),
        1 => Just(Name::EndsWith("s")),
        3 => Just(Name::Any),
    ];
    (
        prop::option::of(0..2_usize),
        prop::bool::weighted(0.3),
        prop::sample::select(vec![None, None, None, Some(ACCOUNT), Some(ELSEWHERE)]),
        prop::option::weighted(0.3, prop::sample::select(SERVICES.to_vec())),
        names,
        prop::bool::weighted(0.8),
        prop::option::weighted(0.8, prop_oneof![(0..KEYS.len()).prop_map(Keys::One), Just(Keys::AllOfOwn)]),
        any::<bool>(),
    )
        .prop_map(|(team, role, account, service, name, aws_owned, key, disable)| Drawn {
            team,
            role,
            account,
            service,
            name,
            aws_owned: aws_owned || key.is_none(),
            key,
            disable,
        })
}

fn a_resource() -> impl Strategy<Value = Asked> {
    (
        0..2_usize,
        prop::sample::select(vec![ACCOUNT, ACCOUNT, ELSEWHERE]),
        prop::sample::select(SERVICES.to_vec()),
        prop::sample::select(NAMES.to_vec()),
        prop_oneof![
            Just(DesiredEncryption::Any),
            Just(DesiredEncryption::AwsOwned),
            (0..KEYS.len()).prop_map(DesiredEncryption::Customers)
        ],
        prop::bool::weighted(0.2),
    )
        .prop_map(|(team, account, service, name, key, off)| Asked {
            team,
            account,
            service,
            name,
            key,
            off,
        })
}

fn stream_arn(account: &str, service: Service, name: &str) -> String {
    match service {
        Service::Firehose => format!("arn:aws:firehose:{REGION}:{account}:deliverystream/{name}"),
        _ => format!("arn:aws:kinesis:{REGION}:{account}:stream/{name}"),
    }
}

fn key_arn(number: usize) -> String {
    let (account, id) = KEYS[number];
    format!("arn:aws:kms:{REGION}:{account}:key/{id}")
}

fn role() -> String {
    format!("arn:aws:iam::{ELSEWHERE}:role/spoke")
}

impl Name {
    fn is(self, name: &str) -> bool {
        match self {
            Self::Is(text) => name == text,
            Self::BeginsWith(text) => name.starts_with(text),
            Self::EndsWith(text) => name.ends_with(text),
            Self::Any => true,
        }
    }

    fn pattern(self) -> String {
        match self {
            Self::Is(text) => text.to_owned(),
            Self::BeginsWith(text) => format!("{text}*"),
            Self::EndsWith(text) => format!("*{text}"),
            Self::Any => "*".to_owned(),
        }
    }
}

impl Drawn {
    fn own(&self) -> &'static str {
        if self.role { ELSEWHERE } else { ACCOUNT }
    }

    fn applies_to(&self, team: usize, account: &str, service: Service, name: &str) -> bool {
        self.team.is_none_or(|of| of == team)
            && self.account.unwrap_or(self.own()) == account
            && self.service.is_none_or(|of| of == service)
            && self.name.is(name)
    }

    fn allows_key(&self, arn: &str) -> bool {
        match self.key {
            None => false,
            Some(Keys::One(number)) => arn == key_arn(number),
            Some(Keys::AllOfOwn) => arn.contains(&format!(":{}:key/", self.own())),
        }
    }

    fn object(&self, number: usize, teams: &[Harness; 2]) -> Value {
        let account = self.account.unwrap_or("own");
        let mut keys = Vec::new();
        if self.aws_owned {
            keys.push("AWS_OWNED_CMK".to_owned());
        }
        match self.key {
            Some(Keys::One(number)) => keys.push(key_arn(number)),
            Some(Keys::AllOfOwn) => keys.push("arn:aws:kms:*:own:key/*".to_owned()),
            None => {}
        }
        let labels: Vec<&str> = teams
            .iter()
            .enumerate()
            .filter(|(number, _)| self.team.is_none_or(|team| team == *number))
            .map(|(_, harness)| harness.namespace.as_str())
            .collect();
        let services = SERVICES.into_iter().filter(|service| self.service.is_none_or(|of| of == *service));
        let streams: Vec<String> =
            services.map(|service| stream_arn(account, service, &self.name.pattern())).collect();
        let mut spec = json!({
            "namespaceSelector": {"matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "In", "values": labels},
            ]},
            "streams": streams,
            "keys": keys,
            "allowDisable": self.disable,
        });
        if self.role {
            spec["role"] = json!({"arn": role()});
        }
        json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryptionPolicy",
            "metadata": {
                "name": format!("{}-{number}", teams[0].namespace), "labels": {"drawn-by": teams[0].namespace},
            },
            "spec": spec,
        })
    }
}

impl Asked {
    fn spec(&self) -> Value {
        let mut spec = json!({"stream": {"arn": stream_arn(self.account, self.service, self.name)}});
        match self.key {
            DesiredEncryption::Any => {}
            DesiredEncryption::AwsOwned => spec["key"] = json!({"type": "AWS_OWNED_CMK"}),
            DesiredEncryption::Customers(number) => {
                spec["key"] = json!({"type": "CUSTOMER_MANAGED_CMK", "arn": key_arn(number)});
            }
        }
        if self.off {
            spec["encryption"] = json!("Disabled");
            spec.as_object_mut().expect("a spec").remove("key");
        }
        spec
    }

    /// Returns why a request for this resource is not allowed, or `None` if the policies allow it.
    fn objection(&self, call: &Call, policies: &[Drawn], active_key: Option<&StreamKey>) -> Option<String> {
        let speaking: Vec<&Drawn> = policies
            .iter()
            .filter(|policy| policy.applies_to(self.team, self.account, self.service, self.name))
            .collect();
        let Some(first) = speaking.first() else { return Some("no policy applies to the stream".to_owned()) };
        if speaking.iter().any(|policy| policy.role != first.role) {
            return Some("the policies name different roles".to_owned());
        }
        if call.operation == "AssumeRole" {
            let good = first.role && call.target == role();
            return (!good).then(|| "this role is not the stream's".to_owned());
        }
        let session = call.principal.session.as_ref().map(|session| session.role.clone());
        if session != first.role.then(role) {
            return Some(format!("it was made as {session:?}"));
        }
        match call.operation.as_str() {
            "DescribeKey" => {
                // Describing a Kinesis stream may include a request for the key that it reports.
                let is_named_so = matches!(
                    active_key, Some(StreamKey::Kms { arn, given }) if [arn, given].contains(&&call.target)
                );
                let good = speaking.iter().any(|p| p.allows_key(&call.target)) || is_named_so;
                (!good).then(|| "no policy allows the key".to_owned())
            }
            _ if call.target != self.name || call.service != self.service => {
                Some("it is another stream".to_owned())
            }
            // Credentials that do not reach the stream's account find another account's stream or none, and
            // the operator makes no call.
            operation if operation.starts_with("Describe") => None,
            _ if call.account != self.account => Some("it is another account's stream".to_owned()),
            operation if operation.starts_with("Start") => {
                let good = speaking.iter().any(|policy| match call.key.as_deref() {
                    Some(arn) if arn.starts_with("arn:") => policy.allows_key(arn),
                    _ => policy.aws_owned,
                });
                (!good).then(|| "no policy allows the key".to_owned())
            }
            operation if operation.starts_with("Stop") => {
                let good = speaking.iter().any(|policy| policy.disable);
                (!good).then(|| "no policy allows disabling encryption".to_owned())
            }
            _ => None,
        }
    }
}

/// Creates all streams, in plaintext and in both accounts, and the keys.
fn plant(harness: &Harness) {
    let mut world = harness.aws.world();
    for account in [ACCOUNT, ELSEWHERE] {
        for service in SERVICES {
            for name in NAMES {
                let (account, name, state) = (account.to_owned(), name.to_owned(), Snapshot::default());
                world.plant_stream(PlantedStream {
                    service,
                    account,
                    name,
                    state,
                    ..PlantedStream::default()
                });
            }
        }
    }
    for (account, id) in KEYS {
        let (account, id) = (account.to_owned(), id.to_owned());
        world.plant_key(PlantedKey { account, id, ..PlantedKey::default() });
    }
}

async fn write(teams: &[Harness; 2], policies: &[Drawn]) {
    let api: Api<StreamEncryptionPolicy> = Api::all(teams[0].administrator.clone());
    let drawn = ListParams::default().labels(&format!("drawn-by={}", teams[0].namespace));
    api.delete_collection(&DeleteParams::default(), &drawn).await.expect("the old policies are deleted");
    for (number, policy) in policies.iter().enumerate() {
        let object = policy.object(number, teams);
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        let parameters = PatchParams::apply("an-administrator").force();
        api.patch(&name, &parameters, &Patch::Apply(&object)).await.expect("a policy");
    }
}

async fn delete(harness: &Harness, name: &str) {
    let api: Api<StreamEncryption> = Api::namespaced(harness.tenant.clone(), &harness.namespace);
    api.delete(name, &DeleteParams::default()).await.expect("the resource is deleted");
}

/// Runs cases in a world of its own. Returns the number of requests and the number of refused resources.
async fn play_in_a_world(seed: u64, cases: usize) -> (usize, usize) {
    let mut runner = TestRunner::new(ProptestConfig { rng_seed: RngSeed::Fixed(seed), ..Default::default() });
    let second = SignedDuration::from_secs(1);
    let mut harness =
        Harness::start(Settings { enabling: second, disabling: second, ..Settings::default() }).await;
    harness.policy = None;
    harness.restart();
    plant(&harness);
    let other = harness.beside().await;
    let teams = [harness, other];
    let (mut caused, mut refused) = (0, 0);
    let drawing = (prop::collection::vec(a_policy(), 0..5), prop::collection::vec(a_resource(), 1..4));
    for _ in 0..cases {
        let (policies, resources) = drawing.new_tree(&mut runner).expect("a case").current();
        write(&teams, &policies).await;
        for (number, asked) in resources.iter().enumerate() {
            let (requests, is_refused) = judged(&teams, number, asked, &policies).await;
            caused += requests;
            refused += usize::from(is_refused);
        }
        for (number, asked) in resources.iter().enumerate() {
            delete(&teams[asked.team], &format!("drawn-{number}")).await;
        }
        // The calls expire, and the ledgers are free for the next resources.
        teams[0].aws.advance(SignedDuration::from_hours(25));
    }
    (caused, refused)
}

/// Creates a resource and reconciles it until it is refused, or a few times. Checks that the policies allow
/// each request. Returns the number of requests, and whether the resource was refused.
async fn judged(teams: &[Harness; 2], number: usize, asked: &Asked, policies: &[Drawn]) -> (usize, bool) {
    let (harness, name) = (&teams[asked.team], format!("drawn-{number}"));
    harness.apply(&name, &asked.spec()).await;
    let arn = stream_arn(asked.account, asked.service, asked.name);
    let mut caused = 0;
    for _ in 0..4 {
        let (before, active_key) = {
            let (now, world) = (harness.aws.now(), harness.aws.world());
            let key = world.stream(&arn, now).and_then(|stream| stream.active_key.clone());
            (world.calls().len(), key)
        };
        harness.visit(&name).await.expect("a reconcile");
        harness.aws.advance(SignedDuration::from_secs(10));
        let calls = harness.aws.world().calls()[before..].to_vec();
        for call in calls.iter().filter(|call| call.operation != "GetCallerIdentity") {
            let objection = asked.objection(call, policies, active_key.as_ref());
            assert_eq!(objection, None, "{call:#?}\nof {asked:#?}\nunder {policies:#?}");
            caused += 1;
        }
        let said = reason(&harness.status(&name).await);
        if ["NotPermitted", "DisableNotPermitted", "ConflictingPolicyRoles"].contains(&said.as_str()) {
            return (caused, true);
        }
    }
    (caused, false)
}

#[tokio::test]
async fn random_policies_cause_no_unpermitted_request() {
    let cases = std::env::var("RANDOM_POLICIES").ok().and_then(|text| text.parse().ok()).unwrap_or(CASES);
    let worlds = (0..WORLDS).map(|world| Box::pin(play_in_a_world((cases + world) as u64, cases / WORLDS)));
    let (mut caused, mut refused) = (0, 0);
    for (requests, resources) in join_all(worlds).await {
        caused += requests;
        refused += resources;
    }
    println!("{cases} cases: {caused} requests were caused, and {refused} resources refused");
    assert!(caused > cases && refused > cases / 2, "{caused} caused, {refused} refused");
}
