//! The unchanged operator against third-party servers: moto and kinesis-local. `docs/simulated-aws.md` lists
//! where they differ from AWS; with everything else the operator must work.

use std::time::Duration;

use aws_sdk_firehose::types::{CompressionFormat, ExtendedS3DestinationConfiguration};
use serde_json::json;
use simulated_aws::emulators::{KinesisLocal, Moto};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use test_cluster::TestCluster;

use crate::harness::{ACCESS_KEY, REGION, cluster, fresh_namespace, operators_kubeconfig, sdk};
use crate::process::{OperatorProcess, apply, eventually, field, until_it_says};

/// The account of moto, which kinesis-local is configured to use as well.
const ACCOUNT: &str = "123456789012";

async fn encryption_status(cluster: &TestCluster, namespace: &str, name: &str) -> String {
    field(cluster, namespace, name, "{.status.encryptionStatus}").await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "requires moto from PyPI; .ci/run runs it"]
async fn moto_streams_are_encrypted_re_keyed_and_disabled() {
    let Some(moto) = Moto::start().await.expect("moto starts") else { return };
    let cluster = cluster().await;
    let namespace = fresh_namespace(cluster).await;
    let config = sdk(moto.url(), ACCESS_KEY);
    let (firehose, kinesis, kms) = (
        aws_sdk_firehose::Client::new(&config),
        aws_sdk_kinesis::Client::new(&config),
        aws_sdk_kms::Client::new(&config),
    );
    let destination = ExtendedS3DestinationConfiguration::builder()
        .role_arn(format!("arn:aws:iam::{ACCOUNT}:role/firehose"))
        .bucket_arn("arn:aws:s3:::orders")
        .compression_format(CompressionFormat::Gzip)
        .build()
        .expect("a destination");
    let create = firehose
        .create_delivery_stream()
        .delivery_stream_name("orders")
        .extended_s3_destination_configuration(destination);
    Box::pin(create.send()).await.expect("a Firehose stream");
    kinesis.create_stream().stream_name("clicks").shard_count(1).send().await.expect("a Kinesis stream");
    let mut keys = Vec::new();
    for _ in 0..2 {
        keys.push(
            kms.create_key()
                .send()
                .await
                .expect("a key")
                .key_metadata
                .expect("its metadata")
                .arn
                .expect("its ARN"),
        );
    }
    kms.create_alias().alias_name("alias/orders").target_key_id(&keys[0]).send().await.expect("an alias");

    let url = moto.url();
    let policy =
        StreamEncryptionPolicySpec { allow_disable: true, ..StreamEncryptionPolicySpec::own_account() };
    let policy = serde_json::to_string(&policy).expect("JSON");
    let environment = [("AWS_ENDPOINT_URL", url), ("DEFAULT_POLICY", policy.as_str())];
    let _operator = OperatorProcess::start(&operators_kubeconfig(cluster).await, &namespace, &environment);
    let clicks = format!("arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/clicks");
    let by_name = json!({"service": "Firehose", "name": "orders"});
    let alias = json!({"type": "CUSTOMER_MANAGED_CMK", "alias": "alias/orders"});
    apply(cluster, &namespace, "orders", &json!({"stream": by_name, "key": alias})).await;
    apply(
        cluster,
        &namespace,
        "clicks",
        &json!({"stream": {"arn": clicks}, "key": {"type": "CUSTOMER_MANAGED_CMK", "arn": keys[0]}}),
    )
    .await;
    apply(cluster, &namespace, "nobody", &json!({"stream": {"service": "Firehose", "name": "nobody"}})).await;
    for name in ["orders", "clicks"] {
        until_it_says(cluster, &namespace, name, "Encrypted").await;
        assert_eq!(field(cluster, &namespace, name, "{.status.activeKey.arn}").await, keys[0], "{name}");
        assert_eq!(field(cluster, &namespace, name, "{.status.calls.used}").await, "1", "{name}");
    }
    until_it_says(cluster, &namespace, "nobody", "StreamNotFound").await;

    for name in ["orders", "clicks"] {
        let re_key =
            json!({"spec": {"key": {"type": "CUSTOMER_MANAGED_CMK", "arn": keys[1], "alias": null}}});
        let patch = ["patch", "strenc", name, "-n", &namespace, "--type=merge", "-p", &re_key.to_string()];
        cluster.kubectl(&patch).await.expect("the key is changed");
        let new_key = async || field(cluster, &namespace, name, "{.status.activeKey.arn}").await == keys[1];
        eventually("the new key is active", new_key).await;
        until_it_says(cluster, &namespace, name, "Encrypted").await;
    }
    for name in ["orders", "clicks"] {
        let off = json!({"spec": {"encryption": "Disabled"}});
        let patch = ["patch", "strenc", name, "-n", &namespace, "--type=merge", "-p", &off.to_string()];
        cluster.kubectl(&patch).await.expect("encryption is disabled");
        until_it_says(cluster, &namespace, name, "EncryptionDisabled").await;
        assert_eq!(encryption_status(cluster, &namespace, name).await, "DISABLED", "{name}");
    }

    // moto's KMS has key states: with a disabled key the operator waits and makes no call.
    let id = keys[1].rsplit('/').next().expect("an id");
    kms.disable_key().key_id(id).send().await.expect("the key is disabled");
    let again = json!({"spec": {"encryption": "Enabled"}});
    let patch = ["patch", "strenc", "orders", "-n", &namespace, "--type=merge", "-p", &again.to_string()];
    cluster.kubectl(&patch).await.expect("encryption is requested");
    until_it_says(cluster, &namespace, "orders", "KeyDisabled").await;
    assert_eq!(field(cluster, &namespace, "orders", "{.status.calls.used}").await, "3");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "requires moto from PyPI and kinesis-local from npm; .ci/run runs it"]
async fn updating_kinesis_local_stream_is_polled_until_encrypted() {
    let Some(kinesis_local) =
        KinesisLocal::start(Duration::from_secs(3)).await.expect("kinesis-local starts")
    else {
        return;
    };
    // kinesis-local has neither STS nor KMS; moto provides them.
    let Some(moto) = Moto::start().await.expect("moto starts") else { return };
    let cluster = cluster().await;
    let namespace = fresh_namespace(cluster).await;
    let kinesis = aws_sdk_kinesis::Client::new(&sdk(kinesis_local.url(), ACCESS_KEY));
    kinesis.create_stream().stream_name("clicks").shard_count(1).send().await.expect("a stream");
    let key =
        aws_sdk_kms::Client::new(&sdk(moto.url(), ACCESS_KEY)).create_key().send().await.expect("a key");
    let key = key.key_metadata.expect("its metadata").arn.expect("its ARN");

    let (aws, own) = (moto.url(), kinesis_local.url());
    let environment = [("AWS_ENDPOINT_URL", aws), ("AWS_ENDPOINT_URL_KINESIS", own)];
    let _operator = OperatorProcess::start(&operators_kubeconfig(cluster).await, &namespace, &environment);
    let clicks = json!({"arn": format!("arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/clicks")});
    apply(
        cluster,
        &namespace,
        "clicks",
        &json!({"stream": clicks, "key": {"type": "CUSTOMER_MANAGED_CMK", "arn": key}}),
    )
    .await;
    let enabling = async || encryption_status(cluster, &namespace, "clicks").await == "ENABLING";
    eventually("it is being enabled", enabling).await;
    until_it_says(cluster, &namespace, "clicks", "Encrypted").await;
    assert_eq!(field(cluster, &namespace, "clicks", "{.status.activeKey.arn}").await, key);
    assert_eq!(field(cluster, &namespace, "clicks", "{.status.calls.used}").await, "1");
}
