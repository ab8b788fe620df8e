//! Rows in which a call would be wrong, useless or too early.

use stream_encryption_api::condition::Reason;
use stream_encryption_api::ledger::Action;
use stream_encryption_api::stream_encryption::Service;

use super::{Row, rests, starts, waits};
use crate::model::aws_error::{ErrorKind, OPERATOR_PAUSED};
use crate::model::decision::MAX_SESSION_AGE_FOR_CALL;
use crate::model::desired::DesiredEncryption;
use crate::model::key::{Key, KeyProblem};
use crate::model::ledger::QUOTA_WINDOW;
use crate::model::observation::Observation;
use crate::model::scenario::{ACCOUNT, Scenario, allowed, failed, key};

const DAY: i64 = 24 * 3600;

pub(super) fn rows(service: Service) -> Vec<Row> {
    [keys(service), attempts(service), refusals(service), limits(service)].concat()
}

fn keys(service: Service) -> Vec<Row> {
    let problem = |problem| Scenario::of(service).key_is(problem).sees(Observation::Off);
    let mut rows: Vec<Row> = [
        ("no call is spent on a key that is missing", KeyProblem::NotFound, Reason::KeyNotFound),
        ("no call is spent on a key that is disabled", KeyProblem::Disabled, Reason::KeyDisabled),
        (
            "no call is spent on a key that will be deleted",
            KeyProblem::PendingDeletion,
            Reason::KeyPendingDeletion,
        ),
        ("no call is spent on a key without material", KeyProblem::PendingImport, Reason::KeyPendingImport),
        ("no call is spent on a key that is unavailable", KeyProblem::Unavailable, Reason::KeyUnavailable),
        (
            "no call is spent on a key in an unknown state",
            KeyProblem::Unrecognized,
            Reason::KeyStateUnrecognized,
        ),
        ("no call is spent on an asymmetric key", KeyProblem::NotSymmetric, Reason::KeyNotSymmetric),
        ("no call is spent on a key that does not encrypt", KeyProblem::WrongUsage, Reason::KeyUsageWrong),
        ("no call is spent on a key of another region", KeyProblem::OtherRegion, Reason::KeyInOtherRegion),
        ("no call is spent on a key that AWS manages", KeyProblem::AwsManaged, Reason::KeyManagedByAws),
        (
            "no call is spent on a key that cannot be read",
            KeyProblem::DescribeDenied,
            Reason::KeyDescribeDenied,
        ),
        (
            "no call is spent while the referenced key is not ready",
            KeyProblem::ReferenceNotReady,
            Reason::KeyReferenceNotReady,
        ),
        (
            "no call is spent while the referenced kind is missing",
            KeyProblem::ReferenceCrdMissing,
            Reason::KeyReferenceCRDMissing,
        ),
    ]
    .into_iter()
    .map(|(sentence, which, reason)| (sentence, problem(which), rests(reason, 15)))
    .collect();
    rows.extend([
        (
            "a key that stays unusable is described less often, down to every 10 minutes",
            problem(KeyProblem::Disabled).with(|s| {
                s.waiting = Some((Reason::KeyDisabled, s.now - jiff::SignedDuration::from_secs(DAY)));
            }),
            rests(Reason::KeyDisabled, 600),
        ),
        (
            "no call is made with an unknown key",
            Scenario::of(service).wants(DesiredEncryption::UnknownKey).sees(Observation::Off),
            rests(Reason::KeyDescribeDenied, 15),
        ),
    ]);
    rows
}

#[allow(clippy::too_many_lines, reason = "one table")]
fn attempts(service: Service) -> Vec<Row> {
    let arrival = QUOTA_WINDOW.as_secs() - DAY;
    let started = || Scenario::of(service).sees(Observation::Off).calls();
    let stopped =
        || Scenario::of(service).wants(DesiredEncryption::Off).sees(Observation::On(key(1))).calls();
    let unanswered = || started().refused(ErrorKind::UnknownOutcome, "InternalFailure");
    let refused_ahead = |seconds| {
        started().refused(ErrorKind::Denied, "AccessDeniedException").with(move |s| {
            let ahead = jiff::SignedDuration::from_secs(seconds);
            s.ledger.calls.last_mut().expect("a call").time.0 += ahead;
            s.ledger.attempts.as_mut().expect("an attempt").not_before_time.0 += ahead;
        })
    };
    // An attempt made outside the operator has failed, and the desired key may be the active one.
    let unguessed = || Scenario::of(service).sees(failed(Action::Start));
    let guessed = || unguessed().calls().accepted().after(60).sees(failed(Action::Start));
    let no_effect = match service {
        Service::Firehose => Reason::NotApplied,
        Service::Kinesis => Reason::EnablingFailed,
    };
    vec![
        (
            "a failure that the operator did not cause leaves open which key is active",
            Scenario::of(service).wants(DesiredEncryption::AnyKey).sees(failed(Action::Start)),
            rests(Reason::ActiveKeyUnknown, 600),
        ),
        (
            "with no active key known, a second call with the key that AWS failed needs the retry annotation",
            guessed(),
            rests(Reason::ActiveKeyUnknown, 600),
        ),
        (
            "a second call with that key is not made after hours either",
            guessed().after(9 * 3600).sees(failed(Action::Start)),
            rests(Reason::ActiveKeyUnknown, 600),
        ),
        (
            "the retry annotation allows one more call with that key",
            guessed().with(|s| s.desired.retry = Some("now".into())),
            starts(key(1)),
        ),
        (
            "another key is tried, for it cannot be the active one as well",
            guessed().wants(DesiredEncryption::Key(key(2))),
            starts(key(2)),
        ),
        (
            "a key that could not be used meanwhile is tried again with no active key known",
            guessed()
                .key_is(KeyProblem::Disabled)
                .sees(failed(Action::Start))
                .with(|s| s.desired.key_problem = None),
            starts(key(1)),
        ),
        (
            "with no active key known, a refusal that does not concern the key is retried",
            unguessed().calls().refused(ErrorKind::Denied, "AccessDeniedException"),
            waits(Reason::AccessDenied, 300, 300),
        ),
        (
            "a call that a crash left without an outcome may still arrive while its signature is valid, on any clock",
            started().after(31).sees(Observation::Off),
            waits(Reason::OutcomeUnknown, 2, arrival - 31),
        ),
        (
            "a call without a response may still arrive while its signature is valid, on any clock",
            unanswered().after(31).sees(Observation::Off),
            waits(Reason::OutcomeUnknown, 2, arrival - 31),
        ),
        (
            "a call dated by a clock two days ahead may arrive in two days, and the end of the wait is reported",
            unanswered().after(0).sees(Observation::Off).with(|s| {
                let call = s.ledger.calls.last_mut().expect("a call");
                call.time.0 += jiff::SignedDuration::from_hours(48);
            }),
            waits(Reason::OutcomeUnknown, 2, 48 * 3600 + arrival),
        ),
        (
            "the retry annotation does not bypass a call that may still arrive",
            unanswered()
                .after(arrival - 1)
                .sees(Observation::Off)
                .with(|s| s.desired.retry = Some("now".into())),
            waits(Reason::OutcomeUnknown, 2, 1),
        ),
        (
            "after a failed attempt the next one waits 5 minutes",
            started().accepted().after(60).sees(failed(Action::Start)),
            waits(Reason::EnablingFailed, 240, 240),
        ),
        (
            "a wait that only a clock days ahead can have written is ignored",
            started().accepted().after(60).sees(failed(Action::Start)).with(|s| {
                let attempts = s.ledger.attempts.as_mut().expect("an attempt");
                attempts.not_before_time.0 += jiff::SignedDuration::from_hours(48);
            }),
            starts(key(1)),
        ),
        (
            "an attempt dated by a clock hours ahead, which AWS refused, is not waited for",
            refused_ahead(5 * 3600),
            starts(key(1)),
        ),
        (
            "an attempt dated by another clock that AWS accepts is waited for",
            refused_ahead(25 * 60),
            waits(Reason::AccessDenied, 600, 25 * 60 + 300),
        ),
        (
            "after a failed Stop the next one waits 5 minutes",
            stopped().accepted().after(60).sees(failed(Action::Stop)),
            waits(Reason::DisablingFailed, 240, 240),
        ),
        (
            "an accepted Start that changes nothing backs off all the same",
            started().accepted().after(60).sees(Observation::Off),
            waits(no_effect, 240, 240),
        ),
        (
            "the second failed attempt waits 10 minutes",
            started()
                .accepted()
                .after(300)
                .sees(failed(Action::Start))
                .calls()
                .accepted()
                .after(60)
                .sees(failed(Action::Start)),
            waits(Reason::EnablingFailed, 540, 540),
        ),
        (
            "a wait that is longer than the drift interval is interrupted by a Describe",
            started()
                .accepted()
                .after(300)
                .sees(failed(Action::Start))
                .calls()
                .accepted()
                .after(600)
                .sees(failed(Action::Start))
                .calls()
                .accepted()
                .after(60)
                .sees(failed(Action::Start)),
            waits(Reason::EnablingFailed, 600, 1140),
        ),
    ]
}

fn refusals(service: Service) -> Vec<Row> {
    let refused = |kind, code| {
        Scenario::of(service)
            .sees(Observation::Off)
            .calls()
            .refused(kind, code)
            .after(31)
            .sees(Observation::Off)
    };
    vec![
        (
            "a call that is denied is tried again after 5 minutes",
            refused(ErrorKind::Denied, "AccessDeniedException"),
            waits(Reason::AccessDenied, 269, 269),
        ),
        (
            "a key whose policy denies its use is tried again after 5 minutes",
            refused(ErrorKind::KeyAccessDenied, "KMSAccessDeniedException"),
            waits(Reason::KeyAccessDenied, 269, 269),
        ),
        (
            "a key that only the call found disabled is tried again after 5 minutes",
            refused(ErrorKind::Key(KeyProblem::Disabled), "KMSDisabledException"),
            waits(Reason::KeyDisabled, 269, 269),
        ),
        (
            "a call that AWS does not understand is tried again after 5 minutes",
            refused(ErrorKind::Invalid, "InvalidArgumentException"),
            waits(Reason::CallRefused, 269, 269),
        ),
        (
            "when others have used the calls up the next try comes after an hour",
            refused(ErrorKind::LimitReached, "LimitExceededException"),
            waits(Reason::CallLimitReached, 600, 3600 - 31),
        ),
        (
            "a stream in use is tried again after 30 seconds, and doubling",
            Scenario::of(service)
                .sees(Observation::Off)
                .calls()
                .refused(ErrorKind::InUse, "ResourceInUseException"),
            waits(Reason::StreamInUse, 30, 30),
        ),
        (
            "a reason in the ledger that this version does not know is a refusal",
            refused(ErrorKind::Denied, "x")
                .with(|s| s.ledger.attempts.as_mut().unwrap().reason = Some("Tomorrow".into())),
            waits(Reason::CallRefused, 269, 269),
        ),
    ]
}

fn limits(service: Service) -> Vec<Row> {
    let window = QUOTA_WINDOW.as_secs();
    // Encryption is disabled externally again and again, once in 100 seconds.
    let fought = |times: i64| {
        (0..times).fold(Scenario::of(service).converged(), |story, _| {
            story.after(39).sees(Observation::Off).calls().accepted().after(1).converged()
        })
    };
    let third_of_contest = fought(3).ledger.calls[0].at();
    let contested = fought(3).after(39).sees(Observation::Off);
    let over = DAY - contested.now.duration_since(third_of_contest).as_secs();
    let contested_once = contested.clone();
    // The second correction must then be a day old.
    let later = contested.now + jiff::SignedDuration::from_secs(100);
    let over_again = DAY - later.duration_since(contested.ledger.calls[1].at()).as_secs();
    let old = MAX_SESSION_AGE_FOR_CALL + jiff::SignedDuration::from_secs(1);
    let old_session = |wanted| {
        Scenario::of(service).wants(wanted).with(|s| s.session_age = Some(old)).sees(Observation::Off)
    };
    let mut rows = vec![
        (
            "after three corrections in a day the operator stops correcting",
            contested,
            waits(Reason::DriftCorrectionLimitReached, 600, over),
        ),
        (
            "the retry annotation bypasses the limit of corrections",
            contested_once.clone().with(|s| s.desired.retry = Some("now".into())),
            starts(key(1)),
        ),
        (
            "a retry whose call was not sent bypasses the limit of corrections again",
            contested_once
                .clone()
                .with(|s| s.desired.retry = Some("now".into()))
                .calls()
                .refused(ErrorKind::Transient, OPERATOR_PAUSED)
                .after(60)
                .sees(Observation::Off),
            starts(key(1)),
        ),
        (
            "the retry annotation bypasses the limit of corrections only once",
            contested_once
                .with(|s| s.desired.retry = Some("now".into()))
                .calls()
                .accepted()
                .after(1)
                .converged()
                .after(39)
                .sees(Observation::Off),
            waits(Reason::DriftCorrectionLimitReached, 600, over_again),
        ),
        (
            "when the budget is used up the wait ends when the oldest call ages out",
            Scenario::of(service).spent(20).after(60).sees(Observation::Off),
            waits(Reason::CallLimitReached, 600, window - 60),
        ),
        (
            "when others have used the budget up the wait ends when their first call ages out",
            Scenario::of(service).spent_by_others(25).after(60).sees(Observation::Off),
            waits(Reason::CallLimitReached, 600, 24 * 3600 + 15 * 60 - 60),
        ),
        (
            "near its end the wait for the budget is exact",
            Scenario::of(service).spent(20).after(window - 7).sees(Observation::Off),
            waits(Reason::CallLimitReached, 7, 7),
        ),
        (
            "the retry annotation does not bypass the budget",
            Scenario::of(service)
                .spent(20)
                .after(60)
                .with(|s| s.desired.retry = Some("now".into()))
                .sees(Observation::Off),
            waits(Reason::CallLimitReached, 600, window - 60),
        ),
        (
            "a policy that allows no calls is a limit that never ends",
            Scenario::of(service)
                .with(|s| s.permission = allowed(ACCOUNT, "aws", true, 0))
                .sees(Observation::Off),
            waits(Reason::CallLimitReached, 300, 300),
        ),
    ];
    if service == Service::Firehose {
        rows.push((
            "an old session is renewed before Firehose makes a grant with it",
            old_session(DesiredEncryption::Key(key(1))),
            rests(Reason::SessionTooOld, 60),
        ));
    }
    rows.push((
        "the AWS-owned key needs no young session",
        old_session(DesiredEncryption::Key(Key::AwsOwned)),
        super::starts(Key::AwsOwned),
    ));
    rows
}
