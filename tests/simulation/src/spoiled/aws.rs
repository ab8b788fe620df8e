//! AWS as a spoiled operator reaches it: the simulated port, with the bug before or behind it.
//!
//! It may send more, later or otherwise than it was told, and misread answers. It never touches Kubernetes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use stream_encryption_operator::api::ledger::Action;
use stream_encryption_operator::aws::{Identity, Signer, Streams, Urgency};
use stream_encryption_operator::model::fault::{Class, Fault};
use stream_encryption_operator::model::key::{Key, KeyFacts, KeyName};
use stream_encryption_operator::model::observation::{Look, Shown};
use stream_encryption_operator::model::principal::Principal;
use stream_encryption_operator::model::stream::StreamArn;

use super::Bug;
use crate::ports::Aws;

/// How long [`Bug::OldLook`] takes a look for good.
const GOOD_FOR: SignedDuration = SignedDuration::from_mins(5);
/// How long [`Bug::OldKey`] takes KMS's answer for good.
const KEY_GOOD_FOR: SignedDuration = SignedDuration::from_hours(1);
/// How often the SDK sends a request, by its defaults.
const TRIES: i64 = 3;

/// AWS, spoiled.
#[derive(Debug)]
pub struct SpoiledAws {
    bug: Bug,
    aws: Aws,
    known: Mutex<Known>,
}

/// AWS's last answers by what was asked for, and when they came.
type Answers<T> = BTreeMap<String, (Timestamp, T)>;

/// The answer to what is asked for, if it came less than `good_for` ago.
fn still_good<T: Clone>(
    answers: &Answers<T>,
    asked: &str,
    now: Timestamp,
    good_for: SignedDuration,
) -> Option<T> {
    answers.get(asked).filter(|(at, _)| now < *at + good_for).map(|(_, answer)| answer.clone())
}

/// What this process believes to know.
#[derive(Debug, Default)]
struct Known {
    /// The last look at each stream, and when it was made.
    looks: Answers<Option<(Look, Signer)>>,
    /// What KMS said last of each key, and when.
    keys: Answers<Option<KeyFacts>>,
    /// The key last asked for, by stream.
    asked: BTreeMap<String, Key>,
}

impl SpoiledAws {
    pub(super) fn new(bug: Bug, aws: Aws) -> Self {
        Self { bug, aws, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        self.aws.link().scene.state().now
    }

    /// Start as the SDK sends it while its retries are on.
    async fn start_with_retries(
        &self,
        stream: &StreamArn,
        key: &Key,
        by: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), Fault> {
        let mut tries = 1;
        loop {
            let answer = self.aws.start(stream, key, by, signer, reserved).await;
            let again = matches!(
                &answer,
                Err(fault)
                    if matches!(fault.class, Class::LimitReached | Class::UnknownOutcome | Class::Throttled)
            );
            if !again || tries == TRIES {
                return answer;
            }
            let pause = SignedDuration::from_millis(300 * tries);
            let at = self.now() + pause;
            self.aws.link().scene.wait_until(at).await;
            tries += 1;
        }
    }

    /// As whom it is asked.
    fn as_whom(&self, by: &Principal) -> Principal {
        let role = if self.bug == Bug::RoleForgotten { None } else { by.role.clone() };
        Principal { role, ..by.clone() }
    }

    /// What is to sign what follows a look that `of_look` signed.
    fn signer(&self, of_look: &Signer) -> Signer {
        if self.bug == Bug::SignedAnew { self.aws.signer() } else { of_look.clone() }
    }

    /// An answer as it is understood.
    fn understood(&self, answer: Result<(), Fault>) -> Result<(), Fault> {
        match answer {
            Err(fault) if self.bug == Bug::SilenceIsRefusal && fault.class == Class::UnknownOutcome => {
                Err(Fault { class: Class::Transient, ..fault })
            }
            answer => answer,
        }
    }
}

impl Streams for SpoiledAws {
    async fn identity(&self) -> Result<Identity, Fault> {
        self.aws.identity().await
    }

    async fn answers(&self) -> Result<(), Fault> {
        self.aws.answers().await
    }

    async fn look(
        &self,
        stream: &StreamArn,
        by: &Principal,
        urgency: Urgency,
    ) -> Result<Option<(Look, Signer)>, Fault> {
        let name = stream.to_string();
        let now = self.now();
        if self.bug == Bug::OldLook
            && let Some(look) = still_good(&self.known().looks, &name, now, GOOD_FOR)
        {
            return Ok(look);
        }
        let mut look = self.aws.look(stream, &self.as_whom(by), urgency).await?;
        let now = self.now();
        let mut known = self.known();
        if self.bug == Bug::FailedShownAsDone
            && let (Some((look, _)), Some(asked)) = (&mut look, known.asked.get(&name))
            && matches!(look.encryption, Shown::Failed { action: Action::Start, .. })
        {
            look.encryption = Shown::On(asked.clone());
        }
        known.looks.insert(name, (now, look.clone()));
        Ok(look)
    }

    async fn key(
        &self,
        stream: &StreamArn,
        name: &KeyName,
        by: &Principal,
        urgency: Urgency,
    ) -> Result<Option<KeyFacts>, Fault> {
        let asked = name.to_string();
        let now = self.now();
        if self.bug == Bug::OldKey
            && let Some(facts) = still_good(&self.known().keys, &asked, now, KEY_GOOD_FOR)
        {
            return Ok(facts);
        }
        let facts = self.aws.key(stream, name, by, urgency).await?;
        let now = self.now();
        self.known().keys.insert(asked, (now, facts.clone()));
        Ok(facts)
    }

    async fn turn(&self, stream: &StreamArn, action: Action, by: &Principal, signer: &Signer) -> bool {
        let signer = self.signer(signer);
        self.aws.turn(stream, action, by, &signer).await
    }

    async fn start(
        &self,
        stream: &StreamArn,
        key: &Key,
        by: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), Fault> {
        self.known().asked.insert(stream.to_string(), key.clone());
        let signer = &self.signer(signer);
        let answer = match self.bug {
            Bug::SdkRetries => self.start_with_retries(stream, key, by, signer, reserved).await,
            Bug::PauseNotNoticed => self.aws.start_dated(stream, key, by, signer, reserved, None).await,
            _ => self.aws.start(stream, key, by, signer, reserved).await,
        };
        self.understood(answer)
    }

    async fn stop(
        &self,
        stream: &StreamArn,
        in_force: Option<&Key>,
        by: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), Fault> {
        let signer = &self.signer(signer);
        let answer = match self.bug {
            Bug::PauseNotNoticed => self.aws.stop_dated(stream, in_force, by, signer, reserved, None).await,
            _ => self.aws.stop(stream, in_force, by, signer, reserved).await,
        };
        self.understood(answer)
    }

    async fn put_record(
        &self,
        stream: &StreamArn,
        record: &str,
        by: &Principal,
        signer: &Signer,
    ) -> Result<bool, Fault> {
        self.aws.put_record(stream, record, by, &self.signer(signer)).await
    }
}
