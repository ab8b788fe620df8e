//! `plan`: what the operator would do if a person's files were applied, and what it would cost of each stream's calls.
//!
//! The API server checks each object with a dry run, so its refusals are those of the real apply. The
//! operator's own code then resolves, describes and decides
//! ([`controller::preview`](stream_encryption_core::controller::preview)). Nothing is written to the cluster,
//! and no call that changes a stream is sent.

mod contested;
mod manifests;
mod planned_cluster;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use anyhow::bail;
use clap::{ArgGroup, Args, ValueEnum};
use futures_util::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use serde::Serialize;
use stream_encryption_api::condition::{ReadyState, Reason, Remedy};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::controller::memory::Memory;
use stream_encryption_core::controller::preview::{self, PlannedStep, Preview, PreviewError};
use stream_encryption_core::controller::{Clock, Config, Context, NoMetrics};
use stream_encryption_core::model::decision::decide;
use stream_encryption_core::model::service::Operation;

use super::Outcome;
use super::age::relative;
use super::aws::{AwsArguments, ReadOnly};
use super::cluster::{Cluster, ClusterArguments, Scope};
use super::fleet::{Entry, key};
use super::operator_settings::OperatorSettings;
use super::output::{self, ListFormat, NONE, Tone, stdout, write_rows};
use super::progress::Progress;
use crate::kubernetes::{self, Planned};
use crate::settings::default_policy;
use crate::telemetry::error_chain;
use manifests::Manifests;
use planned_cluster::PlannedCluster;

/// The operation of a test record.
const PUT_RECORD: &str = "PutRecord";
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
    #[arg(short = 'R', long)]
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
    /// A call of Start or Stop.
    Calls,
    /// A refusal by the API server, by a policy, or by the operator.
    Refused,
    /// No call before somebody has acted, for example because the key is disabled.
    Waiting,
}

/// How an object differs from the stored one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum Change {
    Created,
    Changed,
    Unchanged,
}

/// The plan of one object.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    namespace: String,
    resource: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    /// Absent if the API server refuses the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<Change>,
    /// The operation, such as `StartDeliveryStreamEncryption` or `PutRecord`; absent if nothing would be called.
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    active_key: Option<String>,
    /// Whether the API server, a policy or the operator refuses it.
    refused: bool,
    /// Whether the operator would make no call before somebody has acted.
    waiting: bool,
    /// The reason that the operator would report; absent if it would report none, or if the API server refuses the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    calls_used: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    calls_limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_time: Option<Timestamp>,
}

impl output::Columns for Row {
    fn columns() -> Vec<&'static str> {
        vec![
            "namespace",
            "resource",
            "stream",
            "change",
            "call",
            "callKey",
            "activeKey",
            "refused",
            "waiting",
            "reason",
            "callsUsed",
            "callsLimit",
            "nextAttemptTime",
            "message",
        ]
    }
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
        eprintln!(
            "The files have {namespace}/{name} more than once: each is planned as if it were the only one."
        );
    }
    let operator = &operator(&cluster, arguments, &manifests).await?;
    let progress = &Progress::new("planned", manifests.resources.len());
    let plans = manifests.resources.iter().map(|object| async {
        let row = Box::pin(plan_object(&cluster, operator, object)).await;
        progress.step();
        row
    });
    let rows: Vec<Row> = stream::iter(plans).buffered(CONCURRENT).collect().await;
    progress.end();
    // With the ledgers, the plan itself shows which resource of the cluster manages a stream.
    let stored = if operator.kube.reads_ledgers { Vec::new() } else { stored(&cluster, &rows).await };
    // A refused resource manages no stream.
    let accepted = rows.iter().filter(|row| !row.refused);
    let planned: Vec<(String, String)> = accepted
        .filter_map(|row| Some((row.stream.clone()?, format!("{}/{}", row.namespace, row.resource))))
        .collect();
    for warning in contested::warnings(&planned, &stored) {
        eprintln!("{warning}");
    }
    let mut out = stdout();
    if !write_rows(&mut out, arguments.output.into(), &rows)? {
        write_text(&mut out, &rows, Timestamp::now())?;
    }
    let fails = |finding: &Finding| match finding {
        Finding::Calls => rows.iter().any(|row| row.call.is_some()),
        Finding::Refused => rows.iter().any(|row| row.refused),
        Finding::Waiting => rows.iter().any(|row| row.waiting),
    };
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

/// Creates the operator that plans: with the settings of the one in the cluster, and unable to change anything.
async fn operator(
    cluster: &Cluster,
    arguments: &Arguments,
    manifests: &Manifests,
) -> anyhow::Result<Context<ReadOnly, PlannedCluster>> {
    let settings = match OperatorSettings::read(cluster).await {
        Ok(Some(settings)) => settings,
        Ok(None) if arguments.default_policy.is_some() => OperatorSettings::default(),
        Ok(None) => {
            eprintln!("{}", unknown_settings(&cluster.operator_namespace));
            OperatorSettings::default()
        }
        Err(error) => {
            eprintln!("The operator's settings are not known, so the plan has no default policy: {error}.");
            OperatorSettings::default()
        }
    };
    let reads_ledgers = match cluster.check_ledgers().await {
        Ok(()) => true,
        Err(error) => {
            eprintln!(
                "The plan counts the calls by the statuses of the resources, as if they were made now: {}.",
                error_chain(error.as_ref())
            );
            false
        }
    };
    let default_policy = arguments.default_policy.clone().or(settings.default_policy);
    let region = arguments.aws.region(settings.region.as_deref())?;
    let depends_on_region = manifests.resources.iter().any(names_no_region);
    if depends_on_region && arguments.aws.known_region(settings.region.as_deref()).is_none() {
        eprintln!(
            "The operator's region is not known: streams that are named without a region are planned in {region}, the \
             AWS_REGION of your environment. If that is not the operator's region, use --region."
        );
    }
    let planned = Planned { policies: manifests.policies.clone(), namespaces: manifests.namespaces.clone() };
    let access =
        kubernetes::Cluster::new(cluster.client.clone(), &cluster.operator_namespace, default_policy);
    Ok(Context {
        aws: arguments.aws.connect(region.clone()).await?,
        kube: PlannedCluster { cluster: access.with_planned(planned), reads_ledgers },
        clock: Clock::system(),
        decide,
        config: Config {
            region,
            drift_interval: SignedDuration::from_mins(10),
            drift_interval_with_events: None,
        },
        memory: Memory::default(),
        metrics: Box::new(NoMetrics),
    })
}

/// Returns whether the operator's region decides which stream the resource names.
fn names_no_region(resource: &DynamicObject) -> bool {
    let stream = &resource.data["spec"]["stream"];
    stream["arn"].is_null() && stream["region"].is_null()
}

/// Returns the message about a namespace with no Deployment of the operator, or with those of several shards.
fn unknown_settings(namespace: &str) -> String {
    format!(
        "Namespace {namespace} has no Deployment of the operator, or several (shards), so no default policy is known. If the Deployment is in another namespace, use --operator-namespace; otherwise, use --default-policy if the operator has a default policy."
    )
}

async fn plan_object(
    cluster: &Cluster,
    operator: &Context<ReadOnly, PlannedCluster>,
    given: &DynamicObject,
) -> Row {
    let namespace = given.namespace().unwrap_or_else(|| cluster.namespace.clone());
    let refused = |message: String| Row::refused(&namespace, &given.name_any(), message);
    let (resource, change) = match dry_run(cluster, &namespace, given).await {
        Ok(accepted) => accepted,
        Err(message) => return refused(message),
    };
    match preview::preview(operator, &resource).await {
        Ok(plan) => Row::planned(&namespace, &resource, change, plan),
        Err(error @ (PreviewError::Kubernetes(_) | PreviewError::Changed)) => {
            refused(format!("The plan failed: {error}."))
        }
    }
}

/// Sends the object to the API server with a dry run, and returns it as it would be stored: with the uid, the status and
/// the defaults that it would have. The error is in the API server's words.
async fn dry_run(
    cluster: &Cluster,
    namespace: &str,
    given: &DynamicObject,
) -> Result<(StreamEncryption, Change), String> {
    let kind = ApiResource::erase::<StreamEncryption>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), namespace, &kind);
    let name = given.name_any();
    if name.is_empty() {
        return Err("The object has no name.".to_owned());
    }
    let params = PostParams { dry_run: true, field_manager: Some(super::FILE_NAME.to_owned()) };
    let words = |error: kube::Error| match error {
        kube::Error::Api(status) => format!("The API server refuses it: {}", status.message),
        other => format!("The API server did not answer: {}", error_chain(&other)),
    };
    let stored = api.get_opt(&name).await.map_err(words)?;
    let (accepted, change) = match &stored {
        None => (api.create(&params, given).await.map_err(words)?, Change::Created),
        Some(stored) => {
            let mut object = stored.clone();
            // As with kubectl apply: what others have added to the metadata stays.
            object.labels_mut().extend(given.labels().clone());
            object.annotations_mut().extend(given.annotations().clone());
            object.data["spec"] = given.data["spec"].clone();
            let accepted = api.replace(&name, &params, &object).await.map_err(words)?;
            let same = accepted.data["spec"] == stored.data["spec"]
                && accepted.annotations() == stored.annotations();
            (accepted, if same { Change::Unchanged } else { Change::Changed })
        }
    };
    let resource = accepted.try_parse().map_err(|error| format!("The operator cannot read it: {error}."))?;
    Ok((resource, change))
}

impl Row {
    fn refused(namespace: &str, name: &str, message: String) -> Self {
        Self {
            namespace: namespace.to_owned(),
            resource: name.to_owned(),
            refused: true,
            message,
            ..Self::default()
        }
    }

    fn planned(namespace: &str, resource: &StreamEncryption, change: Change, plan: Preview) -> Self {
        let service = plan.stream.as_ref().map(|stream| stream.service);
        let (call, call_key) = match (&plan.step, service) {
            (PlannedStep::Call(target), Some(service)) => {
                (Some(Operation::change(service, target.action).name()), target.key.as_ref().map(key))
            }
            (PlannedStep::TestRecord, Some(_)) => (Some(PUT_RECORD), None),
            (
                PlannedStep::Call(_)
                | PlannedStep::TestRecord
                | PlannedStep::RemoveFinalizer
                | PlannedStep::Nothing,
                _,
            ) => (None, None),
        };
        let refused = plan.reason.is_some_and(|reason| reason.ready_state() == ReadyState::Stalled);
        Self {
            waiting: !refused
                && call.is_none()
                && plan.reason.is_some_and(|reason| reason.remedy() == Remedy::Person),
            refused,
            namespace: namespace.to_owned(),
            resource: resource.name_any(),
            stream: plan.stream.map(|stream| stream.to_string()),
            change: Some(change),
            call,
            call_key,
            active_key: plan.active_key.as_ref().map(key),
            reason: plan.reason.map(Reason::as_str),
            message: plan.message,
            calls_used: plan.calls.map(|calls| calls.used),
            calls_limit: plan.calls.map(|calls| calls.limit),
            next_attempt_time: plan.next_attempt,
        }
    }

    /// Returns the sign of the row, and its meaning.
    fn sign(&self) -> (&'static str, Tone) {
        match (self.refused, self.waiting, self.call) {
            (true, _, _) => ("!", Tone::Bad),
            (_, true, _) => ("?", Tone::Bad),
            (_, _, Some(_)) => (">", Tone::Notice),
            (_, _, None) => ("=", Tone::Good),
        }
    }
}

/// Returns a number with its noun.
fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Writes the plan of each object, and a sum.
fn write_text(out: &mut impl Write, rows: &[Row], now: Timestamp) -> anyhow::Result<()> {
    for row in rows {
        let (sign, tone) = row.sign();
        let style = tone.style();
        let change = match row.change {
            Some(Change::Created) => "new",
            Some(Change::Changed) => "changed",
            Some(Change::Unchanged) => "unchanged",
            None => "refused",
        };
        let stream = row.stream.as_deref().unwrap_or(NONE);
        writeln!(out, "{style}{sign}{style:#} {}/{} ({change})  {stream}", row.namespace, row.resource)?;
        let next = row.next_attempt_time.map(|at| format!(" ({})", relative(at, now))).unwrap_or_default();
        match row.call {
            Some(PUT_RECORD) => writeln!(out, "    write a test record (PutRecord), no encryption call")?,
            Some(_) => writeln!(out, "    {}", row.message)?,
            None if row.refused => writeln!(out, "    {}", row.message)?,
            None => writeln!(out, "    no call: {}{next}", row.message)?,
        }
    }
    let count = |test: fn(&Row) -> bool| rows.iter().filter(|row| test(row)).count();
    let calls = count(|row| row.call.is_some_and(|call| call != PUT_RECORD));
    let (waiting, refused) = (count(|row| row.waiting), count(|row| row.refused));
    let none = rows.len() - calls - waiting - refused;
    writeln!(
        out,
        "\nPlan for {}: {}, {none} without a call, {waiting} waiting for somebody, {refused} refused.",
        counted(rows.len(), "object"),
        counted(calls, "encryption call"),
    )?;
    Ok(())
}
