//! The date of a signature: AWS refuses a request that is dated more than 15 minutes from its own clock.
//!
//! This module only returns whether a request is refused, and with which message. It must never read a clock.

use jiff::{SignedDuration, Timestamp};

use super::request::{AwsError, Caller, Service};
use super::stream::later;

/// Maximum difference of a date, in either direction.
const FIFTEEN_MINUTES: SignedDuration = SignedDuration::from_mins(15);

/// The time format of `x-amz-date`.
pub(crate) const BASIC: &str = "%Y%m%dT%H%M%SZ";

/// Returns AWS's error for a request that is dated too far from AWS's own time; `None` if the date is
/// accepted or absent.
pub(super) fn refusal(caller: &Caller, service: Service, now: Timestamp) -> Option<AwsError> {
    let date = caller.date?;
    let (oldest, newest) = (later(now, -FIFTEEN_MINUTES), later(now, FIFTEEN_MINUTES));
    let words = |at: Timestamp| at.strftime(BASIC).to_string();
    let message = if date < oldest {
        let (date, oldest, now) = (words(date), words(oldest), words(now));
        format!("Signature expired: {date} is now earlier than {oldest} ({now} - 15 min.)")
    } else if date > newest {
        let (date, newest, now) = (words(date), words(newest), words(now));
        format!("Signature not yet current: {date} is still later than {newest} ({now} + 15 min.)")
    } else {
        return None;
    };
    // The query protocol has a different code for this error.
    Some(match service {
        Service::Sts => AwsError { status: 403, ..AwsError::new("SignatureDoesNotMatch", message) },
        Service::Firehose | Service::Kinesis | Service::Kms | Service::Sqs => {
            AwsError::new("InvalidSignatureException", message)
        }
    })
}
