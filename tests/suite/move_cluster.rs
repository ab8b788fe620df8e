//! The move of an operator to another cluster, as `docs/install.md` describes it: two real API servers and one
//! simulated AWS.

use serde_json::json;
use simulated_aws::world::{Calls as _, PlantedKey};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use test_cluster::TestCluster;

use crate::harness::{LEDGERS, firehose, own_cluster};
use crate::process::{OperatorProcess, START, apply, eventually, field, until_it_says, world};
use crate::readme::{blocks, run_in};

const INSTALL: &str = include_str!("../../docs/install.md");
const STOP: &str = "StopDeliveryStreamEncryption";

/// Runs the command of the page in this language, in the folder of the old cluster, as the administrator of `cluster`.
async fn run(cluster: &TestCluster, folder: &std::path::Path, language: &str) {
    let [command] = blocks(INSTALL, language)[..] else { panic!("one block {language}") };
    run_in(folder, cluster, command).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moved_ledgers_keep_calls_and_stream_in_new_cluster() {
    let ((old, account_in_old), (new, account_in_new)) =
        tokio::join!(own_cluster(&["data"]), own_cluster(&["data"]));
    let folder = old.kubeconfig().parent().expect("a folder");
    let aws = world().await;
    let policy =
        StreamEncryptionPolicySpec { allow_disable: true, ..StreamEncryptionPolicySpec::own_account() };
    let policy = serde_json::to_string(&policy).expect("JSON");
    let url = aws.url();
    let environment =
        [("AWS_ENDPOINT_URL", url.as_str()), ("POD_NAMESPACE", LEDGERS), ("DEFAULT_POLICY", &policy)];
    let calls = |operation: &str| aws.world().calls().count(operation, "orders");
    let spec = |deletion_policy: &str, key: &str| {
        let key = json!({"type": "CUSTOMER_MANAGED_CMK", "arn": key});
        json!({"stream": {"arn": firehose("orders")}, "key": key, "deletionPolicy": deletion_policy})
    };
    let [first, second] = [(); 2].map(|()| aws.world().plant_key(PlantedKey::default()));

    let operator = OperatorProcess::start(&account_in_old, "data", &environment);
    apply(&old, "data", "orders", &spec("Disable", &first)).await;
    until_it_says(&old, "data", "orders", "Encrypted").await;
    let finalizers = async || field(&old, "data", "orders", "{.metadata.finalizers}").await;
    assert!(finalizers().await.contains("disable-encryption"));
    apply(&old, "data", "orders", &spec("Retain", &first)).await;
    eventually("no finalizer is left", async || finalizers().await.is_empty()).await;
    operator.kill();
    run(&old, folder, "sh old-cluster").await;

    run(&new, folder, "sh new-cluster").await;
    apply(&new, "data", "orders", &spec("Retain", &first)).await;
    let _operator = OperatorProcess::start(&account_in_new, "data", &environment);
    until_it_says(&new, "data", "orders", "Encrypted").await;
    let used = async || field(&new, "data", "orders", "{.status.calls.used}").await;
    assert_eq!((used().await.as_str(), calls(START)), ("1", 1), "the call of the old cluster counts");

    apply(&new, "data", "orders", &spec("Retain", &second)).await;
    let is_active = async || field(&new, "data", "orders", "{.status.activeKey.arn}").await == second;
    eventually("the new operator changes the key", is_active).await;
    assert_eq!((used().await.as_str(), calls(START)), ("2", 2));

    old.kubectl(&["delete", "strenc", "orders", "-n", "data", "--timeout=10s"]).await.expect("it is deleted");
    assert_eq!(calls(STOP), 0, "the stream stays encrypted");
}
