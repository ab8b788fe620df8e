//! Downloads from an HTTP server in this process, with archives as small as can be.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use aws_lc_rs::digest;
use hyper_util::client::proxy::matcher::Matcher;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::port::Port;
use crate::programs::hex;

const MEMBERS: [(&str, &str); 3] = [
    ("controller-tools/envtest/etcd", "an etcd"),
    ("controller-tools/envtest/kube-apiserver", "a kube-apiserver"),
    ("controller-tools/envtest/kubectl", "a kubectl"),
];

/// What the server sends for a path, and whether it then closes the connection or keeps it open in silence.
type Answers = HashMap<String, (Vec<u8>, bool)>;

/// An HTTP server until the end of the test.
struct Server {
    url: String,
    /// The first line of each request, after the answer to it was sent.
    answered: mpsc::UnboundedReceiver<String>,
}

impl Server {
    /// Starts a server with the answers that `answers` returns for its URL.
    async fn start(answers: impl FnOnce(&str) -> Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers = Arc::new(answers(&url));
        let (sender, answered) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(answer(connection, answers.clone(), sender.clone()));
            }
        });
        Self { url, answered }
    }

    fn releases(&self) -> Releases {
        Releases::at(&format!("{}/index", self.url))
    }

    /// Returns the next request, which is on its way.
    async fn request(&mut self) -> String {
        time::timeout(Duration::from_secs(10), self.answered.recv()).await.expect("a request").unwrap()
    }
}

async fn answer(mut connection: TcpStream, answers: Arc<Answers>, sender: mpsc::UnboundedSender<String>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") && connection.read_buf(&mut request).await.unwrap_or(0) > 0 {}
    let request = String::from_utf8(request).unwrap();
    let line = request.lines().next().unwrap_or_default();
    let path = line.split(' ').nth(1).unwrap_or_default();
    let (bytes, silence) =
        answers.get(path).cloned().unwrap_or((b"HTTP/1.1 404 None\r\n\r\n".to_vec(), false));
    connection.write_all(&bytes).await.unwrap();
    let _ = sender.send(line.to_owned());
    if silence {
        std::future::pending::<()>().await;
    }
}

/// Returns an answer of `body`, of which only the first `sent` bytes are sent.
fn part(body: &[u8], sent: usize) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), &body[..sent]].concat()
}

fn whole(body: &[u8]) -> Vec<u8> {
    part(body, body.len())
}

fn redirect(location: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n").into_bytes()
}

fn sha512(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA512, bytes).as_ref())
}

/// Returns an index with Kubernetes 1.35.1 for this platform, at `/archive`.
fn index(url: &str, hash: &str) -> Vec<u8> {
    let name = format!("envtest-v1.35.1-{}.tar.gz", platform());
    format!("releases:\n  v1.35.1:\n    {name}:\n      hash: {hash}\n      selfLink: {url}/archive\n").into()
}

/// Starts a server with an index, and an answer for its archive.
async fn server(hash: &str, archive: Vec<u8>, silence: bool) -> Server {
    let answers = |url: &str| {
        let index = (whole(&index(url, hash)), false);
        HashMap::from([("/index".to_owned(), index), ("/archive".to_owned(), (archive, silence))])
    };
    Server::start(answers).await
}

/// A cache with the folder for temporary files in it.
struct Cache(TempDir);

impl Cache {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("built")).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    async fn download(&self, releases: &Releases) -> Result<(), String> {
        let work = self.path().join("built");
        releases.download("1.35.4", self.path(), &work).await.map_err(|error| format!("{error:#}"))
    }

    /// Asserts that the cache has nothing but the empty folder for temporary files.
    fn is_empty(&self) {
        let names = |folder: &Path| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names(self.path()).collect::<Vec<_>>(), ["built"]);
        assert_eq!(names(&self.path().join("built")).count(), 0);
        assert_eq!(cached(self.path(), "1.35.4"), None);
    }
}

#[tokio::test]
async fn archive_of_index_fills_folder_of_its_own_version() {
    let (cache, archive) = (Cache::new(), archive::pack(&MEMBERS));
    fs::create_dir(cache.path().join("built/.unpacking")).unwrap(); // of a killed process
    let server = server(&sha512(&archive).to_uppercase(), whole(&archive), false).await;
    assert_eq!(cache.download(&server.releases()).await, Ok(()));

    let folder = cache.path().join("envtest-1.35.1");
    assert_eq!(cached(cache.path(), "1.35.4"), Some(folder.clone()));
    assert_eq!(cached(cache.path(), "1.36.4"), None);
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o700, 0o700);
    for name in PROGRAMS {
        let program = folder.join(name);
        assert!(fs::read_to_string(&program).unwrap().ends_with(name));
        assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o700, 0o700);
    }
    fs::remove_dir_all(folder).unwrap();
    cache.is_empty();
}

#[tokio::test]
async fn archive_with_other_hash_is_not_unpacked() {
    let (cache, archive) = (Cache::new(), archive::pack(&MEMBERS));
    let hash = sha512(b"another archive");
    let server = server(&hash, whole(&archive), false).await;
    let error = cache.download(&server.releases()).await.unwrap_err();
    assert!(error.contains(&format!("has the hash {}, not {hash}", sha512(&archive))), "{error}");
    cache.is_empty();
}

#[tokio::test]
async fn archive_without_a_program_leaves_nothing() {
    let (cache, archive) = (Cache::new(), archive::pack(&MEMBERS[..2]));
    let server = server(&sha512(&archive), whole(&archive), false).await;
    let error = cache.download(&server.releases()).await.unwrap_err();
    assert!(error.ends_with("/archive: the archive has no kubectl"), "{error}");
    cache.is_empty();
}

#[tokio::test]
async fn missing_release_or_archive_is_an_error() {
    let cache = Cache::new();
    let server = server("00", b"HTTP/1.1 404 None\r\n\r\n".to_vec(), false).await;
    let error = cache.download(&server.releases()).await.unwrap_err();
    assert!(error.contains("127.0.0.1 answers 404"), "{error}");
    let other = server.releases().download("1.34.2", cache.path(), cache.path()).await.unwrap_err();
    assert!(other.to_string().contains("no release of Kubernetes 1.34"), "{other}");
    cache.is_empty();
}

#[tokio::test]
async fn refused_connection_fails_at_once() {
    let (cache, port) = (Cache::new(), Port::reserve().unwrap());
    let start = Instant::now();
    let error =
        cache.download(&Releases::at(&format!("http://127.0.0.1:{}", port.number()))).await.unwrap_err();
    assert!(error.contains("cannot read http://127.0.0.1") && error.contains("refused"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(4));
    cache.is_empty();
}

#[tokio::test(start_paused = true)]
async fn server_that_never_answers_costs_five_seconds() {
    let cache = Cache::new();
    let server = Server::start(|_| HashMap::from([("/index".to_owned(), (vec![], true))])).await;
    let start = Instant::now();
    let error = cache.download(&server.releases()).await.unwrap_err();
    assert!(error.ends_with("/index was not read within 5 s"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(6));
    cache.is_empty();
}

#[tokio::test]
async fn stalled_or_broken_download_leaves_nothing() {
    let (cache, archive) = (Cache::new(), archive::pack(&MEMBERS));
    for (silence, reason) in [(true, "sent nothing for 0.2 s"), (false, "broke off")] {
        let server = server(&sha512(&archive), part(&archive, 100), silence).await;
        let mut releases = server.releases();
        if silence {
            releases.stall = Duration::from_millis(200);
        }
        let error = cache.download(&releases).await.unwrap_err();
        assert!(error.contains(reason), "{error}");
        cache.is_empty();
    }
}

#[tokio::test]
async fn download_that_is_dropped_halfway_leaves_nothing() {
    let (cache, archive) = (Cache::new(), archive::pack(&MEMBERS));
    let mut server = server(&sha512(&archive), part(&archive, 100), true).await;
    let releases = server.releases();
    let halfway = async { while !server.request().await.contains("/archive") {} };
    tokio::select! {
        result = cache.download(&releases) => panic!("{result:?}"),
        () = halfway => {}
    }
    cache.is_empty();
}

#[tokio::test]
async fn redirects_are_followed_but_not_forever() {
    let (cache, archive) = (Cache::new(), archive::pack(&MEMBERS));
    let hash = sha512(&archive);
    let answers = |url: &str| {
        let found = [
            ("/index", redirect("/elsewhere?a=b")),
            ("/elsewhere?a=b", whole(&index(url, &hash))),
            ("/archive", redirect(&format!("{url}/stored"))),
            ("/stored", whole(&archive)),
            ("/circle", redirect("/circle")),
        ];
        found.map(|(path, answer)| (path.to_owned(), (answer, false))).into()
    };
    let server = Server::start(answers).await;
    assert_eq!(cache.download(&server.releases()).await, Ok(()));
    let error = cache.download(&Releases::at(&format!("{}/circle", server.url))).await.unwrap_err();
    assert!(error.ends_with("more than 5 redirects"), "{error}");
}

#[test]
fn redirect_from_https_to_http_is_refused() {
    let from = "https://far.example/a".parse().unwrap();
    let to = |location: &str| http::redirected(&from, location.as_bytes()).map(|uri| uri.to_string());
    assert_eq!(to("/b?c").unwrap(), "https://far.example/b?c");
    assert_eq!(to("https://other.example/b").unwrap(), "https://other.example/b");
    for location in ["http://far.example/a", "//other.example/b", "b", "", "file:///etc/passwd"] {
        assert!(to(location).is_err(), "{location}");
    }
}

#[tokio::test]
async fn https_goes_through_proxy_unless_excepted() {
    let refusal = b"HTTP/1.1 403 Forbidden\r\n\r\n".to_vec();
    let mut server = Server::start(|_| [("far.example:443".to_owned(), (refusal, false))].into()).await;
    let url = server.url.clone();
    let proxies = |except: &str| Matcher::builder().all(url.as_str()).no(except).build();
    let far = "https://far.example/a".parse().unwrap();
    http::request(&far, &proxies("")).await.unwrap_err();
    assert_eq!(server.request().await, "CONNECT far.example:443 HTTP/1.1");

    let near = "https://127.0.0.1:1/a".parse().unwrap();
    http::request(&near, &proxies("127.0.0.1")).await.unwrap_err();
    assert!(server.answered.try_recv().is_err());
    let socks = Matcher::builder().all("socks5://127.0.0.1:1").build();
    assert!(http::request(&far, &socks).await.unwrap_err().to_string().contains("only a proxy with http"));
}

#[test]
fn empty_variable_disables_downloads() {
    assert!(Releases::from_variable(Some("".into())).is_none());
    assert_eq!(Releases::from_variable(Some("http://mirror".into())).unwrap().index, "http://mirror");
    assert_eq!(Releases::from_variable(None).unwrap().index, INDEX);
}
