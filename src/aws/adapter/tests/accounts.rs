//! Streams of several accounts, each with its role, in the simulated AWS over HTTP: its log shows the caller
//! of each request.
//!
//! The clock is the simulated AWS's own, and stands still until a test moves it.

use simulated_aws::world::{Call, PlantedKey, PlantedRole, PlantedStream, Rule, Service as AwsService};
use simulated_aws::world::{Fault as Scripted, Settings, World};
use simulated_aws::{Clock as AwsClock, SimulatedAws};
use stream_encryption_core::model::arn::RoleArn;
use stream_encryption_core::model::observation::ReportedEncryption;
use stream_encryption_core::model::principal::Role;
use stream_encryption_core::model::request_limits::RequestLimits;

use super::*;

const OWN: &str = "111122223333";
const OTHERS: [&str; 2] = ["222222222222", "333333333333"];
const KEY_ID: &str = "4b000000-0000-4000-8000-000000000001";

/// A simulated AWS, and the operator's adapter on its clock.
struct Stage {
    simulated: Arc<SimulatedAws>,
    operator: Aws,
}

/// The clock of a simulated AWS, for the SDK.
#[derive(Clone, Debug)]
struct ItsClock(Arc<SimulatedAws>);

impl TimeSource for ItsClock {
    fn now(&self) -> SystemTime {
        self.0.now().into()
    }
}

impl Stage {
    /// Creates in each account a Firehose stream `orders`, a Kinesis stream `orders`, a key, and a role with
    /// an external id.
    async fn new() -> Self {
        let settings =
            Settings { enabling: SignedDuration::ZERO, call_limit: 1_000_000, ..Settings::default() };
        let mut world = World::new(settings);
        for account in [OWN, OTHERS[0], OTHERS[1]] {
            for service in [AwsService::Firehose, AwsService::Kinesis] {
                let (name, account) = ("orders".to_owned(), account.to_owned());
                world.plant_stream(PlantedStream { service, name, account, ..PlantedStream::default() });
            }
            let (id, of) = (KEY_ID.to_owned(), account.to_owned());
            world.plant_key(PlantedKey { id, account: of, ..PlantedKey::default() });
            world.plant_role(PlantedRole {
                arn: role_of(account).to_string(),
                external_id: Some(format!("id-of-{account}")),
                ..PlantedRole::default()
            });
        }
        let noon = "2026-03-01T12:00:00Z".parse().unwrap();
        let simulated = Arc::new(SimulatedAws::start(world, AwsClock::Virtual(noon)).await.unwrap());
        let endpoints = AwsConfig { endpoint_url: Some(simulated.url()), ..ours() };
        let clock = ItsClock(simulated.clone());
        let loader = loader(&endpoints).credentials_provider(credentials()).time_source(clock.clone());
        let rate_limiter = RateLimiter::with_limits(100, RequestLimits::same(100_000));
        let operator =
            Aws::from_config(loader.load().await, ours().region, rate_limiter, Arc::new(move || clock.now()));
        Self { simulated, operator }
    }

    /// Returns the requests that arrived from number `first` on, counted from 0.
    fn calls(&self, first: usize) -> Vec<Call> {
        self.simulated.world().calls()[first..].to_vec()
    }

    fn script(&self, fault: Scripted) {
        self.simulated.world().script(Rule::always(fault).on("AssumeRole"));
    }
}

fn role_of(account: &str) -> RoleArn {
    format!("arn:aws:iam::{account}:role/teams/stream-encryption").parse().unwrap()
}

fn by_role_of(account: &str, resource: &str) -> Principal {
    let role = Role { arn: role_of(account), external_id: Some(format!("id-of-{account}").parse().unwrap()) };
    Principal { role: Some(role), namespace: "data".to_owned(), resource: resource.to_owned() }
}

fn orders(service: Service, account: &str) -> StreamArn {
    let arn = match service {
        Service::Firehose => format!("arn:aws:firehose:eu-west-1:{account}:deliverystream/orders"),
        Service::Kinesis => format!("arn:aws:kinesis:eu-west-1:{account}:stream/orders"),
    };
    arn.parse().unwrap()
}

fn key_of(account: &str) -> Key {
    Key::Customer(format!("arn:aws:kms:eu-west-1:{account}:key/{KEY_ID}").parse().unwrap())
}

async fn encryption(aws: &Aws, stream: &StreamArn, principal: &Principal) -> ReportedEncryption {
    let (description, _) = aws.describe_stream(stream, principal, Priority::Drift).await.unwrap().unwrap();
    assert_eq!(description.arn, *stream);
    description.encryption
}

#[tokio::test]
async fn requests_for_other_account_use_session_of_its_resource() {
    let Stage { simulated, operator } = &Stage::new().await;
    for (number, account) in OTHERS.into_iter().enumerate() {
        let principal = by_role_of(account, &format!("orders-{number}"));
        let stream = orders(Service::Firehose, account);
        let Key::Customer(key) = key_of(account) else { unreachable!() };
        let before = simulated.world().calls().len();
        let (_, signer) =
            operator.describe_stream(&stream, &principal, Priority::Changing).await.unwrap().unwrap();
        operator
            .describe_key(&stream, &KmsKeyId::Arn(key.clone()), &principal, Priority::Changing)
            .await
            .unwrap()
            .unwrap();
        assert!(operator.acquire_permit(&stream, Action::Start, &principal, &signer).await);
        operator.start(&stream, &Key::Customer(key), &principal, &signer, simulated.now()).await.unwrap();
        operator.put_record(&stream, "marked", &principal, &signer).await.unwrap();
        operator.stop(&stream, None, &principal, &signer, simulated.now()).await.unwrap();
        let kinesis = orders(Service::Kinesis, account);
        operator.start(&kinesis, &Key::AwsOwned, &principal, &signer, simulated.now()).await.unwrap();

        let calls = simulated.world().calls()[before..].to_vec();
        let [assumed, rest @ ..] = &calls[..] else { panic!("nothing was called") };
        assert_eq!((assumed.operation.as_str(), assumed.account.as_str()), ("AssumeRole", OWN));
        assert_eq!((assumed.principal.session.as_ref(), assumed.region.as_str()), (None, "eu-west-1"));
        assert_eq!(rest.len(), 6);
        for call in rest {
            let session = call.principal.session.as_ref().unwrap();
            assert_eq!((call.outcome.as_str(), call.account.as_str()), ("OK", account), "{}", call.operation);
            assert_eq!(session.role, role_of(account).to_string());
            assert_eq!(session.external_id, Some(format!("id-of-{account}")));
            assert_eq!(session.name, format!("data.orders-{number}"));
            let resource = format!("streamencryption.dev/resource=orders-{number}");
            assert_eq!(session.tags, ["streamencryption.dev/namespace=data".to_owned(), resource]);
        }
    }
    // In its own account, the operator uses its own credentials.
    let before = simulated.world().calls().len();
    operator
        .describe_stream(&orders(Service::Firehose, OWN), &somebody(), Priority::Drift)
        .await
        .unwrap()
        .unwrap();
    let calls = simulated.world().calls()[before..].to_vec();
    assert_eq!((calls.len(), &calls[0].principal.session), (1, &None));
}

#[tokio::test]
async fn same_stream_name_in_several_accounts_is_distinct() {
    let Stage { simulated, operator } = &Stage::new().await;
    let own = somebody();
    let others = OTHERS.map(|account| by_role_of(account, "orders"));
    for service in [Service::Firehose, Service::Kinesis] {
        let stream = orders(service, OTHERS[0]);
        let signer = signer_of(operator, &others[0]).await;
        operator.start(&stream, &key_of(OTHERS[0]), &others[0], &signer, simulated.now()).await.unwrap();
        simulated.advance(SignedDuration::from_mins(1));
        for _ in 0..2 {
            assert_eq!(
                encryption(operator, &stream, &others[0]).await,
                ReportedEncryption::On(key_of(OTHERS[0]))
            );
            assert_eq!(
                encryption(operator, &orders(service, OTHERS[1]), &others[1]).await,
                ReportedEncryption::Off
            );
            assert_eq!(encryption(operator, &orders(service, OWN), &own).await, ReportedEncryption::Off);
        }
    }
}

#[tokio::test]
async fn wrong_external_id_denies_assume_role_before_any_request() {
    let stage = Stage::new().await;
    let Stage { simulated, operator } = &stage;
    let stream = orders(Service::Firehose, OTHERS[0]);
    let Key::Customer(key) = key_of(OTHERS[0]) else { unreachable!() };
    for external_id in [None, Some("id-of-somebody-else".parse().unwrap())] {
        let role = Role { arn: role_of(OTHERS[0]), external_id };
        let principal = Principal { role: Some(role), ..by_role_of(OTHERS[0], "orders") };
        let signer = signer();
        let faults = [
            operator.describe_stream(&stream, &principal, Priority::Drift).await.unwrap_err(),
            operator
                .describe_stream(&orders(Service::Kinesis, OTHERS[0]), &principal, Priority::Drift)
                .await
                .unwrap_err(),
            operator
                .describe_key(&stream, &KmsKeyId::Arn(key.clone()), &principal, Priority::Drift)
                .await
                .unwrap_err(),
            operator
                .start(&stream, &key_of(OTHERS[0]), &principal, &signer, simulated.now())
                .await
                .unwrap_err(),
            operator.stop(&stream, None, &principal, &signer, simulated.now()).await.unwrap_err(),
            operator.put_record(&stream, "marked", &principal, &signer).await.unwrap_err(),
        ];
        for error in faults {
            assert_eq!((error.operation.iam_action(), error.kind), ("sts:AssumeRole", ErrorKind::Denied));
            assert_eq!(error.code.as_deref(), Some("AccessDenied"));
            assert!(!format!("{error:?} {error}").contains("id-of-somebody-else"), "{error:?}");
        }
    }
    assert!(stage.calls(0).iter().all(|call| call.operation == "AssumeRole"));
}

#[tokio::test]
async fn start_without_session_has_a_known_outcome() {
    let stage = Stage::new().await;
    let Stage { simulated, operator } = &stage;
    let (stream, principal) = (orders(Service::Kinesis, OTHERS[0]), by_role_of(OTHERS[0], "orders"));
    for (fault, kind) in [
        (Scripted::ServerError { status: 503 }, ErrorKind::Transient),
        (Scripted::LoseReply, ErrorKind::Transient),
        (Scripted::Throttle, ErrorKind::Throttled),
    ] {
        stage.script(fault);
        let error = operator
            .start(&stream, &Key::AwsOwned, &principal, &signer(), simulated.now())
            .await
            .unwrap_err();
        assert_eq!((error.operation, error.kind), (Op::AssumeRole, kind));
        simulated.world().clear_faults();
    }
    assert!(stage.calls(0).iter().all(|call| call.operation == "AssumeRole"));
    let rate = operator.rate_limiter().rate(&QuotaScope::of(Op::StartStreamEncryption, &stream));
    assert_eq!(rate, 100_000_000, "the streams' own limit was not reached");
    let signer = signer_of(operator, &principal).await;
    operator.start(&stream, &Key::AwsOwned, &principal, &signer, simulated.now()).await.unwrap();
}

/// With EKS Pod Identity, the operator's own session has tags, which count together with these.
#[tokio::test]
async fn resource_tag_that_is_too_large_is_left_out() {
    let stage = Stage::new().await;
    let Stage { simulated, operator } = &stage;
    let (stream, principal) = (orders(Service::Kinesis, OTHERS[0]), by_role_of(OTHERS[0], "orders"));
    for refused in 1..=2 {
        let message = "Packed size of session tags consumes 112% of allotted space.".to_owned();
        let too_large = Scripted::Refuse { code: "PackedPolicyTooLarge".to_owned(), message, status: 400 };
        simulated.world().script(Rule { times: Some(refused), ..Rule::always(too_large).on("AssumeRole") });
        let before = stage.calls(0).len();
        let described = operator.describe_stream(&stream, &principal, Priority::Drift).await;
        assert_eq!(described.is_ok(), refused < 2);
        let assumed = stage.calls(before).iter().filter(|call| call.operation == "AssumeRole").count();
        assert_eq!(assumed, 2);
        simulated.world().clear_faults();
        simulated.advance(SignedDuration::from_hours(1));
    }
}

#[tokio::test]
async fn revoked_permission_takes_effect_when_session_ends() {
    let stage = Stage::new().await;
    let Stage { simulated, operator } = &stage;
    let (stream, principal) = (orders(Service::Kinesis, OTHERS[0]), by_role_of(OTHERS[0], "orders"));
    assert_eq!(encryption(operator, &stream, &principal).await, ReportedEncryption::Off);
    stage.script(Scripted::AccessDenied);
    simulated.advance(SignedDuration::from_mins(58));
    assert_eq!(encryption(operator, &stream, &principal).await, ReportedEncryption::Off);
    simulated.advance(SignedDuration::from_mins(1));
    // A Describe requires a session that lasts longer; a call uses the cached session.
    let error = operator.describe_stream(&stream, &principal, Priority::Drift).await.unwrap_err();
    assert_eq!((error.operation, error.kind), (Op::AssumeRole, ErrorKind::Denied));
    let signer = signer_of(operator, &principal).await;
    operator.start(&stream, &Key::AwsOwned, &principal, &signer, simulated.now()).await.unwrap();
    simulated.advance(SignedDuration::from_mins(1));
    let error = operator.stop(&stream, None, &principal, &signer, simulated.now()).await.unwrap_err();
    assert_eq!((error.operation, error.kind), (Op::AssumeRole, ErrorKind::Denied));
}

#[tokio::test]
async fn customer_key_start_uses_session_under_six_hours_old() {
    let stage = Stage::new().await;
    let Stage { simulated, operator } = &stage;
    let (stream, principal) = (orders(Service::Firehose, OTHERS[0]), by_role_of(OTHERS[0], "orders"));
    for _ in 0..48 * 6 {
        let (_, signer) =
            operator.describe_stream(&stream, &principal, Priority::Drift).await.unwrap().unwrap();
        let age = signer.session_age.unwrap();
        assert!(age < SignedDuration::from_hours(1), "{age}");
        operator.start(&stream, &key_of(OTHERS[0]), &principal, &signer, simulated.now()).await.unwrap();
        simulated.advance(SignedDuration::from_mins(10));
    }
    let calls = stage.calls(0);
    let mut sessions = std::collections::BTreeSet::new();
    let starts = calls.iter().filter(|call| call.operation == "StartDeliveryStreamEncryption");
    for start in starts.clone() {
        let session = start.principal.session.as_ref().unwrap();
        assert!(start.time.duration_since(session.issued) < SignedDuration::from_hours(6));
        assert!(start.time < session.expires);
        sessions.insert(start.principal.access_key.clone());
    }
    // Every 50 minutes: the first Describe after 45 minutes renews the session ahead.
    assert_eq!((starts.count(), sessions.len()), (288, 58));
    assert_eq!(calls.iter().filter(|call| call.operation == "AssumeRole").count(), 58);
}
