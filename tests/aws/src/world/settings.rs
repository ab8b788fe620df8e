//! The settings of a simulated AWS: durations, and the choice between plausible answers that AWS does not
//! document.
//!
//! Pure data with defaults; each undocumented choice is marked. It must never hold state.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// The behaviour of the simulated AWS. Every field has a default: use `Settings { enabling: …,
/// ..Settings::default() }`. In JSON, durations are written as `"10s"`, `"2m"` or `"PT10S"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The account of every access key that is not in `accounts`.
    pub account: String,
    /// Maps an access key id to an account.
    pub accounts: BTreeMap<String, String>,
    /// The region of requests that are not signed.
    pub region: String,
    /// Firehose: duration of ENABLING. AWS publishes no figure; in live tests by others it took 15 to 90
    /// seconds.
    pub enabling: SignedDuration,
    /// Firehose: duration of DISABLING.
    pub disabling: SignedDuration,
    /// Kinesis: duration of UPDATING ("a few seconds, but it can take minutes"; recorded: 3 to 5 seconds).
    pub updating: SignedDuration,
    /// Duration of CREATING, for both services (recorded: 3 to 6 seconds for Kinesis, 1 to 2 minutes for
    /// Firehose).
    pub creating: SignedDuration,
    /// Duration of DELETING, for both services.
    pub deleting: SignedDuration,
    /// Delay until a change of encryption applies to records ("up to 5 seconds").
    pub settle: SignedDuration,
    /// Age of the state that every Describe returns.
    pub read_lag: SignedDuration,
    /// The key that a Firehose Describe shows after a failed re-key. Not documented.
    pub failed_re_key_shows: ShownKey,
    /// Whether a Firehose Describe still shows `KeyType` and `KeyARN` after DISABLED. Recorded: it does not.
    pub key_after_disabled: KeyAfterDisabled,
    /// Firehose's reaction to an unusable key. AWS does not document which key fails in which way.
    pub bad_key: BadKey,
    /// Firehose's reaction to a Start with the key that is already active. AWS's own `CloudFormation` handler
    /// makes no such call, "as the firehose backend fails in those cases"; how it fails was not recorded.
    pub same_key: SameKey,
    /// The `KeyId` that a Kinesis Describe shows. Recorded: an id, an ARN and the alias of AWS's key are
    /// shown as given.
    pub kinesis_key_id: KeyIdEcho,
    /// Whether a Kinesis Describe shows the new or the old encryption while UPDATING. Recorded: the old one,
    /// until the end.
    pub while_updating: ShownWhileUpdating,
    /// The Firehose Starts and Stops that count towards the limit. The documentation only mentions "calls".
    pub firehose_counts: FirehoseCounts,
    /// The limit of calls per stream and window; 25 on AWS.
    pub call_limit: usize,
    /// The rolling window of that limit; 24 hours on AWS.
    pub call_window: SignedDuration,
    /// The limit of Firehose streams per customer managed key; 500 on AWS.
    pub streams_per_key: usize,
    /// Maximum age of session credentials with which Firehose can create a grant; 6 hours on AWS.
    pub session_age: SignedDuration,
    /// Whether a request is refused if its signature is dated more than 15 minutes from AWS's own clock, as
    /// on AWS.
    pub checks_dates: bool,
    /// Whether the limits of requests per second are enforced.
    pub rate_limits: bool,
    /// Whether errors have the `x-amzn-ErrorType` header in addition to `__type`, over HTTP.
    pub error_type_header: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            account: "111122223333".to_owned(),
            accounts: BTreeMap::new(),
            region: "eu-west-1".to_owned(),
            enabling: SignedDuration::from_secs(45),
            disabling: SignedDuration::from_secs(45),
            updating: SignedDuration::from_secs(5),
            creating: SignedDuration::from_secs(5),
            deleting: SignedDuration::from_secs(5),
            settle: SignedDuration::from_secs(5),
            read_lag: SignedDuration::ZERO,
            failed_re_key_shows: ShownKey::Asked,
            key_after_disabled: KeyAfterDisabled::Dropped,
            bad_key: BadKey::FailsLater,
            same_key: SameKey::FailsLater,
            kinesis_key_id: KeyIdEcho::AsGiven,
            while_updating: ShownWhileUpdating::Old,
            firehose_counts: FirehoseCounts::ReachedTheStream,
            call_limit: 25,
            call_window: SignedDuration::from_hours(24),
            streams_per_key: 500,
            session_age: SignedDuration::from_hours(6),
            checks_dates: true,
            rate_limits: true,
            error_type_header: true,
        }
    }
}

/// The key that is shown after a failed re-key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShownKey {
    /// The requested key, which failed.
    Asked,
    /// The active key, which still encrypts records.
    Active,
}

/// Whether Describe still shows the key after DISABLED.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyAfterDisabled {
    /// The key is still shown, as in moto.
    Kept,
    /// Only `Status` is shown.
    Dropped,
}

/// The reaction to an unusable key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BadKey {
    /// Start returns OK, then the stream ends in `ENABLING_FAILED`.
    FailsLater,
    /// Start returns `InvalidKMSResourceException`.
    RefusedAtOnce,
}

/// Firehose's reaction to a Start with the key that is already active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SameKey {
    /// Start returns OK, then the stream ends in `ENABLING_FAILED` with `UNKNOWN_ERROR`; the key stays
    /// active.
    FailsLater,
    /// Start returns `InvalidArgumentException`.
    RefusedAtOnce,
    /// As for any other Start: the stream becomes ENABLED again.
    Accepted,
}

/// The `KeyId` that Kinesis shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyIdEcho {
    /// The text of the Start request.
    AsGiven,
    KeyArn,
    /// The first alias of the key, as `alias/name`; the key's ARN if it has no alias.
    Alias,
}

/// The encryption that Kinesis shows while UPDATING.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShownWhileUpdating {
    /// The requested encryption, as in kinesis-mock.
    New,
    /// The encryption that is still active.
    Old,
}

/// The Starts and Stops of Firehose that count towards the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FirehoseCounts {
    /// Those that AWS accepted.
    Accepted,
    /// Those that reached an existing stream, accepted or refused, except those refused because of this
    /// limit.
    ReachedTheStream,
    /// Also those refused because of the limit: a retry loop never recovers.
    EvenOverTheLimit,
}
