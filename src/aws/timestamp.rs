//! Conversion of times: from AWS to the model, and from the model to the SDKs.
//!
//! AWS writes times as decimal numbers of seconds, to the millisecond. Parsed as floating point they have a
//! rounding error, which would make one time appear as two after it was stored.

use aws_sdk_sts::primitives::DateTime;
use aws_smithy_async::time::StaticTimeSource;
use jiff::{Timestamp, Unit};

/// Returns the time, to the millisecond; `None` if it is out of range.
pub(super) fn timestamp(time: &DateTime) -> Option<Timestamp> {
    Timestamp::from_nanosecond(time.as_nanos()).ok()?.round(Unit::Millisecond).ok()
}

/// Returns a time source with which the SDKs date a request `at`.
pub(super) fn fixed_time_source(at: Timestamp) -> StaticTimeSource {
    StaticTimeSource::new(at.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floating_point_error_is_rounded_away() {
        let time: Timestamp = "2026-11-21T05:11:50.2Z".parse().unwrap();
        for seconds in [1_795_237_910.2, 1_795_237_910.200_1, 1_795_237_910.199_9] {
            assert_eq!(timestamp(&DateTime::from_secs_f64(seconds)), Some(time));
        }
    }

    #[test]
    fn time_out_of_range_is_none() {
        assert_eq!(timestamp(&DateTime::from_secs(i64::MAX)), None);
    }
}
