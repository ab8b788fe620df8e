//! The AWS permissions that the operator needs, and no others: its own policy, and its part of a key policy.
//! [`role`] has the policies that are about roles, [`events`] those of the queue of AWS's events, and [`adopt`] the
//! policy of a person who runs `adopt`.
//!
//! One table, `PERMISSION_RULES`, determines the statements from streams, keys and features. It never grants a
//! permission that no call or feature needs, and the actions of the operator's own calls come from
//! [`Operation::iam_action`]. Resources are those of AWS's
//! [Service Authorization Reference](https://docs.aws.amazon.com/service-authorization/latest/reference/).
//! None of these policies has been tested on live AWS.

pub mod adopt;
pub mod document;
pub mod events;
pub mod role;
pub mod scope;

use stream_encryption_api::stream_encryption::Service::{self, Firehose, Kinesis};
use stream_encryption_core::model::arn::{Region, RoleArn};
use stream_encryption_core::model::service::Operation;

use document::{DocumentPrincipal, PolicyDocument, Statement, StringOrList};
use scope::Scope;

/// A feature of the operator that requires permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Describe streams and encrypt them.
    Encrypt,
    /// Disable encryption: `allowDisable` in a `StreamEncryptionPolicy`.
    Disable,
    /// Verify encryption with a test record: `verification: PutRecord`.
    Verify,
}

/// The Sid of the statement about keys of AWS. It distinguishes them from customer managed keys, which a policy may allow
/// the same actions.
pub const DESCRIBE_AWS_MANAGED_KEYS: &str = "DescribeAwsManagedKeys";

/// Actions that AWS performs with the operator's permissions: Firehose creates a grant on the key, the service that
/// receives a record generates a data key, and SQS decrypts messages.
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
enum ResourceScope {
    Streams(Service),
    /// AWS lists two required resources for Start and Stop of Kinesis, `stream` and `kmsKey`, and no
    /// condition key that could name an alias (`kms:RequestAlias` and `kms:ResourceAliases` are for KMS's own
    /// actions). It is not known whether AWS requires the permission on the key if the call names
    /// `alias/aws/kinesis`; the policy allows both.
    KinesisStreamsAndKeys,
    /// All customer managed keys.
    Keys,
    /// The customer managed keys that can encrypt a stream of this service.
    KeysFor(Service),
    /// `alias/aws/kinesis`, by its ARN; any key of a region in which a stream uses it and the ARN is not known.
    AwsManagedKeys,
}

#[derive(Clone, Copy)]
enum StatementCondition {
    Always,
    /// The caller is an AWS service integrated with KMS, not the operator itself
    /// ([grants](https://docs.aws.amazon.com/kms/latest/developerguide/grant-authorization.html)).
    ForAwsResource,
    /// The caller is Firehose, as in AWS's own policies for producers
    /// ([one](https://docs.aws.amazon.com/aws-managed-policy/latest/reference/AWSServiceRoleForLogDeliveryPolicy.html)).
    ThroughFirehose,
    /// The data key is for one of the Kinesis streams
    /// ([encryption context](https://docs.aws.amazon.com/streams/latest/dev/permissions-user-key-KMS.html)).
    ForKinesisStreams,
}

struct PermissionRule {
    feature: Feature,
    sid: &'static str,
    actions: &'static [Action],
    on: ResourceScope,
    only_if: StatementCondition,
}

const fn call(operation: Operation) -> Action {
    Action::Call(operation)
}

/// Every permission that the operator may need, by feature. A policy includes one only if the scope has a
/// stream or key for it.
///
/// The statements that describe streams allow nothing else. An administrator may restrict the others to streams with a
/// tag. A stream that does not exist has no tags, so a Describe with such a condition would be denied for ever after the
/// stream was deleted.
const PERMISSION_RULES: [PermissionRule; 13] = [
    PermissionRule {
        feature: Feature::Encrypt,
        sid: "DescribeFirehoseStreams",
        actions: &[call(Operation::DescribeDeliveryStream)],
        on: ResourceScope::Streams(Firehose),
        only_if: StatementCondition::Always,
    },
    PermissionRule {
        feature: Feature::Encrypt,
        sid: "EncryptFirehoseStreams",
        actions: &[call(Operation::StartDeliveryStreamEncryption)],
        on: ResourceScope::Streams(Firehose),
        only_if: StatementCondition::Always,
    },
    PermissionRule {
        feature: Feature::Encrypt,
        sid: "DescribeKinesisStreams",
        actions: &[call(Operation::DescribeStreamSummary)],
        on: ResourceScope::Streams(Kinesis),
        only_if: StatementCondition::Always,
    },
    PermissionRule {
        feature: Feature::Encrypt,
        sid: "EncryptKinesisStreams",
        actions: &[call(Operation::StartStreamEncryption)],
        on: ResourceScope::KinesisStreamsAndKeys,
        only_if: StatementCondition::Always,
    },
    PermissionRule {
        feature: Feature::Encrypt,
        sid: "DescribeKeys",
        actions: &[call(Operation::DescribeKey)],
        on: ResourceScope::Keys,
        only_if: StatementCondition::Always,
    },
    // Kinesis reports `alias/aws/kinesis` by its ARN or id if another client named it so. Only `DescribeKey` shows
    // that such a key is not a customer managed one.
    PermissionRule {
        feature: Feature::Encrypt,
        sid: DESCRIBE_AWS_MANAGED_KEYS,
        actions: &[call(Operation::DescribeKey)],
        on: ResourceScope::AwsManagedKeys,
        only_if: StatementCondition::Always,
    },
    PermissionRule {
        feature: Feature::Encrypt,
        sid: "CreateGrantsForFirehose",
        actions: &[CREATE_GRANT],
        on: ResourceScope::KeysFor(Firehose),
        only_if: StatementCondition::ForAwsResource,
    },
    PermissionRule {
        feature: Feature::Disable,
        sid: "DisableEncryptionOfFirehoseStreams",
        actions: &[call(Operation::StopDeliveryStreamEncryption)],
        on: ResourceScope::Streams(Firehose),
        only_if: StatementCondition::Always,
    },
    PermissionRule {
        feature: Feature::Disable,
        sid: "DisableEncryptionOfKinesisStreams",
        actions: &[call(Operation::StopStreamEncryption)],
        on: ResourceScope::KinesisStreamsAndKeys,
        only_if: StatementCondition::Always,
    },
    PermissionRule {
        feature: Feature::Verify,
        sid: "PutRecordToFirehoseStreams",
        actions: &[call(Operation::PutFirehoseRecord)],
        on: ResourceScope::Streams(Firehose),
        only_if: StatementCondition::Always,
    },
    PermissionRule {
        feature: Feature::Verify,
        sid: "PutRecordToKinesisStreams",
        actions: &[call(Operation::PutKinesisRecord)],
        on: ResourceScope::Streams(Kinesis),
        only_if: StatementCondition::Always,
    },
    // Firehose requires that producers have both permissions: already for streams created since 2026-04-20,
    // and from 2027-02-28 on for all streams.
    PermissionRule {
        feature: Feature::Verify,
        sid: "EncryptRecordsThroughFirehose",
        actions: &[GENERATE_DATA_KEY, DECRYPT],
        on: ResourceScope::KeysFor(Firehose),
        only_if: StatementCondition::ThroughFirehose,
    },
    PermissionRule {
        feature: Feature::Verify,
        sid: "EncryptRecordsOfKinesisStreams",
        actions: &[GENERATE_DATA_KEY],
        on: ResourceScope::KeysFor(Kinesis),
        only_if: StatementCondition::ForKinesisStreams,
    },
];

/// Returns the policy of the operator's role for these features.
#[must_use]
pub fn policy(scope: &Scope, features: &[Feature]) -> PolicyDocument {
    let rights = PERMISSION_RULES.iter().filter(|right| features.contains(&right.feature));
    PolicyDocument::of(rights.filter_map(|right| right.statement(scope)).collect())
}

/// Returns the statements to add to the policy of each key for the operator's role. They are needed if the
/// key belongs to another account, or if its policy does not delegate to IAM
/// ([key policies](https://docs.aws.amazon.com/kms/latest/developerguide/key-policies.html)). They do not
/// replace the statements that the key's policy already has. A key policy applies to its own key, so its
/// resource is `*`.
#[must_use]
pub fn key_policy(scope: &Scope, features: &[Feature], role: &RoleArn) -> PolicyDocument {
    let rights = PERMISSION_RULES.iter().filter(|right| features.contains(&right.feature));
    let of_kms = rights.filter(|right| matches!(right.on, ResourceScope::Keys | ResourceScope::KeysFor(_)));
    let statements = of_kms.filter_map(|right| right.statement(scope));
    let for_role =
        |it: Statement| it.to(DocumentPrincipal::Role(role.to_string())).on(["*"].into_iter().collect());
    PolicyDocument::of(statements.map(for_role).collect())
}

impl PermissionRule {
    /// Returns the statement that grants the permission, or `None` if the scope has no resource for it.
    fn statement(&self, scope: &Scope) -> Option<Statement> {
        let resources = self.on.resources(scope);
        let statement = Statement::allow(self.sid, self.actions.iter().map(|action| action.name()));
        (!resources.is_empty()).then(|| self.only_if.add_to(statement.on(resources), scope))
    }
}

impl ResourceScope {
    fn resources(self, scope: &Scope) -> StringOrList {
        match self {
            Self::Streams(service) => scope.streams(service).collect(),
            Self::KinesisStreamsAndKeys => {
                let streams = scope.streams(Kinesis).map(ToString::to_string);
                streams.chain(scope.keys_that_kinesis_may_name()).collect()
            }
            Self::Keys => scope.keys().collect(),
            Self::KeysFor(service) => scope.keys_for(service).collect(),
            Self::AwsManagedKeys => scope.aws_managed_keys().into_iter().collect(),
        }
    }
}

impl StatementCondition {
    fn add_to(self, statement: Statement, scope: &Scope) -> Statement {
        match self {
            Self::Always => statement,
            Self::ForAwsResource => statement.only_if("Bool", "kms:GrantIsForAWSResource", ["true"]),
            Self::ThroughFirehose => {
                let streams = scope.streams_with_keys(Firehose);
                let services = streams.flat_map(|stream| via_service("firehose", stream.region()));
                statement.only_if("StringEquals", "kms:ViaService", services)
            }
            Self::ForKinesisStreams => {
                let streams = scope.streams_with_keys(Kinesis);
                statement.only_if("StringLike", "kms:EncryptionContext:aws:kinesis:arn", streams)
            }
        }
    }
}

/// Returns the values of `kms:ViaService` for requests to KMS that come through this service in a region.
fn via_service(service: &str, region: &Region) -> Vec<String> {
    let name = format!("{service}.{region}.amazonaws.com");
    // In China services have both forms, and no page states which one KMS uses.
    let chinese = (region.partition().as_str() == "aws-cn").then(|| format!("{name}.cn"));
    std::iter::once(name).chain(chinese).collect()
}

#[cfg(test)]
mod tests;
