//! Rows in which no AWS request is sent: not permitted, suspended, managed by another resource, or unknown.

use stream_encryption_api::condition::Reason;
use stream_encryption_api::stream_encryption::Service;

use super::{Expected, Kind, Row, releases, rests};
use crate::model::aws_error::ErrorKind;
use crate::model::decision::Ownership;
use crate::model::desired::DesiredEncryption;
use crate::model::key::Key;
use crate::model::observation::Observation;
use crate::model::scenario::{ACCOUNT, Scenario, Sight, allowed, allowed_as};

pub(super) fn rows(service: Service) -> Vec<Row> {
    [not_allowed(service), not_wanted_or_not_ours(service), not_known(service)].concat()
}

fn foreign(s: &mut Scenario) {
    s.permission = allowed("444455556666", "aws", true, 20);
}

fn deleting(s: &mut Scenario) {
    s.desired.encryption = DesiredEncryption::Off;
    s.desired.disable_on_deletion = true;
    s.desired.deleting = true;
}

fn not_allowed(service: Service) -> Vec<Row> {
    let plain = || Scenario::of(service).sees(Observation::Off);
    let no_disable = |s: &mut Scenario| s.permission = allowed(ACCOUNT, "aws", false, 20);
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
            plain().wants(DesiredEncryption::Key(foreign_key)),
            rests(Reason::NotPermitted, 600),
        ),
        (
            "a stream that is not allowed is not described",
            plain().with(foreign).with(|s| s.sight = Sight::NotYet),
            rests(Reason::NotPermitted, 600),
        ),
        (
            "if policies name two roles for one stream, neither is used",
            plain().with(|s| s.permission = allowed_as(&["a", "b"])),
            rests(Reason::ConflictingPolicyRoles, 600),
        ),
        (
            "one role that two policies name is no conflict",
            plain().with(|s| s.permission = allowed_as(&["a", "a"])).with(|s| s.sight = Sight::NotYet),
            Expected { step: Kind::Describe, ..rests(Reason::Settling, 2) },
        ),
        (
            "a deleted resource is kept while its policies name conflicting roles",
            plain().with(deleting).with(|s| s.permission = allowed_as(&["a", "b"])),
            rests(Reason::ConflictingPolicyRoles, 600),
        ),
        (
            "encryption is not turned off where that is not allowed",
            plain().wants(DesiredEncryption::Off).with(no_disable),
            rests(Reason::DisableNotPermitted, 600),
        ),
        (
            "a missing permission for deletionPolicy: Disable is reported before the deletion",
            plain().with(no_disable).with(|s| s.desired.disable_on_deletion = true),
            rests(Reason::DisableNotPermitted, 600),
        ),
        (
            "a deleted resource is kept while it may not disable encryption",
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
    let plain = || Scenario::of(service).sees(Observation::Off);
    vec![
        (
            "the stream of a suspended resource is not described",
            plain().with(|s| s.desired.suspended = true),
            rests(Reason::Suspended, 600),
        ),
        (
            "a missing permission is reported also while suspended",
            plain().with(foreign).with(|s| s.desired.suspended = true),
            rests(Reason::NotPermitted, 600),
        ),
        (
            "the second resource for a stream waits for the first",
            plain().with(|s| s.ownership = Ownership::Another),
            rests(Reason::StreamAlreadyManaged, 30),
        ),
        (
            "a deleted resource that does not manage its stream is released",
            plain().with(deleting).with(|s| s.ownership = Ownership::Another),
            releases(Reason::StreamAlreadyManaged, 30),
        ),
        (
            "no call is made while the ledger is invalid",
            plain().with(|s| s.ownership = Ownership::LedgerInvalid),
            rests(Reason::LedgerInvalid, 5),
        ),
    ]
}

fn not_known(service: Service) -> Vec<Row> {
    let plain = || Scenario::of(service).sees(Observation::Off);
    vec![
        (
            "the first step is to describe the stream",
            Scenario::of(service),
            Expected { step: Kind::Describe, ..rests(Reason::Settling, 2) },
        ),
        (
            "an unanswered Describe is repeated soon",
            plain().cannot_see(ErrorKind::Transient),
            rests(Reason::AwsUnreachable, 5),
        ),
        (
            "a throttled Describe is repeated",
            plain().cannot_see(ErrorKind::Throttled),
            rests(Reason::AwsThrottled, 5),
        ),
        (
            "missing credentials are reported",
            plain().cannot_see(ErrorKind::NoCredentials),
            rests(Reason::NoCredentials, 5),
        ),
        (
            "rejected credentials are reported",
            plain().cannot_see(ErrorKind::CredentialsRejected),
            rests(Reason::CredentialsRejected, 5),
        ),
        (
            "a denied Describe is reported",
            plain().cannot_see(ErrorKind::Denied),
            rests(Reason::AccessDenied, 5),
        ),
        (
            "a Describe that AWS rejects as invalid is reported",
            plain().cannot_see(ErrorKind::Invalid),
            rests(Reason::CallRefused, 5),
        ),
        (
            "waits grow while AWS does not answer",
            plain().cannot_see(ErrorKind::Transient).after(100).with(|s| {
                s.waiting = Some((Reason::AwsUnreachable, s.now - jiff::SignedDuration::from_secs(100)));
            }),
            rests(Reason::AwsUnreachable, 100),
        ),
        (
            "waits for AWS to answer are no longer than 5 minutes",
            plain().cannot_see(ErrorKind::Transient).after(4000).with(|s| {
                s.waiting = Some((Reason::AwsUnreachable, s.now - jiff::SignedDuration::from_secs(4000)));
            }),
            rests(Reason::AwsUnreachable, 300),
        ),
        (
            "a wait for another reason starts from its minimum",
            plain().cannot_see(ErrorKind::Transient).after(100).with(|s| {
                s.waiting = Some((Reason::AwsThrottled, s.now - jiff::SignedDuration::from_secs(100)));
            }),
            rests(Reason::AwsUnreachable, 5),
        ),
    ]
}
