//! `doctor`: checks of everything that the operator depends on, each with what to do. Reads only.

mod aws;
mod events;
mod kubernetes;
mod operator;
mod streams;

use std::borrow::Cow;
use std::io::Write;

use clap::Args;
use jiff::SignedDuration;
use serde::Serialize;

use super::Outcome;
use super::aws::AwsArguments;
use super::cluster::{ClusterArguments, Scope};
use super::operator_settings::OperatorSettings;
use super::output::{Columns, ListFormat, Tone, printable, stdout, write_rows};
use crate::settings::{DEFAULT_DRIFT_INTERVAL_SECONDS, DEFAULT_EVENTS_DRIFT_INTERVAL_SECONDS};

/// The flags of `doctor`.
#[derive(Args, Debug)]
#[command(mut_arg("namespace", |flag| flag.help("Check the resources of this namespace. Default: of all namespaces.")))]
pub struct Arguments {
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(flatten)]
    aws: AwsArguments,
    /// The queue of AWS's events. Default: that of the operator, if it has one.
    #[arg(long, value_name = "URL")]
    events_queue_url: Option<String>,
    /// The output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: ListFormat,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum Health {
    /// As it should be.
    Good,
    /// Worth a look.
    Warning,
    /// Something does not work.
    Failed,
    /// It could not be checked, for example because the person may not read it.
    NotChecked,
}

/// One check.
#[derive(Clone, Debug, Serialize)]
struct Check {
    name: &'static str,
    result: Health,
    message: String,
    /// What to do; empty if nothing.
    remedy: Cow<'static, str>,
}

impl Columns for Check {
    fn columns() -> Vec<&'static str> {
        vec!["name", "result", "message", "remedy"]
    }
}

impl Check {
    fn good(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, result: Health::Good, message: message.into(), remedy: Cow::Borrowed("") }
    }

    fn warning(name: &'static str, message: impl Into<String>, remedy: impl Into<Cow<'static, str>>) -> Self {
        Self { name, result: Health::Warning, message: message.into(), remedy: remedy.into() }
    }

    fn failed(name: &'static str, message: impl Into<String>, remedy: impl Into<Cow<'static, str>>) -> Self {
        Self { name, result: Health::Failed, message: message.into(), remedy: remedy.into() }
    }

    fn not_checked(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, result: Health::NotChecked, message: message.into(), remedy: Cow::Borrowed("") }
    }
}

/// Runs the checks, and prints them. Exits with 3 if one has failed.
pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let cluster = arguments.cluster.connect().await?;
    let mut checks = vec![kubernetes::server(&cluster).await];
    let deployments = OperatorSettings::read_all(&cluster).await;
    let settings = deployments.as_ref().ok().and_then(|all| OperatorSettings::only(all));
    let of_operator = || settings.as_ref()?.events_queue_url.clone();
    let queue = arguments.events_queue_url.clone().or_else(of_operator);
    // Without an API server, nothing else can be checked.
    if checks[0].result != Health::Failed {
        checks.extend(kubernetes::definitions(&cluster.client).await);
        checks.extend(operator::all(&cluster, &deployments).await);
        let known = deployments.as_ref().map(Vec::as_slice).unwrap_or_default();
        checks.extend(kubernetes::permissions(&cluster, known).await);
        let namespace = arguments.cluster.namespace()?.map(str::to_owned);
        let scope = Scope { namespace, selector: None };
        let of_operator = settings.as_ref().and_then(|settings| settings.drift_interval);
        let drift_interval = of_operator.unwrap_or(match queue {
            Some(_) => SignedDuration::from_secs(DEFAULT_EVENTS_DRIFT_INTERVAL_SECONDS.into()),
            None => SignedDuration::from_secs(DEFAULT_DRIFT_INTERVAL_SECONDS.into()),
        });
        checks.extend(streams::all(&cluster, &scope, drift_interval).await);
    }
    checks.extend(aws::all(settings.as_ref(), &arguments.aws, queue.as_deref()).await);
    for check in &mut checks {
        check.remedy = cluster.with_flags(&check.remedy).into();
    }
    let mut out = stdout();
    if !write_rows(&mut out, arguments.output.into(), &checks)? {
        write_text(&mut out, &checks)?;
    }
    let fails = checks.iter().any(|check| check.result == Health::Failed);
    Ok(if fails { Outcome::Found } else { Outcome::Done })
}

fn write_text(out: &mut impl Write, checks: &[Check]) -> anyhow::Result<()> {
    for Check { name, result, message, remedy } in checks {
        let (word, tone) = match result {
            Health::Good => ("ok", Tone::Good),
            Health::Warning => ("WARN", Tone::Notice),
            Health::Failed => ("FAIL", Tone::Bad),
            Health::NotChecked => ("?", Tone::Plain),
        };
        let style = tone.style();
        writeln!(out, "{style}{word:<5}{style:#}{name:<22}{}", printable(message))?;
        if !remedy.is_empty() {
            writeln!(out, "{:27}{}", "", printable(remedy))?;
        }
    }
    let count = |health| checks.iter().filter(|check| check.result == health).count();
    let (failed, warnings) = (count(Health::Failed), count(Health::Warning));
    let plural = if warnings == 1 { "" } else { "s" };
    writeln!(out, "\n{} checks: {failed} failed, {warnings} warning{plural}.", checks.len())?;
    Ok(())
}
