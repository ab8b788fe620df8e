//! What the operator has to be allowed in AWS, and no more: its own policy, and its part of a key's policy. [`role`] has the
//! policies that are about roles.
//!
//! Decides by one table, `RIGHTS`, from streams, keys and features. It never grants what no call or feature needs, and the
//! words for the operator's own calls come from [`Operation::iam_action`]. Resources are those of AWS's
//! [Service Authorization Reference](https://docs.aws.amazon.com/service-authorization/latest/reference/). Nothing of this has
//! been tried on live AWS.

pub mod document;
pub mod role;
pub mod scope;

use document::{Policy, Principal, Statement, Words};
use scope::Scope;

use crate::api::stream_encryption::Service::{self, Firehose, Kinesis};
use crate::model::fault::Operation;
use crate::model::principal::RoleArn;

/// What a policy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Look at streams, and encrypt them.
    Encrypt,
    /// Turn encryption off: `allowDisable` in a `StreamEncryptionPolicy`.
    Disable,
    /// Prove encryption by a record: `verify.putRecord`.
    Verify,
}

/// What AWS does for the operator, with the operator's rights: Firehose takes a grant on the key; the service that gets a record
/// takes a data key.
const CREATE_GRANT: Action = Action::ForUs("kms:CreateGrant");
const GENERATE_DATA_KEY: Action = Action::ForUs("kms:GenerateDataKey");
const DECRYPT: Action = Action::ForUs("kms:Decrypt");

#[derive(Clone, Copy)]
enum Action {
    Call(Operation),
    ForUs(&'static str),
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Call(operation) => operation.iam_action(),
            Self::ForUs(name) => name,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    Streams(Service),
    /// AWS lists two required resources for Start and Stop of Kinesis, `stream` and `kmsKey`, and no condition key that could
    /// name an alias (`kms:RequestAlias` and `kms:ResourceAliases` are for KMS's own actions). Whether AWS asks for the key's
    /// right where the call names `alias/aws/kinesis` is not known; the policy allows both.
    KinesisStreamsAndKeys,
    /// All customer managed keys.
    Keys,
    /// The customer managed keys that can encrypt a stream of this service.
    KeysFor(Service),
}

#[derive(Clone, Copy)]
enum OnlyIf {
    Always,
    /// A service integrated with KMS asks, not the operator itself
    /// ([grants](https://docs.aws.amazon.com/kms/latest/developerguide/grant-authorization.html)).
    ForAwsResource,
    /// Firehose asks, as AWS's own policies for writers have it
    /// ([one](https://docs.aws.amazon.com/aws-managed-policy/latest/reference/AWSServiceRoleForLogDeliveryPolicy.html)).
    ThroughFirehose,
    /// The data key is for one of the Kinesis streams
    /// ([encryption context](https://docs.aws.amazon.com/streams/latest/dev/permissions-user-key-KMS.html)).
    ForKinesisStreams,
}

struct Right {
    feature: Feature,
    sid: &'static str,
    actions: &'static [Action],
    on: On,
    only_if: OnlyIf,
}

const fn call(operation: Operation) -> Action {
    Action::Call(operation)
}

/// Everything that the operator may ever need, by feature; each goes into a policy only if it is about a stream or key there.
const RIGHTS: [Right; 11] = [
    Right {
        feature: Feature::Encrypt,
        sid: "LookAtFirehoseStreamsAndEncryptThem",
        actions: &[call(Operation::DescribeDeliveryStream), call(Operation::StartDeliveryStreamEncryption)],
        on: On::Streams(Firehose),
        only_if: OnlyIf::Always,
    },
    Right {
        feature: Feature::Encrypt,
        sid: "LookAtKinesisStreams",
        actions: &[call(Operation::DescribeStreamSummary)],
        on: On::Streams(Kinesis),
        only_if: OnlyIf::Always,
    },
    Right {
        feature: Feature::Encrypt,
        sid: "EncryptKinesisStreamsWhichNeedsStreamAndKey",
        actions: &[call(Operation::StartStreamEncryption)],
        on: On::KinesisStreamsAndKeys,
        only_if: OnlyIf::Always,
    },
    Right {
        feature: Feature::Encrypt,
        sid: "LookAtKeys",
        actions: &[call(Operation::DescribeKey)],
        on: On::Keys,
        only_if: OnlyIf::Always,
    },
    Right {
        feature: Feature::Encrypt,
        sid: "LetFirehoseUseKeys",
        actions: &[CREATE_GRANT],
        on: On::KeysFor(Firehose),
        only_if: OnlyIf::ForAwsResource,
    },
    Right {
        feature: Feature::Disable,
        sid: "TurnOffEncryptionOfFirehoseStreams",
        actions: &[call(Operation::StopDeliveryStreamEncryption)],
        on: On::Streams(Firehose),
        only_if: OnlyIf::Always,
    },
    Right {
        feature: Feature::Disable,
        sid: "TurnOffEncryptionOfKinesisStreamsWhichNeedsStreamAndKey",
        actions: &[call(Operation::StopStreamEncryption)],
        on: On::KinesisStreamsAndKeys,
        only_if: OnlyIf::Always,
    },
    Right {
        feature: Feature::Verify,
        sid: "WriteOneRecordToFirehoseStreams",
        actions: &[call(Operation::PutFirehoseRecord)],
        on: On::Streams(Firehose),
        only_if: OnlyIf::Always,
    },
    Right {
        feature: Feature::Verify,
        sid: "WriteOneRecordToKinesisStreams",
        actions: &[call(Operation::PutKinesisRecord)],
        on: On::Streams(Kinesis),
        only_if: OnlyIf::Always,
    },
    // Firehose wants both of whoever writes: for streams made since 2026-04-20 now, for all from 2027-02-28 on.
    Right {
        feature: Feature::Verify,
        sid: "EncryptThatRecordThroughFirehose",
        actions: &[GENERATE_DATA_KEY, DECRYPT],
        on: On::KeysFor(Firehose),
        only_if: OnlyIf::ThroughFirehose,
    },
    Right {
        feature: Feature::Verify,
        sid: "EncryptThatRecordForKinesisStreams",
        actions: &[GENERATE_DATA_KEY],
        on: On::KeysFor(Kinesis),
        only_if: OnlyIf::ForKinesisStreams,
    },
];

/// The policy of the operator's role, for these features.
#[must_use]
pub fn policy(scope: &Scope, features: &[Feature]) -> Policy {
    let rights = RIGHTS.iter().filter(|right| features.contains(&right.feature));
    Policy::of(rights.filter_map(|right| right.statement(scope)).collect())
}

/// What the policy of each key has to say for the operator's role, where the key is another account's, or its policy does not
/// leave it to IAM ([key policies](https://docs.aws.amazon.com/kms/latest/developerguide/key-policies.html)). To be added to
/// that policy, which has statements of its own. A key's policy is about that key, so its resource is `*`.
#[must_use]
pub fn key_policy(scope: &Scope, features: &[Feature], role: &RoleArn) -> Policy {
    let rights = RIGHTS.iter().filter(|right| features.contains(&right.feature));
    let of_kms = rights.filter(|right| matches!(right.on, On::Keys | On::KeysFor(_)));
    let statements = of_kms.filter_map(|right| right.statement(scope));
    let for_role = |it: Statement| it.to(Principal::Role(role.to_string())).on(["*"].into_iter().collect());
    Policy::of(statements.map(for_role).collect())
}

impl Right {
    /// The statement that grants it, unless there is nothing to grant it on.
    fn statement(&self, scope: &Scope) -> Option<Statement> {
        let resources = self.on.resources(scope);
        let statement = Statement::allow(self.sid, self.actions.iter().map(|action| action.name()));
        (!resources.is_empty()).then(|| self.only_if.add_to(statement.on(resources), scope))
    }
}

impl On {
    fn resources(self, scope: &Scope) -> Words {
        match self {
            Self::Streams(service) => scope.streams(service).collect(),
            Self::KinesisStreamsAndKeys => {
                let streams = scope.streams(Kinesis).map(ToString::to_string);
                let keys = scope.keys_that_kinesis_may_name();
                streams.chain(keys.iter().map(ToString::to_string)).collect()
            }
            Self::Keys => scope.keys().collect(),
            Self::KeysFor(service) => scope.keys_for(service).collect(),
        }
    }
}

impl OnlyIf {
    fn add_to(self, statement: Statement, scope: &Scope) -> Statement {
        match self {
            Self::Always => statement,
            Self::ForAwsResource => statement.only_if("Bool", "kms:GrantIsForAWSResource", ["true"]),
            Self::ThroughFirehose => {
                let services = scope.streams_with_keys(Firehose).flat_map(|stream| {
                    let service = format!("firehose.{}.amazonaws.com", stream.region());
                    // In China services have both forms, and no page says which one KMS sees.
                    let chinese = (stream.partition().as_str() == "aws-cn").then(|| format!("{service}.cn"));
                    std::iter::once(service).chain(chinese)
                });
                statement.only_if("StringEquals", "kms:ViaService", services)
            }
            Self::ForKinesisStreams => {
                let streams = scope.streams_with_keys(Kinesis);
                statement.only_if("StringLike", "kms:EncryptionContext:aws:kinesis:arn", streams)
            }
        }
    }
}

#[cfg(test)]
mod tests;
