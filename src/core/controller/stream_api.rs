//! The port to AWS: the requests of reconciles and of the cleanup of ledgers. The operator implements it with the SDKs, the
//! simulation with a model. The requests to the queue of AWS's events are not in it.
//!
//! The [`Principal`] is part of each request, so that no request is ever sent with the credentials of another
//! principal.

use std::future::Future;

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::ledger::Action;

use crate::model::arn::{AwsAccount, KmsKeyId, StreamArn};
use crate::model::aws_error::{Accepted, AwsError};
use crate::model::key::{Key, KeyMetadata};
use crate::model::observation::StreamDescription;
use crate::model::principal::Principal;

/// The requests to AWS. `Aws` implements them for the real AWS; the simulation replaces it.
pub trait StreamApi: Send + Sync + 'static {
    /// Returns the account and partition of the operator's credentials (`GetCallerIdentity`).
    fn identity(&self) -> impl Future<Output = Result<AwsAccount, AwsError>> + Send;

    /// Checks the operator's clock, with a request that concerns no stream and is dated by that clock. AWS
    /// rejects requests with a wrong date, so a successful response proves that the clock is right.
    fn verify_clock(&self) -> impl Future<Output = Result<(), AwsError>> + Send;

    /// Describes a stream, and returns the signer of the request; returns `None` if the stream does not exist.
    fn describe_stream(
        &self,
        stream: &StreamArn,
        principal: &Principal,
        priority: Priority,
    ) -> impl Future<Output = Result<Option<(StreamDescription, Signer)>, AwsError>> + Send;

    /// Describes a key in KMS, in the region of its ARN or, for an alias, of the stream; returns `None` if
    /// the key does not exist.
    fn describe_key(
        &self,
        stream: &StreamArn,
        name: &KmsKeyId,
        principal: &Principal,
        priority: Priority,
    ) -> impl Future<Output = Result<Option<KeyMetadata>, AwsError>> + Send;

    /// Waits for the rate limiter's permit for a Start or Stop. The permit is acquired before the call is
    /// reserved, so that the reservation is recent when the call is sent; `start` and `stop` do not wait for a
    /// permit. Returns whether `signer` would still sign the call; if not, the stream must be described again.
    fn acquire_permit(
        &self,
        stream: &StreamArn,
        action: Action,
        principal: &Principal,
        signer: &Signer,
    ) -> impl Future<Output = bool> + Send;

    /// Calls Start with this key: once, without waiting for a permit, without retry. `Ok` means accepted, not
    /// completed.
    ///
    /// The call is sent only if `signer`, which signed the Describe, signs it. Firehose identifies a stream by
    /// its name in the account of the credentials: with the credentials of another account, the call would
    /// change that account's stream of the same name.
    ///
    /// The request is dated `signing_time`, the time of the call in the ledger. AWS rejects requests whose date
    /// is more than 15 minutes off its own clock. Even if the process is paused or its clock
    /// changes, a call therefore arrives near the time at which the ledger counts it, or not at all.
    fn start(
        &self,
        stream: &StreamArn,
        key: &Key,
        principal: &Principal,
        signer: &Signer,
        signing_time: Timestamp,
    ) -> impl Future<Output = Result<Accepted, AwsError>> + Send;

    /// Calls Stop: once, without waiting for a permit, without retry, signed and dated as in
    /// [`start`](Self::start). Kinesis requires the active key.
    fn stop(
        &self,
        stream: &StreamArn,
        active_key: Option<&Key>,
        principal: &Principal,
        signer: &Signer,
        signing_time: Timestamp,
    ) -> impl Future<Output = Result<Accepted, AwsError>> + Send;

    /// Waits for the rate limiter's permit for a test record, as [`acquire_permit`](Self::acquire_permit) does for a
    /// call, so that the policies can be checked after the wait. Returns whether `signer` would still sign the
    /// record. Without a rate limiter, every permit is granted.
    fn acquire_record_permit(
        &self,
        _stream: &StreamArn,
        _principal: &Principal,
        _signer: &Signer,
    ) -> impl Future<Output = bool> + Send {
        std::future::ready(true)
    }

    /// Writes one record without waiting for a permit, signed as in [`start`](Self::start), and returns whether AWS
    /// reports that the record was encrypted.
    fn put_record(
        &self,
        stream: &StreamArn,
        record: &str,
        principal: &Principal,
        signer: &Signer,
    ) -> impl Future<Output = Result<bool, AwsError>> + Send;
}

/// The credentials that signed a request. An access key belongs to one account, so another signer may mean
/// another account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// The [access key ID](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html), which
    /// is unique for each session and is not a secret.
    pub access_key_id: String,
    /// The age of the session, as a lower bound; `None` for credentials without a session.
    pub session_age: Option<SignedDuration>,
}

impl Signer {
    /// Returns whether both are the same credentials.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.access_key_id == other.access_key_id
    }
}

/// The priority of a request, the most urgent first. Requests of the same priority take turns among namespaces. An
/// `AssumeRole` has the priority of the request that needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Start, Stop and `PutRecord`, and the request for the operator's identity.
    Call,
    /// A Describe of a stream that is not known to be stable, and `DescribeKey` of the desired key. A Describe that only an
    /// event of AWS requires has the priority `Drift`, even while AWS changes the stream.
    Changing,
    /// A Describe to detect drift, or because of an event of AWS; `DescribeKey` of the active key; the check of the clock.
    Drift,
}
