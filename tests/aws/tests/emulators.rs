//! The third-party emulators start, listen on loopback only, and end with their owner.

use std::fs;
use std::net::TcpStream;
use std::time::Duration;

use simulated_aws::emulators::{KinesisLocal, Moto};

fn port(url: &str) -> u16 {
    url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

/// Returns the addresses that listen on this port, in the kernel's notation: `0100007F` is 127.0.0.1.
fn listeners(port: u16) -> Vec<String> {
    let table = ["/proc/net/tcp", "/proc/net/tcp6"]
        .map(|file| fs::read_to_string(file).unwrap_or_default())
        .join("\n");
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .filter(|line| line.split_whitespace().nth(3) == Some("0A"))
        .filter_map(|line| line.split_whitespace().nth(1)?.strip_suffix(&suffix).map(str::to_owned))
        .collect()
}

#[tokio::test]
#[ignore = "requires moto from PyPI; .ci/run runs it"]
async fn moto_listens_on_loopback_and_ends_with_its_owner() {
    let Some(moto) = Moto::start().await.expect("moto starts") else { return };
    let port = port(moto.url());
    if cfg!(target_os = "linux") {
        assert_eq!(listeners(port), ["0100007F"]);
    }
    drop(moto);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "it is gone");
}

#[tokio::test]
#[ignore = "requires kinesis-local from npm; .ci/run runs it"]
async fn kinesis_local_listens_on_loopback_and_ends_on_owner_panic() {
    let Some(kinesis) = KinesisLocal::start(Duration::from_millis(500)).await.expect("kinesis-local starts")
    else {
        return;
    };
    let port = port(kinesis.url());
    if cfg!(target_os = "linux") {
        assert_eq!(listeners(port), ["0100007F"]);
    }
    let owner = std::thread::spawn(move || {
        let _kinesis = kinesis;
        panic!("on purpose: the owner fails");
    });
    assert!(owner.join().is_err());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "it is gone");
}
