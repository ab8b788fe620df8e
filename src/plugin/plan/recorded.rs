//! AWS for the plan of one object: records the requests that failed, because a failure concerns the person who plans, and
//! says nothing about the operator. Sends no request that changes something.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use stream_encryption_api::condition::Reason;
use stream_encryption_api::ledger::Action;
use stream_encryption_core::controller::stream_api::{Priority, Signer, StreamApi};
use stream_encryption_core::model::arn::{AwsAccount, KmsKeyId, StreamArn};
use stream_encryption_core::model::aws_error::{Accepted, AwsError, ErrorKind};
use stream_encryption_core::model::key::{Key, KeyMetadata};
use stream_encryption_core::model::observation::StreamDescription;
use stream_encryption_core::model::principal::Principal;
use stream_encryption_core::model::service::Operation;

use crate::adopt::survey::described;
use crate::plugin::aws::{OTHER_ACCOUNT, not_sent};

/// The failed requests of one plan, in their order.
#[derive(Clone, Default)]
pub(super) struct Failures(Arc<Mutex<Vec<AwsError>>>);

/// AWS, with a record of the failures.
pub(super) struct Recorded<A> {
    pub(super) aws: Arc<A>,
    pub(super) failures: Failures,
}

impl Failures {
    fn record<T>(&self, answer: Result<T, AwsError>) -> Result<T, AwsError> {
        if let Err(error) = &answer {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(error.clone());
        }
        answer
    }

    /// Returns why a plan with this reason is none, in the words of the person's own credentials; `None` if the reason does
    /// not follow from a failed request.
    pub(super) fn explain(&self, reason: Reason) -> Option<String> {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let error = failures.iter().rev().find(|error| match reason {
            Reason::KeyDescribeDenied => error.operation == Operation::DescribeKey,
            reason => error.kind.reason() == reason,
        });
        let is_unanswered = matches!(
            reason,
            Reason::NoCredentials
                | Reason::CredentialsRejected
                | Reason::AccessDenied
                | Reason::AwsUnreachable
                | Reason::AwsThrottled
                | Reason::KeyDescribeDenied
        );
        error.filter(|_| is_unanswered).map(words)
    }
}

fn words(error: &AwsError) -> String {
    if error.code.as_deref() == Some(OTHER_ACCOUNT) {
        return format!("{}.", error.message);
    }
    let state = match error.kind {
        ErrorKind::NoCredentials => "You have no usable AWS credentials, so nothing was planned",
        ErrorKind::CredentialsRejected => "AWS rejects your credentials, so nothing was planned",
        ErrorKind::Throttled => "AWS is throttling requests, so nothing was planned",
        ErrorKind::Denied if error.operation == Operation::AssumeRole => {
            "Your AWS credentials may not assume the role that the policy names, so nothing was planned. To describe the stream without the role, use --own-credentials with credentials of the stream's account"
        }
        ErrorKind::Denied => "Your AWS credentials lack a permission, so nothing was planned",
        _ => "AWS did not answer, so nothing was planned",
    };
    format!("{state}. {}.", described(error))
}

impl<A: StreamApi> StreamApi for Recorded<A> {
    async fn identity(&self) -> Result<AwsAccount, AwsError> {
        self.failures.record(self.aws.identity().await)
    }

    async fn verify_clock(&self) -> Result<(), AwsError> {
        self.failures.record(self.aws.verify_clock().await)
    }

    async fn describe_stream(
        &self,
        stream: &StreamArn,
        principal: &Principal,
        priority: Priority,
    ) -> Result<Option<(StreamDescription, Signer)>, AwsError> {
        self.failures.record(self.aws.describe_stream(stream, principal, priority).await)
    }

    async fn describe_key(
        &self,
        stream: &StreamArn,
        name: &KmsKeyId,
        principal: &Principal,
        priority: Priority,
    ) -> Result<Option<KeyMetadata>, AwsError> {
        self.failures.record(self.aws.describe_key(stream, name, principal, priority).await)
    }

    async fn acquire_permit(&self, _: &StreamArn, _: Action, _: &Principal, _: &Signer) -> bool {
        false
    }

    async fn start(
        &self,
        stream: &StreamArn,
        _: &Key,
        _: &Principal,
        _: &Signer,
        _: Timestamp,
    ) -> Result<Accepted, AwsError> {
        Err(not_sent(stream, Action::Start))
    }

    async fn stop(
        &self,
        stream: &StreamArn,
        _: Option<&Key>,
        _: &Principal,
        _: &Signer,
        _: Timestamp,
    ) -> Result<Accepted, AwsError> {
        Err(not_sent(stream, Action::Stop))
    }

    async fn put_record(
        &self,
        stream: &StreamArn,
        _: &str,
        _: &Principal,
        _: &Signer,
    ) -> Result<bool, AwsError> {
        Err(not_sent(stream, Action::Start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(operation: Operation, kind: ErrorKind) -> Failures {
        failure_with_code(operation, kind, "Code")
    }

    fn failure_with_code(operation: Operation, kind: ErrorKind, code: &str) -> Failures {
        let failures = Failures::default();
        let error = AwsError {
            operation,
            kind,
            code: Some(code.to_owned()),
            message: "why".to_owned(),
            request_id: None,
        };
        let _ = failures.record::<()>(Err(error));
        failures
    }

    #[test]
    fn failed_request_is_explained_as_one_of_the_person() {
        for (kind, reason) in [
            (ErrorKind::NoCredentials, Reason::NoCredentials),
            (ErrorKind::CredentialsRejected, Reason::CredentialsRejected),
            (ErrorKind::Denied, Reason::AccessDenied),
            (ErrorKind::Transient, Reason::AwsUnreachable),
            (ErrorKind::Throttled, Reason::AwsThrottled),
        ] {
            let words = failure(Operation::DescribeDeliveryStream, kind).explain(reason).unwrap();
            assert!(!words.contains("operator") && words.contains("nothing was planned"), "{words}");
        }
        let role = failure(Operation::AssumeRole, ErrorKind::Denied).explain(Reason::AccessDenied).unwrap();
        assert!(role.contains("--own-credentials with credentials of the stream's account"), "{role}");
    }

    #[test]
    fn own_credentials_of_another_account_are_explained() {
        for (operation, reason) in [
            (Operation::DescribeDeliveryStream, Reason::AccessDenied),
            (Operation::DescribeKey, Reason::KeyDescribeDenied),
        ] {
            let failures = failure_with_code(operation, ErrorKind::Denied, OTHER_ACCOUNT);
            assert_eq!(failures.explain(reason).as_deref(), Some("why."));
        }
    }

    /// A call of the operator can have been denied, and a stream can be missing.
    #[test]
    fn reason_without_a_failed_request_is_a_plan() {
        assert_eq!(Failures::default().explain(Reason::AccessDenied), None);
        let missing = failure(Operation::DescribeDeliveryStream, ErrorKind::NotFound);
        assert_eq!(missing.explain(Reason::StreamNotFound), None);
        // The description of the active key is not needed to plan a call.
        let key = failure(Operation::DescribeKey, ErrorKind::Transient);
        assert_eq!(key.explain(Reason::Encrypted), None);
    }
}
