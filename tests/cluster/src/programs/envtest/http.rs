//! Gets files over HTTP and HTTPS, through the proxy that `$HTTPS_PROXY` names unless `$NO_PROXY` excepts the
//! host. Never goes from HTTPS to HTTP, and never reads more than a limited number of bytes.

use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use aws_lc_rs::digest;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::http::uri::{PathAndQuery, Scheme};
use hyper::{Request, Response, StatusCode, Uri, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector, proxy::Tunnel};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::aws_lc_rs::default_provider;
use tokio::time::{self, Instant};

use crate::programs::build::{PROGRESS, say};
use crate::programs::hex;

/// GitHub redirects once, to where it stores its releases.
const MAX_REDIRECTS: usize = 5;

/// Limits a download; a real archive has 70 MB.
const MAX_DOWNLOAD: u64 = 512 << 20;

/// Returns the text at a URL.
pub(super) async fn get_text(url: &str, limit: usize) -> anyhow::Result<String> {
    let body = Limited::new(get(url).await?, limit).collect().await.map_err(anyhow::Error::from_boxed)?;
    Ok(String::from_utf8(body.to_bytes().into())?)
}

/// Downloads a URL to a file, and returns its SHA-512 hash in hexadecimal. Gives up once nothing has arrived
/// for the duration `stall`. Prints its progress every 15 seconds.
pub(super) async fn download(url: &str, file: &mut File, stall: Duration) -> anyhow::Result<String> {
    let stalled = || format!("{url} sent nothing for {} s", stall.as_secs_f32());
    let mut body = time::timeout(stall, get(url)).await.with_context(stalled)??;
    let (mut hash, mut size, mut printed) = (digest::Context::new(&digest::SHA512), 0, Instant::now());
    while let Some(frame) = time::timeout(stall, body.frame()).await.with_context(stalled)? {
        let Ok(data) = frame.with_context(|| format!("{url} broke off"))?.into_data() else { continue };
        size += data.len() as u64;
        ensure!(size <= MAX_DOWNLOAD, "{url} is larger than {MAX_DOWNLOAD} bytes");
        hash.update(&data);
        file.write_all(&data)?;
        if printed.elapsed() >= PROGRESS {
            say(&format!("downloaded {} MB", size >> 20));
            printed = Instant::now();
        }
    }
    Ok(hex(hash.finish().as_ref()))
}

/// Gets the body at a URL, after redirects.
async fn get(url: &str) -> anyhow::Result<Incoming> {
    let mut uri: Uri = url.parse().with_context(|| format!("{url:?} is not a URL"))?;
    let proxies = Matcher::from_env();
    for _ in 0..=MAX_REDIRECTS {
        let response = request(&uri, &proxies).await?;
        let host = uri.host().unwrap_or_default();
        match (response.status(), response.headers().get(header::LOCATION)) {
            (StatusCode::OK, _) => return Ok(response.into_body()),
            (status, Some(location)) if status.is_redirection() => {
                uri = redirected(&uri, location.as_bytes())
                    .with_context(|| format!("{host} redirects badly"))?;
            }
            (status, _) => bail!("{host} answers {status}"),
        }
    }
    bail!("more than {MAX_REDIRECTS} redirects")
}

/// Sends one request, through a proxy if `proxies` name one for a URL that is HTTPS.
pub(super) async fn request(uri: &Uri, proxies: &Matcher) -> anyhow::Result<Response<Incoming>> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false); // or it refuses https://, which the layer above it handles
    match proxies.intercept(uri).filter(|_| uri.scheme() == Some(&Scheme::HTTPS)) {
        None => send(uri, with_tls(tcp)?).await,
        Some(proxy) => {
            let address = proxy.uri().clone();
            ensure!(address.scheme() == Some(&Scheme::HTTP), "only a proxy with http:// is supported");
            let tunnel = Tunnel::new(address, tcp);
            let tunnel = match proxy.basic_auth() {
                Some(password) => tunnel.with_auth(password.clone()),
                None => tunnel,
            };
            send(uri, with_tls(tunnel)?).await
        }
    }
}

/// Returns a connector that trusts the certificates of this machine.
fn with_tls<C>(connector: C) -> anyhow::Result<HttpsConnector<C>> {
    let builder = HttpsConnectorBuilder::new().with_provider_and_native_roots(default_provider())?;
    Ok(builder.https_or_http().enable_http1().wrap_connector(connector))
}

async fn send<C>(uri: &Uri, connector: C) -> anyhow::Result<Response<Incoming>>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let request = Request::get(uri).header(header::USER_AGENT, env!("CARGO_PKG_NAME"));
    Ok(client.request(request.body(Empty::<Bytes>::new())?).await?)
}

/// Returns where a redirect leads to: a whole URL, or a path on the same server.
pub(super) fn redirected(from: &Uri, location: &[u8]) -> anyhow::Result<Uri> {
    let to = if location.starts_with(b"/") && !location.starts_with(b"//") {
        let mut parts = from.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(location)?);
        Uri::from_parts(parts)?
    } else {
        Uri::try_from(location)?
    };
    let downgrade = from.scheme() == Some(&Scheme::HTTPS) && to.scheme() != Some(&Scheme::HTTPS);
    ensure!(to.host().is_some() && !downgrade, "to {to}");
    Ok(to)
}
