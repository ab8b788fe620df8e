//! Compares the simulated AWS with third-party emulators: the same raw messages to both, where the emulator
//! is correct.
//!
//! A row compares the HTTP status, the error code and the fields of the answer. No row covers what an
//! emulator gets wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use simulated_aws::emulators::{KinesisLocal, Moto, StartOptions};
use simulated_aws::raw_client::{Answer, RawClient};
use simulated_aws::world::ShownWhileUpdating;
use simulated_aws::{Clock, Service, Settings, SimulatedAws, World};

/// Collects the paths of all members of an answer, for example `DeliveryStreamDescription.DeliveryStreamARN`.
fn fields(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    for (name, inner) in value.as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        fields(inner, &path, found);
        found.insert(path);
    }
}

fn has(answer: &Answer, wanted: &[&str]) -> Vec<String> {
    let mut found = BTreeSet::new();
    fields(&answer.json(), "", &mut found);
    wanted.iter().filter(|path| !found.contains(**path)).map(|path| (*path).to_owned()).collect()
}

/// One message to both servers.
struct Row {
    says: &'static str,
    service: Service,
    operation: &'static str,
    body: Value,
    /// The fields that both answers must have.
    fields: &'static [&'static str],
    /// Members whose values must be equal.
    equal: &'static [&'static str],
}

async fn compare(ours: &RawClient, theirs: &RawClient, rows: Vec<Row>) {
    let mut differences = Vec::new();
    for row in rows {
        let our = ours.json(row.service, row.operation, &row.body).await.expect("our answer");
        let their = theirs.json(row.service, row.operation, &row.body).await.expect("their answer");
        if (our.status, our.code()) != (their.status, their.code()) {
            differences.push(format!("{}: ours {our:?}, theirs {their:?}", row.says));
        }
        for (whose, answer) in [("ours", &our), ("theirs", &their)] {
            let missing = has(answer, row.fields);
            if !missing.is_empty() {
                differences.push(format!("{}: {whose} lacks {missing:?}: {}", row.says, answer.text));
            }
        }
        for pointer in row.equal {
            let (a, b) = (our.json().pointer(pointer).cloned(), their.json().pointer(pointer).cloned());
            if a.is_none() || a != b {
                differences.push(format!("{}: {pointer} is {a:?} for us and {b:?} for them", row.says));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Returns settings in which every change takes effect at once, in the emulators' account.
fn prompt() -> Settings {
    let zero = jiff::SignedDuration::ZERO;
    Settings {
        account: "123456789012".to_owned(),
        enabling: zero,
        disabling: zero,
        updating: zero,
        creating: zero,
        rate_limits: false,
        ..Settings::default()
    }
}

#[tokio::test]
#[ignore = "requires moto from PyPI; .ci/run runs it"]
#[allow(clippy::too_many_lines, reason = "one table")]
async fn simulated_aws_matches_moto() {
    let Some(moto) = Moto::start().await.expect("moto starts") else { return };
    let aws = SimulatedAws::start(World::new(prompt()), Clock::Real).await.expect("we start");
    let (ours, theirs) = (RawClient::new(&aws.url()), RawClient::new(moto.url()));
    let mut keys = Vec::new();
    for client in [&ours, &theirs] {
        let made = client.json(Service::Kms, "CreateKey", &json!({})).await.expect("a key").json();
        let id = made.pointer("/KeyMetadata/KeyId").and_then(Value::as_str).expect("an id").to_owned();
        let alias = json!({ "AliasName": "alias/orders", "TargetKeyId": id });
        assert_eq!(client.json(Service::Kms, "CreateAlias", &alias).await.expect("an alias").status, 200);
        let by_id = client.json(Service::Kms, "DisableKey", &json!({ "KeyId": id })).await.expect("disabled");
        assert_eq!(by_id.status, 200, "{by_id:?}");
        keys.push(id);
    }
    let s3 =
        json!({ "RoleARN": "arn:aws:iam::123456789012:role/firehose", "BucketARN": "arn:aws:s3:::records" });
    let create = json!({ "DeliveryStreamName": "orders", "ExtendedS3DestinationConfiguration": s3 });
    let start = json!({ "DeliveryStreamName": "orders", "DeliveryStreamEncryptionConfigurationInput": { "KeyType": "AWS_OWNED_CMK" } });
    let name = json!({ "DeliveryStreamName": "orders" });
    let missing = json!({ "DeliveryStreamName": "missing" });
    let metadata: &[&str] = &[
        "KeyMetadata.AWSAccountId",
        "KeyMetadata.KeyId",
        "KeyMetadata.Arn",
        "KeyMetadata.CreationDate",
        "KeyMetadata.Enabled",
        "KeyMetadata.Description",
        "KeyMetadata.KeyUsage",
        "KeyMetadata.KeyState",
        "KeyMetadata.Origin",
        "KeyMetadata.KeyManager",
        "KeyMetadata.KeySpec",
        "KeyMetadata.CustomerMasterKeySpec",
        "KeyMetadata.EncryptionAlgorithms",
        "KeyMetadata.MultiRegion",
    ];
    let described: &[&str] = &[
        "DeliveryStreamDescription.DeliveryStreamName",
        "DeliveryStreamDescription.DeliveryStreamARN",
        "DeliveryStreamDescription.DeliveryStreamStatus",
        "DeliveryStreamDescription.DeliveryStreamType",
        "DeliveryStreamDescription.VersionId",
        "DeliveryStreamDescription.CreateTimestamp",
        "DeliveryStreamDescription.Destinations",
        "DeliveryStreamDescription.HasMoreDestinations",
        "DeliveryStreamDescription.DeliveryStreamEncryptionConfiguration.Status",
        "DeliveryStreamDescription.DeliveryStreamEncryptionConfiguration.KeyType",
    ];
    let row = |says, service, operation, body: &Value| Row {
        says,
        service,
        operation,
        body: body.clone(),
        fields: &[],
        equal: &[],
    };
    let f = Service::Firehose;
    compare(
        &ours,
        &theirs,
        vec![
            row("describe of a missing stream", f, "DescribeDeliveryStream", &missing),
            row("start on a missing stream", f, "StartDeliveryStreamEncryption", &missing),
            row("stop on a missing stream", f, "StopDeliveryStreamEncryption", &missing),
            row("delete of a missing stream", f, "DeleteDeliveryStream", &missing),
            Row {
                fields: &["DeliveryStreamARN"],
                equal: &["/DeliveryStreamARN"],
                ..row("create", f, "CreateDeliveryStream", &create)
            },
            row("create again", f, "CreateDeliveryStream", &create),
            row("start", f, "StartDeliveryStreamEncryption", &start),
            Row {
                fields: described,
                equal: &[
                    "/DeliveryStreamDescription/DeliveryStreamARN",
                    "/DeliveryStreamDescription/DeliveryStreamStatus",
                    "/DeliveryStreamDescription/DeliveryStreamType",
                    "/DeliveryStreamDescription/DeliveryStreamEncryptionConfiguration",
                ],
                ..row("describe after start", f, "DescribeDeliveryStream", &name)
            },
            row("stop", f, "StopDeliveryStreamEncryption", &name),
            Row {
                equal: &["/DeliveryStreamDescription/DeliveryStreamEncryptionConfiguration/Status"],
                ..row("describe after stop", f, "DescribeDeliveryStream", &name)
            },
            Row {
                equal: &["/DeliveryStreamNames", "/HasMoreDeliveryStreams"],
                ..row("list", f, "ListDeliveryStreams", &json!({}))
            },
            Row {
                fields: metadata,
                equal: &[
                    "/KeyMetadata/KeyState",
                    "/KeyMetadata/Enabled",
                    "/KeyMetadata/KeyManager",
                    "/KeyMetadata/EncryptionAlgorithms",
                ],
                ..row(
                    "describe key by alias, disabled",
                    Service::Kms,
                    "DescribeKey",
                    &json!({ "KeyId": "alias/orders" }),
                )
            },
            Row {
                fields: metadata,
                ..row(
                    "describe key by alias ARN",
                    Service::Kms,
                    "DescribeKey",
                    &json!({ "KeyId": "arn:aws:kms:eu-west-1:123456789012:alias/orders" }),
                )
            },
            row(
                "describe of a missing key",
                Service::Kms,
                "DescribeKey",
                &json!({ "KeyId": "00000000-1111-2222-3333-444444444444" }),
            ),
            row(
                "describe of a missing alias",
                Service::Kms,
                "DescribeKey",
                &json!({ "KeyId": "alias/missing" }),
            ),
            row("describe of garbage", Service::Kms, "DescribeKey", &json!({ "KeyId": "garbage" })),
            row(
                "describe of a missing Kinesis stream",
                Service::Kinesis,
                "DescribeStreamSummary",
                &json!({ "StreamName": "missing" }),
            ),
        ],
    )
    .await;
    for (client, id) in [&ours, &theirs].into_iter().zip(&keys) {
        let scheduled = client
            .json(Service::Kms, "ScheduleKeyDeletion", &json!({ "KeyId": id }))
            .await
            .expect("scheduled");
        assert!(scheduled.json().get("DeletionDate").is_some_and(Value::is_number), "{scheduled:?}");
        let key = client
            .json(Service::Kms, "DescribeKey", &json!({ "KeyId": id }))
            .await
            .expect("described")
            .json();
        assert_eq!(key.pointer("/KeyMetadata/KeyState"), Some(&json!("PendingDeletion")), "{key}");
        assert!(key.pointer("/KeyMetadata/DeletionDate").is_some_and(Value::is_number), "{key}");
        let cancelled =
            client.json(Service::Kms, "CancelKeyDeletion", &json!({ "KeyId": id })).await.expect("cancelled");
        assert_eq!(cancelled.status, 200);
        let key = client
            .json(Service::Kms, "DescribeKey", &json!({ "KeyId": id }))
            .await
            .expect("described")
            .json();
        assert_eq!(key.pointer("/KeyMetadata/KeyState"), Some(&json!("Disabled")), "{key}");
        let identity =
            client.query("Action=GetCallerIdentity&Version=2011-06-15").await.expect("an identity");
        assert_eq!(identity.status, 200);
        for element in [
            "<GetCallerIdentityResponse",
            "<GetCallerIdentityResult>",
            "<Account>123456789012</Account>",
            "<Arn>",
            "<UserId>",
        ] {
            assert!(identity.text.contains(element), "{element}: {}", identity.text);
        }
    }
}

#[tokio::test]
#[ignore = "requires kinesis-local from npm; .ci/run runs it"]
#[allow(clippy::too_many_lines, reason = "one table")]
async fn simulated_aws_matches_kinesis_local() {
    let options = StartOptions { update: Duration::from_secs(2), ..StartOptions::default() };
    let Some(kinesis) = KinesisLocal::start(options).await.expect("kinesis-local starts") else { return };
    let two = jiff::SignedDuration::from_secs(2);
    let settings = Settings {
        account: "123456789012".to_owned(),
        updating: two,
        creating: two,
        // The emulator shows the new encryption; AWS shows the old one.
        while_updating: ShownWhileUpdating::New,
        rate_limits: false,
        ..Settings::default()
    };
    let aws = SimulatedAws::start(World::new(settings), Clock::Real).await.expect("we start");
    let (ours, theirs) = (RawClient::new(&aws.url()), RawClient::new(kinesis.url()));
    let k = Service::Kinesis;
    let row = |says, operation, body: &Value| Row {
        says,
        service: k,
        operation,
        body: body.clone(),
        fields: &[],
        equal: &[],
    };
    let name = json!({ "StreamName": "clicks" });
    let arn = json!({ "StreamARN": "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks" });
    let start = json!({ "StreamName": "clicks", "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis" });
    let with = |member: &str, value: &str| {
        let mut body = start.clone();
        body[member] = json!(value);
        body
    };
    let shown: &[&str] = &[
        "/StreamDescriptionSummary/StreamName",
        "/StreamDescriptionSummary/StreamARN",
        "/StreamDescriptionSummary/StreamStatus",
        "/StreamDescriptionSummary/EncryptionType",
    ];
    let with_key: &[&str] = &[
        "/StreamDescriptionSummary/StreamStatus",
        "/StreamDescriptionSummary/EncryptionType",
        "/StreamDescriptionSummary/KeyId",
    ];
    compare(
        &ours,
        &theirs,
        vec![
            row("describe of a missing stream", "DescribeStreamSummary", &name),
            row("start on a missing stream", "StartStreamEncryption", &start),
            row("create", "CreateStream", &json!({ "StreamName": "clicks", "ShardCount": 1 })),
            row("start while CREATING", "StartStreamEncryption", &start),
            row("create again", "CreateStream", &json!({ "StreamName": "clicks", "ShardCount": 1 })),
        ],
    )
    .await;
    until_active(&[&ours, &theirs], &name).await;
    compare(
        &ours,
        &theirs,
        vec![
            Row {
                equal: shown,
                ..row("describe a plaintext stream by name", "DescribeStreamSummary", &name)
            },
            Row { equal: shown, ..row("describe it by ARN", "DescribeStreamSummary", &arn) },
            Row {
                equal: &["/StreamDescription/StreamStatus", "/StreamDescription/EncryptionType"],
                ..row("the long describe", "DescribeStream", &name)
            },
            row("describe without name and ARN", "DescribeStreamSummary", &json!({})),
            row("garbage as KeyId", "StartStreamEncryption", &with("KeyId", "garbage")),
            row("an empty KeyId", "StartStreamEncryption", &with("KeyId", "")),
            row("EncryptionType NONE", "StartStreamEncryption", &with("EncryptionType", "NONE")),
            Row {
                // The emulator adds an EncryptionType of NONE; AWS does not.
                equal: &["/ShardId"],
                ..row(
                    "put into a plaintext stream",
                    "PutRecord",
                    &json!({ "StreamName": "clicks", "Data": "aGk=", "PartitionKey": "a" }),
                )
            },
            row("start", "StartStreamEncryption", &start),
            row("start while UPDATING", "StartStreamEncryption", &start),
            row("stop while UPDATING", "StopStreamEncryption", &start),
            Row { equal: with_key, ..row("describe while UPDATING", "DescribeStreamSummary", &name) },
        ],
    )
    .await;
    until_active(&[&ours, &theirs], &name).await;
    compare(
        &ours,
        &theirs,
        vec![
            Row { equal: with_key, ..row("describe when ACTIVE", "DescribeStreamSummary", &name) },
            row("stop", "StopStreamEncryption", &start),
            Row { equal: shown, ..row("describe while it stops", "DescribeStreamSummary", &name) },
        ],
    )
    .await;
    until_active(&[&ours, &theirs], &name).await;
    compare(
        &ours,
        &theirs,
        vec![Row { equal: shown, ..row("describe when stopped", "DescribeStreamSummary", &name) }],
    )
    .await;
}

/// Polls until each server shows ACTIVE; the emulator has its own clock.
async fn until_active(clients: &[&RawClient], name: &Value) {
    for client in clients {
        for attempt in 0.. {
            let described =
                client.json(Service::Kinesis, "DescribeStreamSummary", name).await.expect("described").json();
            if described.pointer("/StreamDescriptionSummary/StreamStatus") == Some(&json!("ACTIVE")) {
                break;
            }
            assert!(attempt < 200, "never ACTIVE: {described}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
