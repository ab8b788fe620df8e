//! Rows in which nothing of AWS is asked for: not allowed, not wanted now, not ours, not known.

use super::{Expected, Kind, Row, releases, rests};
use crate::api::condition::Reason;
use crate::api::stream_encryption::Service;
use crate::model::decision::{Ownership, Wanted};
use crate::model::fault::Class;
use crate::model::key::Key;
use crate::model::observation::Observation;
use crate::model::situation::{ACCOUNT, Sight, Situation, allowed, allowed_as};

pub(super) fn rows(service: Service) -> Vec<Row> {
    [not_allowed(service), not_wanted_or_not_ours(service), not_known(service)].concat()
}

fn foreign(s: &mut Situation) {
    s.permission = allowed("444455556666", "aws", true, 20);
}

fn deleting(s: &mut Situation) {
    s.intent.wanted = Wanted::Off;
    s.intent.disable_on_deletion = true;
    s.intent.deleting = true;
}

fn not_allowed(service: Service) -> Vec<Row> {
    let plain = || Situation::of(service).sees(Observation::Off);
    let no_disable = |s: &mut Situation| s.permission = allowed(ACCOUNT, "aws", false, 20);
    let foreign_key = Key::Customer("arn:aws:kms:eu-west-1:444455556666:key/1".parse().unwrap());
    vec![
        (
            "a stream of another account is left alone",
            plain().with(foreign),
            rests(Reason::NotPermitted, 600),
        ),
        (
            "a stream of another partition is left alone",
            plain().with(|s| s.permission = allowed(ACCOUNT, "aws-cn", true, 20)),
            rests(Reason::NotPermitted, 600),
        ),
        (
            "a key of another account is not used",
            plain().wants(Wanted::Key(foreign_key)),
            rests(Reason::NotPermitted, 600),
        ),
        (
            "what is not allowed is not even looked at",
            plain().with(foreign).with(|s| s.sight = Sight::NotYet),
            rests(Reason::NotPermitted, 600),
        ),
        (
            "of two roles for one stream none is used",
            plain().with(|s| s.permission = allowed_as(&["a", "b"])),
            rests(Reason::RolesDiffer, 600),
        ),
        (
            "one role that two policies name is no conflict",
            plain().with(|s| s.permission = allowed_as(&["a", "a"])).with(|s| s.sight = Sight::NotYet),
            Expected { step: Kind::Look, ..rests(Reason::Settling, 2) },
        ),
        (
            "a deleted resource is held until it can be said as whom its stream is to be turned off",
            plain().with(deleting).with(|s| s.permission = allowed_as(&["a", "b"])),
            rests(Reason::RolesDiffer, 600),
        ),
        (
            "encryption is not turned off where that is not allowed",
            plain().wants(Wanted::Off).with(no_disable),
            rests(Reason::DisableNotPermitted, 600),
        ),
        (
            "a resource that would turn encryption off when deleted says early that this is not allowed",
            plain().with(no_disable).with(|s| s.intent.disable_on_deletion = true),
            rests(Reason::DisableNotPermitted, 600),
        ),
        (
            "a deleted resource does not leave a stream encrypted silently that it was to turn off",
            plain().with(deleting).with(no_disable),
            rests(Reason::DisableNotPermitted, 600),
        ),
        (
            "a deleted resource whose stream is not allowed any more is let go",
            plain().with(deleting).with(foreign),
            releases(Reason::NotPermitted, 600),
        ),
    ]
}

fn not_wanted_or_not_ours(service: Service) -> Vec<Row> {
    let plain = || Situation::of(service).sees(Observation::Off);
    vec![
        (
            "a suspended resource is not looked at before the next look for drift",
            plain().with(|s| s.intent.suspended = true),
            rests(Reason::Suspended, 600),
        ),
        (
            "suspension does not hide that something is not allowed",
            plain().with(foreign).with(|s| s.intent.suspended = true),
            rests(Reason::NotPermitted, 600),
        ),
        (
            "the second resource for a stream waits for the first",
            plain().with(|s| s.ownership = Ownership::Another),
            rests(Reason::StreamOwnedByAnother, 30),
        ),
        (
            "a deleted resource that does not own its stream is let go",
            plain().with(deleting).with(|s| s.ownership = Ownership::Another),
            releases(Reason::StreamOwnedByAnother, 30),
        ),
        (
            "without a ledger that can be believed nothing is called",
            plain().with(|s| s.ownership = Ownership::Unreadable),
            rests(Reason::LedgerUnreadable, 5),
        ),
    ]
}

fn not_known(service: Service) -> Vec<Row> {
    let plain = || Situation::of(service).sees(Observation::Off);
    vec![
        (
            "the first thing to do is to look",
            Situation::of(service),
            Expected { step: Kind::Look, ..rests(Reason::Settling, 2) },
        ),
        (
            "an AWS that does not answer is asked again soon",
            plain().cannot_see(Class::Transient),
            rests(Reason::AwsUnreachable, 5),
        ),
        (
            "an AWS that asks to slow down is asked again",
            plain().cannot_see(Class::Throttled),
            rests(Reason::AwsThrottled, 5),
        ),
        (
            "a look without credentials says so",
            plain().cannot_see(Class::NoCredentials),
            rests(Reason::NoCredentials, 5),
        ),
        (
            "a look whose credentials are rejected says so",
            plain().cannot_see(Class::CredentialsRejected),
            rests(Reason::CredentialsRejected, 5),
        ),
        ("a look that is denied says so", plain().cannot_see(Class::Denied), rests(Reason::AccessDenied, 5)),
        (
            "a look that AWS does not understand says so",
            plain().cannot_see(Class::Invalid),
            rests(Reason::CallRefused, 5),
        ),
        (
            "the longer AWS does not answer the longer are the waits",
            plain().cannot_see(Class::Transient).after(100).with(|s| {
                s.waiting = Some((Reason::AwsUnreachable, s.now - jiff::SignedDuration::from_secs(100)));
            }),
            rests(Reason::AwsUnreachable, 100),
        ),
        (
            "but never longer than 5 minutes",
            plain().cannot_see(Class::Transient).after(4000).with(|s| {
                s.waiting = Some((Reason::AwsUnreachable, s.now - jiff::SignedDuration::from_secs(4000)));
            }),
            rests(Reason::AwsUnreachable, 300),
        ),
        (
            "a wait for another reason begins anew",
            plain().cannot_see(Class::Transient).after(100).with(|s| {
                s.waiting = Some((Reason::AwsThrottled, s.now - jiff::SignedDuration::from_secs(100)));
            }),
            rests(Reason::AwsUnreachable, 5),
        ),
    ]
}
