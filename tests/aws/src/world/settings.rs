//! The settings of a simulated AWS: how long things take, and which of several plausible answers it gives where AWS documents none.
//!
//! Pure data with defaults; each undocumented choice says so. It must never hold state.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// How the simulated AWS behaves. Every field has a default: write `Settings { enabling: …, ..Settings::default() }`.
/// In JSON durations are written as `"10s"`, `"2m"` or `"PT10S"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The account of every access key that `accounts` does not name.
    pub account: String,
    /// Access key id to account.
    pub accounts: BTreeMap<String, String>,
    /// The region of calls that are not signed.
    pub region: String,
    /// Firehose: ENABLING lasts this long. AWS publishes no figure; by the times of others' live tests it is
    /// 15 to 90 seconds.
    pub enabling: SignedDuration,
    /// Firehose: DISABLING lasts this long.
    pub disabling: SignedDuration,
    /// Kinesis: UPDATING lasts this long ("a few seconds, but it can take minutes"; recorded: 3 to 5
    /// seconds).
    pub updating: SignedDuration,
    /// CREATING lasts this long, for both services (recorded: 3 to 6 seconds for Kinesis, 1 to 2 minutes for
    /// Firehose).
    pub creating: SignedDuration,
    /// DELETING lasts this long, for both services.
    pub deleting: SignedDuration,
    /// Records follow a change of encryption this much later ("up to 5 seconds").
    pub settle: SignedDuration,
    /// Every Describe shows the stream as it was this long ago.
    pub read_lag: SignedDuration,
    /// Which key a Firehose Describe shows after a failed re-key. Not documented.
    pub failed_re_key_shows: ShownKey,
    /// Whether a Firehose Describe still shows `KeyType` and `KeyARN` after DISABLED. Recorded: it does not.
    pub key_after_disabled: KeyAfterDisabled,
    /// What Firehose does with a key that it cannot use. Not documented which key fails in which way.
    pub bad_key: BadKey,
    /// What Firehose does with a Start whose key is in force already. AWS's own `CloudFormation` handler makes
    /// no such call, "as the firehose backend fails in those cases"; in which way it fails was not recorded.
    pub same_key: SameKey,
    /// What a Kinesis Describe shows as `KeyId`. Recorded: an id, an ARN and the alias of AWS's key are shown
    /// as given.
    pub kinesis_key_id: KeyIdEcho,
    /// Whether a Kinesis Describe shows the new or the old encryption while UPDATING. Recorded: the old one,
    /// to the end.
    pub while_updating: ShownWhileUpdating,
    /// Which Firehose Starts and Stops count to the limit. "Calls", says the documentation, no more.
    pub firehose_counts: FirehoseCounts,
    /// The limit of calls per stream and window; 25 at AWS.
    pub call_limit: usize,
    /// The rolling window of that limit; 24 hours at AWS.
    pub call_window: SignedDuration,
    /// The limit of Firehose streams for one customer managed key; 500 at AWS.
    pub streams_per_key: usize,
    /// Session credentials older than this cannot make Firehose create a grant; 6 hours at AWS.
    pub session_age: SignedDuration,
    /// Whether a call is refused whose signature is dated more than 15 minutes from AWS's own clock, as AWS does it.
    pub checks_dates: bool,
    /// Whether the limits of calls per second hold.
    pub rate_limits: bool,
    /// Whether errors carry the `x-amzn-ErrorType` header beside `__type`, over HTTP.
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

/// Which key is shown after a failed re-key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShownKey {
    /// The key that was asked for and failed.
    Asked,
    /// The key that still encrypts records.
    InForce,
}

/// Whether the key stays in Describe after DISABLED.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyAfterDisabled {
    /// As moto does.
    Kept,
    /// Only `Status` is left.
    Dropped,
}

/// What happens to a key that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BadKey {
    /// Start answers OK, then the stream ends in `ENABLING_FAILED`.
    FailsLater,
    /// Start answers `InvalidKMSResourceException`.
    RefusedAtOnce,
}

/// What happens to a Start of Firehose whose key is in force already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SameKey {
    /// Start answers OK, then the stream ends in `ENABLING_FAILED` with `UNKNOWN_ERROR`; the key stays in
    /// force.
    FailsLater,
    /// Start answers `InvalidArgumentException`.
    RefusedAtOnce,
    /// As any other Start: ENABLED again.
    Accepted,
}

/// What Kinesis shows as `KeyId`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyIdEcho {
    /// The text of the Start call.
    AsGiven,
    /// The key's ARN.
    KeyArn,
    /// The first alias that points to the key, as `alias/name`; the key's ARN if there is none.
    Alias,
}

/// What Kinesis shows while UPDATING.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShownWhileUpdating {
    /// The encryption that was asked for, as kinesis-mock does.
    New,
    /// The encryption that is still in force.
    Old,
}

/// Which calls of Firehose's Start and Stop count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FirehoseCounts {
    /// Only those that AWS accepted.
    Accepted,
    /// All that reached an existing stream, refused or not, but not those refused by this very limit.
    ReachedTheStream,
    /// Also those refused by the limit: a loop of retries never gets out.
    EvenOverTheLimit,
}
