//! AWS's times, as the model keeps them, and the model's times, as the SDKs take them.
//!
//! AWS writes them as decimal numbers of seconds, to the millisecond. Read as floating point they carry noise behind it,
//! which would make one time look like two once it has been stored.

use aws_sdk_sts::primitives::DateTime;
use aws_smithy_async::time::StaticTimeSource;
use jiff::{Timestamp, Unit};

/// The time, to the millisecond; nothing for one that no calendar holds.
pub(super) fn timestamp(time: &DateTime) -> Option<Timestamp> {
    Timestamp::from_nanosecond(time.as_nanos()).ok()?.round(Unit::Millisecond).ok()
}

/// What the SDKs take for their clock, so that they date a request `at`.
pub(super) fn dated(at: Timestamp) -> StaticTimeSource {
    StaticTimeSource::new(at.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_noise_of_floating_point_is_not_part_of_a_time() {
        let time: Timestamp = "2026-11-21T05:11:50.2Z".parse().unwrap();
        for seconds in [1_795_237_910.2, 1_795_237_910.200_1, 1_795_237_910.199_9] {
            assert_eq!(timestamp(&DateTime::from_secs_f64(seconds)), Some(time));
        }
    }

    #[test]
    fn a_time_beyond_every_calendar_is_none() {
        assert_eq!(timestamp(&DateTime::from_secs(i64::MAX)), None);
    }
}
