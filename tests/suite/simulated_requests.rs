//! Compares `simulation::aws_model` with the operator's own adapters: the same world and the same request, once
//! in process and once by the SDKs over HTTP, must give the same answer or the same error, and leave the same
//! log.
//!
//! A fault stays until its request is complete, because the adapters send a read up to three times and the
//! simulation once. Each request has its own adapters: their caches are not part of the comparison.

use std::sync::Arc;
use std::time::SystemTime;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::json;
use simulated_aws::world::{
    BadKey, Caller, EncryptionStatus, FailureType, Fault as Scripted, FirehoseCounts, KeyAfterDisabled,
    KeyIdEcho, KeyState, NeverEncryptedShows, PlantedKey, PlantedStream, Rule, Service as AwsService,
    Settings, ShownKey, ShownWhileUpdating, Snapshot, Source, StreamKey, StreamStatus, World,
};
use simulated_aws::{Clock, SimulatedAws};
use simulation::aws_model::AwsModel;
use stream_encryption_core::controller::stream_api::{Priority, Signer, StreamApi as _};
use stream_encryption_core::model::arn::{KmsKeyId, StreamArn};
use stream_encryption_core::model::aws_error::{AwsError, ErrorKind};
use stream_encryption_core::model::key::{Key, KeyMetadata};
use stream_encryption_core::model::observation::StreamDescription;
use stream_encryption_core::model::principal::Principal;
use stream_encryption_core::model::request_limits::RequestLimits;
use stream_encryption_core::model::service::Operation;
use stream_encryption_operator::aws::Aws;
use stream_encryption_operator::aws::rate_limit::RateLimiter;

const ACCOUNT: &str = "111122223333";
const OTHER_ACCOUNT: &str = "444455556666";
const REGION: &str = "eu-west-1";
const ACCESS_KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const KEY_ID: &str = "4b000000-0000-4000-8000-000000000001";
const OTHER_ID: &str = "4b000000-0000-4000-8000-000000000002";
const MISSING_ID: &str = "4b000000-0000-4000-8000-00000000000f";
const ALIAS: &str = "alias/orders";
const WORLDS: u32 = 200;

/// A request in the operations of the operator's AWS port.
#[derive(Clone, Debug)]
enum Ask {
    Look(StreamArn),
    Key(StreamArn, KmsKeyId),
    Start(StreamArn, Key),
    Stop(StreamArn, Option<Key>),
    PutRecord(StreamArn),
    Identity,
}

/// Its result.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    Look(Option<StreamDescription>),
    Key(Option<KeyMetadata>),
    Done,
    Encrypted(bool),
    Account(String),
    Fault(Operation, ErrorKind, Option<String>),
}

/// One request with its fault, and the time since the previous request.
#[derive(Clone, Debug)]
struct Step {
    wait: SignedDuration,
    faults: Vec<Rule>,
    ask: Ask,
}

/// Returns the names by which a stream's key may be given.
fn names_of_keys() -> Vec<String> {
    let arn = |id: &str| format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/{id}");
    vec![
        arn(KEY_ID),
        KEY_ID.to_owned(),
        OTHER_ID.to_owned(),
        MISSING_ID.to_owned(),
        ALIAS.to_owned(),
        format!("arn:aws:kms:{REGION}:{ACCOUNT}:{ALIAS}"),
        "alias/nobody".to_owned(),
        "alias/aws/kinesis".to_owned(),
        format!("arn:aws:kms:{REGION}:{ACCOUNT}:alias/aws/kinesis"),
        format!("arn:aws:kms:us-east-1:{ACCOUNT}:key/{KEY_ID}"),
        arn("no_uuid"),
        "no key at all".to_owned(),
        String::new(),
    ]
}

fn stream_key() -> impl Strategy<Value = StreamKey> {
    let arn = select(vec![KEY_ID, OTHER_ID, MISSING_ID])
        .prop_map(|id| format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/{id}"));
    prop_oneof![
        1 => Just(StreamKey::AwsOwned),
        4 => (arn, select(names_of_keys())).prop_map(|(arn, given)| StreamKey::Kms { arn, given }),
    ]
}

fn planted_stream(service: AwsService) -> impl Strategy<Value = PlantedStream> {
    let words = [StreamStatus::Creating, StreamStatus::CreatingFailed, StreamStatus::Deleting];
    let status = prop_oneof![
        5 => Just(StreamStatus::Active),
        1 => select(words.to_vec()),
        1 => Just(if service == AwsService::Kinesis { StreamStatus::Updating } else { StreamStatus::Active }),
    ];
    let encryption = select(vec![
        EncryptionStatus::NeverSet,
        EncryptionStatus::Enabling,
        EncryptionStatus::Enabled,
        EncryptionStatus::EnablingFailed,
        EncryptionStatus::Disabling,
        EncryptionStatus::Disabled,
        EncryptionStatus::DisablingFailed,
    ]);
    let failure = select(vec![
        None,
        Some(FailureType::KmsAccessDenied),
        Some(FailureType::CreateKmsGrantFailed),
        Some(FailureType::EniAccessDenied),
        Some(FailureType::UnknownError),
    ]);
    let state = (status, encryption, prop::option::of(stream_key()), prop::option::of(stream_key()), failure)
        .prop_map(|(status, encryption, requested_key, active_key, failure)| Snapshot {
            status,
            encryption,
            requested_key,
            active_key,
            failure,
            ..Snapshot::default()
        });
    let source = prop_oneof![5 => Just(Source::DirectPut), 1 => Just(Source::MSKAsSource)];
    let shows = select(vec![NeverEncryptedShows::NoBlock, NeverEncryptedShows::Disabled]);
    // Never exactly between two milliseconds: the floating-point number on the wire does not preserve such a
    // time.
    let created = (0..4_000_000_000_000_i64).prop_filter("between two milliseconds", |at| at % 1_000 != 500);
    let created = prop::option::of(created);
    (state, source, shows, created).prop_map(move |(state, source, never_encrypted_shows, created)| {
        PlantedStream {
            service,
            source,
            created: created.and_then(|at| Timestamp::from_microsecond(at * 1_000 + at % 1_000).ok()),
            state,
            never_encrypted_shows,
            ..PlantedStream::default()
        }
    })
}

fn planted_key(id: &'static str) -> impl Strategy<Value = PlantedKey> {
    let state = select(vec![
        KeyState::Enabled,
        KeyState::Enabled,
        KeyState::Disabled,
        KeyState::PendingDeletion,
        KeyState::PendingImport,
        KeyState::Unavailable,
    ]);
    let kind = select(vec![
        ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT"),
        ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT"),
        ("RSA_2048", "ENCRYPT_DECRYPT"),
        ("RSA_2048", "SIGN_VERIFY"),
        ("HMAC_256", "GENERATE_VERIFY_MAC"),
    ]);
    let manager = select(vec!["CUSTOMER", "CUSTOMER", "AWS"]);
    // Without an explicit policy, every principal in the account may use the key; with this policy, none may.
    let policy = select(vec![None, None, None, Some(json!({ "Version": "2012-10-17", "Statement": [] }))]);
    (state, kind, manager, policy).prop_map(move |(state, (spec, usage), manager, policy)| PlantedKey {
        id: id.to_owned(),
        state,
        usage: usage.to_owned(),
        spec: spec.to_owned(),
        manager: manager.to_owned(),
        policy,
        ..PlantedKey::default()
    })
}

fn settings() -> impl Strategy<Value = Settings> {
    let shown = (
        select(vec![ShownKey::Asked, ShownKey::Active]),
        select(vec![KeyAfterDisabled::Kept, KeyAfterDisabled::Dropped]),
        select(vec![KeyIdEcho::AsGiven, KeyIdEcho::AsGiven, KeyIdEcho::KeyArn, KeyIdEcho::Alias]),
        select(vec![ShownWhileUpdating::New, ShownWhileUpdating::Old]),
    );
    let refused = (
        select(vec![BadKey::FailsLater, BadKey::RefusedAtOnce]),
        select(vec![
            FirehoseCounts::Accepted,
            FirehoseCounts::ReachedTheStream,
            FirehoseCounts::EvenOverTheLimit,
        ]),
        select(vec![0_usize, 1, 25]),
        select(vec![0_usize, 500]),
    );
    (shown, refused, any::<bool>()).prop_map(|(shown, refused, error_type_header)| Settings {
        failed_re_key_shows: shown.0,
        key_after_disabled: shown.1,
        kinesis_key_id: shown.2,
        while_updating: shown.3,
        bad_key: refused.0,
        firehose_counts: refused.1,
        call_limit: refused.2,
        streams_per_key: refused.3,
        error_type_header,
        // A read that is sent three times would reach the limits sooner.
        rate_limits: false,
        // The SDK signs with this machine's time, and the in-process requests are not signed: the ports check
        // dates themselves.
        checks_dates: false,
        ..Settings::default()
    })
}

/// Generates a world with one stream of each service, two keys and an alias.
fn world() -> impl Strategy<Value = World> {
    let streams = (planted_stream(AwsService::Firehose), planted_stream(AwsService::Kinesis));
    (settings(), streams, planted_key(KEY_ID), planted_key(OTHER_ID)).prop_map(
        |(settings, (firehose, kinesis), key, other)| {
            let mut world = World::new(settings);
            world.plant_stream(firehose);
            world.plant_stream(kinesis);
            let arn = world.plant_key(key);
            world.plant_alias(ALIAS, &arn);
            world.plant_key(other);
            world
        },
    )
}

fn stream() -> impl Strategy<Value = StreamArn> {
    let kind = select(vec!["firehose", "kinesis"]);
    let account = prop_oneof![8 => Just(ACCOUNT), 1 => Just(OTHER_ACCOUNT)];
    let region = prop_oneof![8 => Just(REGION), 1 => Just("us-east-1")];
    let name = prop_oneof![8 => Just("orders"), 1 => Just("nobody")];
    (kind, account, region, name).prop_map(|(kind, account, region, name)| {
        let resource = if kind == "firehose" { "deliverystream" } else { "stream" };
        format!("arn:aws:{kind}:{region}:{account}:{resource}/{name}").parse().expect("an ARN")
    })
}

fn asked_key() -> impl Strategy<Value = Key> {
    let customer = select(vec![
        format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/{KEY_ID}"),
        format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/{OTHER_ID}"),
        format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/{MISSING_ID}"),
        format!("arn:aws:kms:us-east-1:{ACCOUNT}:key/{KEY_ID}"),
        format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/no-uuid"),
    ]);
    let customer = customer.prop_map(|arn| Key::Customer(arn.parse().expect("an ARN")));
    let unresolved = select(vec!["alias/nobody", "unknown", "no key at all", KEY_ID]);
    prop_oneof![
        2 => Just(Key::AwsOwned),
        5 => customer,
        1 => unresolved.prop_map(|name| Key::Unresolved(name.to_owned())),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let name = prop_oneof![
        select(vec![(REGION, KEY_ID), (REGION, OTHER_ID), (REGION, MISSING_ID), ("us-east-1", KEY_ID)])
            .prop_map(|(region, id)| {
                KmsKeyId::Arn(format!("arn:aws:kms:{region}:{ACCOUNT}:key/{id}").parse().expect("an ARN"))
            }),
        select(vec![ALIAS, "alias/nobody", "alias/aws/kinesis"])
            .prop_map(|alias| KmsKeyId::Alias(alias.to_owned())),
    ];
    prop_oneof![
        6 => stream().prop_map(Ask::Look),
        2 => (stream(), name).prop_map(|(stream, name)| Ask::Key(stream, name)),
        4 => (stream(), asked_key()).prop_map(|(stream, key)| Ask::Start(stream, key)),
        3 => (stream(), prop::option::of(asked_key())).prop_map(|(stream, key)| Ask::Stop(stream, key)),
        3 => stream().prop_map(Ask::PutRecord),
        1 => Just(Ask::Identity),
    ]
}

fn fault() -> impl Strategy<Value = Scripted> {
    let codes = [
        "ThrottlingException",
        "LimitExceededException",
        "ResourceInUseException",
        "ResourceNotFoundException",
        "NotFoundException",
        "KMSInvalidStateException",
        "InvalidKMSResourceException",
        "AccessDeniedException",
        "ExpiredTokenException",
        "InvalidArgumentException",
        "RequestTimeoutException",
        "NobodyKnowsThisException",
        "com.amazonaws.firehose#LimitExceededException",
        "InternalFailure:http://internal.amazon.com/",
        "",
    ];
    let codes = codes.map(str::to_owned).into_iter().chain([format!("Long{}", "g".repeat(200))]);
    let refuse = (
        select(codes.collect::<Vec<_>>()),
        select(vec!["", "Rate exceeded for stream orders", "Rate exceeded for account 1", "no"]),
        select(vec![400_u16, 401, 403, 408, 429, 500, 503]),
    );
    let status = || select(vec![500_u16, 502, 503, 504]);
    // Never without a delay: a late request arrives after its sender has timed out.
    let time = select(vec![SignedDuration::from_secs(3), SignedDuration::from_mins(5)]);
    prop_oneof![
        6 => refuse.prop_map(|(code, message, status)| Scripted::Refuse {
            code,
            message: message.to_owned(),
            status,
        }),
        1 => Just(Scripted::AccessDenied),
        2 => Just(Scripted::Throttle),
        2 => status().prop_map(|status| Scripted::ServerError { status }),
        2 => status().prop_map(|status| Scripted::ServerErrorAfterwards { status }),
        2 => Just(Scripted::LoseRequest),
        2 => Just(Scripted::LoseReply),
        1 => time.clone().prop_map(|by| Scripted::Late { by }),
        1 => Just(Scripted::NoOp),
        1 => Just(Scripted::FailsLater { failure: FailureType::KmsAccessDenied }),
        1 => time.clone().prop_map(|time| Scripted::Takes { time }),
        1 => Just(Scripted::Stuck),
        1 => time.prop_map(|by| Scripted::ReadLag { by }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    // The adapter resolves the key that Kinesis names by a separate request, which may fail separately.
    let on =
        select(vec!["Describe*Stream*", "Describe*Stream*", "DescribeKey", "*Encryption", "PutRecord", "*"]);
    let faults = prop_oneof![
        2 => Just(Vec::new()),
        3 => (fault(), on).prop_map(|(fault, on)| vec![Rule::always(fault).on(on)]),
    ];
    let wait = select(vec![0_i64, 1, 7, 60]).prop_map(SignedDuration::from_secs);
    (wait, faults, ask()).prop_map(|(wait, faults, ask)| Step { wait, faults, ask })
}

fn told<T>(answer: Result<T, AwsError>, tell: impl FnOnce(T) -> Told) -> Told {
    match answer {
        Ok(answer) => tell(answer),
        Err(AwsError { operation, kind, code, .. }) => Told::Fault(operation, kind, code),
    }
}

/// Sends the request in process.
fn in_process(world: &mut World, now: Timestamp, ask: &Ask) -> Told {
    let caller = &Caller::new(ACCESS_KEY);
    let mut aws = AwsModel { world, now, caller };
    match ask {
        Ask::Look(stream) => told(aws.describe_stream(stream).0, Told::Look),
        Ask::Key(stream, name) => told(aws.describe_key(stream, name).0, Told::Key),
        Ask::Start(stream, key) => told(aws.start(stream, key).0, |_| Told::Done),
        Ask::Stop(stream, key) => told(aws.stop(stream, key.as_ref()).0, |_| Told::Done),
        Ask::PutRecord(stream) => told(aws.put_record(stream).0, Told::Encrypted),
        Ask::Identity => told(aws.identity(REGION).0, Told::Account),
    }
}

/// Sends the same request by the operator's own adapters.
async fn over_http(aws: &Aws, now: Timestamp, ask: &Ask) -> Told {
    let principal = Principal { role: None, namespace: "data".to_owned(), resource: "orders".to_owned() };
    let signer = Signer { access_key_id: ACCESS_KEY.to_owned(), session_age: None };
    let priority = Priority::Call;
    match ask {
        Ask::Look(stream) => told(aws.describe_stream(stream, &principal, priority).await, |seen| {
            Told::Look(seen.map(|(look, _)| look))
        }),
        Ask::Key(stream, name) => told(aws.describe_key(stream, name, &principal, priority).await, Told::Key),
        Ask::Start(stream, key) => {
            told(aws.start(stream, key, &principal, &signer, now).await, |_| Told::Done)
        }
        Ask::Stop(stream, key) => {
            told(aws.stop(stream, key.as_ref(), &principal, &signer, now).await, |_| Told::Done)
        }
        Ask::PutRecord(stream) => {
            told(aws.put_record(stream, "", &principal, &signer).await, Told::Encrypted)
        }
        Ask::Identity => told(aws.identity().await, |identity| Told::Account(identity.account.to_string())),
    }
}

/// Returns the SDKs' configuration. All adapters share its HTTP client, which does not use the machine's proxy.
async fn sdk(url: &str) -> SdkConfig {
    let credentials = Credentials::new(ACCESS_KEY, "not-a-secret", None, None, "real-adapters");
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .region(aws_config::Region::new(REGION))
        .endpoint_url(url)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .retry_config(aws_config::retry::RetryConfig::disabled())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .load()
        .await
}

/// Returns the requests that arrived, without repeated reads.
fn arrived(world: &World) -> Vec<String> {
    let tell = |call: &simulated_aws::world::Call| {
        format!(
            "{} {} {} {} of {}: {} {} {}",
            call.operation,
            call.target,
            call.region,
            call.key.as_deref().unwrap_or("-"),
            call.account,
            call.outcome,
            call.executed,
            call.counted,
        )
    };
    let mut arrived: Vec<String> = world.calls().iter().map(tell).collect();
    arrived.dedup();
    arrived
}

/// Compares both for each request, in the world that the earlier requests left in process.
async fn hold(
    aws: &SimulatedAws,
    config: &SdkConfig,
    world: &World,
    steps: &[Step],
) -> Result<(), TestCaseError> {
    let mut mine = world.clone();
    for (at, step) in steps.iter().enumerate() {
        aws.advance(step.wait);
        let now = aws.now();
        // Delayed requests arrive, even if this step sends no request to AWS.
        mine.settle(now);
        for fault in &step.faults {
            mine.script(fault.clone());
        }
        *aws.world() = mine.clone();
        let by_sdk = Aws::from_config(
            config.clone(),
            REGION.parse().expect("a region"),
            RateLimiter::with_limits(100, RequestLimits::same(100_000)),
            Arc::new(SystemTime::now),
        );
        let theirs = over_http(&by_sdk, now, &step.ask).await;
        let ours = in_process(&mut mine, now, &step.ask);
        prop_assert_eq!(&ours, &theirs, "in process (left) and over HTTP differ: {:?} at {}", step, at);
        prop_assert_eq!(arrived(&mine), arrived(&aws.world()), "what arrived differs: {:?} at {}", step, at);
        mine.clear_faults();
    }
    Ok(())
}

#[test]
fn simulated_port_matches_sdk_adapters() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let noon: Timestamp = "2026-03-01T12:00:00Z".parse().expect("a time");
    let aws = runtime
        .block_on(SimulatedAws::start(World::default(), Clock::Virtual(noon)))
        .expect("a simulated AWS");
    let config = runtime.block_on(sdk(&aws.url()));
    let config_of_cases = Config { cases: WORLDS, failure_persistence: None, ..Config::default() };
    let cases = (world(), prop::collection::vec(step(), 3..9));
    TestRunner::new(config_of_cases)
        .run(&cases, |(world, steps)| runtime.block_on(hold(&aws, &config, &world, &steps)))
        .unwrap_or_else(|error| panic!("{error}"));
}
