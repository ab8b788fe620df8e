//! The end of the client certificate with which the operator connects to the API server.
//!
//! kube requests the certificate from a program of the kubeconfig, or reads it from a file, only when it creates a client, and
//! never replaces it. After its expiry, the API server would accept no new connection, and the operator would run on without
//! effect. So it ends with an error before the expiry that the program states, or when the file is replaced: the supervisor
//! of the process starts it again, with a new certificate.

use std::fs;
use std::future::pending;
use std::time::Duration;

use anyhow::anyhow;
use jiff::{SignedDuration, Timestamp};
use kube::config::AuthInfo;
use sha2::{Digest as _, Sha256};
use stream_encryption_core::controller::Clock;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How long before the expiry the operator ends: it must still finish the running reconciles and release the lease.
const MARGIN: SignedDuration = SignedDuration::from_mins(1);
/// How long the operator runs at least. The program may return a certificate that expires within the margin, and return it
/// again until it expires. Without this time, the operator would end at once at each start, and a supervisor such as systemd
/// gives up after a few of them.
const MIN_RUNTIME: Duration = Duration::from_mins(1);
/// The time between two looks at the clock or at the file. A single timer would be late on a machine that was suspended.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The file of the client certificate that the kubeconfig names. The file of the key is not compared: a new key has a new
/// certificate.
pub(super) struct CertificateFile {
    path: String,
    /// The hash of the content when the operator started; `None` if the file could not be read.
    hash: Option<[u8; 32]>,
}

impl CertificateFile {
    /// Reads the file; `None` if the kubeconfig names none. Must be called before kube reads the file. Otherwise a replacement
    /// between the two reads would never be found.
    pub(super) fn read(auth_info: &AuthInfo) -> Option<Self> {
        // kube ignores the file if the kubeconfig contains the certificate itself.
        let path = auth_info.client_certificate.clone();
        let path = path.filter(|_| auth_info.client_certificate_data.is_none())?;
        Some(Self { hash: fs::read(&path).ok().map(hash), path })
    }
}

/// Returns the hash of a content. The content is not kept: the key may be in the same file.
fn hash(content: Vec<u8>) -> [u8; 32] {
    Sha256::digest(content).into()
}

/// Runs `work`, which ends soon after `end` is cancelled. `valid_until` is the expiry of the client certificate; `None` if there
/// is none that expires. `file` is the file of the certificate; `None` if it comes from no file. Cancels `end` when the file
/// is replaced, or before the expiry, but then not before [`MIN_RUNTIME`]. Returns an error in both cases.
pub(super) async fn run_until_certificate_ends(
    mut work: impl Future<Output = anyhow::Result<()>> + Unpin,
    valid_until: Option<Timestamp>,
    file: Option<&CertificateFile>,
    clock: &Clock,
    end: &CancellationToken,
) -> anyhow::Result<()> {
    let cause = tokio::select! {
        ended = &mut work => return ended,
        cause = until_expiry(valid_until, clock) => cause,
        cause = until_replacement(file) => cause,
    };
    warn!(cause, "the client certificate must be replaced, finishing the reconciles that are running");
    end.cancel();
    work.await?;
    Err(anyhow!("{cause}; start the operator again to use a new one"))
}

/// Waits for [`MIN_RUNTIME`], and then until the [`MARGIN`] before the expiry begins. Returns why the certificate ends.
async fn until_expiry(valid_until: Option<Timestamp>, clock: &Clock) -> String {
    let Some(valid_until) = valid_until else { return pending().await };
    tokio::time::sleep(MIN_RUNTIME).await;
    while clock.now() + MARGIN < valid_until {
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
    format!("the client certificate from the program in the kubeconfig expires at {valid_until}")
}

/// Waits until the file has another content. Returns why the certificate ends.
async fn until_replacement(file: Option<&CertificateFile>) -> String {
    let Some(file) = file else { return pending().await };
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        // A file that cannot be read may be in the middle of its replacement.
        let current = tokio::fs::read(&file.path).await.ok().map(hash);
        if current.is_some() && current != file.hash {
            return format!("the client certificate {} of the kubeconfig has been replaced", file.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::time::Instant;

    use super::*;

    /// A clock that begins with the year 1970, and runs with the time of the test.
    fn clock() -> Clock {
        let begin = Instant::now();
        let elapsed = move || SignedDuration::try_from(begin.elapsed()).unwrap();
        Clock::new(move || Timestamp::UNIX_EPOCH + elapsed(), || Duration::ZERO)
    }

    /// Runs the operator until its certificate ends. Returns how long the operator ran, and its error.
    async fn run(valid_until: Option<Timestamp>, file: Option<&CertificateFile>) -> (Duration, String) {
        let (begin, clock, end) = (Instant::now(), clock(), CancellationToken::new());
        let work = Box::pin(async {
            end.cancelled().await;
            anyhow::Ok(())
        });
        let error = run_until_certificate_ends(work, valid_until, file, &clock, &end).await.unwrap_err();
        (begin.elapsed(), error.to_string())
    }

    /// Runs the operator with a certificate that is valid for this time.
    async fn run_with_certificate(valid_for: SignedDuration) -> (Duration, String) {
        run(Some(Timestamp::UNIX_EPOCH + valid_for), None).await
    }

    #[tokio::test(start_paused = true)]
    async fn operator_ends_a_minute_before_its_certificate() {
        let (ran, error) = run_with_certificate(SignedDuration::from_hours(1)).await;
        assert!(error.contains("expires at 1970-01-01T01:00:00Z"), "{error}");
        assert_eq!(ran.as_secs() / 60, 59);
    }

    /// The last one has expired before the start.
    #[tokio::test(start_paused = true)]
    async fn operator_runs_a_minute_if_its_certificate_expires_soon() {
        for seconds in [90, 61, 30, -5] {
            let (ran, _) = run_with_certificate(SignedDuration::from_secs(seconds)).await;
            assert_eq!(ran.as_secs(), 60, "{seconds} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_ends_before_the_certificate_is_no_error() {
        let (clock, end) = (clock(), CancellationToken::new());
        for valid_until in [None, Some(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1))] {
            let work = Box::pin(async {
                tokio::time::sleep(Duration::from_mins(10)).await;
                anyhow::Ok(())
            });
            run_until_certificate_ends(work, valid_until, None, &clock, &end).await.unwrap();
        }
        assert!(!end.is_cancelled());
    }

    /// Returns a user of a kubeconfig whose certificate is in this file.
    fn naming(file: &Path) -> AuthInfo {
        AuthInfo { client_certificate: Some(file.display().to_string()), ..AuthInfo::default() }
    }

    /// The file is missing for some time while it is replaced.
    #[tokio::test(start_paused = true)]
    async fn operator_ends_when_its_certificate_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tls.crt");
        fs::write(&path, "old").unwrap();
        let file = CertificateFile::read(&naming(&path));
        let replacement = async {
            tokio::time::sleep(Duration::from_secs(25)).await;
            fs::remove_file(&path).unwrap();
            tokio::time::sleep(Duration::from_secs(30)).await;
            fs::write(&path, "new").unwrap();
        };
        let ((ran, error), ()) = tokio::join!(run(None, file.as_ref()), replacement);
        assert!(error.contains("tls.crt of the kubeconfig has been replaced"), "{error}");
        assert_eq!(ran.as_secs(), 60);
    }

    #[test]
    fn certificate_in_the_kubeconfig_has_no_file() {
        let data = AuthInfo { client_certificate_data: Some(String::new()), ..naming(Path::new("tls.crt")) };
        assert!(CertificateFile::read(&data).is_none());
        assert!(CertificateFile::read(&AuthInfo::default()).is_none());
    }
}
