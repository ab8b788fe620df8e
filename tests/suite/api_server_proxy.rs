//! A proxy in the environment: the operator reaches the API server through it as kubectl would, and directly
//! where `NO_PROXY` says so.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{cluster, operators_kubeconfig};
use crate::process::{Place, eventually, free_address};
use crate::readiness::asked;

/// A name that only the proxy can resolve.
const SERVER: &str = "api.cluster.test:6443";

/// An HTTP proxy that connects all requests to one port, and records the requested hosts.
pub(crate) struct Tunnel {
    pub(crate) url: String,
    hosts: Arc<Mutex<Vec<String>>>,
}

impl Tunnel {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let hosts = Arc::new(Mutex::new(Vec::new()));
        let seen = hosts.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(Self::connect(client, port, seen.clone()));
            }
        });
        Self { url, hosts }
    }

    async fn connect(client: TcpStream, port: u16, hosts: Arc<Mutex<Vec<String>>>) -> Option<()> {
        let mut client = BufReader::new(client);
        let mut first = String::new();
        client.read_line(&mut first).await.ok()?;
        let host = first.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
        let mut line = String::new();
        while client.read_line(&mut line).await.ok()? > 2 {
            line.clear();
        }
        hosts.lock().expect("no panic").push(host);
        let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok()?;
        copy_bidirectional(&mut client, &mut server).await.ok()?;
        Some(())
    }

    pub(crate) fn hosts(&self) -> Vec<String> {
        self.hosts.lock().expect("no panic").clone()
    }
}

/// The operator's kubeconfig with other fields in its cluster.
async fn kubeconfig(members: &str, name: &str) -> PathBuf {
    let cluster = cluster().await;
    let text = fs::read_to_string(operators_kubeconfig(cluster).await).expect("a kubeconfig");
    let server = format!("server: \"{}\"", cluster.url());
    assert!(text.contains(&server), "{text}");
    let path = cluster.folder().join(format!("{name}.kubeconfig"));
    fs::write(&path, text.replace(&server, members)).expect("a kubeconfig");
    path
}

pub(crate) fn port(url: &str) -> u16 {
    url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

/// Starts an operator with these variables and waits until it has listed its resources.
async fn becomes_ready(kubeconfig: &std::path::Path, variables: &[(&str, &str)]) {
    let place = Place { account: kubeconfig.to_owned(), ..Place::new().await };
    let address = free_address().to_string();
    let _operator = place.start(&[&[("LISTEN", address.as_str())], variables].concat());
    let ready = format!("http://{address}/readyz");
    eventually("it is ready", async || asked(&ready).await.is_some_and(|(status, _)| status == 200)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn api_server_is_reached_through_environment_proxy() {
    let far = format!("server: \"https://{SERVER}\", tls-server-name: kubernetes.default.svc");
    let kubeconfig = kubeconfig(&far, "far").await;
    for name in ["HTTPS_PROXY", "https_proxy"] {
        let proxy = Tunnel::to(port(&cluster().await.url())).await;
        becomes_ready(&kubeconfig, &[(name, &proxy.url)]).await;
        let hosts = proxy.hosts();
        assert!(!hosts.is_empty() && hosts.iter().all(|host| host == SERVER), "{name}: {hosts:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubeconfig_proxy_overrides_no_proxy() {
    let proxy = Tunnel::to(port(&cluster().await.url())).await;
    let far = format!(
        "server: \"https://{SERVER}\", tls-server-name: kubernetes.default.svc, proxy-url: \"{}\"",
        proxy.url
    );
    let kubeconfig = kubeconfig(&far, "proxied").await;
    becomes_ready(&kubeconfig, &[("NO_PROXY", "*"), ("HTTPS_PROXY", "http://127.0.0.1:1")]).await;
    assert!(!proxy.hosts().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn api_server_in_no_proxy_is_reached_directly() {
    let cluster = cluster().await;
    let near = operators_kubeconfig(cluster).await;
    let proxy = Tunnel::to(port(&cluster.url())).await;
    for (name, excepted) in [("NO_PROXY", "*"), ("no_proxy", "127.0.0.0/8,.svc"), ("NO_PROXY", "")] {
        becomes_ready(&near, &[("HTTPS_PROXY", &proxy.url), (name, excepted)]).await;
    }
    assert_eq!(proxy.hosts(), Vec::<String>::new());
}
