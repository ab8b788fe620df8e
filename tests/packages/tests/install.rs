//! Tests the ways to install: kustomize and `config/install.yaml` create the same objects as the chart, and
//! `docs/install.md` works as written.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use packages::objects::{NAMESPACE, RELEASE, by_name, only, parsed, word};
use packages::{CHART, kept, programs, text};
use serde_json::{Value, json};
use test_cluster::TestCluster;

use crate::documents::blocks;
use crate::stage::{beside_clone, chart, kustomize, kustomized, kustomized_beside_clone, would_take};

const ABOUT_INSTALL_YAML: &str = "# Everything that the operator needs in a cluster, and the operator: kubectl apply --server-side -f install.yaml
# Generated from config/default by UPDATE_PACKAGES=1 cargo test -p packages; see docs/install.md.
";

#[tokio::test(flavor = "multi_thread")]
async fn install_yaml_matches_config_default() {
    kept("config/install.yaml", &format!("{ABOUT_INSTALL_YAML}{}", kustomize("config/default").await));
}

#[tokio::test(flavor = "multi_thread")]
async fn config_default_matches_chart() {
    let mut charts = by_name(&chart(json!({})).await);
    charts
        .remove("Pod/stream-encryption-operator-test")
        .expect("the pod of `helm test`, which only Helm has");
    let mut ours = by_name(&kustomized("config/default").await);
    ours.remove("Namespace/stream-encryption-system")
        .expect("the namespace, which Helm creates by --create-namespace");
    assert_eq!(charts, ours);
}

#[tokio::test(flavor = "multi_thread")]
async fn config_without_operator_matches_default() {
    let mut all = by_name(&kustomized("config/default").await);
    for name in ["Deployment", "Service", "PodDisruptionBudget"] {
        all.remove(&format!("{name}/stream-encryption-operator")).expect(name);
    }
    assert_eq!(by_name(&kustomized("config").await), all);
}

#[tokio::test(flavor = "multi_thread")]
async fn api_server_accepts_install_yaml() {
    let objects = parsed(&text("config/install.yaml")).expect("YAML");
    let taken = would_take(&objects).await.expect("the API server accepts it");
    assert_eq!(taken.lines().count(), objects.len(), "{taken}");
}

/// Returns the operator's objects that exist.
async fn there(cluster: &TestCluster) -> Vec<String> {
    let kinds = "deployments,services,poddisruptionbudgets,roles,serviceaccounts";
    let found = cluster.kubectl(&["get", kinds, "-n", NAMESPACE, "-o", "name"]).await.expect("a list");
    found.lines().map(str::to_owned).collect()
}

/// Returns the part of the page below a heading.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let end = rest.find("\n## ").into_iter().chain(rest.find("\n### ")).min().unwrap_or(rest.len());
    &rest[..end]
}

/// Runs the page's commands below a heading, as a reader would, with the cluster's kubectl and our Helm.
pub(crate) async fn follow(cluster: &TestCluster, heading: &str) {
    let page = text("docs/install.md");
    let commands = blocks(section(&page, heading), "sh");
    assert!(!commands.is_empty(), "{heading} has no commands");
    // The reader's credentials file.
    let commands: Vec<String> =
        commands.iter().map(|command| command.replace("credentials=PATH", "credentials=/dev/null")).collect();
    run(cluster, &commands.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

/// The image of the page.
const IMAGE: &str = "registry.example.com/stream-encryption-operator:0.1.0";

/// The part of the Deployment that an upgrade must not reset.
#[derive(Debug, PartialEq, Eq)]
struct Configured {
    image: String,
    region: Option<String>,
    has_default_policy: bool,
    paused: bool,
}

/// Returns the operator's Deployment.
async fn deployment(cluster: &TestCluster) -> Value {
    let get = ["get", "deployment/stream-encryption-operator", "-n", NAMESPACE, "-o", "json"];
    serde_json::from_str(&cluster.kubectl(&get).await.expect("the Deployment")).expect("JSON")
}

async fn configured(cluster: &TestCluster) -> Configured {
    let deployment = deployment(cluster).await;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let variables = container["env"].as_array().expect("variables");
    let variable = |name: &str| variables.iter().find(|variable| variable["name"] == name);
    Configured {
        image: word(&container["image"]).to_owned(),
        region: variable("AWS_REGION").map(|variable| word(&variable["value"]).to_owned()),
        has_default_policy: variable("DEFAULT_POLICY").is_some_and(|policy| policy["value"].is_string()),
        paused: deployment["spec"]["paused"] == true,
    }
}

/// Runs commands in the repository, with the cluster's kubectl and our Helm 4.
pub(crate) async fn run(cluster: &TestCluster, commands: &[&str]) {
    run_with(&programs::helm().await.expect("Helm"), cluster, commands).await;
}

/// Runs commands as [`run`] does, with this Helm.
async fn run_with(helm: &Path, cluster: &TestCluster, commands: &[&str]) {
    let folders = [cluster.programs().kubectl.parent(), helm.parent()]
        .map(|folder| folder.expect("a folder").display().to_string());
    let path = format!("{}:{}", folders.join(":"), std::env::var("PATH").unwrap_or_default());
    for command in commands {
        let done = tokio::process::Command::new("sh")
            .args(["-ec", command])
            .current_dir(packages::path("."))
            .env("KUBECONFIG", cluster.kubeconfig())
            .env("PATH", &path)
            .stdin(Stdio::null())
            .output()
            .await
            .expect("sh");
        let words = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{command}: {words}");
    }
}

/// Creates a resource and a ledger, as they would exist after some use.
async fn use_it(cluster: &TestCluster) {
    let established = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"];
    cluster.kubectl(&established).await.expect("established");
    let resource = json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
        "metadata": {"name": "orders", "namespace": "default"},
        "spec": {"stream": {"service": "Kinesis", "name": "orders"}},
    });
    cluster.apply(&resource.to_string()).await.expect("a resource");
}

async fn the_resource_is_there(cluster: &TestCluster) {
    cluster.kubectl(&["get", "strenc", "orders"]).await.expect("the resource is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_commands_work_as_documented_and_keep_resources() {
    let cluster = TestCluster::start().await.expect("a cluster");
    follow(&cluster, "## By Helm").await;
    assert_eq!(there(&cluster).await.len(), 5);
    use_it(&cluster).await;
    follow(&cluster, "## Upgrade").await;
    let region = "jsonpath={.spec.template.spec.containers[0].env[?(@.name=='AWS_REGION')].value}";
    let get = ["get", "deployment/stream-encryption-operator", "-n", NAMESPACE, "-o", region];
    assert_eq!(cluster.kubectl(&get).await.expect("the Deployment"), "eu-west-1", "what was set is kept");
    let page = text("docs/install.md");
    let upgrade = blocks(section(&page, "## Upgrade"), "sh")[0].trim_end();
    // The tag of a build between releases, and the next release.
    for (tag, expected) in [("build", "build"), ("", "0.1.0")] {
        run(&cluster, &[&format!("{upgrade} --set image.tag={tag}")]).await;
        assert_eq!(configured(&cluster).await.image, IMAGE.replace("0.1.0", expected));
    }

    let uninstall = ["uninstall", "stream-encryption-operator", "--namespace", NAMESPACE];
    programs::run_helm(&uninstall, "", Some(cluster.kubeconfig())).await.expect("it is uninstalled");
    assert_eq!(there(&cluster).await, Vec::<String>::new());
    the_resource_is_there(&cluster).await;

    follow(&cluster, "## By Helm").await;
    assert_eq!(there(&cluster).await.len(), 5, "it is installed again beside what stayed");
    the_resource_is_there(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_upgrade_keeps_image_region_and_removed_default_policy() {
    let page = text("docs/install.md");
    let upgrade = section(&page, "### Upgrade by kubectl");
    let cluster = TestCluster::start().await.expect("a cluster");
    follow(&cluster, "## By kubectl").await;
    let expected = |has_default_policy, paused| Configured {
        image: IMAGE.to_owned(),
        region: Some("eu-west-1".to_owned()),
        has_default_policy,
        paused,
    };
    assert_eq!(configured(&cluster).await, expected(true, false));
    let remove = blocks(upgrade, "sh remove-default-policy");
    assert_eq!(remove.len(), 1);
    run(&cluster, &remove).await;
    assert_eq!(configured(&cluster).await, expected(false, false));

    follow(&cluster, "### Upgrade by kubectl").await;
    let why = "the file sets the variable again, but no pod starts with it";
    assert_eq!(configured(&cluster).await, expected(true, true), "{why}");
    run(&cluster, &remove).await;
    run(&cluster, &blocks(upgrade, "sh resume")).await;
    assert_eq!(configured(&cluster).await, expected(false, false));

    let kustomization = blocks(upgrade, "yaml kustomization")[0];
    let folder = beside_clone("kubectl-upgrade", kustomization);
    // The next version has another tag in its Deployment.
    let next = folder.join("next/config/default");
    fs::create_dir_all(&next).expect("a folder");
    let next_version = "resources: [../../../stream-encryption-operator/config/default]\nimages:\n\
        - {name: ghcr.io/stream-encryption-operator/stream-encryption-operator, newTag: 0.2.0}\n";
    fs::write(next.join("kustomization.yaml"), next_version).expect("it is written");
    run(&cluster, &["kubectl apply --server-side --force-conflicts -f config/install.yaml"]).await;
    assert!(configured(&cluster).await.has_default_policy, "the kustomization has to remove it");
    let apply = blocks(upgrade, "sh own-kustomization");
    assert_eq!(apply.len(), 1);
    for (version, clone) in [("0.1.0", "../stream-encryption-operator/"), ("0.2.0", "../next/")] {
        let kustomization = kustomization.replace("../stream-encryption-operator/", clone);
        fs::write(folder.join("own/kustomization.yaml"), kustomization).expect("it is written");
        run(&cluster, &[&format!("cd '{}/own'; {}", folder.display(), apply[0])]).await;
        let image = IMAGE.replace("0.1.0", version);
        assert_eq!(configured(&cluster).await, Configured { image, ..expected(false, false) });
    }
}

/// The order of these variables has no meaning. The chart mounts one file of the Secret, and the patch all of them.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_patch_gives_pods_what_chart_gives() {
    let page = text("docs/install.md");
    let [patch] = blocks(&page, "yaml credentials")[..] else { panic!("one patch") };
    // It ends with its patches.
    let kustomization = format!("{}{patch}", blocks(&page, "yaml kustomization")[0]);
    let values = json!({"aws": {"region": "eu-west-1", "credentials": {"secretName": "aws"}}});
    let [ours, charts] = [kustomized_beside_clone("credentials", &kustomization).await, chart(values).await]
        .map(|objects| only(&objects, "Deployment")["spec"]["template"]["spec"].clone());
    let variables = |pod: &Value| -> BTreeMap<String, Value> {
        let variables = pod["containers"][0]["env"].as_array().expect("variables").iter();
        let named = variables.map(|variable| (word(&variable["name"]).to_owned(), variable.clone()));
        named.filter(|(name, _)| name != "DEFAULT_POLICY").collect()
    };
    assert_eq!(variables(&ours), variables(&charts));
    let mounts = |pod: &Value| pod["containers"][0]["volumeMounts"].clone();
    assert!(mounts(&ours).is_array());
    assert_eq!(mounts(&ours), mounts(&charts));
    let volume = |pod: &Value| {
        let volume = &pod["volumes"][0];
        (volume["name"].clone(), volume["secret"]["secretName"].clone())
    };
    assert_eq!(volume(&ours), volume(&charts));
}

#[tokio::test(flavor = "multi_thread")]
async fn readme_helm_command_installs_the_operator() {
    let cluster = TestCluster::start().await.expect("a cluster");
    let readme = text("README.md");
    let commands = blocks(&readme, "sh helm");
    assert_eq!(commands.len(), 1);
    run(&cluster, &commands).await;
    assert_eq!(there(&cluster).await.len(), 5);
}

/// Most fields of a pod are immutable, so the pod of `helm test` would make a later apply fail.
#[tokio::test(flavor = "multi_thread")]
async fn documented_helm_template_applies_no_test_pod() {
    let page = text("docs/install.md");
    let commands = blocks(section(&page, "### By helm template"), "sh helm-template");
    assert_eq!(commands.len(), 1);
    let cluster = TestCluster::start().await.expect("a cluster");
    run(&cluster, &commands).await;
    assert_eq!(there(&cluster).await.len(), 5);
    let pods = cluster.kubectl(&["get", "pods", "-n", NAMESPACE, "-o", "name"]).await.expect("a list");
    assert_eq!(pods, "");

    let page = text("docs/gitops.md");
    let [kustomization] = blocks(&page, "yaml helm-charts")[..] else { panic!("one kustomization") };
    let kustomization: Value = serde_saphyr::from_str(kustomization).expect("YAML");
    let helm = &kustomization["helmCharts"][0];
    assert_eq!(helm["skipTests"], true);
    chart(helm["valuesInline"].clone()).await;
}

/// The definitions are templates of the same release, and Helm looks up all kinds before it creates the first object.
#[tokio::test(flavor = "multi_thread")]
async fn extra_policy_is_accepted_only_in_an_upgrade() {
    let cluster = TestCluster::start().await.expect("a cluster");
    let arguments = [
        "upgrade",
        "--install",
        RELEASE,
        CHART,
        "--namespace",
        NAMESPACE,
        "--create-namespace",
        "--values",
        "-",
    ];
    let release = async |values: Value| {
        programs::run_helm(&arguments, &values.to_string(), Some(cluster.kubeconfig())).await
    };
    let policy: Value = serde_saphyr::from_str(&text("config/policies/own-account.yaml")).expect("YAML");
    let values = json!({"extraObjects": [policy]});
    let error = release(values.clone()).await.expect_err("Helm does not know the kind");
    assert!(format!("{error:#}").contains("StreamEncryptionPolicy"), "{error:#}");
    release(json!({})).await.expect("it is installed");
    let established = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"];
    cluster.kubectl(&established).await.expect("established");
    release(values).await.expect("it is upgraded");
    cluster.kubectl(&["get", "strencpol", "own-account"]).await.expect("the policy");
}

/// Returns the commands of the page that delete what kubectl installed, and the one that installs the release.
fn from_kubectl_to_helm(page: &str) -> [&str; 2] {
    let commands = blocks(section(page, "### From kubectl to Helm"), "sh");
    commands.try_into().expect("two blocks")
}

/// Also if the reader omits the first step, because the default policy allows so much.
#[tokio::test(flavor = "multi_thread")]
async fn helm_that_adopts_can_disable_the_default_policy() {
    let page = text("docs/install.md");
    let [_, install] = from_kubectl_to_helm(&page);
    let cluster = TestCluster::start().await.expect("a cluster");
    follow(&cluster, "## By kubectl").await;
    assert!(configured(&cluster).await.has_default_policy);
    run(&cluster, &[&format!("{} --set defaultPolicy.enabled=false", install.trim_end())]).await;
    assert!(!configured(&cluster).await.has_default_policy);
}

/// Beside the fields that kubectl set, the API server would keep the variable and the label, and refuse two of
/// the values.
#[tokio::test(flavor = "multi_thread")]
async fn helm_3_and_4_after_kubectl_install_only_their_values() {
    let page = text("docs/install.md");
    let [delete, install] = from_kubectl_to_helm(&page);
    let values = "--set podDisruptionBudget.minAvailable=1 --set metrics.service.port=80 \
                  --set rbac.aggregateToEdit=false";
    let install = format!("{} {values}", install.trim_end());
    let only_helm_4 = " --force-conflicts";
    assert!(install.contains(only_helm_4), "{install}");
    let helm_3 = (programs::helm_3().await.expect("Helm 3"), install.replace(only_helm_4, ""));
    let helm_4 = (programs::helm().await.expect("Helm 4"), install);
    for (helm, install) in [helm_3, helm_4] {
        let cluster = TestCluster::start().await.expect("a cluster");
        follow(&cluster, "## By kubectl").await;
        use_it(&cluster).await;
        let target = "deployment/stream-encryption-operator";
        let set = ["set", "env", target, "-n", NAMESPACE, "WATCH_NAMESPACE=data"];
        cluster.kubectl(&set).await.expect("it is set");
        run_with(&helm, &cluster, &[delete, &install]).await;
        let variables =
            deployment(&cluster).await["spec"]["template"]["spec"]["containers"][0]["env"].to_string();
        assert!(variables.contains("eu-west-1") && !variables.contains("WATCH_NAMESPACE"), "{variables}");
        let edit = ["get", "clusterrole", "stream-encryption-operator-edit", "--show-labels"];
        let labels = cluster.kubectl(&edit).await.expect("the role");
        assert!(labels.contains("aggregate-to-admin") && !labels.contains("aggregate-to-edit"), "{labels}");
        the_resource_is_there(&cluster).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_installation_moves_to_helm_as_documented() {
    let cluster = TestCluster::start().await.expect("a cluster");
    follow(&cluster, "## By kubectl").await;
    assert_eq!(there(&cluster).await.len(), 5);
    use_it(&cluster).await;
    follow(&cluster, "### From kubectl to Helm").await;
    assert_eq!(there(&cluster).await.len(), 5);
    the_resource_is_there(&cluster).await;
    follow(&cluster, "## Permissions in AWS").await;
    follow(&cluster, "## Upgrade").await;
    the_resource_is_there(&cluster).await;
    follow(&cluster, "## Uninstall").await;
    follow(&cluster, "### Remove everything").await;
    assert_eq!(there(&cluster).await, Vec::<String>::new());
    let left = cluster.kubectl(&["get", "crd", "-o", "name"]).await.expect("a list");
    assert_eq!(left, "", "the last commands of the page delete the definitions");
}
