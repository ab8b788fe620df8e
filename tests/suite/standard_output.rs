//! Commands whose standard output cannot be written: a full disk is an error, without a panic, and a reader that has left is
//! none.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;

/// Returns each command that prints its result at its end, with the name under which the program is started.
async fn lines() -> Vec<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/readyz", listener.local_addr().expect("an address"));
    let operator = Router::new().route("/readyz", get("ready"));
    tokio::spawn(async move { axum::serve(listener, operator).await });
    vec![
        "stream-encryption-operator crd".to_owned(),
        "stream-encryption-operator iam adopt".to_owned(),
        format!("stream-encryption-operator check --url {url}"),
        "kubectl_complete-streamencryption ex".to_owned(),
        "kubectl-streamencryption completion bash".to_owned(),
    ]
}

/// Runs a command, and returns its exit code and its errors.
async fn run(line: &str, out: impl Into<Stdio>) -> (Option<i32>, String) {
    let mut words = line.split(' ');
    let mut command = Command::new(env!("CARGO_BIN_EXE_stream-encryption-operator"));
    command.arg0(words.next().expect("a name")).args(words);
    command.stdin(Stdio::null()).stdout(out).stderr(Stdio::piped());
    let ended = tokio::task::spawn_blocking(move || command.output().expect("it runs"));
    let ended = ended.await.expect("it ends");
    (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn full_standard_output_is_an_error_without_a_panic() {
    for line in lines().await {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("the device");
        let (code, errors) = run(&line, full).await;
        assert_eq!(code, Some(1), "{line}: {errors}");
        let is_clear = errors.starts_with("Error: ") && errors.contains("No space left on device");
        assert!(is_clear && errors.lines().count() == 1, "{line}: {errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_that_has_left_is_no_error() {
    for line in lines().await {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        assert_eq!(run(&line, writer).await, (Some(0), String::new()), "{line}");
    }
}
