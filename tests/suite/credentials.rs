//! AWS credentials that change while the operator runs, and sources other than the two environment variables:
//! a replaced file, a session that AWS has ended, a profile with a `credential_process`, a sidecar that serves
//! instance metadata, and a profile that does not exist.

use std::fs::{self, create_dir_all, rename};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, put};
use serde_json::json;
use simulated_aws::SimulatedAws;
use simulated_aws::world::{Fault, Rule};

use crate::process::{MESSAGE, OperatorProcess, Place, REASON, eventually, within};

const DESCRIBE: &str = "DescribeDeliveryStream";
/// The promised time until a rotated file or a new session is used.
const A_MINUTE: Duration = Duration::from_mins(1);

/// A directory that is removed when it is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("suite-credentials-{}-{name}", std::process::id()));
        create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).expect("a file");
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    /// Mounts a file as the kubelet mounts a Secret: in a new directory, behind a symbolic link that is
    /// replaced.
    fn mount(&self, version: u32, content: &str) {
        let (data, next) = (self.0.join("..data"), self.0.join("..data_tmp"));
        let version = self.0.join(format!("..{version}"));
        create_dir_all(&version).expect("a directory");
        fs::write(version.join("credentials"), content).expect("a file");
        symlink(&version, &next).expect("a link");
        rename(&next, &data).expect("the link is replaced");
        let link = self.0.join("credentials");
        if !link.exists() {
            symlink(Path::new("..data/credentials"), link).expect("a link");
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Starts an operator without the keys in the environment, which have priority over every other source.
fn start(place: &Place, log: impl Into<Stdio>, source: &[(&str, &str)]) -> OperatorProcess {
    let no_keys = [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")];
    place.logging_to(log, &[&no_keys[..], source].concat())
}

/// Access keys of all Describe requests so far, in order.
fn keys(aws: &SimulatedAws) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for call in aws.world().calls().iter().filter(|call| call.operation == DESCRIBE) {
        if keys.last() != Some(&call.principal.access_key) {
            keys.push(call.principal.access_key.clone());
        }
    }
    keys
}

/// Makes AWS refuse every request that is signed with this key.
fn refuse(aws: &SimulatedAws, key: &str, code: &str) {
    let message = "The security token included in the request is invalid.".to_owned();
    let fault = Fault::Refuse { code: code.to_owned(), message, status: 400 };
    aws.world().script(Rule { principal: Some(key.to_owned()), ..Rule::always(fault) });
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_credentials_file_is_used_within_a_minute() {
    let place = Place::new().await;
    let secret = Directory::new("rotated");
    secret.mount(1, "[default]\naws_access_key_id = AKIAROTATED00000001\naws_secret_access_key = first\n");
    let file = secret.0.join("credentials");
    let _operator =
        start(&place, Stdio::null(), &[("AWS_SHARED_CREDENTIALS_FILE", file.to_str().expect("UTF-8"))]);
    place.ask_for_encryption().await;
    place.until_it_is_encrypted().await;

    // First to another key, then from that key to a session.
    for (version, old, new, token) in [
        (2, "AKIAROTATED00000001", "AKIAROTATED00000002", ""),
        (3, "AKIAROTATED00000002", "ASIAROTATED00000003", "aws_session_token = a-token\n"),
    ] {
        refuse(&place.aws, old, "InvalidClientTokenId");
        let content = format!("[default]\naws_access_key_id = {new}\naws_secret_access_key = next\n{token}");
        secret.mount(version, &content);
        let is_used = async || keys(&place.aws).last().is_some_and(|key| key == new);
        within("the new key is used", A_MINUTE, is_used).await;
        place.until_it_is_encrypted().await;
    }
    assert_eq!(keys(&place.aws), ["AKIAROTATED00000001", "AKIAROTATED00000002", "ASIAROTATED00000003"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_session_is_replaced_within_a_minute() {
    let place = Place::new().await;
    let files = Directory::new("ended");
    let token = files.file("token", "a.web.token");
    let _operator = start(
        &place,
        Stdio::null(),
        &[
            ("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()),
            ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/stream-encryption"),
            ("AWS_ROLE_SESSION_NAME", "operator"),
        ],
    );
    place.ask_for_encryption().await;
    place.until_it_is_encrypted().await;

    let first = keys(&place.aws).pop().expect("a Describe request");
    refuse(&place.aws, &first, "ExpiredTokenException");
    within("another session is used", A_MINUTE, async || keys(&place.aws).last() != Some(&first)).await;
    place.until_it_is_encrypted().await;
    let calls = place.aws.world().calls().to_vec();
    let assumed = calls.iter().filter(|call| call.operation == "AssumeRoleWithWebIdentity");
    assert_eq!(assumed.count(), 2, "one session and its replacement");
}

/// As `aws_signing_helper serve` does for IAM Roles Anywhere (`docs/iam.md`).
#[tokio::test(flavor = "multi_thread")]
async fn sidecar_credentials_are_used_as_instance_metadata() {
    const ROLE: &str = "/latest/meta-data/iam/security-credentials/";
    let token = || async { ([("x-aws-ec2-metadata-token-ttl-seconds", "21600")], "a-token") };
    let session = json!({
        "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "2099-01-01T00:00:00Z",
        "AccessKeyId": "ASIASIDECAR00000001", "SecretAccessKey": "s", "Token": "t",
    });
    let sidecar = Router::new()
        .route("/latest/api/token", put(token))
        .route(ROLE, get("stream-encryption"))
        .route(&format!("{ROLE}stream-encryption"), get(move || async move { session.to_string() }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, sidecar).await });
    let place = Place::new().await;
    let source =
        [("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str())];
    let _operator = start(&place, Stdio::null(), &source);
    place.ask_for_encryption().await;
    place.until_it_is_encrypted().await;
    assert_eq!(keys(&place.aws), ["ASIASIDECAR00000001"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn profile_with_credential_process_is_used() {
    let place = Place::new().await;
    let files = Directory::new("process");
    let answer = json!({"Version": 1, "AccessKeyId": "ASIAPROCESS00000001", "SecretAccessKey": "s", "SessionToken": "t"});
    let answer = files.file("answer.json", &answer.to_string());
    let config = files.file("config", &format!("[profile laptop]\ncredential_process = cat {answer}\n"));
    let _operator =
        start(&place, Stdio::null(), &[("AWS_CONFIG_FILE", config.as_str()), ("AWS_PROFILE", "laptop")]);
    place.ask_for_encryption().await;
    place.until_it_is_encrypted().await;
    assert_eq!(keys(&place.aws), ["ASIAPROCESS00000001"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_credential_source_is_reported_without_requests() {
    let place = Place::new().await;
    let files = Directory::new("nothing");
    let config = files.file("config", "[profile other]\nregion = eu-west-1\n");
    place.ask_for_encryption().await;
    for (own, logged, told) in [
        ([("AWS_PROFILE", "laptop"), ("AWS_CONFIG_FILE", config.as_str())], "laptop", "is invalid"),
        // A Secret's value with the line break that `echo` adds. It used to end the process.
        (
            [("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE\n"), ("AWS_SECRET_ACCESS_KEY", "s")],
            "line break",
            "line break",
        ),
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let mut operator = start(&place, writer, &own);
        eventually("NoCredentials is reported", async || {
            place.field(REASON).await == "NoCredentials" && place.field(MESSAGE).await.contains(told)
        })
        .await;
        assert!(operator.ended().is_none(), "the operator keeps running");
        operator.kill();
        let log = std::io::read_to_string(reader).expect("text");
        let causes = log.lines().filter(|line| line.contains("failed to obtain AWS credentials"));
        assert_eq!(causes.clone().count(), 1, "{log}");
        assert!(causes.clone().all(|line| line.contains(logged)) && !log.contains("AKIAEXAMPLE"), "{log}");
    }
    assert_eq!(place.aws.world().calls().len(), 0, "nothing was sent");
}
