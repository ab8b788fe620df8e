//! The commands of the command line: the whole program in one match, for the binary and for other programs
//! that start it.

use std::time::Duration;

use anyhow::Context as _;
use axum::body::{Body, Bytes};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use stream_encryption_api::crd;

use crate::settings::{Arguments, Command};
use crate::{operator, telemetry};

/// Runs the command of `arguments`.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::Crd => {
            let definitions = crd::definitions().into_iter().map(|(_, definition)| crd::yaml(&definition));
            let documents = definitions.collect::<anyhow::Result<Vec<String>>>()?;
            print!("{}", documents.join("---\n"));
            Ok(())
        }
        Command::Iam { document } => {
            let policy = serde_json::to_string_pretty(&document.policy()?)?;
            if let Some(advice) = document.advice(&policy) {
                eprintln!("{advice}");
            }
            println!("{policy}");
            Ok(())
        }
        Command::Check { url } => {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(check(&url))
        }
        Command::Run(arguments) => {
            let settings = arguments.check()?;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let entered = runtime.enter();
            let telemetry = telemetry::start(arguments.log_format, &arguments.log)?;
            drop(entered);
            // kube and the AWS SDKs share one TLS implementation; rustls cannot select it without this line.
            rustls::crypto::aws_lc_rs::default_provider()
                .install_default()
                .map_err(|_| anyhow::anyhow!("another TLS implementation is already installed"))?;
            let ended = runtime.block_on(operator::run(settings));
            // The runtime still runs here, because the last traces are sent now.
            drop(telemetry);
            ended
        }
    }
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
    println!("{url} returned {status}: {words}");
    Ok(())
}
