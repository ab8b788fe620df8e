//! The kubectl plugin: commands for people, who see the fleet, plan a change and prove its state.
//!
//! `kubectl streamencryption VERB` is this program under the name `kubectl-streamencryption`; the same verbs are commands
//! of `stream-encryption-operator`. The verbs read from the cluster and from AWS with the credentials of the person
//! who runs them. They never change anything: neither in AWS nor in the cluster.

// `eprintln!` panics if the standard error is closed, as in `2>&1 | head`, and changes the exit code: use `notice`.
#![warn(clippy::print_stderr)]

use std::io::Write as _;
use std::process::ExitCode;

use clap::Subcommand;

mod adopt;
mod age;
mod aws;
mod bars;
mod claims;
mod cluster;
pub mod completion;
mod doctor;
mod examples;
mod explain;
mod fleet;
mod ledger_calls;
mod operator_settings;
mod output;
mod places;
mod plan;
mod progress;
mod report;
mod status;

/// The name under which kubectl finds the program.
pub const FILE_NAME: &str = "kubectl-streamencryption";

/// The verbs of the plugin.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the streams: encryption, active key, time in plaintext, calls left, next attempt.
    #[command(after_help = examples::STATUS)]
    Status(status::Arguments),
    /// Explain the state of one `StreamEncryption`: what is, why, what happens next, and what you can do.
    #[command(after_help = examples::EXPLAIN)]
    Explain(explain::Arguments),
    /// Show what the operator would do if files were applied, and what that costs of each stream's calls.
    #[command(after_help = examples::PLAN)]
    Plan(Box<plan::Arguments>),
    /// Report the encryption of the streams for an audit: state, evidence and controls, also as an HTML page.
    #[command(after_help = examples::REPORT)]
    Report(Box<report::Arguments>),
    /// Check everything that the operator depends on, and say what to do.
    #[command(after_help = examples::DOCTOR)]
    Doctor(doctor::Arguments),
    /// Survey the streams of accounts and regions, and write manifests for those that nothing manages yet.
    #[command(after_help = examples::ADOPT)]
    Adopt(Box<adopt::Arguments>),
    /// Print the script that completes this command in a shell.
    #[command(after_help = examples::COMPLETION)]
    Completion(completion::Arguments),
}

/// What a verb has found, as an exit code. An error has the exit code 1, and invalid usage 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The verb is done: exit code 0.
    Done,
    /// Something was found that `--fail-on` names: exit code 3.
    Found,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::Found => Self::from(3),
        }
    }
}

/// The command line is valid for clap, but a value is invalid, or its flags do not belong together: exit code 2.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

/// Returns the error of an invalid command line.
fn usage(words: &str) -> anyhow::Error {
    UsageError(words.to_owned()).into()
}

/// Runs a verb. `program` is the program with all its commands, for the completion.
pub async fn run(command: Command, program: clap::Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Status(arguments) => status::run(&arguments).await,
        Command::Explain(arguments) => explain::run(&arguments).await,
        Command::Plan(arguments) => plan::run(&arguments).await,
        Command::Report(arguments) => report::run(&arguments).await,
        Command::Doctor(arguments) => doctor::run(&arguments).await,
        Command::Adopt(arguments) => adopt::run(&arguments).await,
        Command::Completion(arguments) => {
            let mut script = Vec::new();
            completion::write_script(&arguments, program, &mut script);
            output::stdout().write_all(&script)?;
            Ok(Outcome::Done)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::settings::PluginArguments;

    /// It would end up in policies that match no namespace, or in the URL of a request.
    #[tokio::test]
    async fn invalid_namespace_is_refused_by_every_verb() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("orders.yaml");
        let orders =
            "apiVersion: streamencryption.dev/v1alpha1\nkind: StreamEncryption\nmetadata: {name: orders}\n";
        fs::write(&file, orders).unwrap();
        let file = file.display().to_string();
        for verb in [
            &["status"][..],
            &["explain", "orders"],
            &["plan", "-f", &file],
            &["report"],
            &["doctor"],
            &["adopt", "--region", "eu-west-1"],
        ] {
            let words = [&["kubectl-streamencryption"][..], verb, &["-n", "Data_Team"]].concat();
            let command = PluginArguments::try_parse_from(words).unwrap().command;
            let error = Box::pin(run(command, PluginArguments::command())).await.unwrap_err();
            let is_named = error.to_string().starts_with("-n (--namespace) is \"Data_Team\", but must be");
            assert!(error.is::<UsageError>() && is_named, "{verb:?}: {error}");
        }
    }

    /// The verbs that read from AWS, each with the flags that it requires.
    const VERBS_WITH_AWS: [&[&str]; 4] = [
        &["plan", "-f", "orders.yaml"],
        &["doctor"],
        &["adopt", "--region", "eu-west-1"],
        &["report", "--aws", "--region", "eu-west-1"],
    ];

    /// A pipeline must not take it for a cluster or an AWS that cannot be read.
    #[test]
    fn invalid_flag_about_aws_is_an_invalid_command_line() {
        for verb in VERBS_WITH_AWS {
            for (flag, value, words) in [
                ("--region", "Ireland", "expected a code such as eu-west-1"),
                ("--aws-rate-percent", "0", "0 is not in 1..=100"),
                ("--aws-rate-percent", "150", "150 is not in 1..=100"),
                ("--aws-endpoint-url", "foo", "expected http://HOST:PORT or https://HOST"),
            ] {
                let given = [&["kubectl-streamencryption"][..], verb, &[flag, value]].concat();
                let error = PluginArguments::try_parse_from(given).expect_err("it is invalid");
                assert!(error.exit_code() == 2 && error.to_string().contains(words), "{verb:?}: {error}");
            }
        }
    }

    #[test]
    fn empty_flag_about_aws_is_valid() {
        let is_valid = |verb: &[&str], flag: &str| {
            let given = [&["kubectl-streamencryption"][..], verb, &[flag, ""]].concat();
            PluginArguments::try_parse_from(given).is_ok()
        };
        for verb in VERBS_WITH_AWS {
            assert!(is_valid(verb, "--aws-endpoint-url"), "{verb:?}");
            // Those that survey AWS require a region.
            assert_eq!(is_valid(verb, "--region"), !verb.contains(&"--region"), "{verb:?}");
        }
    }

    #[tokio::test]
    async fn namespace_of_the_operator_is_checked_too() {
        for name in ["", "a/b"] {
            let words = ["kubectl-streamencryption", "status", "--operator-namespace", name];
            let command = PluginArguments::try_parse_from(words).unwrap().command;
            let error = Box::pin(run(command, PluginArguments::command())).await.unwrap_err();
            assert!(
                error.is::<UsageError>() && error.to_string().starts_with("--operator-namespace"),
                "{error}"
            );
        }
    }
}
