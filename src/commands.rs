//! The commands of the command line: the whole program in one match, for the binary and for other programs
//! that start it.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::{Body, Bytes};
use clap::{CommandFactory as _, Parser as _};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use stream_encryption_api::crd;
use tokio::runtime::Runtime;

use crate::settings::{Arguments, Command, LogFormat, PluginArguments, invalid};
use crate::{operator, plugin, telemetry};

/// Runs the command of `arguments`.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Plugin(command) => return Ok(plugin_exit_code(command)),
        Command::Crd => {
            let definitions =
                crd::definitions().into_iter().map(|(_, definition)| definition_yaml(&definition));
            let documents = definitions.collect::<anyhow::Result<Vec<String>>>()?;
            print(&documents.join("---\n"))?;
        }
        Command::Iam { document } => {
            let policy = document.policy()?;
            if let Some(advice) = document.advice(&policy) {
                let _ = writeln!(io::stderr(), "{advice}");
            }
            print(&format!("{}\n", serde_json::to_string_pretty(&policy)?))?;
        }
        Command::Check { url } => {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(check(&url))?;
        }
        Command::Run(arguments) => {
            let settings = arguments.check()?;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let entered = runtime.enter();
            let telemetry = telemetry::start(arguments.log_format, &arguments.log)?;
            drop(entered);
            select_tls()?;
            run_to_end(runtime, telemetry, operator::run(settings), Duration::from_secs(1))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Reports invalid arguments, and returns the exit code. For `run`, the report is one line that names the setting, the last
/// line of a pod's log. For everything else it is clap's, as is the help that somebody has requested.
#[must_use]
pub fn refuse(error: &clap::Error) -> ExitCode {
    let command = Arguments::command();
    let is_run = std::env::args_os().nth(1).is_some_and(|word| word == "run");
    match command.find_subcommand("run") {
        Some(run) if is_run && error.use_stderr() => {
            print_error(&anyhow::Error::msg(invalid::message(error, run)));
            ExitCode::from(2)
        }
        _ => error.exit(),
    }
}

/// Runs a verb of the kubectl plugin. Its logs are those of failed requests; LOG=debug shows more. Other programs have a
/// variable of this name, too, so a value that is no filter has no effect.
fn run_plugin(command: plugin::Command) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let filter = std::env::var("LOG").ok().filter(|filter| telemetry::is_filter(filter));
    let filter = filter.unwrap_or_else(|| "off".to_owned());
    let telemetry = telemetry::start(LogFormat::Text, &filter)?;
    drop(entered);
    select_tls()?;
    let verb = plugin::run(command, PluginArguments::command());
    Ok(run_to_end(runtime, telemetry, verb, Duration::from_millis(100))?.into())
}

/// Runs a command, sends the last traces, and ends the runtime. A lookup of a name, or the program of a kubeconfig, may block a
/// thread for longer than the pod has, or than a person waits for an error. After `grace`, such a thread is left behind.
fn run_to_end<F: Future>(runtime: Runtime, telemetry: impl Sized, command: F, grace: Duration) -> F::Output {
    let ended = runtime.block_on(command);
    // The runtime still runs here, because the last traces are sent now.
    drop(telemetry);
    runtime.shutdown_timeout(grace);
    ended
}

/// Prints the candidates for the last of the words, for kubectl.
pub fn complete_plugin(words: &[String]) -> anyhow::Result<()> {
    let mut command = PluginArguments::command();
    command.build();
    let lines = plugin::completion::candidates(&command, words);
    print(&format!("{}\n", lines.join("\n")))
}

/// Runs the kubectl plugin with the arguments of the process, and returns its exit code.
#[must_use]
pub fn plugin_main() -> ExitCode {
    plugin_exit_code(PluginArguments::parse().command)
}

/// Runs a verb of the kubectl plugin, under either name of the program, and returns its exit code.
fn plugin_exit_code(command: plugin::Command) -> ExitCode {
    run_plugin(command).unwrap_or_else(|error| {
        print_error(&error);
        ExitCode::from(failure_code(&error))
    })
}

/// Returns the exit code of a verb that has failed. A broken pipe is a failure, too: that of the connection to the API server
/// or to AWS. For the verbs, a reader of their output that leaves early is no error.
fn failure_code(error: &anyhow::Error) -> u8 {
    if error.is::<plugin::UsageError>() { 2 } else { 1 }
}

/// Prints what a command was run for. As for the verbs of the plugin, a reader that has left, such as `head`, is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("failed to write to the standard output"),
    }
}

/// Prints an error on one line, without a backtrace, regardless of `RUST_BACKTRACE`: the release binary has no symbols to
/// name in it.
pub fn print_error(error: &anyhow::Error) {
    let text = telemetry::error_chain(error.as_ref());
    // An error may quote others, such as the API server. Some errors have several lines.
    let lines: Vec<_> = text.lines().map(telemetry::printable).collect();
    let _ = writeln!(io::stderr(), "Error: {}", lines.join("\n"));
}

/// Selects the TLS implementation. kube and the AWS SDKs share it; rustls cannot select it by itself.
fn select_tls() -> anyhow::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS implementation is already installed"))
}

/// Timeout for the response of a running operator.
const PATIENCE: Duration = Duration::from_secs(10);

/// Probes a running operator.
async fn check(url: &str) -> anyhow::Result<()> {
    let wanted = || format!("invalid URL {url:?}: expected http://HOST:PORT/readyz");
    let uri: axum::http::Uri = url.parse().with_context(wanted)?;
    anyhow::ensure!(uri.scheme_str() == Some("http"), wanted());
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build_http();
    let answer = tokio::time::timeout(PATIENCE, async {
        let response = client.get(uri).await?;
        let status = response.status();
        let words: Bytes = response.into_body().collect().await?.to_bytes();
        anyhow::Ok((status, String::from_utf8_lossy(&words).trim().to_owned()))
    });
    let (status, words) = answer
        .await
        .with_context(|| format!("no response from {url} within {} s", PATIENCE.as_secs()))?
        .with_context(|| format!("failed to request {url}"))?;
    anyhow::ensure!(status.is_success(), "{url} returned {status}: {words}");
    print(&format!("{url} returned {status}: {words}\n"))
}

/// Returns a definition as its file in `crds/` contains it.
pub fn definition_yaml(definition: &CustomResourceDefinition) -> anyhow::Result<String> {
    let mut text =
        String::from("# Generated by `stream-encryption-operator crd`; a test compares it with the code.\n");
    text.push_str(&serde_saphyr::to_string(definition)?);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn hanging_lookup_does_not_delay_the_exit() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (answer, lookup) = mpsc::channel::<()>();
        let command = async {
            let (begin, running) = oneshot::channel();
            tokio::task::spawn_blocking(move || {
                begin.send(()).unwrap();
                lookup.recv_timeout(Duration::from_secs(10))
            });
            running.await.unwrap();
            "the verb's error"
        };
        assert_eq!(run_to_end(runtime, (), command, Duration::ZERO), "the verb's error");
        assert!(answer.send(()).is_ok(), "the lookup has ended");
    }

    /// A pipeline must not take a lost connection for success.
    #[test]
    fn broken_connection_is_a_failure() {
        let broken = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure_code(&broken.context("failed to list StreamEncryptions")), 1);
    }
}
