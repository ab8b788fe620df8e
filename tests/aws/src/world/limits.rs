//! The two kinds of limits: requests per second for an account and region, and encryption calls per stream in
//! 24 hours.
//!
//! This module counts, and returns whether another request is allowed. It must never know the reason for a
//! request.

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

use super::request::Service;
use super::stream::{StreamId, later};

/// Returns the number of requests per second that AWS accepts for an account and region; `None` if AWS
/// publishes no figure.
///
/// Firehose: <https://docs.aws.amazon.com/firehose/latest/dev/limits.html>, "a hard limit". Kinesis:
/// <https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html>. KMS:
/// <https://docs.aws.amazon.com/kms/latest/developerguide/requests-per-second.html>.
pub(crate) fn per_second(service: Service, operation: &str) -> Option<usize> {
    match (service, operation) {
        (Service::Firehose, "PutRecord") => None,
        (Service::Firehose, _)
        | (Service::Kinesis, "CreateStream" | "DeleteStream" | "ListStreams" | "ListTagsForStream")
        | (Service::Kms, "EnableKey" | "DisableKey") => Some(5),
        (Service::Kinesis, "DescribeStreamSummary") => Some(20),
        (Service::Kms, "DescribeKey") => Some(2000),
        (Service::Kms, "GetKeyPolicy") => Some(1000),
        _ => None,
    }
}

/// The requests of the last second, by account, region and operation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rates {
    recent: BTreeMap<(Service, String, String, String), VecDeque<Timestamp>>,
}

impl Rates {
    /// Counts the request, or returns that the rate is exceeded. A refused request does not count.
    pub(crate) fn admit(
        &mut self,
        now: Timestamp,
        service: Service,
        operation: &str,
        account: &str,
        region: &str,
    ) -> bool {
        let Some(limit) = per_second(service, operation) else { return true };
        let key = (service, operation.to_owned(), account.to_owned(), region.to_owned());
        let recent = self.recent.entry(key).or_default();
        let second_ago = later(now, -SignedDuration::from_secs(1));
        recent.retain(|time| *time > second_ago && *time <= now);
        if recent.len() >= limit {
            return false;
        }
        recent.push_back(now);
        true
    }
}

/// The quota window of a call: Firehose has one window for Start and Stop, Kinesis one for each. Kinesis counts
/// mode switches too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Window {
    FirehoseChanges,
    KinesisStarts,
    KinesisStops,
    KinesisModes,
}

/// The calls of each stream. They belong to the ARN, so that a re-created stream of the same name has no new
/// budget (an assumption).
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    counted: BTreeMap<(StreamId, Window), VecDeque<Timestamp>>,
}

impl Changes {
    /// Returns how many calls count in the window that ends now.
    pub(crate) fn used(
        &mut self,
        now: Timestamp,
        stream: &StreamId,
        window: Window,
        length: SignedDuration,
    ) -> usize {
        let Some(times) = self.counted.get_mut(&(stream.clone(), window)) else { return 0 };
        let start = later(now, -length);
        times.retain(|time| *time > start);
        times.len()
    }

    pub(crate) fn count(&mut self, now: Timestamp, stream: &StreamId, window: Window) {
        self.counted.entry((stream.clone(), window)).or_default().push_back(now);
    }
}
