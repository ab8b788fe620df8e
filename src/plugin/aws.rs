//! AWS for the verbs: with the credentials of the person who runs them, and for reads only.
//!
//! [`ReadOnly`] is the operator's own adapter without the requests that change something: these return an error, and are
//! never sent. The person may be unable to assume the roles of policies, and can then use their own credentials.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, value_parser};
use jiff::Timestamp;
use stream_encryption_api::ledger::Action;
use stream_encryption_core::controller::stream_api::{Priority, Signer, StreamApi};
use stream_encryption_core::model::arn::{Account, AwsAccount, KmsKeyId, ParseError, Region, StreamArn};
use stream_encryption_core::model::aws_error::{Accepted, AwsError, ErrorKind};
use stream_encryption_core::model::key::{Key, KeyMetadata};
use stream_encryption_core::model::observation::StreamDescription;
use stream_encryption_core::model::principal::{Principal, Role};
use stream_encryption_core::model::service::{Operation, profile};
use tokio::time::timeout;

use super::progress;
use crate::aws::{Aws, AwsConfig, CredentialsReport, InvalidAwsConfig, QueueState, QueueUrl};

/// Time in which a person may confirm what the source of the credentials asks for.
const CREDENTIALS_DEADLINE: Duration = Duration::from_mins(5);
/// Time after which the verbs report that they wait for it.
const NOTE_AFTER: Duration = Duration::from_secs(5);
/// The code of a request that is not sent, because the person's own credentials are of another account than the role or the
/// stream.
pub(super) const OTHER_ACCOUNT: &str = "OtherAccount";

/// The flags of every verb that reads from AWS.
#[derive(Args, Clone, Debug)]
pub(super) struct AwsArguments {
    /// The region of streams that are named without one. Default: that of the operator, otherwise `AWS_REGION`.
    #[arg(long, value_parser = region_or_none)]
    region: Option<String>,
    /// One URL for all AWS services, such as that of an AWS emulator.
    #[arg(long, value_name = "URL", value_parser = endpoint_url_or_none)]
    aws_endpoint_url: Option<String>,
    /// The share of AWS's request rate limits to use, in percent. The operator and other tools use the rest.
    #[arg(long, value_name = "PERCENT", default_value_t = 20, value_parser = value_parser!(u8).range(1..=100))]
    aws_rate_percent: u8,
    /// Use your own credentials for all streams, instead of the roles that the policies name. They must be of the account
    /// of the streams and the roles.
    #[arg(long)]
    own_credentials: bool,
}

/// AWS without the requests that change something.
pub(super) struct ReadOnly {
    aws: Aws,
    own_credentials: bool,
    account_note: AccountNote,
}

/// Whether the person was told in which account the plan resolves names.
#[derive(Default)]
struct AccountNote(AtomicBool);

impl AwsArguments {
    /// Returns the region: of the flag, of the operator, or of the environment.
    pub(super) fn region(&self, of_operator: Option<&str>) -> anyhow::Result<Region> {
        let of_environment = std::env::var("AWS_REGION").ok();
        let region = self
            .known_region(of_operator)
            .or(of_environment.as_deref().filter(|region| !region.is_empty()))
            .context("the region is not known: use --region, such as --region eu-west-1")?;
        Ok(region.parse()?)
    }

    /// Returns the region of the flag or of the operator. On EKS, the pods may have a region that the Deployment does
    /// not have.
    pub(super) fn known_region<'a>(&'a self, of_operator: Option<&'a str>) -> Option<&'a str> {
        [self.region.as_deref(), of_operator].into_iter().flatten().find(|region| !region.is_empty())
    }

    /// Creates the adapter; sends no request yet.
    pub(super) async fn connect(&self, region: Region) -> anyhow::Result<ReadOnly> {
        let config = AwsConfig {
            endpoint_url: self.aws_endpoint_url.clone().filter(|url| !url.is_empty()),
            rate_percent: self.aws_rate_percent,
            ..AwsConfig::of(region)
        };
        let aws = of_person(config).await?;
        let account_note = AccountNote::default();
        Ok(ReadOnly { aws, own_credentials: self.own_credentials, account_note })
    }
}

/// Checks the region of a flag. An empty one counts as not given: a script passes it if its variable is not set.
fn region_or_none(text: &str) -> Result<String, ParseError> {
    if !text.is_empty() {
        text.parse::<Region>()?;
    }
    Ok(text.to_owned())
}

/// Checks the URL of a flag. An empty one counts as not given, as for the operator.
pub(super) fn endpoint_url_or_none(text: &str) -> Result<String, InvalidAwsConfig> {
    if !text.is_empty() {
        AwsConfig::check_endpoint_url(text)?;
    }
    Ok(text.to_owned())
}

/// Creates the adapter with the person's credentials, once their source has answered.
pub(super) async fn of_person(config: AwsConfig) -> anyhow::Result<Aws> {
    let aws = Box::pin(Aws::new(config)).await.context("AWS's configuration cannot be used")?;
    {
        let mut answered = Box::pin(aws.wait_for_credentials(CREDENTIALS_DEADLINE));
        if timeout(NOTE_AFTER, &mut answered).await.is_err() {
            progress::note("Waiting for AWS credentials. Their source may ask you to confirm.");
            answered.await;
        }
    }
    Ok(aws)
}

impl ReadOnly {
    /// Returns who the credentials belong to.
    pub(super) async fn report_credentials(&self) -> CredentialsReport {
        self.aws.report_credentials().await
    }

    /// Returns the state of a queue of AWS's events.
    pub(super) async fn queue_state(&self, queue: &QueueUrl) -> Result<QueueState, AwsError> {
        self.aws.event_queue(queue).state().await
    }

    /// Returns the principal of a request: without a role if the person's own credentials are to be used.
    async fn principal(&self, principal: &Principal, operation: Operation) -> Result<Principal, AwsError> {
        match &principal.role {
            Some(role) if self.own_credentials => {
                let own = self.aws.identity().await?;
                without_role(principal, role, &own.account, operation)
            }
            _ => Ok(principal.clone()),
        }
    }
}

/// Returns the principal without its role, for own credentials of the account `own`. Firehose's requests and aliases of keys
/// name no account: with credentials of another account than the role's, AWS answers about another stream or key of that
/// name, or finds none.
fn without_role(
    principal: &Principal,
    role: &Role,
    own: &Account,
    operation: Operation,
) -> Result<Principal, AwsError> {
    let account = &role.arn.account;
    if own == account {
        return Ok(Principal { role: None, ..principal.clone() });
    }
    let message = format!(
        "Your AWS credentials are of account {own}, but the role that the policy names is of account {account}, so nothing was planned. With --own-credentials, use credentials of account {account}"
    );
    Err(other_account(operation, message))
}

/// Checks that a Describe for which no policy names a role is about this stream, for own credentials of the account `own`.
/// The operator may run in the stream's account, so what AWS answers in another one shows nothing about the operator.
fn check_account(stream: &StreamArn, own: &Account) -> Result<(), AwsError> {
    let (profile, account) = (profile(stream.service), &stream.account);
    if profile.requests_name_account || own == account {
        return Ok(());
    }
    let message = format!(
        "Your AWS credentials are of account {own}, but the stream is of account {account} and no policy names a role for it, so nothing was planned. If the operator runs in account {account}, use credentials of that account; in any other account, it reports StreamARNMismatch"
    );
    Err(other_account(profile.describe, message))
}

fn other_account(operation: Operation, message: String) -> AwsError {
    AwsError {
        operation,
        kind: ErrorKind::Denied,
        code: Some(OTHER_ACCOUNT.to_owned()),
        message,
        request_id: None,
    }
}

impl AccountNote {
    /// Returns the note, the first time. The operator resolves names in its own account, which this process cannot know.
    fn first(&self, own: &AwsAccount) -> Option<String> {
        let account = &own.account;
        (!self.0.swap(true, Ordering::Relaxed)).then(|| {
            format!(
                "Planned for account {account}, that of your credentials: streams without an ARN, and \"own\" in policies, refer to it. If the operator runs in another account, use credentials of that account."
            )
        })
    }
}

/// Returns the error of a request that is never sent.
pub(super) fn not_sent(stream: &StreamArn, action: Action) -> AwsError {
    AwsError {
        operation: Operation::change(stream.service, action),
        kind: ErrorKind::Invalid,
        code: None,
        message: "a person's plan sends no such request".to_owned(),
        request_id: None,
    }
}

impl StreamApi for ReadOnly {
    async fn identity(&self) -> Result<AwsAccount, AwsError> {
        let own = self.aws.identity().await?;
        if let Some(note) = self.account_note.first(&own) {
            progress::note(&note);
        }
        Ok(own)
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
        if principal.role.is_none() {
            check_account(stream, &self.aws.identity().await?.account)?;
        }
        let principal = self.principal(principal, profile(stream.service).describe).await?;
        self.aws.describe_stream(stream, &principal, priority).await
    }

    async fn describe_key(
        &self,
        stream: &StreamArn,
        name: &KmsKeyId,
        principal: &Principal,
        priority: Priority,
    ) -> Result<Option<KeyMetadata>, AwsError> {
        let principal = self.principal(principal, Operation::DescribeKey).await?;
        self.aws.describe_key(stream, name, &principal, priority).await
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

    #[test]
    fn account_of_the_plan_is_named_once() {
        let own = AwsAccount::of(&"arn:aws:kinesis:eu-west-1:111122223333:stream/x".parse().unwrap());
        let note = AccountNote::default();
        assert!(note.first(&own).unwrap().contains("account 111122223333"));
        assert_eq!(note.first(&own), None);
    }

    #[test]
    fn own_credentials_must_be_of_the_account_of_the_role() {
        let arn = "arn:aws:iam::444455556666:role/stream-encryption".parse().unwrap();
        let role = Role { arn, external_id: None };
        let principal = Principal { role: Some(role.clone()), ..Principal::operator() };
        let of = |account: &str| {
            without_role(&principal, &role, &account.parse().unwrap(), Operation::DescribeDeliveryStream)
        };
        assert_eq!(of("444455556666"), Ok(Principal::operator()));
        let error = of("111122223333").unwrap_err();
        assert_eq!((error.kind, error.code.as_deref()), (ErrorKind::Denied, Some(OTHER_ACCOUNT)));
        let accounts = ["credentials are of account 111122223333", "use credentials of account 444455556666"];
        assert!(accounts.iter().all(|words| error.message.contains(words)), "{}", error.message);
    }

    /// The operator may run in the stream's account.
    #[test]
    fn stream_of_another_account_is_not_described_by_name() {
        let check = |stream: &str, own: &str| check_account(&stream.parse().unwrap(), &own.parse().unwrap());
        let firehose = "arn:aws:firehose:eu-west-1:444455556666:deliverystream/orders";
        let error = check(firehose, "111122223333").unwrap_err();
        assert_eq!((error.kind, error.code.as_deref()), (ErrorKind::Denied, Some(OTHER_ACCOUNT)));
        let accounts = ["credentials are of account 111122223333", "stream is of account 444455556666"];
        assert!(accounts.iter().all(|words| error.message.contains(words)), "{}", error.message);
        assert_eq!(check(firehose, "444455556666"), Ok(()));
        // Its requests name the account, so AWS itself refuses them.
        assert_eq!(check("arn:aws:kinesis:eu-west-1:444455556666:stream/orders", "111122223333"), Ok(()));
    }
}
