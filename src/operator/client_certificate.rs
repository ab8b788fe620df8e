//! The end of a client certificate that a program of the kubeconfig has issued.
//!
//! kube calls the program only when it creates a client, and never replaces the certificate. After its expiry, the API server
//! would accept no new connection, and the operator would run on without effect. So it ends before that, with an error: the
//! supervisor of the process starts it again, with a new certificate.

use std::time::Duration;

use anyhow::anyhow;
use jiff::{SignedDuration, Timestamp};
use stream_encryption_core::controller::Clock;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How long before the expiry the operator ends: it must still finish the running reconciles and release the lease.
const MARGIN: SignedDuration = SignedDuration::from_mins(1);
/// How long the operator runs at least. The program may return a certificate that expires within the margin, and return it
/// again until it expires. Without this time, the operator would end at once at each start, and a supervisor such as systemd
/// gives up after a few of them.
const MIN_RUNTIME: Duration = Duration::from_mins(1);
/// The time between two looks at the clock. A single timer would be late on a machine that was suspended.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Runs `work`, which ends soon after `end` is cancelled. `valid_until` is the expiry of the client certificate; `None` if there
/// is none that expires. Cancels `end` before the expiry, but not before [`MIN_RUNTIME`], and returns an error then.
pub(super) async fn run_until_expiry(
    mut work: impl Future<Output = anyhow::Result<()>> + Unpin,
    valid_until: Option<Timestamp>,
    clock: &Clock,
    end: &CancellationToken,
) -> anyhow::Result<()> {
    let Some(valid_until) = valid_until else { return work.await };
    tokio::select! {
        ended = &mut work => return ended,
        () = wait_until_end(valid_until, clock) => {}
    }
    warn!(%valid_until, "the client certificate expires, finishing the reconciles that are running");
    end.cancel();
    work.await?;
    Err(anyhow!(
        "the client certificate from the program in the kubeconfig expires at {valid_until}; start the operator \
         again to request a new one"
    ))
}

/// Waits for [`MIN_RUNTIME`], and then until the [`MARGIN`] before the expiry begins.
async fn wait_until_end(valid_until: Timestamp, clock: &Clock) {
    tokio::time::sleep(MIN_RUNTIME).await;
    while clock.now() + MARGIN < valid_until {
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// A clock that begins with the year 1970, and runs with the time of the test.
    fn clock() -> Clock {
        let begin = Instant::now();
        let elapsed = move || SignedDuration::try_from(begin.elapsed()).unwrap();
        Clock::new(move || Timestamp::UNIX_EPOCH + elapsed(), || Duration::ZERO)
    }

    /// Runs the operator with a certificate that is valid for this time. Returns how long the operator ran, and its error.
    async fn run_with_certificate(valid_for: SignedDuration) -> (Duration, String) {
        let (begin, clock, end) = (Instant::now(), clock(), CancellationToken::new());
        let work = Box::pin(async {
            end.cancelled().await;
            anyhow::Ok(())
        });
        let valid_until = Timestamp::UNIX_EPOCH + valid_for;
        let error = run_until_expiry(work, Some(valid_until), &clock, &end).await.unwrap_err().to_string();
        (begin.elapsed(), error)
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
            run_until_expiry(work, valid_until, &clock, &end).await.unwrap();
        }
        assert!(!end.is_cancelled());
    }
}
