//! The optional admission policy: specs that `config/admission` rejects at `kubectl apply`, on a real API
//! server, compared with the operator's own verdict, which comes from namespaces without that policy. The
//! policy selects only namespaces that a test has labelled, and the operator never needs it.

use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use simulated_aws::world::{PlantedKey, PlantedStream};
use stream_encryption_api::FINALIZER;
use stream_encryption_api::condition::ConditionType;
use stream_encryption_api::stream_encryption::StreamEncryption;
use test_cluster::TestCluster;

use crate::harness::{
    ACCOUNT, Harness, REGION, client, cluster, firehose, manifest, message, operators_kubeconfig, reason,
    truth,
};
use crate::policies::{ELSEWHERE, allow, asked_of_aws, policy, team};
use crate::process::eventually;
use crate::readme::{blocks, run};
use crate::schema::{self, create};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/admission");
const PAGE: &str = include_str!("../../docs/policies.md");
/// Text before the policy's own message in the API server's response.
const DENIED: &str = "denied request: ";
/// Reasons that the operator gives for specs that the API server can check, too.
const REFUSED: [&str; 3] = ["NotPermitted", "DisableNotPermitted", "KeyInOtherRegion"];

/// Values for the two variables of the shipped policy.
#[derive(Clone, Copy)]
struct Says {
    accounts: &'static str,
    allow_disable: &'static str,
}

/// One account, and disabling is not allowed.
const STRICT: Says = Says { accounts: "['111122223333']", allow_disable: "false" };

/// Installs the shipped objects with these variables for the namespace of `harness` alone. Returns once the API
/// server applies them, which takes a moment.
async fn guard(harness: &Harness, says: Says) {
    let shipped = |file: &str| -> Value {
        serde_saphyr::from_str(&std::fs::read_to_string(format!("{FOLDER}/{file}")).expect(file))
            .expect("YAML")
    };
    let (mut policy, mut binding) = (shipped("policy.yaml"), shipped("binding.yaml"));
    let name = &harness.namespace;
    policy["metadata"]["name"] = json!(name);
    let variables = policy["spec"]["variables"].as_array_mut().expect("variables");
    for (variable, expression) in [("accounts", says.accounts), ("allowDisable", says.allow_disable)] {
        let found = variables.iter_mut().find(|one| one["name"] == variable);
        found.expect("the variable")["expression"] = json!(expression);
    }
    binding["metadata"]["name"] = json!(name);
    binding["spec"]["policyName"] = json!(name);
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
    binding["spec"]["matchResources"] = json!({"namespaceSelector": selector});
    for object in [policy, binding] {
        harness.cluster.apply(&object.to_string()).await.expect("an admission policy");
    }
    until_in_force(&harness.administrator, name).await;
}

/// Waits until a key in another region is rejected, which happens with any variables.
async fn until_in_force(user: &Client, namespace: &str) {
    let spec = json!({"stream": {"arn": firehose("probe")}, "key": customer(&key_arn("us-east-1", ACCOUNT))});
    let refuses = async || would_create(user, namespace, "probe", &spec).await.is_err();
    eventually("the admission policy is in force", refuses).await;
}

/// Creates a resource with a server-side dry run. Returns the API server's message if it is rejected.
async fn would_create(user: &Client, namespace: &str, name: &str, spec: &Value) -> Result<(), String> {
    let path = format!("/apis/streamencryption.dev/v1alpha1/namespaces/{namespace}/streamencryptions");
    create(user, &path, &manifest(namespace, name, spec), true).await.map(|_| ())
}

/// Applies a merge patch to a stored resource. Returns the API server's message if it is rejected.
async fn change(user: &Client, harness: &Harness, name: &str, patch: &Value) -> Result<(), String> {
    let api: Api<StreamEncryption> = Api::namespaced(user.clone(), &harness.namespace);
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ()).map_err(schema::message)
}

fn key_arn(region: &str, account: &str) -> String {
    format!("arn:aws:kms:{region}:{account}:key/1234abcd-12ab-34cd-56ef-1234567890ab")
}

fn customer(arn: &str) -> Value {
    json!({"type": "CUSTOMER_MANAGED_CMK", "arn": arn})
}

/// The `StreamEncryptionPolicy` that corresponds to the variables of [`guard`]: streams and keys of one
/// account, in all regions.
fn corresponding(harness: &Harness, allow_disable: bool) -> Value {
    let streams = ["arn:*:firehose:*:111122223333:deliverystream/*", "arn:*:kinesis:*:111122223333:stream/*"];
    let keys = ["AWS_OWNED_CMK", "arn:*:kms:*:111122223333:key/*", "arn:*:kms:*:111122223333:alias/*"];
    let mut policy = policy(harness, &streams, &keys);
    policy["spec"]["allowDisable"] = json!(allow_disable);
    policy
}

/// Every combination of fields that the policies check, each with a description and a stream of its own,
/// named after `name`.
fn all_specs(own_key: &str, name: &str) -> Vec<(String, Value)> {
    let streams = |name: &str| {
        [
            ("a stream", json!({"arn": firehose(name)})),
            ("a stream of another account", json!({"arn": firehose(name).replace(ACCOUNT, ELSEWHERE)})),
            ("a stream by its name", json!({"service": "Firehose", "name": name})),
            ("a stream by name and region", json!({"service": "Firehose", "name": name, "region": REGION})),
        ]
    };
    let keys = [
        ("any key", Value::Null),
        ("the AWS-owned key", json!({"type": "AWS_OWNED_CMK"})),
        ("a key", customer(own_key)),
        ("a key of another account", customer(&key_arn(REGION, ELSEWHERE))),
        ("a key of another region", customer(&key_arn("us-east-1", ACCOUNT))),
        ("an alias", json!({"type": "CUSTOMER_MANAGED_CMK", "alias": "alias/orders"})),
    ];
    let wishes = [("Enabled", "Retain"), ("Disabled", "Retain"), ("Enabled", "Disable")];
    let mut all = Vec::new();
    for stream in 0..streams("").len() {
        for (key, reference) in &keys {
            for (encryption, deletion_policy) in wishes {
                let (what, stream) = streams(&format!("{name}-{}", all.len()))[stream].clone();
                let mut spec =
                    json!({"stream": stream, "encryption": encryption, "deletionPolicy": deletion_policy});
                if !reference.is_null() {
                    spec["key"] = reference.clone();
                }
                all.push((format!("{what}, {key}, {encryption}, {deletion_policy}"), spec));
            }
        }
    }
    all
}

/// T11. The operator's own verdict comes from a namespace without the admission policy.
#[tokio::test]
async fn admission_and_operator_reject_same_specs_with_same_message() {
    for (allow_disable, says, wanted) in
        [(false, STRICT, 60), (true, Says { allow_disable: "true", ..STRICT }, 30)]
    {
        let operators = team().await;
        let guarded = operators.beside().await;
        allow(&operators, &corresponding(&operators, allow_disable)).await;
        guard(&guarded, says).await;
        let key = operators.plant_key();
        operators.aws.world().plant_alias("alias/orders", &key);
        let mut wrong = Vec::new();
        let mut refusals = 0;
        for (number, (what, spec)) in all_specs(&key, "all").iter().enumerate() {
            let stream = PlantedStream { name: format!("all-{number}"), ..PlantedStream::default() };
            operators.aws.world().plant_stream(stream);
            let name = format!("all-{number}");
            let before = asked_of_aws(&operators).len();
            operators.apply(&name, spec).await;
            operators.until(&name, |status| !status.conditions.is_empty()).await;
            let status = operators.status(&name).await;
            let verdict = REFUSED.contains(&reason(&status).as_str()).then(|| message(&status));
            let at_once = would_create(&guarded.tenant, &guarded.namespace, &name, spec).await.err();
            assert_eq!(
                would_create(&guarded.administrator, &guarded.namespace, &name, spec).await.err(),
                at_once,
                "{what}"
            );
            let says = at_once.as_deref().and_then(|words| words.split_once(DENIED)).map(|(_, says)| says);
            // The message follows the field.
            let says = says.and_then(|says| says.split_once(": ")).map(|(_, says)| says.to_owned());
            // A stream given by its name alone is in the operator's own region, which only the operator
            // knows.
            let region_known = !spec["stream"]["arn"].is_null() || !spec["stream"]["region"].is_null();
            let wanted = verdict.clone().filter(|_| region_known || reason(&status) != "KeyInOtherRegion");
            if says != wanted || at_once.is_some() != wanted.is_some() {
                wrong.push(format!("{what}\n    at once:      {at_once:?}\n    the operator: {verdict:?}"));
            }
            if verdict.is_some() {
                refusals += 1;
                assert_eq!(truth(&status, ConditionType::Stalled), "True", "{what}");
                // Without a permission the operator sends no request. With one, it may describe before it
                // refuses the rest.
                let asked = asked_of_aws(&operators).split_off(before);
                let looks = |call: &&String| {
                    let own = [name.as_str(), key.as_str(), "alias/orders"];
                    reason(&status) != "NotPermitted"
                        && call.starts_with("Describe")
                        && own.iter().any(|own| call.ends_with(own))
                };
                assert_eq!(asked.iter().find(|call| !looks(call)), None, "{what}");
            }
        }
        assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
        assert_eq!(refusals, wanted, "allowDisable: {allow_disable}");
    }
}

/// With empty variables the policy knows no accounts. An expression that fails must block no resource.
#[tokio::test]
async fn no_account_or_failing_expression_blocks_no_resource() {
    let elsewhere = firehose("orders").replace(ACCOUNT, ELSEWHERE);
    let spec = json!({"stream": {"arn": elsewhere}, "key": customer(&key_arn(REGION, ELSEWHERE))});
    for accounts in ["[]", "[string(1 / (1 - int('1')))]"] {
        let harness = team().await;
        guard(&harness, Says { accounts, ..STRICT }).await;
        assert_eq!(
            would_create(&harness.tenant, &harness.namespace, "orders", &spec).await,
            Ok(()),
            "{accounts}"
        );
    }
}

/// Each of these resources was stored before the admission policy was installed.
#[tokio::test]
async fn noncompliant_older_resource_can_be_edited_and_deleted() {
    let harness = team().await;
    let user = harness.tenant.clone();
    let operator = client(&operators_kubeconfig(harness.cluster).await).await;
    let older = [
        ("stream", json!({"stream": {"arn": firehose("orders").replace(ACCOUNT, ELSEWHERE)}})),
        ("key", json!({"stream": {"arn": firehose("key")}, "key": customer(&key_arn(REGION, ELSEWHERE))})),
        (
            "region",
            json!({"stream": {"arn": firehose("region")}, "key": customer(&key_arn("us-east-1", ACCOUNT))}),
        ),
        ("off", json!({"stream": {"arn": firehose("off")}, "encryption": "Disabled"})),
        ("on-deletion", json!({"stream": {"arn": firehose("on-deletion")}, "deletionPolicy": "Disable"})),
    ];
    for (name, spec) in &older {
        harness.apply(name, spec).await;
    }
    guard(&harness, STRICT).await;
    for (name, spec) in &older {
        assert!(
            would_create(&user, &harness.namespace, "new", spec).await.is_err(),
            "{name}: a new one is refused"
        );
        harness.apply(name, spec).await;
        for (who, what, patch) in [
            (&user, "a label", json!({"metadata": {"labels": {"team": "data"}}})),
            (&user, "another field", json!({"spec": {"mode": "Observe", "deletionPolicy": "Retain"}})),
            (&user, "a field that pauses", json!({"spec": {"suspend": true}})),
            (&user, "and goes on", json!({"spec": {"suspend": false}})),
            (&operator, "the operator's finalizer", json!({"metadata": {"finalizers": [FINALIZER]}})),
        ] {
            // The resource with deletionPolicy: Disable keeps it; mode: Observe would conflict with it.
            let kept = *name == "on-deletion" && what == "another field";
            let patch = if kept { json!({"spec": {"verification": "PutRecord"}}) } else { patch };
            assert_eq!(change(who, &harness, name, &patch).await, Ok(()), "{name}: {what}");
        }
        // The operator removes its finalizer where the spec needs none, and writes the status.
        harness.until(name, |status| !status.conditions.is_empty()).await;
    }
    assert_eq!(
        asked_of_aws(&harness),
        Vec::<String>::new(),
        "without a policy of its own the operator refuses them too"
    );

    let delete = async |name: &str| {
        let api: Api<StreamEncryption> = Api::namespaced(user.clone(), &harness.namespace);
        change(&operator, &harness, name, &json!({"metadata": {"finalizers": [FINALIZER]}}))
            .await
            .expect("the finalizer is set");
        api.delete(name, &DeleteParams::default()).await.expect("it is deleted");
        let held = harness.resource(name).await.expect("the resource still exists");
        assert!(held.metadata.deletion_timestamp.is_some(), "{name}");
        change(&operator, &harness, name, &json!({"metadata": {"finalizers": null}}))
            .await
            .expect("the finalizer is removed");
        assert!(harness.resource(name).await.is_none(), "{name} is gone");
    };
    for (name, _) in &older {
        delete(name).await;
    }
}

#[tokio::test]
async fn update_that_adds_a_violation_is_rejected() {
    let harness = team().await;
    let user = harness.tenant.clone();
    let with_key = |region, account| json!({"spec": {"key": customer(&key_arn(region, account))}});
    harness.apply("orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    harness.apply("off", &json!({
        "stream": {"arn": firehose("off")}, "encryption": "Disabled", "key": customer(&key_arn(REGION, ELSEWHERE)),
    })).await;
    guard(&harness, STRICT).await;
    let turned_off = "No StreamEncryptionPolicy allows this namespace to disable encryption of this stream. Set encryption: Enabled and deletionPolicy: Retain, or ask an administrator to allow it.";
    let without_effect = "so the operator leaves the stream as it is: it neither encrypts the stream now nor disables encryption on deletion. Set deletionPolicy: Retain, or ask an administrator to allow it.";
    let other_key = "spec.key.arn: No StreamEncryptionPolicy allows this namespace to use this key for this stream. Set another key in spec.key, or ask an administrator to allow this one.";
    for (name, what, patch, refusal) in [
        ("orders", "a key of another account", with_key(REGION, ELSEWHERE), Some(other_key)),
        (
            "orders",
            "a key of another region",
            with_key("us-east-1", ACCOUNT),
            Some("is not in eu-west-1. Set a key in the stream's region in spec.key."),
        ),
        ("orders", "a key", with_key(REGION, ACCOUNT), None),
        ("orders", "off", json!({"spec": {"encryption": "Disabled"}}), Some(turned_off)),
        ("orders", "off on deletion", json!({"spec": {"deletionPolicy": "Disable"}}), Some(without_effect)),
        ("off", "a key that is unused while encryption is disabled", with_key("us-east-1", ELSEWHERE), None),
        ("off", "on again, with that key", json!({"spec": {"encryption": "Enabled"}}), Some(other_key)),
        (
            "off",
            "on again, with a key",
            json!({"spec": {"encryption": "Enabled", "key": customer(&key_arn(REGION, ACCOUNT))}}),
            None,
        ),
        ("off", "off again", json!({"spec": {"encryption": "Disabled"}}), Some(turned_off)),
    ] {
        let said = change(&user, &harness, name, &patch).await.err();
        match refusal {
            None => assert_eq!(said, None, "{what}"),
            Some(refusal) => {
                assert!(said.as_ref().is_some_and(|said| said.contains(refusal)), "{what}: {said:?}");
            }
        }
    }
}

/// Keys of another account are accepted if the variables list that account.
#[tokio::test]
async fn listed_foreign_account_is_accepted() {
    let harness = team().await;
    let foreign = {
        let mut world = harness.aws.world();
        world.plant_stream(PlantedStream::default());
        world.plant_key(PlantedKey { account: ELSEWHERE.to_owned(), ..PlantedKey::default() })
    };
    let keys = ["arn:aws:kms:*:444455556666:key/*"];
    allow(&harness, &policy(&harness, &[&firehose("orders")], &keys)).await;
    guard(&harness, Says { accounts: "['111122223333', '444455556666']", ..STRICT }).await;
    harness.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "key": customer(&foreign)})).await;
    // Only AWS knows whether the other account lets the operator use the key.
    harness.until("orders", |status| !status.conditions.is_empty()).await;
    let said = reason(&harness.status("orders").await);
    assert!(!REFUSED.contains(&said.as_str()), "{said}");
}

/// On a cluster of its own, because the policy applies to all namespaces.
#[tokio::test]
async fn documented_command_installs_admission_policy() {
    cluster().await;
    let cluster = TestCluster::start().await.expect("a cluster");
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/config/crd");
    cluster.kubectl(&["apply", "--server-side", "-k", config]).await.expect("the definitions");
    let established = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"];
    cluster.kubectl(&established).await.expect("established");
    let commands = blocks(PAGE, "sh");
    assert!(!commands.is_empty());
    for command in commands {
        run(&cluster, command).await;
    }
    let user = client(cluster.kubeconfig()).await;
    until_in_force(&user, "default").await;
    let off = json!({"stream": {"arn": firehose("orders")}, "encryption": "Disabled"});
    let said = would_create(&user, "default", "orders", &off).await.expect_err("it is refused");
    assert!(said.contains("ValidatingAdmissionPolicy 'stream-encryption-operator' with binding"), "{said}");
    new_key_causes_a_warning(&cluster).await;
}

/// Returns the line that kubectl prints as a warning for this resource, if any. The API server accepts the
/// resource in either case.
async fn warning(cluster: &TestCluster, resource: &str, spec: &Value) -> Option<String> {
    let object = manifest("default", resource, spec).to_string();
    let applied = |strict: &'static str| {
        let object = object.clone();
        async move { cluster.kubectl_with_input(&["apply", strict, "-f", "-"], &object).await }
    };
    let error = applied("--warnings-as-errors=true").await.err().map(|error| format!("{error:#}"));
    applied("--warnings-as-errors=false").await.expect("the resource is accepted, with or without a warning");
    error.map(|said| {
        let line = said.find("Warning: ").and_then(|at| said[at..].lines().next());
        line.map(str::to_owned).unwrap_or(said)
    })
}

async fn new_key_causes_a_warning(cluster: &TestCluster) {
    let (one, other) = (customer(&key_arn(REGION, ACCOUNT)), customer(&key_arn(REGION, ELSEWHERE)));
    let alias = json!({"type": "CUSTOMER_MANAGED_CMK", "alias": "alias/orders"});
    let (orders, clicks) =
        (json!({"arn": firehose("orders")}), json!({"service": "Kinesis", "name": "clicks"}));
    let firehose = "spec.key: Its key policy is not verified: producers need kms:GenerateDataKey and kms:Decrypt on this key.";
    let kinesis = "spec.key: Its key policy is not verified: producers need kms:GenerateDataKey and consumers need kms:Decrypt on this key.";
    for (what, spec, wanted) in [
        ("no key", json!({"stream": orders}), None),
        ("an AWS-owned key", json!({"stream": orders, "key": {"type": "AWS_OWNED_CMK"}}), None),
        ("the first key of a customer", json!({"stream": orders, "key": one}), Some(firehose)),
        ("the same again, and another field", json!({"stream": orders, "key": one, "mode": "Observe"}), None),
        ("another key", json!({"stream": orders, "key": other}), Some(firehose)),
        ("a key by its alias", json!({"stream": clicks, "key": alias}), Some(kinesis)),
        ("the alias again", json!({"stream": clicks, "key": alias}), None),
    ] {
        let name = if spec["stream"] == clicks { "clicks" } else { "orders" };
        let said = warning(cluster, name, &spec).await;
        match wanted {
            None => assert_eq!(said, None, "{what}"),
            Some(words) => {
                let said = said.unwrap_or_else(|| panic!("{what}: no warning"));
                assert!(said.contains(words), "{what}: {said}");
                assert!(
                    name == "clicks" || PAGE.contains(&said),
                    "the page shows another warning than {said}"
                );
            }
        }
    }
}
