//! The AWS port of an operator with a planted bug: wraps the simulated port.
//!
//! It may send additional, late or different requests, and misread answers. It never accesses Kubernetes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::ledger::Action;
use stream_encryption_core::controller::stream_api::{Priority, Signer, StreamApi};
use stream_encryption_core::model::arn::{AwsAccount, KmsKeyId, StreamArn};
use stream_encryption_core::model::aws_error::{AwsError, ErrorKind};
use stream_encryption_core::model::key::{Key, KeyMetadata};
use stream_encryption_core::model::observation::{ReportedEncryption, StreamDescription};
use stream_encryption_core::model::principal::Principal;

use super::Bug;
use super::protocol::{EarlyLooks, completed};
use crate::ports::{Aws, Call};

/// How long [`Bug::OldLook`] caches a description.
const GOOD_FOR: SignedDuration = SignedDuration::from_mins(5);
/// How long [`Bug::OldKey`] caches KMS's answer.
const KEY_GOOD_FOR: SignedDuration = SignedDuration::from_hours(1);
/// The number of attempts that the SDK makes by default.
const TRIES: i64 = 3;

/// The AWS port with a planted bug.
#[derive(Debug)]
pub struct SpoiledAws {
    bug: Bug,
    aws: Aws,
    known: Mutex<Known>,
    early: EarlyLooks,
}

/// AWS's last answers by their subject, with their times.
type Answers<T> = BTreeMap<String, (Timestamp, T)>;

/// Returns the cached answer, if it is younger than `good_for`.
fn still_good<T: Clone>(
    answers: &Answers<T>,
    asked: &str,
    now: Timestamp,
    good_for: SignedDuration,
) -> Option<T> {
    answers.get(asked).filter(|(at, _)| now < *at + good_for).map(|(_, answer)| answer.clone())
}

/// The cached state of this process.
#[derive(Debug, Default)]
struct Known {
    /// The last description of each stream, with its time.
    looks: Answers<Option<(StreamDescription, Signer)>>,
    /// The last description of each key, with its time.
    keys: Answers<Option<KeyMetadata>>,
    /// The last requested key, by stream.
    asked: BTreeMap<String, Key>,
}

impl SpoiledAws {
    pub(super) fn new(bug: Bug, aws: Aws) -> Self {
        Self { bug, aws, known: Mutex::default(), early: EarlyLooks::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        self.aws.link().scene.state().now
    }

    /// Sends a call. With [`Bug::SdkRetries`], a Start is repeated as the SDK does with retries enabled.
    async fn call(
        &self,
        stream: &StreamArn,
        call: Call<'_>,
        principal: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), AwsError> {
        let signer = &self.signer(signer);
        let dated = (self.bug != Bug::PauseNotNoticed).then_some(reserved);
        let mut tries = if self.bug == Bug::SdkRetries && matches!(call, Call::Start(_)) { 1 } else { TRIES };
        loop {
            let answer = self.aws.call(stream, call, principal, signer, reserved, dated).await;
            let again = matches!(
                &answer,
                Err(fault)
                    if matches!(fault.kind, ErrorKind::LimitReached | ErrorKind::UnknownOutcome | ErrorKind::Throttled)
            );
            if !again || tries == TRIES {
                return self.understood(answer);
            }
            let pause = SignedDuration::from_millis(300 * tries);
            let at = self.now() + pause;
            self.aws.link().scene.wait_until(at).await;
            tries += 1;
        }
    }

    /// Returns the principal of the request.
    fn as_whom(&self, principal: &Principal) -> Principal {
        let role = if self.bug == Bug::RoleForgotten { None } else { principal.role.clone() };
        Principal { role, ..principal.clone() }
    }

    /// Returns the signer of a call after a Describe that `of_look` signed.
    fn signer(&self, of_look: &Signer) -> Signer {
        if self.bug == Bug::SignedAnew { self.aws.signer() } else { of_look.clone() }
    }

    /// Returns the operator's interpretation of an answer.
    fn understood(&self, answer: Result<(), AwsError>) -> Result<(), AwsError> {
        match answer {
            Err(fault) if self.bug == Bug::SilenceIsRefusal && fault.kind == ErrorKind::UnknownOutcome => {
                Err(AwsError { kind: ErrorKind::Transient, ..fault })
            }
            answer => answer,
        }
    }
}

impl StreamApi for SpoiledAws {
    async fn identity(&self) -> Result<AwsAccount, AwsError> {
        if self.bug == Bug::DescribeBeforeLedger {
            self.early.look(&self.aws).await;
        }
        self.aws.identity().await
    }

    async fn verify_clock(&self) -> Result<(), AwsError> {
        self.aws.verify_clock().await
    }

    async fn describe_stream(
        &self,
        stream: &StreamArn,
        principal: &Principal,
        priority: Priority,
    ) -> Result<Option<(StreamDescription, Signer)>, AwsError> {
        let name = stream.to_string();
        let now = self.now();
        if self.bug == Bug::OldLook
            && let Some(look) = still_good(&self.known().looks, &name, now, GOOD_FOR)
        {
            return Ok(look);
        }
        if self.bug == Bug::DescribeBeforeLedger
            && let Some(look) = self.early.take(&self.aws, stream, principal)
        {
            return Ok(look);
        }
        let mut look = self.aws.describe_stream(stream, &self.as_whom(principal), priority).await?;
        let now = self.now();
        let mut known = self.known();
        if self.bug == Bug::FailedShownAsDone
            && let (Some((look, _)), Some(asked)) = (&mut look, known.asked.get(&name))
            && matches!(look.encryption, ReportedEncryption::Failed { action: Action::Start, .. })
        {
            look.encryption = ReportedEncryption::On(asked.clone());
        }
        if self.bug == Bug::EnablingIsEnabled {
            look = completed(look, known.asked.get(&name));
        }
        known.looks.insert(name, (now, look.clone()));
        Ok(look)
    }

    async fn describe_key(
        &self,
        stream: &StreamArn,
        name: &KmsKeyId,
        principal: &Principal,
        priority: Priority,
    ) -> Result<Option<KeyMetadata>, AwsError> {
        let asked = name.to_string();
        let now = self.now();
        if self.bug == Bug::OldKey
            && let Some(facts) = still_good(&self.known().keys, &asked, now, KEY_GOOD_FOR)
        {
            return Ok(facts);
        }
        let facts = self.aws.describe_key(stream, name, principal, priority).await?;
        let now = self.now();
        self.known().keys.insert(asked, (now, facts.clone()));
        Ok(facts)
    }

    async fn acquire_permit(
        &self,
        stream: &StreamArn,
        action: Action,
        principal: &Principal,
        signer: &Signer,
    ) -> bool {
        let signer = self.signer(signer);
        self.aws.acquire_permit(stream, action, principal, &signer).await
    }

    async fn acquire_record_permit(
        &self,
        stream: &StreamArn,
        principal: &Principal,
        signer: &Signer,
    ) -> bool {
        self.aws.acquire_record_permit(stream, principal, &self.signer(signer)).await
    }

    async fn start(
        &self,
        stream: &StreamArn,
        key: &Key,
        principal: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), AwsError> {
        self.known().asked.insert(stream.to_string(), key.clone());
        self.call(stream, Call::Start(key), principal, signer, reserved).await
    }

    async fn stop(
        &self,
        stream: &StreamArn,
        active_key: Option<&Key>,
        principal: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), AwsError> {
        self.call(stream, Call::Stop(active_key), principal, signer, reserved).await
    }

    async fn put_record(
        &self,
        stream: &StreamArn,
        record: &str,
        principal: &Principal,
        signer: &Signer,
    ) -> Result<bool, AwsError> {
        self.aws.put_record(stream, record, principal, &self.signer(signer)).await
    }
}
