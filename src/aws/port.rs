//! The port to AWS: what the operator asks of it, in our verbs. [`super::Aws`] answers it with the SDKs, the simulation
//! with a model.
//!
//! Whoever asks says as whom: the [`Principal`] is part of each request, so that none is ever made as somebody else.

use std::future::Future;

use jiff::{SignedDuration, Timestamp};

use crate::api::ledger::Action;
use crate::model::fault::Fault;
use crate::model::key::{Key, KeyFacts, KeyName};
use crate::model::observation::Look;
use crate::model::principal::Principal;
use crate::model::stream::{Account, Partition, StreamArn};

/// Everything that the operator does in AWS. The simulation replaces it; `Aws` is the real one.
pub trait Streams: Send + Sync + 'static {
    /// Whose credentials the operator has (`GetCallerIdentity`).
    fn identity(&self) -> impl Future<Output = Result<Identity, Fault>> + Send;

    /// Whether AWS answers the operator just now: a request about no stream, dated by the operator's clock. AWS refuses what
    /// is dated wrongly, so an answer shows that the clock is right.
    fn answers(&self) -> impl Future<Output = Result<(), Fault>> + Send;

    /// One look at a stream, and what signed it; nothing, if AWS does not know the stream.
    fn look(
        &self,
        stream: &StreamArn,
        by: &Principal,
        urgency: Urgency,
    ) -> impl Future<Output = Result<Option<(Look, Signer)>, Fault>> + Send;

    /// What KMS says of a key, in the stream's region; nothing, if KMS does not know it.
    fn key(
        &self,
        stream: &StreamArn,
        name: &KeyName,
        by: &Principal,
        urgency: Urgency,
    ) -> impl Future<Output = Result<Option<KeyFacts>, Fault>> + Send;

    /// Waits until the pacer lets a Start or Stop go. Asked for before the call is reserved, so that the reservation is
    /// not old when the call is sent; `start` and `stop` do not wait. Returns whether `signer` would still sign the call: where
    /// other credentials would, the stream is to be looked at with those.
    fn turn(
        &self,
        stream: &StreamArn,
        action: Action,
        by: &Principal,
        signer: &Signer,
    ) -> impl Future<Output = bool> + Send;

    /// Asks AWS to encrypt the stream with this key: once, at once, without retry. `Ok` means accepted, not done.
    ///
    /// Only `signer`, which signed the look, signs the call; where it does not sign any more, nothing is sent. Firehose knows a
    /// stream by its name in the account of the credentials: with those of another account, the call would change that
    /// account's stream of the same name.
    ///
    /// The request is dated `reserved`, the time at which the ledger holds the call. AWS refuses what is dated more than 15
    /// minutes off its own clock: so wherever the process is paused and whatever becomes of its clock, a call arrives near
    /// the time that the ledger counts it at, or not at all.
    fn start(
        &self,
        stream: &StreamArn,
        key: &Key,
        by: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Asks AWS to stop encrypting: once, at once, without retry, signed and dated as [`start`](Self::start) is. Kinesis wants
    /// to be told the key in force.
    fn stop(
        &self,
        stream: &StreamArn,
        in_force: Option<&Key>,
        by: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Writes one record, signed as [`start`](Self::start) is, and tells whether AWS says that it was encrypted.
    fn put_record(
        &self,
        stream: &StreamArn,
        record: &str,
        by: &Principal,
        signer: &Signer,
    ) -> impl Future<Output = Result<bool, Fault>> + Send;
}

/// The credentials that signed a look. They stand for an account, whatever the operator's credentials have become since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// The [access key's id](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html): one session has it,
    /// and no other. It is no secret.
    pub access_key_id: String,
    /// How old its session was, at least; nothing for credentials without a session.
    pub session_age: Option<SignedDuration>,
}

impl Signer {
    /// Whether the same credentials sign as for `other`.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.access_key_id == other.access_key_id
    }
}

/// Whose credentials the operator has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The account.
    pub account: Account,
    /// The partition.
    pub partition: Partition,
}

/// How soon a request must go. Earlier ones go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// Start and Stop, and what must be read just before them.
    Call,
    /// A look at a stream that is changing, or that nobody has looked at yet.
    Changing,
    /// A look for drift.
    Drift,
}
