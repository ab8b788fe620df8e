//! A plan has the result of the apply that follows, on a real API server, and promises nothing where it could not read.

use serde_json::{Value, json};
use simulated_aws::{Clock, SimulatedAws, samples};

use super::Shell;
use crate::harness::own_cluster;
use crate::process::own_account;

/// A resource for a plaintext stream of the samples.
fn clicks(metadata: &Value, spec: &Value) -> Value {
    let mut object = json!({"apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
        "metadata": {"name": "clicks", "namespace": "data"},
        "spec": {"stream": {"service": "Firehose", "name": "clicks"}, "key": {"type": "AWS_OWNED_CMK"}}});
    for (path, more) in [("metadata", metadata), ("spec", spec)] {
        object[path].as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
    }
    object
}

struct Plans<'a> {
    shell: &'a Shell,
    policy: String,
}

impl Plans<'_> {
    /// Plans objects, and returns the exit code, the rows, and the errors.
    async fn run(&self, objects: &[Value], flags: &str) -> (i32, Value, String) {
        self.write(objects);
        let plan = format!("kubectl streamencryption plan -f plan.yaml --region eu-west-1 -o json {flags}");
        let (code, output, errors) = self.shell.run(&plan).await;
        let rows = serde_json::from_str(&output).unwrap_or(Value::Null);
        (code, rows, errors)
    }

    /// Plans one object under the default policy.
    async fn row(&self, object: &Value) -> Value {
        let flags = format!("--default-policy '{}'", self.policy);
        let (code, rows, errors) = self.run(std::slice::from_ref(object), &flags).await;
        assert_eq!(code, 0, "{rows}{errors}");
        rows[0].clone()
    }

    fn write(&self, objects: &[Value]) {
        let text: Vec<String> = objects.iter().map(Value::to_string).collect();
        std::fs::write(self.shell.folder().join("plan.yaml"), text.join("\n---\n")).expect("a file");
    }

    async fn apply(&self, object: &Value, flags: &str) {
        self.write(std::slice::from_ref(object));
        self.shell.output(&format!("kubectl apply -f plan.yaml {flags}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_is_what_the_apply_would_do() {
    let (cluster, _account) = own_cluster(&["data"]).await;
    let aws = SimulatedAws::start(samples::world(), Clock::Real).await.expect("a simulated AWS");
    let shell = Shell::new(&cluster, &aws);
    let plans = Plans { shell: &shell, policy: own_account() };
    let none = json!({});
    let plain = clicks(&none, &none);
    let row = plans.row(&plain).await;
    assert_eq!(
        (&row["change"], &row["call"]),
        (&json!("Created"), &json!("StartDeliveryStreamEncryption")),
        "{row}"
    );

    // kubectl removes what was in the file that it applied last.
    let suspend = json!({"annotations": {"streamencryption.dev/suspend": "true"}});
    plans.apply(&clicks(&suspend, &none), "").await;
    let row = plans.row(&plain).await;
    assert_eq!(
        (&row["change"], &row["call"]),
        (&json!("Changed"), &json!("StartDeliveryStreamEncryption")),
        "{row}"
    );

    // It keeps what others have set.
    shell.output("kubectl patch strenc clicks -n data --type=merge -p '{\"spec\":{\"suspend\":true}}'").await;
    let row = plans.row(&plain).await;
    assert_eq!((&row["reason"], &row["call"]), (&json!("Suspended"), &Value::Null), "{row}");
    assert!(row["note"].as_str().is_some_and(|note| note.contains("spec.suspend")), "{row}");

    // A server-side apply removes what its own field manager has set.
    shell.output("kubectl delete strenc clicks -n data").await;
    plans.apply(&clicks(&none, &json!({"suspend": true})), "--server-side --field-manager flux").await;
    let row = plans.row(&plain).await;
    assert_eq!(row["call"], "StartDeliveryStreamEncryption", "{row}");
    assert!(row["note"].as_str().is_some_and(|note| note.contains("flux")), "{row}");

    unknown_field(&plans).await;
    shell.output("kubectl delete strenc clicks -n data").await;
    unknown_field(&plans).await;
    policies(&plans, &plain).await;
    namespaces(&plans).await;
    other_account(&plans).await;
    unread(&plans, &plain).await;
    unwatched(&plans, &plain).await;
    let stored = shell.json("kubectl get strenc,strencpol,ns -A -o json").await;
    let items = stored["items"].as_array().expect("items");
    assert!(
        items
            .iter()
            .all(|item| item["metadata"]["name"] != "new" && item["kind"] != "StreamEncryptionPolicy")
    );
    let calls = aws.world().calls().iter().filter(|call| call.operation.starts_with("Start")).count();
    assert_eq!(calls, 0, "a plan calls nothing");
}

/// A field that the API server does not know is refused, as `kubectl apply` refuses it.
async fn unknown_field(plans: &Plans<'_>) {
    let row = plans.row(&clicks(&json!({}), &json!({"mod": "Enforce"}))).await;
    let is_named = row["message"].as_str().is_some_and(|words| words.contains("spec.mod"));
    assert!(row["refused"] == true && is_named, "{row}");
}

/// A policy that allows more than it seems to, or that the API server refuses, is an error.
async fn policies(plans: &Plans<'_>, plain: &Value) {
    let policy = |spec: Value| {
        json!({"apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryptionPolicy",
            "metadata": {"name": "team"}, "spec": spec})
    };
    let keys: Vec<String> =
        (0..101).map(|key| format!("arn:aws:kms:eu-west-1:111122223333:alias/{key}")).collect();
    for (spec, words) in [
        (json!({"namespaceSelector": {"matchlabels": {"a": "b"}}, "streams": [], "keys": []}), "matchlabels"),
        (
            json!({"namespaceSelector": {}, "streams": ["arn:*:firehose:*:own:deliverystream/*"], "keys": keys}),
            "100",
        ),
    ] {
        let (code, _, errors) = plans.run(&[policy(spec), plain.clone()], "").await;
        assert!(code == 1 && errors.contains(words), "{code}: {errors}");
    }
}

/// A namespace of the files has the labels that it would have once it is applied, and need not exist.
async fn namespaces(plans: &Plans<'_>) {
    for name in ["data", "new"] {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let policy = json!({"apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryptionPolicy",
            "metadata": {"name": "team"}, "spec": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
                "streams": ["arn:*:firehose:*:own:deliverystream/*"], "keys": ["AWS_OWNED_CMK"]}});
        let object = clicks(&json!({"namespace": name, "name": "other"}), &json!({}));
        let (code, rows, errors) = plans.run(&[namespace, policy, object], "--fail-on refused").await;
        assert_eq!(code, 0, "{name}: {rows}{errors}");
        assert_eq!(rows[0]["call"], "StartDeliveryStreamEncryption", "{name}: {rows}");
        let is_unchecked = rows[0]["note"].as_str().is_some_and(|note| note.contains("has not checked"));
        assert_eq!(is_unchecked, name == "new", "{rows}");
    }
}

/// Credentials of another account than the stream's or the role's would describe the stream of that name in their own account.
async fn other_account(plans: &Plans<'_>) {
    let stream = "arn:aws:firehose:eu-west-1:444455556666:deliverystream/clicks";
    let mut policy = json!({"apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryptionPolicy",
        "metadata": {"name": "spoke"}, "spec": {"namespaceSelector": {}, "streams": [stream], "keys": ["AWS_OWNED_CMK"]}});
    let object = clicks(&json!({"name": "spoke"}), &json!({"stream": {"arn": stream}}));
    for (role, flags, words) in [
        (
            None,
            "--fail-on waiting",
            "the stream is of account 444455556666 and no policy names a role for it",
        ),
        (
            Some("arn:aws:iam::444455556666:role/stream-encryption"),
            "--own-credentials",
            "use credentials of account 444455556666",
        ),
    ] {
        if let Some(arn) = role {
            policy["spec"]["role"] = json!({"arn": arn});
        }
        let (code, rows, errors) = plans.run(&[policy.clone(), object.clone()], flags).await;
        assert_eq!((code, &rows[0]["unplanned"]), (1, &json!(true)), "{rows}{errors}");
        let message = rows[0]["message"].as_str().unwrap_or_default();
        assert!(message.contains(words), "{rows}");
    }
}

/// Without AWS, there is no plan.
async fn unread(plans: &Plans<'_>, plain: &Value) {
    let flags = format!("--default-policy '{}' --fail-on calls,waiting,refused", plans.policy);
    // Nothing listens there.
    let nowhere = "--aws-endpoint-url http://127.0.0.1:9";
    let (code, rows, errors) = plans.run(std::slice::from_ref(plain), &format!("{flags} {nowhere}")).await;
    assert_eq!((code, &rows[0]["unplanned"]), (1, &json!(true)), "{rows}{errors}");
    assert!(errors.contains("1 of 1 objects could not be planned"), "{errors}");
}

/// The operator does nothing about a resource that it does not watch.
async fn unwatched(plans: &Plans<'_>, plain: &Value) {
    let create = "kubectl create deployment one -n data --image operator --dry-run=client -o yaml \
        | kubectl label --local -f - app.kubernetes.io/part-of=stream-encryption-operator -o yaml \
        | kubectl set env --local -f - WATCH_NAMESPACE=web -o yaml | kubectl create -f -";
    plans.shell.output(create).await;
    let flags = format!("--default-policy '{}' --operator-namespace data --fail-on refused", plans.policy);
    let (code, rows, errors) = plans.run(std::slice::from_ref(plain), &flags).await;
    assert_eq!((code, &rows[0]["call"]), (3, &Value::Null), "{rows}{errors}");
    let message = rows[0]["message"].as_str().unwrap_or_default();
    assert!(message.contains("does not watch namespace data"), "{rows}");
}

/// A plan has the API server's words, and those of policies that are in the same files.
pub(super) async fn refusals(shell: &Shell) {
    let object = |kind: &str, metadata: &str, spec: &str| {
        format!(
            "{{apiVersion: streamencryption.dev/v1alpha1, kind: {kind}, metadata: {metadata}, spec: {spec}}}\n---\n"
        )
    };
    let text = [
        object("StreamEncryption", "{name: a, namespace: data}", "{stream: {service: Kinesis, name: a/b}}"),
        object("StreamEncryption", "{name: b, namespace: nowhere}", "{stream: {service: Kinesis, name: b}}"),
        object(
            "StreamEncryption",
            "{name: c, namespace: data}",
            "{stream: {service: Kinesis, name: telemetry}}",
        ),
        object(
            "StreamEncryption",
            "{name: d, namespace: data}",
            "{stream: {arn: 'arn:aws:kinesis:eu-west-1:444455556666:stream/other'}}",
        ),
    ];
    std::fs::write(shell.folder().join("refused.yaml"), text.concat()).expect("a file");
    let plan = shell.json("kubectl streamencryption plan -f refused.yaml -o json").await;
    let rows = plan.as_array().expect("rows");
    let message = |at: usize| rows[at]["message"].as_str().expect("a message").to_owned();
    assert!(message(0).contains("must contain only"), "{plan}");
    assert!(message(1).contains("namespaces \"nowhere\" not found"), "{plan}");
    assert_eq!(rows[2]["reason"], "StreamAlreadyManaged", "{plan}");
    assert_eq!(rows[3]["reason"], "NotPermitted", "{plan}");
    assert!(rows.iter().all(|row| row["refused"] == true && row["call"].is_null()), "{plan}");

    // Only one of two resources can manage a stream.
    let both = ["one", "two"].map(|name| {
        let metadata = format!("{{name: {name}, namespace: data}}");
        object("StreamEncryption", &metadata, "{stream: {service: Firehose, name: shared}}")
    });
    std::fs::write(shell.folder().join("both.yaml"), both.concat()).expect("a file");
    std::fs::write(shell.folder().join("by-arn.yaml"), &text[3]).expect("a file");
    let (code, output, errors) = shell.run("kubectl streamencryption plan -f both.yaml").await;
    assert_eq!(code, 0, "{output}{errors}");
    assert!(errors.contains("deliverystream/shared: data/one, data/two. Each is planned"), "{errors}");

    // The Deployment has no region, as on EKS with an empty aws.region.
    let in_environment = "planned in eu-west-1, the AWS_REGION of your environment";
    assert!(errors.contains(in_environment), "{errors}");
    let (_, _, errors) = shell.run("kubectl streamencryption plan -f both.yaml --region eu-west-1").await;
    assert!(!errors.contains(in_environment), "{errors}");
    let (_, _, errors) = shell.run("kubectl streamencryption plan -f by-arn.yaml").await;
    assert!(!errors.contains(in_environment), "{errors}");

    // The default policy is that of the only Deployment of the operator. Shards have several.
    let plan = "kubectl streamencryption plan -f both.yaml --region eu-west-1 --operator-namespace data";
    for deployments in 0..=2 {
        if deployments > 0 {
            let create = format!(
                "kubectl create deployment shard-{deployments} -n data --image operator --dry-run=client -o yaml \
                 | kubectl label --local -f - app.kubernetes.io/part-of=stream-encryption-operator -o yaml \
                 | kubectl create -f -"
            );
            shell.output(&create).await;
        }
        let (code, output, errors) = shell.run(plan).await;
        assert_eq!(code, 0, "{output}{errors}");
        let is_unknown =
            errors.contains("Namespace data has no Deployment of the operator, or several (shards)");
        assert_eq!(is_unknown, deployments != 1, "{deployments}: {errors}");
        // Without a Deployment, this is probably not the namespace of the ledgers.
        let is_unread = errors.contains("namespace data has no StreamLedger");
        assert_eq!(is_unread, deployments == 0, "{deployments}: {errors}");
    }
    shell
        .output("kubectl delete deployment -n data -l app.kubernetes.io/part-of=stream-encryption-operator")
        .await;

    // The policy that would allow it is in the same files.
    let policy = object(
        "StreamEncryptionPolicy",
        "{name: other}",
        "{namespaceSelector: {}, streams: ['arn:aws:kinesis:eu-west-1:444455556666:stream/*'], keys: [AWS_OWNED_CMK]}",
    );
    std::fs::write(shell.folder().join("allowed.yaml"), policy + &text[3]).expect("a file");
    let plan = shell.json("kubectl streamencryption plan -f allowed.yaml -o json").await;
    assert_ne!(plan[0]["reason"], "NotPermitted", "{plan}");
}
