//! What the model knows about AWS: the operations with their limits, and a profile of each service.
//!
//! Constants only. Where services behave differently beyond a constant, the adapters and the decision have the
//! code. Another service needs its operations, a [`ServiceProfile`], an adapter, and its lines in the schema.

use jiff::SignedDuration;
use stream_encryption_api::ledger::Action;
use stream_encryption_api::stream_encryption::Service;

/// AWS's limit of calls per stream in 24 hours, the highest of any service: what a policy can allow at most
/// ([StartDeliveryStreamEncryption](https://docs.aws.amazon.com/firehose/latest/APIReference/API_StartDeliveryStreamEncryption.html),
/// [StartStreamEncryption](https://docs.aws.amazon.com/kinesis/latest/APIReference/API_StartStreamEncryption.html)).
pub const AWS_LIMIT: u32 = 25;

macro_rules! operations {
    ($($(#[doc = $doc:literal])+ $name:ident: $action:literal, $rate:literal;)+) => {
        /// An AWS operation that the operator or the command line uses.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Operation { $($(#[doc = $doc])+ $name),+ }

        impl Operation {
            /// Every operation.
            pub const ALL: [Self; [$($rate),+].len()] = [$(Self::$name),+];

            /// Returns the IAM action that allows the operation, for messages that name the permission to
            /// grant.
            #[must_use]
            pub fn iam_action(self) -> &'static str {
                match self { $(Self::$name => $action),+ }
            }

            /// Returns AWS's limit of the operation, or a lower one where the operator needs few requests, in
            /// requests per second for an account and region:
            /// [Firehose's quotas](https://docs.aws.amazon.com/firehose/latest/dev/limits.html),
            /// [those of Kinesis](https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html),
            /// [those of KMS](https://docs.aws.amazon.com/kms/latest/developerguide/requests-per-second.html),
            /// [those of STS](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html#reference_iam-quotas-sts-requests).
            #[must_use]
            pub fn requests_per_second(self) -> u32 {
                match self { $(Self::$name => $rate),+ }
            }
        }
    };
}

operations! {
    /// Firehose `DescribeDeliveryStream`.
    DescribeDeliveryStream: "firehose:DescribeDeliveryStream", 5;
    /// Firehose `StartDeliveryStreamEncryption`.
    StartDeliveryStreamEncryption: "firehose:StartDeliveryStreamEncryption", 5;
    /// Firehose `StopDeliveryStreamEncryption`.
    StopDeliveryStreamEncryption: "firehose:StopDeliveryStreamEncryption", 5;
    // The limits of PutRecord are higher, or apply to each stream, and the operator needs few of these requests.
    /// Firehose `PutRecord`.
    PutFirehoseRecord: "firehose:PutRecord", 100;
    /// Kinesis `DescribeStreamSummary`.
    DescribeStreamSummary: "kinesis:DescribeStreamSummary", 20;
    // AWS documents no limit for these two operations; the operator uses that of Firehose.
    /// Kinesis `StartStreamEncryption`.
    StartStreamEncryption: "kinesis:StartStreamEncryption", 5;
    /// Kinesis `StopStreamEncryption`.
    StopStreamEncryption: "kinesis:StopStreamEncryption", 5;
    /// Kinesis `PutRecord`.
    PutKinesisRecord: "kinesis:PutRecord", 100;
    /// KMS `DescribeKey`.
    DescribeKey: "kms:DescribeKey", 2_000;
    // The identity is cached, and the clock is checked only before a ledger with expired calls is deleted.
    /// STS `GetCallerIdentity`.
    GetCallerIdentity: "sts:GetCallerIdentity", 10;
    // STS allows an account 600 requests per second of all kinds, which other clients share.
    /// STS `AssumeRole`.
    AssumeRole: "sts:AssumeRole", 100;
    /// Firehose `ListDeliveryStreams`.
    ListDeliveryStreams: "firehose:ListDeliveryStreams", 5;
    /// Firehose `ListTagsForDeliveryStream`.
    ListTagsForDeliveryStream: "firehose:ListTagsForDeliveryStream", 5;
    /// Kinesis `ListStreams`.
    ListStreams: "kinesis:ListStreams", 5;
    // The API reference states five per second and account; the page of quotas states five per stream.
    /// Kinesis `ListTagsForStream`.
    ListTagsForStream: "kinesis:ListTagsForStream", 5;
    // SQS has no limit that one process reaches; these requests need no permit.
    /// SQS `ReceiveMessage`.
    ReceiveMessage: "sqs:ReceiveMessage", 1_000;
    /// SQS `DeleteMessageBatch`.
    DeleteMessage: "sqs:DeleteMessage", 1_000;
    /// SQS `GetQueueAttributes`.
    GetQueueAttributes: "sqs:GetQueueAttributes", 1_000;
}

impl Operation {
    /// The operations that only `adopt` uses, with the credentials of its user. The operator never lists streams
    /// or tags, so no policy of the operator allows these.
    pub const LISTING: [Self; 4] = [
        Self::ListDeliveryStreams,
        Self::ListTagsForDeliveryStream,
        Self::ListStreams,
        Self::ListTagsForStream,
    ];

    /// The operations on the queue of AWS's events. The operator sends the first two if it has a queue, and `doctor`
    /// the third.
    pub const OF_QUEUE: [Self; 3] = [Self::ReceiveMessage, Self::DeleteMessage, Self::GetQueueAttributes];

    /// Returns the operations that the operator sends about streams and keys, and for its identity.
    pub fn of_operator() -> impl Iterator<Item = Self> {
        let others = [&Self::LISTING[..], &Self::OF_QUEUE];
        Self::ALL.into_iter().filter(move |operation| !others.iter().any(|other| other.contains(operation)))
    }

    /// Returns the name of the operation, as in AWS's documentation and in its logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.iam_action().split_once(':').map_or("", |(_, name)| name)
    }

    /// Returns the operation that changes a stream of a service.
    #[must_use]
    pub fn change(service: Service, action: Action) -> Self {
        match action {
            Action::Start => profile(service).start,
            Action::Stop => profile(service).stop,
        }
    }

    /// Returns whether the operation changes a stream, so that its outcome matters if no response is
    /// received.
    #[must_use]
    pub fn is_mutating(self) -> bool {
        PROFILES.iter().any(|profile| self == profile.start || self == profile.stop)
    }
}

/// The constants of one service.
#[derive(Debug)]
pub struct ServiceProfile {
    /// The service.
    pub service: Service,
    /// The name, as in the spec.
    pub name: &'static str,
    /// The service in an ARN.
    pub arn_service: &'static str,
    /// The type of a stream in an ARN.
    pub arn_type: &'static str,
    /// Maximum length of a stream's name.
    pub longest_name: usize,
    /// Lists the streams of an account and region.
    pub list: Operation,
    /// Lists the tags of a stream.
    pub list_tags: Operation,
    /// Describes a stream.
    pub describe: Operation,
    /// Encrypts a stream.
    pub start: Operation,
    /// Disables encryption of a stream.
    pub stop: Operation,
    /// Writes a test record.
    pub put_record: Operation,
    /// Limit of calls per stream in 24 hours.
    pub calls_per_day: u32,
    /// The calls that count against that limit.
    pub counted: CountedCalls,
    /// Whether requests about a stream name its account. Otherwise they reach the account of the credentials.
    pub requests_name_account: bool,
    /// Whether AWS reports an attempt that failed. Otherwise the stream returns to its previous state.
    pub reports_failures: bool,
    /// Maximum retention of a stream, for use if AWS has not reported it.
    pub longest_retention: SignedDuration,
    /// Words for messages.
    pub words: Words,
}

/// The calls that count against the limit of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountedCalls {
    /// Every Start and Stop, together.
    All,
    /// Starts and Stops separately, and only those that AWS applied or may have applied.
    AppliedPerAction,
}

/// The words of a service in messages: they name its key, its permissions, and the effect on its records.
#[derive(Debug)]
pub struct Words {
    /// The key of `AWS_OWNED_CMK`.
    pub aws_key: &'static str,
    /// Who cannot use that key, as a sentence; empty if everyone can.
    pub aws_key_limit: &'static str,
    /// The permissions on a customer managed key that a test record needs.
    pub put_record_on_key: &'static str,
    /// The request for the permissions on a key that the operator itself needs.
    pub allow_key: &'static str,
    /// The permissions on a key that other principals need, which the operator cannot verify.
    pub others_on_key: &'static str,
    /// The effect of an unusable active key.
    pub key_unusable: &'static str,
}

/// The profile of each service.
pub const PROFILES: [&ServiceProfile; 2] = [&FIREHOSE, &KINESIS];

/// Returns the profile of a service.
#[must_use]
pub fn profile(service: Service) -> &'static ServiceProfile {
    match service {
        Service::Firehose => &FIREHOSE,
        Service::Kinesis => &KINESIS,
    }
}

const FIREHOSE: ServiceProfile = ServiceProfile {
    service: Service::Firehose,
    name: "Firehose",
    arn_service: "firehose",
    arn_type: "deliverystream",
    longest_name: 64,
    list: Operation::ListDeliveryStreams,
    list_tags: Operation::ListTagsForDeliveryStream,
    describe: Operation::DescribeDeliveryStream,
    start: Operation::StartDeliveryStreamEncryption,
    stop: Operation::StopDeliveryStreamEncryption,
    put_record: Operation::PutFirehoseRecord,
    calls_per_day: AWS_LIMIT,
    counted: CountedCalls::All,
    requests_name_account: false,
    reports_failures: true,
    // https://docs.aws.amazon.com/firehose/latest/dev/basic-deliver.html
    longest_retention: SignedDuration::from_hours(24),
    words: Words {
        aws_key: "the AWS-owned key",
        aws_key_limit: "",
        put_record_on_key: "kms:GenerateDataKey and kms:Decrypt",
        allow_key: "Allow kms:DescribeKey and kms:CreateGrant in its key policy and in the operator's role",
        others_on_key: "producers need kms:GenerateDataKey and kms:Decrypt",
        key_unusable: "Records are not delivered, and AWS discards each of them after 24 hours",
    },
};

const KINESIS: ServiceProfile = ServiceProfile {
    service: Service::Kinesis,
    name: "Kinesis",
    arn_service: "kinesis",
    arn_type: "stream",
    longest_name: 128,
    list: Operation::ListStreams,
    list_tags: Operation::ListTagsForStream,
    describe: Operation::DescribeStreamSummary,
    start: Operation::StartStreamEncryption,
    stop: Operation::StopStreamEncryption,
    put_record: Operation::PutKinesisRecord,
    calls_per_day: AWS_LIMIT,
    counted: CountedCalls::AppliedPerAction,
    requests_name_account: true,
    reports_failures: false,
    // https://docs.aws.amazon.com/streams/latest/dev/kinesis-extended-retention.html
    longest_retention: SignedDuration::from_hours(365 * 24),
    words: Words {
        aws_key: "the AWS managed key alias/aws/kinesis",
        // The key policy of an AWS managed key cannot be changed.
        // https://docs.aws.amazon.com/streams/latest/dev/creating-using-sse-master-keys.html
        aws_key_limit: " Producers and consumers in other accounts cannot use this key.",
        put_record_on_key: "kms:GenerateDataKey",
        allow_key: "Allow kms:DescribeKey in its key policy and in the operator's role. In the role, also allow kinesis:StartStreamEncryption with the ARN of the key as a resource, in addition to that of the stream",
        others_on_key: "producers need kms:GenerateDataKey and consumers need kms:Decrypt",
        key_unusable: "Records can be neither written to the stream nor read from it",
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iam_actions_match_service_authorization_reference() {
        // Service Authorization Reference.
        let actions = Operation::ALL.map(Operation::iam_action);
        assert_eq!(
            actions,
            [
                "firehose:DescribeDeliveryStream",
                "firehose:StartDeliveryStreamEncryption",
                "firehose:StopDeliveryStreamEncryption",
                "firehose:PutRecord",
                "kinesis:DescribeStreamSummary",
                "kinesis:StartStreamEncryption",
                "kinesis:StopStreamEncryption",
                "kinesis:PutRecord",
                "kms:DescribeKey",
                "sts:GetCallerIdentity",
                "sts:AssumeRole",
                "firehose:ListDeliveryStreams",
                "firehose:ListTagsForDeliveryStream",
                "kinesis:ListStreams",
                "kinesis:ListTagsForStream",
                "sqs:ReceiveMessage",
                "sqs:DeleteMessage",
                "sqs:GetQueueAttributes",
            ]
        );
        for service in [Service::Firehose, Service::Kinesis] {
            let named = |operation: Operation, verb: &str| {
                let (of, action) = operation.iam_action().split_once(':').unwrap();
                of == format!("{service:?}").to_lowercase() && action.starts_with(verb)
            };
            assert!(named(profile(service).list, "List"));
            assert!(named(profile(service).list_tags, "ListTags"));
            assert!(named(profile(service).describe, "Describe"));
            assert!(named(Operation::change(service, Action::Start), "Start"));
            assert!(named(Operation::change(service, Action::Stop), "Stop"));
        }
    }

    #[test]
    fn listing_operations_read_and_are_those_of_profiles() {
        let of_profiles: Vec<Operation> =
            PROFILES.iter().flat_map(|profile| [profile.list, profile.list_tags]).collect();
        assert_eq!(of_profiles, Operation::LISTING);
        assert!(Operation::LISTING.iter().all(|operation| !operation.is_mutating()));
    }

    #[test]
    fn each_service_has_its_own_profile() {
        for each in PROFILES {
            assert_eq!(profile(each.service).name, each.name);
            assert_eq!(format!("{:?}", each.service), each.name, "messages and metrics use one name");
            assert!(each.calls_per_day <= AWS_LIMIT, "no policy could allow all calls");
            assert_eq!(each.put_record.iam_action(), format!("{}:PutRecord", each.arn_service));
        }
    }

    /// AWS states 8760 hours where it documents retention, and a day for Firehose.
    #[test]
    fn longest_retention_matches_aws_documentation() {
        assert_eq!(profile(Service::Kinesis).longest_retention, SignedDuration::from_hours(8760));
        assert_eq!(profile(Service::Firehose).longest_retention, SignedDuration::from_hours(24));
    }
}
