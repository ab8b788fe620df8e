//! `plan`: what the operator would do if a person's files were applied, and what it would cost of each stream's calls.
//!
//! The API server checks each object with a dry run, so its refusals are those of the real apply. The
//! operator's own code then resolves, describes and decides
//! ([`controller::preview`](stream_encryption_core::controller::preview)). Nothing is written to the cluster,
//! and no call that changes a stream is sent.

mod contested;
mod dry_run;
mod manifests;
mod merge;
mod planned_cluster;
mod planner;
mod recorded;
mod row;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use clap::{ArgGroup, Args, ValueEnum};
use futures_util::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_core::controller::Config;

use super::Outcome;
use super::aws::AwsArguments;
use super::cluster::{Cluster, ClusterArguments, Scope};
use super::fleet::Entry;
use super::operator_settings::OperatorSettings;
use super::output::{ListFormat, notice, stdout, write_rows};
use super::progress::Progress;
use crate::kubernetes;
use crate::settings::default_policy;
use crate::telemetry::error_chain;
use manifests::Manifests;
use planner::Planner;
use row::{Row, write_text};

/// Number of resources that are planned at a time; AWS's rate limits decide how fast.
const CONCURRENT: usize = 16;

/// The flags of `plan`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("files").args(["filename", "kustomize"]).required(true)))]
pub struct Arguments {
    /// A file or a folder with YAML, or - for the standard input; repeatable.
    #[arg(short = 'f', long, value_name = "FILE")]
    filename: Vec<PathBuf>,
    /// Read the folders of a folder, too.
    #[arg(short = 'R', long, conflicts_with = "kustomize")]
    recursive: bool,
    /// A folder with a kustomization.yaml; requires kubectl.
    #[arg(short = 'k', long, value_name = "DIR")]
    kustomize: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(flatten)]
    aws: AwsArguments,
    /// The operator's default policy, as JSON. Default: that of the operator's Deployment.
    #[arg(long, value_name = "JSON", value_parser = default_policy::parse)]
    default_policy: Option<StreamEncryptionPolicySpec>,
    /// The output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: ListFormat,
    /// Exit with 3 if a plan has one of these, separated by commas; for pipelines.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FINDINGS")]
    fail_on: Vec<Finding>,
}

/// What a pipeline can fail on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Finding {
    /// A call of Start or Stop, now or later although nobody acts. A test record is none.
    Calls,
    /// A refusal by the API server, by a policy, or by the operator.
    Refused,
    /// No call now, and somebody should act, for example because the key is disabled.
    Waiting,
}

/// Plans the objects of the files.
pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let manifests = match &arguments.kustomize {
        Some(folder) => Manifests::of_kustomization(folder)?,
        None => Manifests::read(&arguments.filename, arguments.recursive)?,
    };
    if manifests.resources.is_empty() {
        bail!("the files have no StreamEncryption ({} objects of other kinds)", manifests.others);
    }
    let cluster = arguments.cluster.connect().await?;
    for (namespace, name) in repeated(&manifests.resources, &cluster.namespace) {
        notice(format_args!(
            "The files have {namespace}/{name} more than once: each is planned as if it were the only one."
        ));
    }
    let plan = &Box::pin(planner(&cluster, arguments, &manifests)).await?;
    let progress = &Progress::new("planned", manifests.resources.len());
    let plans = manifests.resources.iter().map(|object| async {
        let row = Box::pin(plan.row(object)).await;
        progress.step();
        row
    });
    let rows: Vec<Row> = stream::iter(plans).buffered(CONCURRENT).collect().await;
    progress.end();
    // With the ledgers, the plan itself shows which resource of the cluster manages a stream.
    let stored = if plan.reads_ledgers { Vec::new() } else { stored(&cluster, &rows).await };
    // A refused resource manages no stream.
    let accepted = rows.iter().filter(|row| !row.refused && !row.unplanned);
    let named: Vec<(String, String)> = accepted
        .filter_map(|row| Some((row.stream.clone()?, format!("{}/{}", row.namespace, row.resource))))
        .collect();
    for warning in contested::warnings(&named, &stored) {
        notice(warning);
    }
    let mut out = stdout();
    if !write_rows(&mut out, arguments.output.into(), &rows)? {
        write_text(&mut out, &rows, Timestamp::now())?;
    }
    let unplanned = rows.iter().filter(|row| row.unplanned).count();
    if unplanned > 0 {
        bail!("{unplanned} of {} objects could not be planned; the reasons are above", rows.len());
    }
    let fails = |finding: &Finding| rows.iter().any(|row| row.has(*finding));
    Ok(if arguments.fail_on.iter().any(fails) { Outcome::Found } else { Outcome::Done })
}

/// Returns the resources of the cluster, or of the namespaces of the plan if the person may read no others.
async fn stored(cluster: &Cluster, rows: &[Row]) -> Vec<Entry> {
    let scope = |namespace| Scope { namespace, selector: None };
    if let Ok(found) = cluster.resources(&scope(None)).await {
        return found.iter().map(Entry::of).collect();
    }
    let mut entries = Vec::new();
    let namespaces: BTreeSet<&String> = rows.iter().map(|row| &row.namespace).collect();
    for namespace in namespaces {
        // Without this permission, the plan has no such warning.
        let found = cluster.resources(&scope(Some(namespace.clone()))).await.unwrap_or_default();
        entries.extend(found.iter().map(Entry::of));
    }
    entries
}

/// Returns the objects that occur more than once.
fn repeated(resources: &[DynamicObject], default_namespace: &str) -> BTreeSet<(String, String)> {
    let mut seen = BTreeSet::new();
    let id = |object: &DynamicObject| {
        (object.namespace().unwrap_or_else(|| default_namespace.to_owned()), object.name_any())
    };
    resources.iter().map(id).filter(|id| !seen.insert(id.clone())).collect()
}

/// Creates the planner, with the settings of the operator in the cluster.
async fn planner<'a>(
    cluster: &'a Cluster,
    arguments: &Arguments,
    manifests: &'a Manifests,
) -> anyhow::Result<Planner<'a>> {
    let (settings, has_deployment) = settings(cluster, arguments).await;
    let unread = unread_ledgers(&cluster.has_ledgers().await, has_deployment, &cluster.operator_namespace);
    if let Some(why) = &unread {
        notice(format_args!(
            "The plan counts the calls by the statuses of the resources, as if they were made now: {why}."
        ));
    }
    let default_policy = arguments.default_policy.clone().or(settings.default_policy);
    let region = arguments.aws.region(settings.region.as_deref())?;
    let depends_on_region = manifests.resources.iter().any(names_no_region);
    if depends_on_region && arguments.aws.known_region(settings.region.as_deref()).is_none() {
        notice(format_args!(
            "The operator's region is not known: streams that are named without a region are planned in {region}, the \
             AWS_REGION of your environment. If that is not the operator's region, use --region."
        ));
    }
    let access =
        kubernetes::Cluster::new(cluster.client.clone(), &cluster.operator_namespace, default_policy);
    Ok(Planner {
        cluster,
        manifests,
        aws: Arc::new(arguments.aws.connect(region.clone()).await?),
        access: access.with_unapplied(planner::applied(cluster, manifests).await?),
        reads_ledgers: unread.is_none(),
        config: Config {
            region,
            drift_interval: SignedDuration::from_mins(10),
            drift_interval_with_events: None,
        },
        watched: settings.watched,
    })
}

/// Returns the settings of the operator in the cluster, as far as they are known, and reports what is not. Also returns
/// whether its namespace is known to have a Deployment of the operator. Shards have several, and no settings in common.
async fn settings(cluster: &Cluster, arguments: &Arguments) -> (OperatorSettings, bool) {
    let all = match OperatorSettings::read_all(cluster).await {
        Ok(all) => all,
        Err(error) => {
            notice(unread_settings(&error, arguments.default_policy.is_some()));
            return (OperatorSettings::default(), false);
        }
    };
    let Some(settings) = OperatorSettings::only(&all) else {
        if arguments.default_policy.is_none() {
            notice(unknown_settings(&cluster.operator_namespace));
        }
        return (OperatorSettings::default(), !all.is_empty());
    };
    if !settings.unread.is_empty() {
        notice(format_args!(
            "The operator may have settings that the plan does not consider, because its Deployment does not contain \
             their values: {}. If they set a region or a default policy, use --region and --default-policy.",
            settings.unread.join(", ")
        ));
    }
    (settings, true)
}

/// Returns why the ledgers do not count, if they do not. The list of a wrong namespace is empty and no error, so an empty one
/// counts only beside a Deployment.
fn unread_ledgers(
    has_ledgers: &anyhow::Result<bool>,
    has_deployment: bool,
    namespace: &str,
) -> Option<String> {
    match has_ledgers {
        Ok(has_ledgers) if *has_ledgers || has_deployment => None,
        Ok(_) => Some(format!(
            "namespace {namespace} has no StreamLedger, and no known Deployment of the operator; if the operator is in another namespace, use --operator-namespace"
        )),
        Err(error) => Some(error_chain(error.as_ref())),
    }
}

/// Returns whether the operator's region decides which stream the resource names.
fn names_no_region(resource: &DynamicObject) -> bool {
    let stream = &resource.data["spec"]["stream"];
    stream["arn"].is_null() && stream["region"].is_null()
}

/// Returns the message about settings that cannot be read, for example by a team, which may not list Deployments.
fn unread_settings(error: &anyhow::Error, has_default_policy: bool) -> String {
    let (policy, remedy) = if has_default_policy {
        ("", "")
    } else {
        ("has no default policy and ", " If the operator has a default policy, use --default-policy.")
    };
    format!(
        "The operator's settings are not known, so the plan {policy}assumes that the operator watches all StreamEncryptions: {error}.{remedy}"
    )
}

/// Returns the message about a namespace with no Deployment of the operator, or with those of several shards.
fn unknown_settings(namespace: &str) -> String {
    format!(
        "Namespace {namespace} has no Deployment of the operator, or several (shards), so no default policy is known. If the Deployment is in another namespace, use --operator-namespace; otherwise, use --default-policy if the operator has a default policy."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_default_policy_is_not_said_to_be_missing() {
        let error = anyhow::anyhow!("the API server refused the request");
        for is_given in [false, true] {
            let text = unread_settings(&error, is_given);
            assert_eq!(text.contains("the plan has no default policy"), !is_given, "{text}");
            assert!(text.contains("watches all StreamEncryptions: the API server refused"), "{text}");
        }
    }

    #[test]
    fn empty_list_of_ledgers_counts_only_beside_a_deployment() {
        let unread = |found: anyhow::Result<bool>, has_deployment| {
            unread_ledgers(&found, has_deployment, "system").unwrap_or_default()
        };
        for has_deployment in [false, true] {
            assert_eq!(unread(Ok(true), has_deployment), "");
            assert_eq!(unread(Err(anyhow::anyhow!("refused")), has_deployment), "refused");
        }
        assert_eq!(unread(Ok(false), true), "");
        let why = unread(Ok(false), false);
        assert!(why.starts_with("namespace system has no StreamLedger"), "{why}");
    }
}
