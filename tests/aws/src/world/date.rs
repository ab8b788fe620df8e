//! The date of a signature: AWS takes no call that is dated more than 15 minutes from its own clock.
//!
//! It only says what is refused and in which words. It must never read a clock.

use jiff::{SignedDuration, Timestamp};

use super::request::{AwsError, Caller, Service};
use super::stream::later;

/// How far a date may be off, either way.
const FIFTEEN_MINUTES: SignedDuration = SignedDuration::from_mins(15);

/// A time as `x-amz-date` has it.
pub(crate) const BASIC: &str = "%Y%m%dT%H%M%SZ";

/// What AWS answers to a call that is dated too far from its own time; nothing if it takes it, or if there is no date.
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
    // The query protocol has another code for it.
    Some(match service {
        Service::Sts => AwsError { status: 403, ..AwsError::new("SignatureDoesNotMatch", message) },
        Service::Firehose | Service::Kinesis | Service::Kms => {
            AwsError::new("InvalidSignatureException", message)
        }
    })
}
