//! How soon the operator corrects what others do: somebody else turns off the encryption of one stream after the
//! other, and the time from this Stop until the operator's Start is measured by the simulated AWS's own log.
//!
//! The simulated AWS puts the event of a Stop into the queue at the moment of the Stop. This file changes streams
//! in AWS only. It must never tell the operator about a Stop in another way.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use jiff::Timestamp;

use crate::scenario::Scenario;
use crate::stage::Stage;

/// Interval between two readings of AWS's log.
const TICK: Duration = Duration::from_millis(5);

/// Stops encryption of the streams, one after the other, and returns how long each correction took, in order of
/// these times.
pub(crate) async fn correct(scenario: &Scenario, stage: &Stage) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for number in 0..scenario.stops {
        // Spread over all streams, and so over all regions and namespaces. Each stream is stopped once.
        let stream = number * scenario.resources / scenario.stops;
        times.push(correction(scenario, stage, stream).await?);
    }
    times.sort_unstable();
    Ok(times)
}

/// Stops encryption of a stream, and returns the time until AWS receives the operator's Start for it.
async fn correction(scenario: &Scenario, stage: &Stage, stream: usize) -> anyhow::Result<Duration> {
    let (log, stopped) = stage.stop_as_another(stream)?;
    let end = Instant::now() + 2 * scenario.drift_interval();
    loop {
        if let Some(started) = stage.start_since(log, stream) {
            let time = started.duration_since(stopped);
            return time.try_into().context("AWS's log is not in order");
        }
        if Instant::now() > end {
            bail!("the operator has not corrected stream {stream} within two drift intervals");
        }
        tokio::time::sleep(TICK).await;
    }
}

/// A Stop: the length of AWS's log before it, and its time.
pub(crate) type Stop = (usize, Timestamp);
