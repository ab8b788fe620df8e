//! `adopt`: which streams exist, who manages them, and the files with which the operator takes over the others.
//!
//! This file connects the steps of [`crate::adopt`] and decides nothing about a stream. It reads from AWS and, if there is
//! one, from the cluster; the only things that it writes are the files of `--write` and the progress file. A region or
//! an account that cannot be read does not hide the others, but makes the exit code 1.

mod report;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use etcetera::BaseStrategy as _;
use jiff::Timestamp;
use stream_encryption_api::condition::Reason;
use stream_encryption_api::ledger::StreamLedger;
use stream_encryption_api::stream_encryption::Mode;
use stream_encryption_core::controller::stream_api::StreamApi as _;
use stream_encryption_core::model::arn::{AwsAccount, Region};

use super::Outcome;
use super::bars::Bars;
use super::claims::{self, Claim};
use super::cluster::{Cluster, ClusterArguments, DEFAULT_NAMESPACE, Found, Refusal, Scope};
use super::fleet::Entry;
use super::output::Format;
use super::places::PlaceArguments;
use crate::adopt::aliases;
use crate::adopt::files::{self, Layout, Written};
use crate::adopt::folder::Folder;
use crate::adopt::keys::{self, GivenKey, PlaintextKeys};
use crate::adopt::managed::Managed;
use crate::adopt::manifests::Options;
use crate::adopt::plan::{PlannedStream, may_get_manifest, plan};
use crate::adopt::progress_file::{self, ProgressFile};
use crate::adopt::survey::{Place, PlaceSurvey, described, survey};
use crate::kubernetes::connection::NoCluster;
use crate::telemetry::error_chain;

/// The flags of `adopt`.
#[derive(Args, Debug)]
#[command(mut_arg("namespace", |flag| flag.help("The namespace that the manifests and the policies are for. Default: that of the context, otherwise default.")))]
pub struct Arguments {
    #[command(flatten)]
    places: PlaceArguments,
    #[command(flatten)]
    cluster: ClusterArguments,
    /// Write manifests, policies and IAM policies into this folder.
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// The mode of the manifests.
    #[arg(long, value_enum, ignore_case = true, default_value = "Observe", requires = "write")]
    mode: ModeName,
    /// The customer managed key for streams in plaintext: an ARN (one for each region), or an alias. Default: the AWS-owned
    /// key.
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<GivenKey>,
    /// Extend the policies, the IAM policies and the kustomization that exist already. A manifest is never overwritten.
    #[arg(long, requires = "write")]
    overwrite: bool,
    /// Describe all streams again, also those that an ended run has described in the last hour.
    #[arg(long)]
    restart: bool,
    /// The file that records what was described. Default: one in your cache directory.
    #[arg(long, value_name = "FILE")]
    progress_file: Option<PathBuf>,
    /// The output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// A mode, as a spec names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeName {
    /// Only report how a stream differs.
    #[value(name = "Observe")]
    Observe,
    /// Make a stream match its manifest.
    #[value(name = "Enforce")]
    Enforce,
}

/// What a run has found and written.
struct Adoption {
    surveys: Vec<PlaceSurvey>,
    plan: Vec<PlannedStream>,
    /// The account of the person's credentials, if it is known.
    own: Option<AwsAccount>,
    /// Where `StreamEncryptions` were not looked for; `None` if the whole cluster was searched.
    not_searched: Option<NotSearched>,
    /// Whether the names of all `StreamEncryptionPolicies` of the cluster are known.
    searched_policies: bool,
    namespace: String,
    layout: Layout,
    written: BTreeMap<String, Written>,
    notes: Vec<String>,
}

/// A search that did not cover the whole cluster.
struct NotSearched {
    why: String,
    /// Whether at least the namespace of the manifests was searched.
    searched_namespace: bool,
}

impl Adoption {
    /// Returns whether the namespace may have `StreamEncryptions` that this run does not know.
    fn is_namespace_unknown(&self) -> bool {
        self.not_searched.as_ref().is_some_and(|search| !search.searched_namespace)
    }
}

/// Surveys the streams, prints them, and writes the files.
pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    if let Some(key) = keys::unused(&arguments.keys, arguments.places.regions()) {
        return Err(super::usage(&format!(
            "--key {key} has no effect: each region uses the first key that is an ARN of the region, or an alias"
        )));
    }
    let given = arguments.cluster.namespace()?;
    let aws = arguments.places.connect().await?;
    let own = aws.identity().await;
    if let (Err(error), []) = (&own, arguments.places.roles()) {
        bail!("your AWS account is not known: {}", described(error));
    }
    let places = arguments.places.places(own.as_ref().ok())?;
    let (managed, not_searched, namespace, mut notes) = cluster(arguments, given, own.as_ref().ok()).await?;
    // Before the survey, which takes long: a folder that cannot be read ends the run.
    let folder = arguments.write.as_deref().map(|folder| read_folder(folder, &namespace)).transpose()?;
    let mut progress = progress(arguments, &places, own.as_ref().ok()).unwrap_or_else(|error| {
        notes.push(format!("An interrupted run cannot be continued: {error:#}."));
        ProgressFile::none()
    });
    // With `Enforce`, the operator changes a stream to the key of its manifest. A new manifest must therefore name the key that
    // is active now, and somebody may have changed the key since an earlier run. With `Observe`, the operator reports that.
    if let (Some(folder), Mode::Enforce) = (&folder, Mode::from(arguments.mode)) {
        progress.retain(|stream| !may_get_manifest(stream, &managed, folder));
    }
    let bars = Bars::new();
    let mut surveys = survey(&aws, &places, &arguments.places.services(), &progress, &bars).await;
    bars.end();
    let keys = PlaintextKeys::choose(&aws, &arguments.keys, &mut surveys).await;
    let plan = plan(&surveys, &managed, &keys);
    let mut adoption = Adoption {
        surveys,
        plan,
        own: own.ok(),
        not_searched,
        searched_policies: managed.policies().is_some(),
        namespace,
        layout: Layout::default(),
        written: BTreeMap::new(),
        notes,
    };
    if let Some(folder) = &arguments.write {
        // Another run or a person may have changed the folder during the survey.
        let mut existing = read_folder(folder, &adoption.namespace)?;
        let options = Options { namespace: adoption.namespace.clone(), mode: arguments.mode.into() };
        adoption.notes.extend(aliases::resolve(&aws, &mut existing, &mut adoption.surveys).await);
        adoption.layout = files::layout(&existing, &adoption.plan, &places, &managed, &options)?;
        adoption.notes.append(&mut adoption.layout.notes);
        adoption.written = files::write(folder, &adoption.layout, arguments.overwrite)?;
    }
    let problems: usize = adoption.surveys.iter().map(|survey| survey.problems.len()).sum();
    match progress.problem() {
        Some(error) => adoption.notes.push(format!("An interrupted run cannot be continued: {error}.")),
        None if problems == 0 => {
            let _ = progress.delete();
        }
        None => {}
    }
    report::print(&adoption, arguments)?;
    ensure!(problems == 0, "not everything could be read; the problems are listed above");
    Ok(Outcome::Done)
}

/// Reads the folder of the files. Its kustomization must not give them another namespace.
fn read_folder(folder: &Path, namespace: &str) -> anyhow::Result<Folder> {
    let existing = Folder::read(folder)?;
    existing.ensure_namespace(namespace)?;
    Ok(existing)
}

/// Returns the `StreamEncryptions` of the cluster, or why they were not looked for; the namespace of the manifests; and notes
/// about resources that perhaps do not manage the streams that they name, and about policies that cannot be listed. `given`
/// is the namespace of the flag.
///
/// Whoever may list only those of the namespace gets at least these: their names must not be used again. Only a run that
/// writes a policy lists the names of the policies.
async fn cluster(
    arguments: &Arguments,
    given: Option<&str>,
    own: Option<&AwsAccount>,
) -> anyhow::Result<(Managed, Option<NotSearched>, String, Vec<String>)> {
    let mut managed = Managed::default();
    let cluster = match arguments.cluster.connect().await {
        Ok(cluster) => cluster,
        // A cluster that is named must be usable: without its resources, their streams would be adopted a second time.
        Err(error) if arguments.cluster.names_a_cluster() || !error.is::<NoCluster>() => return Err(error),
        Err(error) => {
            let search = NotSearched { why: error_chain(error.as_ref()), searched_namespace: false };
            return Ok((managed, Some(search), given.unwrap_or(DEFAULT_NAMESPACE).to_owned(), Vec::new()));
        }
    };
    let namespace = cluster.checked_namespace()?.to_owned();
    let list = async |namespace| cluster.resources(&Scope { namespace, selector: None }).await;
    let resources = "StreamEncryptions";
    let (found, not_searched) = match if_allowed(resources, list(None).await)? {
        Ok(found) => (found, None),
        Err(why) => {
            let of_namespace = if_allowed(resources, list(Some(namespace.clone())).await)?;
            let searched_namespace = of_namespace.is_ok();
            (of_namespace.unwrap_or_default(), Some(NotSearched { why, searched_namespace }))
        }
    };
    let regions = arguments.places.regions();
    let mut notes = take(&mut managed, &found, &ledgers(&cluster, &found).await, own, regions);
    if arguments.write.is_some() {
        let policies = "StreamEncryptionPolicies";
        match if_allowed(policies, cluster.policy_names().await)? {
            Ok(names) => managed.set_policies(names),
            Err(why) => notes.push(format!("Did not look for {policies}: {why}.")),
        }
    }
    Ok((managed, not_searched, namespace, notes))
}

/// Returns the objects of a list, or why the person cannot list them. Any other failure ends the run: without the objects,
/// streams that they manage would be adopted a second time, or a new policy would replace one of them.
fn if_allowed<T>(kind: &str, listed: anyhow::Result<T>) -> anyhow::Result<Result<T, String>> {
    match listed {
        Ok(objects) => Ok(Ok(objects)),
        Err(error) if error.is::<Refusal>() => Ok(Err(error_chain(error.as_ref()))),
        Err(error) => Err(error.context(format!(
            "the {kind} of the cluster cannot be listed. Run the command again, or without a cluster: KUBECONFIG=/dev/null"
        ))),
    }
}

/// Returns the ledgers that the person may read, if they tell more than the statuses.
async fn ledgers(cluster: &Cluster, found: &[Found]) -> BTreeMap<String, StreamLedger> {
    let none = BTreeMap::new();
    if claims::sorted(found, &none).iter().all(|(_, entry, claim)| claim.manages(entry)) {
        return none;
    }
    // Without this permission, there are more notes.
    cluster.ledgers().await.unwrap_or_default()
}

/// Takes the resources. One that this program cannot read has a stream nevertheless, which must get no second resource.
/// Returns a note about each resource that perhaps does not manage its stream, unless another one does: whoever may create one
/// somewhere must not hide a stream by it.
fn take(
    managed: &mut Managed,
    found: &[Found],
    ledgers: &BTreeMap<String, StreamLedger>,
    own: Option<&AwsAccount>,
    regions: &[Region],
) -> Vec<String> {
    let mut notes = Vec::new();
    let mut proven = BTreeSet::new();
    for (found, entry, claim) in claims::sorted(found, ledgers) {
        let (namespace, name) = (&found.namespace, &found.name);
        if let Ok(resource) = &found.resource {
            managed.add(namespace, name, Some(resource), own, regions);
        } else {
            managed.add_unreadable(namespace, name, entry.stream.as_ref().and_then(|arn| arn.parse().ok()));
        }
        if claim.manages(&entry) {
            proven.extend(entry.stream);
        } else if !entry.stream.as_ref().is_some_and(|stream| proven.contains(stream)) {
            notes.push(doubtful(&entry, claim));
        }
    }
    notes
}

/// Returns the note about a resource that perhaps does not manage its stream.
fn doubtful(entry: &Entry, claim: Claim) -> String {
    let (doubt, remedy) = if entry.reason.as_deref() == Some(Reason::NotPermitted.as_str()) {
        let doubt = "policies do not permit what it requests (NotPermitted)".to_owned();
        (doubt, "Allow the StreamEncryption by a policy")
    } else {
        (claim.doubt(entry), "Resolve that")
    };
    let Entry { namespace, resource, .. } = entry;
    let stream = entry.stream.as_deref().unwrap_or(&entry.name);
    format!(
        "StreamEncryption {namespace}/{resource} names the stream {stream}, but {doubt}, so possibly nothing manages the stream. {remedy}, or delete the StreamEncryption, and run adopt again."
    )
}

fn progress(
    arguments: &Arguments,
    places: &[Place],
    own: Option<&AwsAccount>,
) -> anyhow::Result<ProgressFile> {
    let path = match &arguments.progress_file {
        Some(path) => path.clone(),
        None => default_progress_file(arguments, places, own)?,
    };
    ProgressFile::open(&path, Timestamp::now(), arguments.restart)
        .with_context(|| format!("failed to open {}", path.display()))
}

/// Returns a file in the cache directory, the same one for each run that surveys the same.
fn default_progress_file(
    arguments: &Arguments,
    places: &[Place],
    own: Option<&AwsAccount>,
) -> anyhow::Result<PathBuf> {
    let folder = etcetera::choose_base_strategy().context("there is no home directory")?.cache_dir();
    let surveyed = |Place { account, region, role }: &Place| {
        let role = role.as_ref().map(|role| role.arn.to_string()).unwrap_or_default();
        format!("{} {region} {role}", account.account)
    };
    let mut asked: Vec<String> = places.iter().map(surveyed).collect();
    asked.sort();
    asked.push(format!("{:?}", arguments.places.services()));
    asked.push(arguments.places.endpoint_url().unwrap_or_default().to_owned());
    asked.push(std::env::var("AWS_ENDPOINT_URL").unwrap_or_default());
    asked.push(own.map(|own| own.account.to_string()).unwrap_or_default());
    Ok(progress_file::path(&folder.join("stream-encryption"), &asked))
}

impl From<ModeName> for Mode {
    fn from(name: ModeName) -> Self {
        match name {
            ModeName::Observe => Self::Observe,
            ModeName::Enforce => Self::Enforce,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::json;
    use stream_encryption_api::stream_encryption::Service;

    use super::super::Command;
    use super::*;
    use crate::settings::PluginArguments;

    pub(super) fn parse(flags: &[&str]) -> Result<Arguments, clap::Error> {
        let all = ["kubectl-streamencryption", "adopt"].iter().chain(flags);
        match PluginArguments::try_parse_from(all)?.command {
            Command::Adopt(arguments) => Ok(*arguments),
            other => panic!("{other:?} was not given"),
        }
    }

    pub(super) fn own() -> AwsAccount {
        AwsAccount::of(&"arn:aws:kinesis:eu-west-1:111122223333:stream/x".parse().unwrap())
    }

    #[test]
    fn resource_that_may_not_manage_its_stream_is_noted() {
        let arn = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders";
        let found = |namespace: &str, reason: &str| {
            let ready = json!({"type": "Ready", "status": "False", "reason": reason, "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"});
            let resource = json!({"apiVersion": "streamencryption.dev/v1alpha1",
                "kind": "StreamEncryption", "metadata": {"name": "orders", "namespace": namespace},
                "spec": {"stream": {"arn": arn}}, "status": {"conditions": [ready]}});
            Found::of(serde_json::from_value(resource).unwrap())
        };
        for (reason, is_noted) in [
            ("NotPermitted", true),
            ("Suspended", true),
            ("DisableNotPermitted", true),
            ("SpecInvalid", true),
            ("StreamAlreadyManaged", true),
            ("LedgerInvalid", false),
            ("Encrypted", false),
        ] {
            let mut managed = Managed::default();
            let notes = take(&mut managed, &[found("data", reason)], &BTreeMap::new(), None, &[]);
            let names_both = |note: &String| note.contains(arn) && note.contains(reason);
            assert_eq!(notes.iter().any(names_both), is_noted, "{reason}: {notes:?}");
            assert_eq!(managed.of(&arn.parse().unwrap()), Some("data/orders"), "it is not adopted twice");
            // The resource that manages the stream is named, whoever else names the stream.
            let both = [found("a", reason), found("data", "KeyDisabled")];
            let mut managed = Managed::default();
            assert_eq!(take(&mut managed, &both, &BTreeMap::new(), None, &[]), Vec::<String>::new());
            let first = if is_noted { "data/orders" } else { "a/orders" };
            assert_eq!(managed.of(&arn.parse().unwrap()), Some(first), "{reason}");
        }
    }

    #[test]
    fn invalid_flags_are_rejected_with_a_hint() {
        for (flags, words) in [
            (&["--region", "Ireland"][..], "such as eu-west-1"),
            (&["--region", "eu-west-1", "--external-id", "abc"], "--role-arn"),
            (&["--region", "eu-west-1", "--role-arn", "spoke"], "arn:aws:iam::ACCOUNT:role/"),
            (&["--region", "eu-west-1", "--key", "orders"], "arn:aws:kms:REGION:ACCOUNT:key/ID"),
            (&["--region", "eu-west-1", "--overwrite"], "--write"),
            (&["--region", "eu-west-1", "--mode", "Report"], "Observe"),
            (&["--region", "eu-west-1", "--mode", "Enforce"], "--write"),
        ] {
            let error = parse(flags).unwrap_err().to_string();
            assert!(error.contains(words), "{flags:?}: {error}");
        }
    }

    #[test]
    fn every_account_is_surveyed_in_every_region() {
        let roles = "arn:aws:iam::444455556666:role/a,arn:aws:iam::777788889999:role/b";
        let flags = ["--region", "eu-west-1,eu-central-1", "--region", "eu-west-1", "--role-arn", roles];
        let places = parse(&flags).unwrap().places.places(None).unwrap();
        let names: Vec<String> =
            places.iter().map(|place| format!("{} {}", place.account.account, place.region)).collect();
        assert_eq!(
            names,
            [
                "444455556666 eu-west-1",
                "444455556666 eu-central-1",
                "777788889999 eu-west-1",
                "777788889999 eu-central-1",
            ]
        );
        let own = parse(&["--region", "eu-west-1"]).unwrap().places.places(Some(&own())).unwrap();
        assert_eq!((own.len(), &own[0].role), (1, &None));
    }

    #[tokio::test]
    async fn flags_without_an_effect_are_rejected() {
        let roles = "arn:aws:iam::444455556666:role/a,arn:aws:iam::444455556666:role/b";
        for (flags, words) in [
            (&["--role-arn", roles][..], "are roles of one account"),
            (&["--key", "alias/a", "--key", "alias/b"], "--key alias/b has no effect"),
        ] {
            let arguments = parse(&[&["--region", "eu-west-1"], flags].concat()).unwrap();
            let error = run(&arguments).await.unwrap_err();
            assert!(error.is::<super::super::UsageError>() && error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn region_of_another_partition_is_rejected() {
        let arguments = parse(&["--region", "cn-north-1"]).unwrap();
        let error = arguments.places.places(Some(&own())).unwrap_err().to_string();
        assert!(error.contains("cn-north-1 is in partition aws-cn"), "{error}");
    }

    #[test]
    fn stream_of_an_unreadable_resource_is_managed() {
        let arn = "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks";
        let found = Found::of(
            serde_json::from_value(serde_json::json!({
                "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
                "metadata": {"name": "clicks", "namespace": "data"},
                "spec": {"stream": {"arn": arn}, "mode": "OfANewerOperator"},
            }))
            .unwrap(),
        );
        assert!(found.resource.is_err());
        let mut managed = Managed::default();
        take(&mut managed, &[found], &BTreeMap::new(), None, &[]);
        assert_eq!(managed.of(&arn.parse().unwrap()), Some("data/clicks"));
        assert_eq!(managed.names_in("data").collect::<Vec<_>>(), ["clicks"]);
    }

    #[test]
    fn names_of_flags_ignore_case() {
        let arguments =
            parse(&["--region", "eu-west-1", "--service", "kinesis", "--mode", "enforce", "--write", "out"])
                .unwrap();
        assert_eq!(
            (arguments.places.services(), Mode::from(arguments.mode)),
            (vec![Service::Kinesis], Mode::Enforce)
        );
    }
}
