//! The account and partition of the operator's credentials, by `GetCallerIdentity`
//! ([GetCallerIdentity](https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html)).
//!
//! The identity is cached for an hour, and only one request at a time obtains it. It is always the identity
//! of the operator itself; the account of a role is in the role's ARN.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_sts::Client;
use aws_sdk_sts::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_sts::config::{Builder, ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_sts::error::BoxError;
use aws_sdk_sts::operation::get_caller_identity::GetCallerIdentityOutput;
use jiff::{SignedDuration, Timestamp};
use stream_encryption_core::controller::stream_api::Priority;
use stream_encryption_core::model::arn::{AwsAccount, Region};
use stream_encryption_core::model::aws_error::AwsError;
use stream_encryption_core::model::principal::Principal;
use stream_encryption_core::model::service::Operation;
use tokio::time::Instant;

use super::error::{aws_error, invalid_response};
use super::rate_limit::QuotaScope;
use super::signed_request_sender::SignedRequestSender;

const OPERATION: Operation = Operation::GetCallerIdentity;
/// Time for which the identity is cached: the role of a workload hardly ever changes while it runs.
const IDENTITY_TTL: Duration = Duration::from_hours(1);

/// A client that identifies the caller by STS.
pub(super) struct IdentityClient {
    client: Client,
    sender: SignedRequestSender,
    region: Region,
    known: tokio::sync::Mutex<Option<(Instant, AwsAccount)>>,
}

impl IdentityClient {
    /// Creates a client with the endpoint of `config`, in `region`.
    pub(super) fn new(config: &SdkConfig, sender: SignedRequestSender, region: Region) -> Self {
        Self { client: Client::new(config), sender, region, known: tokio::sync::Mutex::new(None) }
    }

    /// Returns the account and partition of the caller.
    pub(super) async fn identity(&self) -> Result<AwsAccount, AwsError> {
        let mut known = self.known.lock().await;
        if let Some((since, identity)) = known.as_ref()
            && since.elapsed() < IDENTITY_TTL
        {
            return Ok(identity.clone());
        }
        // No reconciliation continues without the identity, so the request has the highest priority.
        let identity = self.get_caller_identity(Priority::Call).await?;
        *known = Some((Instant::now(), identity.clone()));
        Ok(identity)
    }

    /// Checks the operator's clock: STS rejects a request with a wrong date. The cached identity is not used.
    pub(super) async fn verify_clock(&self) -> Result<(), AwsError> {
        self.get_caller_identity(Priority::Drift).await.map(drop)
    }

    /// Returns who the credentials belong to, how old the session is, and how AWS's clock differs: for a person who looks
    /// for the cause of a problem. Nothing is cached.
    pub(super) async fn caller(&self) -> Result<Caller, AwsError> {
        let quota = QuotaScope { operation: OPERATION, account: None, region: self.region.clone() };
        self.sender
            .read(&quota, &Principal::operator(), Priority::Call, async |session| {
                let (signer, date) = (session.signer(), Arc::new(Mutex::new(None)));
                let overrides = Builder::default().credentials_provider(session.credentials);
                let reader = DateReader(date.clone());
                let request = self
                    .client
                    .get_caller_identity()
                    .customize()
                    .config_override(overrides)
                    .interceptor(reader);
                let answer = request.send().await.map_err(|error| aws_error(OPERATION, &error))?;
                let arn = answer.arn().ok_or_else(|| invalid_response(OPERATION, "Arn"))?.to_owned();
                let clock_ahead = *date.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(Caller { arn, session_age: signer.session_age, clock_ahead })
            })
            .await
    }

    async fn get_caller_identity(&self, priority: Priority) -> Result<AwsAccount, AwsError> {
        let quota = QuotaScope { operation: OPERATION, account: None, region: self.region.clone() };
        let answer = self
            .sender
            .read(&quota, &Principal::operator(), priority, async |session| {
                let overrides = Builder::default().credentials_provider(session.credentials);
                let request = self.client.get_caller_identity().customize().config_override(overrides);
                request.send().await.map_err(|error| aws_error(OPERATION, &error))
            })
            .await?;
        identity(&answer)
    }
}

/// Who the credentials belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The ARN of the user or of the assumed role.
    pub arn: String,
    /// The age of the session, as a lower bound; `None` for credentials without a session.
    pub session_age: Option<SignedDuration>,
    /// By how much this machine's clock is ahead of AWS's, which has whole seconds; `None` if AWS sent no date.
    pub clock_ahead: Option<SignedDuration>,
}

/// Reads AWS's clock from the header of a response.
#[derive(Debug)]
struct DateReader(Arc<Mutex<Option<SignedDuration>>>);

impl Intercept for DateReader {
    fn name(&self) -> &'static str {
        "DateReader"
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        // RFC 2822 is a superset of the format of HTTP's dates.
        let date = date.and_then(|text| jiff::fmt::rfc2822::parse(text).ok());
        let ahead = date.map(|date| Timestamp::now().duration_since(date.timestamp()));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = ahead;
        Ok(())
    }
}

fn identity(answer: &GetCallerIdentityOutput) -> Result<AwsAccount, AwsError> {
    let account = answer.account().and_then(|account| account.parse().ok());
    let partition = answer.arn().and_then(|arn| arn.split(':').nth(1)).and_then(|text| text.parse().ok());
    Ok(AwsAccount {
        account: account.ok_or_else(|| invalid_response(OPERATION, "Account"))?,
        partition: partition.ok_or_else(|| invalid_response(OPERATION, "Arn"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::replay::{ReplayClient, sender};
    use super::*;

    fn answer(arn: &str) -> (u16, String) {
        let xml = format!(
            "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
             <Arn>{arn}</Arn><UserId>AROAEXAMPLE:operator</UserId><Account>111122223333</Account>\
             </GetCallerIdentityResult></GetCallerIdentityResponse>"
        );
        (200, xml)
    }

    fn caller(recorded: &ReplayClient) -> IdentityClient {
        IdentityClient::new(&recorded.config(), sender(), "eu-west-1".parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn account_and_partition_come_from_sts() {
        for (arn, partition) in [
            ("arn:aws:sts::111122223333:assumed-role/operator/session", "aws"),
            ("arn:aws-cn:sts::111122223333:assumed-role/operator/session", "aws-cn"),
            ("arn:aws-us-gov:iam::111122223333:user/operator", "aws-us-gov"),
        ] {
            let recorded = ReplayClient::answers([answer(arn)]);
            let identity = caller(&recorded).identity().await.unwrap();
            assert_eq!((identity.account.as_str(), identity.partition.as_str()), ("111122223333", partition));
            assert_eq!(recorded.sent()[0].host, "sts.eu-west-1.amazonaws.com");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn identity_is_cached_for_an_hour() {
        let arn = "arn:aws:iam::111122223333:user/operator";
        let recorded = ReplayClient::answers([answer(arn), answer(arn)]);
        let caller = caller(&recorded);
        for _ in 0..3 {
            caller.identity().await.unwrap();
        }
        tokio::time::advance(Duration::from_mins(59)).await;
        caller.identity().await.unwrap();
        assert_eq!(recorded.sent().len(), 1);
        tokio::time::advance(Duration::from_mins(1)).await;
        caller.identity().await.unwrap();
        assert_eq!(recorded.sent().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn clock_check_is_never_cached() {
        let arn = "arn:aws:iam::111122223333:user/operator";
        let recorded =
            ReplayClient::answers([answer(arn), answer(arn), answer("nobody"), (403, String::new())]);
        let caller = caller(&recorded);
        caller.identity().await.unwrap();
        assert_eq!(caller.verify_clock().await, Ok(()));
        for _ in 0..2 {
            assert!(caller.verify_clock().await.is_err());
        }
        assert_eq!(recorded.sent().len(), 4);
        caller.identity().await.unwrap();
        assert_eq!(recorded.sent().len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn unparseable_identity_is_an_error() {
        let recorded = ReplayClient::answers([answer("nobody")]);
        let error = caller(&recorded).identity().await.unwrap_err();
        assert_eq!(error.code.as_deref(), Some("InvalidResponse"));
    }
}
