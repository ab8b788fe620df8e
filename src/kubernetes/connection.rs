//! The connection to the API server. With a kubeconfig it is that of kubectl, with the proxy of the environment. In a
//! pod it is direct, whatever proxy the environment names.
//!
//! kube reads `HTTPS_PROXY` itself, but compares `NO_PROXY` with the proxy's address instead of the API
//! server's.

use std::env;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use axum::http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::Config;
use kube::config::{Cluster, KubeConfigOptions, Kubeconfig, KubeconfigError};

mod kubeconfig_files;

/// How long a connection may stay silent while the operator waits for a response or for the next event of a watch. A
/// longer silence is a failure, and the cache of the watch is not read for some time.
///
/// It is longer than a watch, which may be silent until its regular end: the API server may end it 4 s late. It is
/// shorter than the silence after which kube begins a watch anew without an error (the length of a watch and 5 s).
/// Otherwise no watch that was accepted would ever fail, and a load balancer that accepts each watch and delivers
/// nothing would keep the cache in use, however old it is.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(79);

/// How long a watch lasts, in seconds. It then begins anew where it ended. A watch may be silent for all of that time:
/// the API server sends no bookmark while its cache of the kind has not advanced since the watch began.
pub const WATCH_SECONDS: u32 = 75;

/// The token of a pod's service account.
const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Returns the connection that KUBECONFIG or `~/.kube/config` describes, otherwise that of the pod's service
/// account.
pub async fn config() -> anyhow::Result<Config> {
    let mut config = match kubeconfig()? {
        Some(kubeconfig) => of_operator(kubeconfig).await?,
        None => Config::incluster().context(
            "no cluster is configured: KUBECONFIG is not set, ~/.kube/config does not exist, and the process does not run in a pod with a service account",
        )?,
    };
    config.apply_debug_overrides();
    Ok(with_timeouts(config))
}

/// Returns the connection of the operator that a kubeconfig describes.
async fn of_operator(kubeconfig: Kubeconfig) -> anyhow::Result<Config> {
    let config = of_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    kubeconfig_files::ensure_trimmed_token(&config.auth_info)?;
    Ok(config)
}

/// No kubeconfig says which cluster to use.
#[derive(Debug, thiserror::Error)]
pub enum NoCluster {
    /// There is no kubeconfig.
    #[error("no cluster is configured: set KUBECONFIG, or use --kubeconfig FILE")]
    NoKubeconfig,
    /// The kubeconfig does not say which of its contexts is in use.
    #[error("the kubeconfig has no current context: use kubectl config use-context NAME, or --context NAME")]
    NoCurrentContext,
}

/// Returns the connection of a person's command, with the defaults of kubectl: that of a context of a kubeconfig. Without any
/// kubeconfig it is that of the pod's service account, if the process runs in a pod that has one, such as a job of a pipeline.
///
/// The service account never replaces what somebody has named. A file or a context that cannot be used is an error, because
/// the cluster of the pod may be another one. A kubeconfig that exists and is empty, such as `/dev/null`, means no cluster.
///
/// # Errors
///
/// A [`NoCluster`] if nothing names a cluster; any other error if a cluster is named that cannot be used.
pub async fn of_context(file: Option<&Path>, context: Option<&str>) -> anyhow::Result<Config> {
    let kubeconfig = match file {
        Some(file) => {
            Some(read(file).with_context(|| format!("the kubeconfig {} cannot be used", file.display()))?)
        }
        None => kubeconfig()?,
    };
    Ok(with_timeouts(of_person(kubeconfig, context, of_pod).await?))
}

/// Returns the connection of a person's command. `pod` returns the connection of the pod's service account, if there is one.
async fn of_person(
    kubeconfig: Option<Kubeconfig>,
    context: Option<&str>,
    pod: impl FnOnce() -> anyhow::Result<Option<Config>>,
) -> anyhow::Result<Config> {
    let Some(kubeconfig) = kubeconfig else {
        let of_pod = if context.is_none() { pod()? } else { None };
        return of_pod.ok_or_else(|| NoCluster::NoKubeconfig.into());
    };
    let current = context.or(kubeconfig.current_context.as_deref()).unwrap_or_default();
    ensure!(!current.is_empty(), NoCluster::NoCurrentContext);
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let mut config = of_kubeconfig(kubeconfig, &options).await?;
    kubeconfig_files::trim_token(&mut config.auth_info);
    Ok(config)
}

/// Returns the connection of the pod's service account, in its namespace. `None` if the process does not run in a pod with a
/// token, by the rule of kubectl.
fn of_pod() -> anyhow::Result<Option<Config>> {
    let names_api_server = env::var_os("KUBERNETES_SERVICE_HOST").is_some_and(|host| !host.is_empty());
    if !names_api_server || !Path::new(TOKEN_FILE).is_file() {
        return Ok(None);
    }
    let mut config = Config::incluster().context("the service account of this pod cannot be used")?;
    // kube takes the whole file, also a line break at its end.
    config.default_namespace = config.default_namespace.trim().to_owned();
    Ok(Some(config))
}

/// Returns the connection with the operator's timeouts.
fn with_timeouts(mut config: Config) -> Config {
    // Each request of the operator has its own deadline, and the next reconciliation retries with the state at that time. A
    // person would wait for minutes without a word: their requests are repeated by `refusal_retry`.
    config.default_retry = false;
    config.read_timeout = Some(READ_TIMEOUT);
    // Otherwise the time that a pooled connection was idle counts as silence: a watch that begins on it fails.
    config.reset_reader_on_write = true;
    config
}

/// Returns the kubeconfig of the environment, if there is one.
fn kubeconfig() -> anyhow::Result<Option<Kubeconfig>> {
    let default = env::home_dir().map(|home| home.join(".kube/config"));
    kubeconfig_of(&env::var_os("KUBECONFIG").unwrap_or_default(), default.as_deref())
}

/// Returns the kubeconfig that `variable` names, the value of KUBECONFIG: a file, or several, which are merged as kubectl merges
/// them. If it names none, returns that of the default file, if this exists.
fn kubeconfig_of(variable: &OsStr, default: Option<&Path>) -> anyhow::Result<Option<Kubeconfig>> {
    let files: Vec<PathBuf> =
        env::split_paths(variable).filter(|file| !file.as_os_str().is_empty()).collect();
    if files.is_empty() {
        return match default.map(read) {
            Some(Ok(kubeconfig)) => Ok(Some(kubeconfig)),
            Some(Err(error)) if !is_missing(&error) => Err(error).context("~/.kube/config cannot be used"),
            _ => Ok(None),
        };
    }
    let (missing, existing): (Vec<_>, Vec<_>) =
        files.iter().map(|file| read(file)).partition(|file| file.as_ref().is_err_and(is_missing));
    // Like kubectl, this skips the files that do not exist. If none of them does, the variable is wrong.
    let files = if existing.is_empty() { missing } else { existing };
    let merged = files.into_iter().try_fold(Kubeconfig::default(), |merged, file| merged.merge(file?));
    merged.map(Some).with_context(|| format!("KUBECONFIG={} cannot be used", variable.display()))
}

/// Reads a file. An empty `current-context` is none, as for kubectl: it must not hide that of the next file.
fn read(file: &Path) -> Result<Kubeconfig, KubeconfigError> {
    let mut kubeconfig = Kubeconfig::read_from(file)?;
    kubeconfig.current_context = kubeconfig.current_context.filter(|name| !name.is_empty());
    Ok(kubeconfig)
}

/// Returns whether the file does not exist.
fn is_missing(error: &KubeconfigError) -> bool {
    matches!(error, KubeconfigError::ReadConfig(error, _) if error.kind() == ErrorKind::NotFound)
}

async fn of_kubeconfig(kubeconfig: Kubeconfig, options: &KubeConfigOptions) -> anyhow::Result<Config> {
    let cluster = cluster_of_context(&kubeconfig, options.context.as_ref());
    let proxy = cluster.and_then(|cluster| cluster.proxy_url.clone()).filter(|url| !url.is_empty());
    let authority = cluster.and_then(kubeconfig_files::authority);
    let config = Config::from_custom_kubeconfig(kubeconfig, options).await;
    let mut config = config.map_err(|error| {
        // kube parses NO_PROXY even if it has no effect.
        let no_proxy = matches!(error, KubeconfigError::ParseNoProxy(_));
        let wanted =
            "NO_PROXY must be a comma-separated list of names, addresses and CIDRs, without empty entries";
        anyhow::Error::new(error).context(if no_proxy { wanted } else { "the kubeconfig cannot be used" })
    })?;
    kubeconfig_files::prefer_token_file(&mut config.auth_info);
    // As in a pod, kube reads this file again for a new connection, at most once a minute. Without this, kube reads it once.
    config.root_cert_file = authority;
    // As in kubectl, `NO_PROXY` does not override `proxy-url`.
    config.proxy_url = match proxy {
        Some(url) => Some(parse(&url).context("invalid proxy-url in the kubeconfig: expected a URL")?),
        None => proxy_of_environment(&config.cluster_url, |name| env::var(name).ok())?,
    };
    Ok(config)
}

/// Returns the cluster of the context, by default of the current context.
fn cluster_of_context<'a>(kubeconfig: &'a Kubeconfig, context: Option<&String>) -> Option<&'a Cluster> {
    let current = context.or(kubeconfig.current_context.as_ref())?;
    let context = kubeconfig.contexts.iter().find(|context| context.name == *current)?.context.as_ref()?;
    kubeconfig.clusters.iter().find(|cluster| cluster.name == context.cluster)?.cluster.as_ref()
}

/// Returns the proxy that the environment specifies for `server`. Variables in lower case are read, too.
fn proxy_of_environment(
    server: &Uri,
    variable: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<Option<Uri>> {
    let given =
        |names: [&str; 2]| names.iter().find_map(|name| variable(name).filter(|text| !text.is_empty()));
    let Some(url) = given(["HTTPS_PROXY", "https_proxy"]) else { return Ok(None) };
    if server.scheme_str() != Some("https") || is_local(server) {
        return Ok(None);
    }
    let excepted = given(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    let matcher = Matcher::builder().all("http://proxy.invalid").no(excepted).build();
    if matcher.intercept(server).is_none() {
        return Ok(None);
    }
    Ok(Some(parse(&url).context("invalid HTTPS_PROXY: expected http://HOST:PORT")?))
}

/// Returns whether `server` runs on this machine: kubectl never uses a proxy for it.
fn is_local(server: &Uri) -> bool {
    let host = server.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Parses the URL of a proxy; without a scheme it is HTTP.
fn parse(url: &str) -> anyhow::Result<Uri> {
    let url = match url.split_once("://") {
        // kube always lets the proxy resolve names.
        Some(("socks5h", rest)) => format!("socks5://{rest}"),
        Some(_) => url.to_owned(),
        None => format!("http://{url}"),
    };
    Ok(url.parse()?)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::http::Request;
    use futures_util::{FutureExt as _, StreamExt as _};
    use k8s_openapi::api::core::v1::Namespace;
    use kube::Client;
    use kube::api::Api;
    use kube::runtime::watcher;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc::UnboundedReceiver;

    use super::*;

    /// Lets this time pass in steps of so many seconds. In the meantime, no real time passes.
    async fn pass_in_steps(steps: u64, seconds: u64) {
        tokio::time::pause();
        for _ in 0..steps {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            // Whoever waits for this time continues before anything else happens.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }
        tokio::time::resume();
    }

    async fn pass(seconds: u64) {
        pass_in_steps(1, seconds).await;
    }

    /// Watches failed on quiet clusters, because connections that had been idle were used for them.
    #[tokio::test]
    async fn idle_time_of_connection_is_no_silence() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Router::new()
            .route("/fast", axum::routing::get("fast"))
            .route("/slow", axum::routing::get(|| async { pass(20).await }));
        tokio::spawn(async move { axum::serve(listener, server).await });
        let client = Client::try_from(with_timeouts(Config::new(url.parse().unwrap()))).unwrap();
        let get = |path| client.request_text(Request::get(path).body(Vec::new()).unwrap());
        get("/fast").await.unwrap();
        pass(80).await;
        get("/slow").await.unwrap();
    }

    /// Returns a client whose API server lists no namespaces and sends no event to a watch. It calls `end` with the
    /// length that the client has requested for the watch, in seconds, and ends the watch when the future is complete.
    /// The channel has an item for each watch.
    async fn silent_server<E>(
        end: impl Fn(u64) -> E + Clone + Send + Sync + 'static,
    ) -> (Client, UnboundedReceiver<()>)
    where
        E: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (begins, begun) = tokio::sync::mpsc::unbounded_channel();
        let server = Router::new().fallback(async move |request: Request<Body>| {
            let query = request.uri().query().unwrap_or_default();
            if !query.contains("watch=true") {
                let list = r#"{"apiVersion":"v1","kind":"NamespaceList","metadata":{"resourceVersion":"1"},"items":[]}"#;
                return Body::from(list);
            }
            let seconds = query.split('&').find_map(|pair| pair.strip_prefix("timeoutSeconds=")?.parse().ok());
            begins.send(()).unwrap();
            let silence = end(seconds.unwrap()).map(|()| Ok::<_, std::convert::Infallible>(Vec::new()));
            Body::from_stream(futures_util::stream::once(silence))
        });
        tokio::spawn(async move { axum::serve(listener, server).await });
        (Client::try_from(with_timeouts(Config::new(url.parse().unwrap()))).unwrap(), begun)
    }

    /// Watches failed on quiet clusters, because the API server sends no bookmark if there is no newer version.
    #[tokio::test]
    async fn silent_watch_that_ends_three_seconds_late_is_resumed() {
        let (client, mut begun) = silent_server(|seconds| pass_in_steps(seconds + 3, 1)).await;
        let namespaces: Api<Namespace> = Api::all(client);
        let mut events = std::pin::pin!(watcher(namespaces, super::super::watches::config()));
        let mut watches = 0;
        while watches < 3 {
            tokio::select! {
                Some(event) = events.next() => drop(event.expect("no watch fails")),
                Some(()) = begun.recv() => watches += 1,
            }
        }
    }

    /// kube itself begins such a watch anew, without an error.
    #[tokio::test]
    async fn silent_watch_without_regular_end_fails() {
        let (client, mut begun) =
            silent_server(|seconds| pass_in_steps(seconds + 30, 1).then(|()| std::future::pending())).await;
        let namespaces: Api<Namespace> = Api::all(client);
        let mut events = std::pin::pin!(watcher(namespaces, super::super::watches::config()));
        let mut watches = 0;
        let failure = loop {
            tokio::select! {
                Some(event) = events.next() => if let Err(failure) = event { break failure },
                Some(()) = begun.recv() => watches += 1,
            }
            assert!(watches < 2, "the watch was begun anew");
        };
        assert!(matches!(failure, watcher::Error::WatchFailed(_)), "{failure}");
    }

    #[test]
    fn list_of_kubeconfigs_is_merged_as_by_kubectl() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let cluster = |server: &str| format!("clusters: [{{name: x, cluster: {{server: '{server}'}}}}]\n");
        for (name, text) in [
            ("empty", String::new()),
            ("none", format!("current-context: ''\n{}", cluster("https://first"))),
            ("two", format!("current-context: two\n{}", cluster("https://second"))),
            ("three", "current-context: three\n".to_owned()),
            ("broken", "clusters: [".to_owned()),
        ] {
            std::fs::write(path(name), text).unwrap();
        }
        let merged = |names: &[&str], default: &str| {
            let variable = env::join_paths(names.iter().map(|name| path(name))).unwrap();
            let found = kubeconfig_of(&variable, Some(&path(default)));
            found.map_err(|error| error.to_string()).map(|found| {
                let found = found?;
                let server = found.clusters.first().and_then(|entry| entry.cluster.as_ref()?.server.clone());
                Some((found.current_context.unwrap_or_default(), server.unwrap_or_default()))
            })
        };
        let of = |context: &str, server: &str| Ok::<_, String>(Some((context.to_owned(), server.to_owned())));
        for (names, expected) in [
            (&["none", "two", "three"][..], of("two", "https://first")),
            (&["missing", "two"], of("two", "https://second")),
            (&["three", "missing", "none"], of("three", "https://first")),
            (&["none"], of("", "https://first")),
            (&["empty"], of("", "")),
            // The default file.
            (&[], of("three", "")),
        ] {
            assert_eq!(merged(names, "three"), expected, "{names:?}");
        }
        for names in [&["missing"][..], &["missing", "gone"], &["two", "broken"]] {
            let error = merged(names, "three").unwrap_err();
            assert!(error.starts_with("KUBECONFIG=") && error.ends_with("cannot be used"), "{error}");
        }
        assert_eq!(merged(&[], "missing"), Ok(None));
        assert_eq!(merged(&[], "broken"), Err("~/.kube/config cannot be used".to_owned()));
    }

    /// A command in the wrong cluster would report on the wrong streams.
    #[tokio::test]
    async fn service_account_is_used_only_if_nothing_is_named() {
        let pod = || {
            let mut config = Config::new("https://10.0.0.1".parse().unwrap());
            config.default_namespace = "ci".to_owned();
            Ok(Some(config))
        };
        let config = of_person(None, None, pod).await.unwrap();
        assert_eq!((config.cluster_url.host(), &*config.default_namespace), (Some("10.0.0.1"), "ci"));
        let error = of_person(None, None, || Ok(None)).await.unwrap_err();
        assert!(matches!(error.downcast_ref::<NoCluster>(), Some(NoCluster::NoKubeconfig)), "{error}");
        let error = of_person(None, Some("prod"), pod).await.unwrap_err();
        assert!(matches!(error.downcast_ref::<NoCluster>(), Some(NoCluster::NoKubeconfig)), "{error}");
        let error = of_person(Some(Kubeconfig::default()), None, pod).await.unwrap_err();
        assert!(matches!(error.downcast_ref::<NoCluster>(), Some(NoCluster::NoCurrentContext)), "{error}");
    }

    fn proxy(server: &str, variables: &[(&str, &str)]) -> Option<String> {
        let variable = |name: &str| {
            variables.iter().find(|(given, _)| *given == name).map(|(_, value)| (*value).to_owned())
        };
        proxy_of_environment(&server.parse().unwrap(), variable).unwrap().map(|url| url.to_string())
    }

    #[test]
    fn proxy_variables_work_as_in_kubectl() {
        const FAR: &str = "https://api.example.com:6443";
        for (server, variables, expected) in [
            (FAR, &[][..], None),
            (FAR, &[("HTTPS_PROXY", "http://p:3128")], Some("http://p:3128/")),
            (FAR, &[("https_proxy", "http://p:3128")], Some("http://p:3128/")),
            (FAR, &[("HTTPS_PROXY", ""), ("https_proxy", "p:3128")], Some("http://p:3128/")),
            (FAR, &[("HTTPS_PROXY", "socks5h://p:1080")], Some("socks5://p:1080/")),
            (FAR, &[("HTTP_PROXY", "http://p:3128")], None),
            (FAR, &[("HTTPS_PROXY", "http://p"), ("NO_PROXY", "*")], None),
            (FAR, &[("HTTPS_PROXY", "http://p"), ("no_proxy", "a.example, .example.com")], None),
            (FAR, &[("HTTPS_PROXY", "http://p"), ("NO_PROXY", "p")], Some("http://p/")),
            ("https://10.0.0.1", &[("HTTPS_PROXY", "http://p"), ("NO_PROXY", "10.0.0.0/8")], None),
            (
                "https://11.0.0.1",
                &[("HTTPS_PROXY", "http://p"), ("NO_PROXY", "10.0.0.0/8")],
                Some("http://p/"),
            ),
            ("https://127.0.0.1:6443", &[("HTTPS_PROXY", "http://p")], None),
            ("https://[::1]:6443", &[("HTTPS_PROXY", "http://p")], None),
            ("https://localhost", &[("HTTPS_PROXY", "http://p")], None),
            ("http://api.example.com", &[("HTTPS_PROXY", "http://p")], None),
        ] {
            assert_eq!(proxy(server, variables).as_deref(), expected, "{server} {variables:?}");
        }
    }
}
