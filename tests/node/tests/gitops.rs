//! Tests Argo CD with a Git repository: the health that it reports for streams, that it stays in sync, that
//! pruning makes no calls, and that a policy outlives the streams whose encryption it allows to be disabled.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use jiff::SignedDuration;
use node::argocd::{ArgoCd, RESYNC};
use node::commands::{apply, eventually, kubectl, try_kubectl};
use node::stage::Stage;
use packages::objects::parsed;
use serde_json::{Value, json};
use simulated_aws::samples;
use simulated_aws::world::Settings;
use tempfile::TempDir;

const OPERATOR: &str = "stream-encryption-operator";
const STREAMS: &str = "streams";

#[tokio::test(flavor = "multi_thread")]
async fn argo_cd_reports_health_stays_in_sync_prunes_without_calls() {
    let mut world = samples::world();
    *world.settings() = Settings { enabling: SignedDuration::from_secs(20), ..world.settings().clone() };
    let stage = Stage::set(world).await;
    let repository = Repository::of_the_chart();
    repository.add(&["01-firehose-aws-owned-key.yaml", "03-kinesis-by-arn.yaml"]);
    repository.commit("the operator, and two streams");
    let argocd = ArgoCd::start().await;

    let mut values = stage.values();
    // Drift is checked often: the resulting status writes must not count as differences.
    values["driftIntervalSeconds"] = json!(10);
    let helm = json!({"releaseName": OPERATOR, "valuesObject": values});
    apply(&repository.application("application-operator.yaml", &json!({"helm": helm}))).await;
    argocd.until(OPERATOR, "Synced Healthy", 90).await;

    apply(&repository.application("application-streams.yaml", &json!({}))).await;
    argocd.until(STREAMS, "Synced Progressing", 60).await;
    assert!(!stage.encrypts("clicks"), "Progressing while ENABLING");
    eventually("both streams are encrypted, and reported as encrypted", 90, async || {
        let healthy = argocd.says(STREAMS).await == "Synced Healthy";
        assert!(!healthy || stage.encrypts("clicks"), "Healthy before the stream is encrypted");
        healthy
    })
    .await;

    nothing_to_do_for_30_resyncs(&argocd).await;

    repository.add(&["06-not-direct-put.yaml"]);
    repository.commit("a stream that cannot be encrypted");
    refresh().await;
    argocd.until(STREAMS, "Synced Degraded", 60).await;

    repository.remove(&["06-not-direct-put.yaml", "01-firehose-aws-owned-key.yaml"]);
    repository.commit("clicks is not ours any more");
    refresh().await;
    eventually("it is pruned", 60, async || {
        try_kubectl(&["get", "strenc", "clicks", "-n", "data"], "").await.is_err()
    })
    .await;
    argocd.until(STREAMS, "Synced Healthy", 60).await;
    assert!(stage.encrypts("clicks"), "deletionPolicy: Retain");
    let changes: Vec<_> = stage.changes().into_iter().collect();
    let once = |name: &str| (name.to_owned(), vec!["OK".to_owned()]);
    assert_eq!(changes, [once("clicks"), once("telemetry")], "one Start each, and no Stop");

    delete_streams_with_their_policy(&repository).await;
    assert_eq!(stage.changes()["clicks"], ["OK", "OK"], "one Stop");
    assert!(!stage.encrypts("clicks"));
    kubectl(&format!("delete application {OPERATOR} -n argocd")).await;
}

/// Adds a stream with `deletionPolicy: Disable` and the policy of `docs/gitops.md` that allows this, and deletes the
/// Application with all resources, as `argocd app delete --cascade` does.
async fn delete_streams_with_their_policy(repository: &Repository) {
    let page = packages::text("docs/gitops.md");
    let (_, policy) = page.split_once("```yaml policy\n").expect("the policy of the page");
    let (policy, _) = policy.split_once("```").expect("the end of the policy");
    let clicks = packages::text("config/samples/01-firehose-aws-owned-key.yaml");
    repository.write("policy.yaml", policy);
    repository.write("clicks.yaml", &format!("{clicks}  deletionPolicy: Disable\n"));
    repository.commit("clicks is ours, and will be plaintext without us");
    refresh().await;
    eventually("it is Ready, and has the finalizer", 60, async || {
        let path = "jsonpath={.metadata.finalizers} {.status.conditions[?(@.type==\"Ready\")].status}";
        let state = try_kubectl(&["get", "strenc", "clicks", "-n", "data", "-o", path], "").await;
        state.is_ok_and(|state| state.contains("disable-encryption") && state.ends_with(" True"))
    })
    .await;
    let finalizer = r#"{"metadata":{"finalizers":["resources-finalizer.argocd.argoproj.io"]}}"#;
    kubectl(&format!("patch application {STREAMS} -n argocd --type=merge --patch={finalizer}")).await;
    kubectl(&format!("delete application {STREAMS} -n argocd --timeout=90s")).await;
    assert_eq!(kubectl("get strenc,strencpol -A -o name").await, "");
}

/// Checks every comparison of the two applications until each has been compared thirty times.
async fn nothing_to_do_for_30_resyncs(argocd: &ArgoCd) {
    let syncs = async || {
        let path = "{.status.history[*].id} {.status.operationState.startedAt}";
        [argocd.field(OPERATOR, path).await, argocd.field(STREAMS, path).await]
    };
    let before = syncs().await;
    let mut comparisons = [BTreeSet::new(), BTreeSet::new()];
    eventually("there were 30 comparisons", 90 * RESYNC, async || {
        for (application, seen) in [OPERATOR, STREAMS].into_iter().zip(&mut comparisons) {
            let says = "{.status.reconciledAt} {.status.sync.status} {.status.health.status}";
            let says = argocd.field(application, says).await;
            // A request of kubectl may fail.
            let Some((at, state)) = says.split_once(' ') else { return false };
            assert_eq!(state, "Synced Healthy", "{application}");
            seen.insert(at.to_owned());
        }
        comparisons.iter().all(|seen| seen.len() > 30)
    })
    .await;
    assert_eq!(syncs().await, before, "no application was synced again");
}

/// Makes Argo CD read the repository now, as its refresh button does.
async fn refresh() {
    kubectl(&format!("annotate application {STREAMS} -n argocd --overwrite argocd.argoproj.io/refresh=hard"))
        .await;
}

/// A Git repository with the chart, and a folder of streams.
struct Repository(TempDir);

impl Repository {
    fn of_the_chart() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        run(Command::new("cp").arg("-r").arg(packages::path("charts")).arg(folder.path()));
        fs::create_dir(folder.path().join(STREAMS)).expect("a folder");
        run(Command::new("git").args(["init", "--quiet", "--initial-branch=main"]).arg(folder.path()));
        Self(folder)
    }

    fn add(&self, samples: &[&str]) {
        for sample in samples {
            self.write(sample, &packages::text(&format!("config/samples/{sample}")));
        }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(STREAMS).join(name), text).expect(name);
    }

    fn remove(&self, samples: &[&str]) {
        for sample in samples {
            fs::remove_file(self.0.path().join(STREAMS).join(sample)).expect(sample);
        }
    }

    fn commit(&self, message: &str) {
        let git = || {
            let mut git = Command::new("git");
            git.arg("-C").arg(self.0.path()).args([
                "-c",
                "user.name=test",
                "-c",
                "user.email=test@example.com",
            ]);
            git
        };
        run(git().args(["add", "--all"]));
        run(git().args(["commit", "--quiet", "--message", message]));
    }

    /// Returns an application of `config/argocd`, from this repository, with additional fields in its source.
    fn application(&self, file: &str, source: &Value) -> Value {
        let text = packages::text(&format!("config/argocd/{file}"));
        let [mut application] =
            <[Value; 1]>::try_from(parsed(&text).expect("YAML")).expect("one application");
        let url = format!("file://{}", Path::display(self.0.path()));
        let own = &mut application["spec"]["source"];
        own["repoURL"] = url.into();
        own["targetRevision"] = "main".into();
        for (name, value) in source.as_object().expect("an object") {
            own[name] = value.clone();
        }
        application
    }
}

fn run(command: &mut Command) {
    assert!(command.status().expect("it starts").success(), "{command:?}");
}
