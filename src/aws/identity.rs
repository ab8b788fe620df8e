//! The account and partition of the operator's credentials, by `GetCallerIdentity`
//! ([GetCallerIdentity](https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html)).
//!
//! The identity is requested again every hour and for each new access key, by one request at a time. If it fails, the known
//! identity stays in use for the same access key, and for another one whose source reports the same account. Otherwise,
//! every reconcile that waited fails, too. The identity is always the operator's own; a role's account is in its ARN.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
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
use tracing::{info, warn};

use super::error::{MAX_MESSAGE_BYTES, aws_error, invalid_response, truncate};
use super::rate_limit::QuotaScope;
use super::signed_request_sender::SignedRequestSender;

const OPERATION: Operation = Operation::GetCallerIdentity;
/// Time after which the identity is requested again.
const IDENTITY_TTL: Duration = Duration::from_hours(1);
/// Time for which a known identity is used after STS has failed to confirm it. The account of an access key does not
/// change, so an outage of STS must not stop what needs nothing else of STS.
const FAILURE_TTL: Duration = Duration::from_mins(1);

/// A client that identifies the caller by STS.
pub(super) struct IdentityClient {
    client: Client,
    sender: SignedRequestSender,
    region: Region,
    known: Mutex<Option<KnownIdentity>>,
    /// Locked while a request obtains the identity. Holds the error of the last request that failed.
    last_error: tokio::sync::Mutex<Option<AwsError>>,
    /// Number of requests that failed to obtain the identity.
    failures: AtomicU64,
}

#[derive(Clone)]
struct KnownIdentity {
    identity: AwsAccount,
    /// The ARN of the user or of the assumed role.
    arn: String,
    /// The access key that signed the request.
    access_key_id: String,
    /// The time from which the identity is requested again.
    refresh_at: Instant,
}

impl KnownIdentity {
    /// Returns whether this is the identity of the credentials' access key, or of the last one if there are no credentials.
    fn is_of_key(&self, credentials: Option<&Credentials>) -> bool {
        credentials.is_none_or(|now| now.access_key_id() == self.access_key_id)
    }

    /// Returns whether this is the identity of the credentials' access key, or of the account that their source reports.
    fn is_of(&self, credentials: Option<&Credentials>) -> bool {
        let account = credentials.and_then(Credentials::account_id);
        self.is_of_key(credentials)
            || account.is_some_and(|reported| reported.as_str() == self.identity.account.as_str())
    }

    /// Returns whether this is another user or role than `before`.
    fn is_another(&self, before: Option<&Self>) -> bool {
        before.is_none_or(|before| user_or_role(&before.arn) != user_or_role(&self.arn))
    }
}

impl IdentityClient {
    /// Creates a client with the endpoint of `config`, in `region`.
    pub(super) fn new(config: &SdkConfig, sender: SignedRequestSender, region: Region) -> Self {
        let (known, last_error, failures) = Default::default();
        Self { client: Client::new(config), sender, region, known, last_error, failures }
    }

    /// Returns the account and partition of the caller. While STS is unavailable, this takes no longer than one
    /// request and its repetitions, however many reconciles wait. If the identity is known, only one of them waits, once a
    /// minute.
    pub(super) async fn identity(&self) -> Result<AwsAccount, AwsError> {
        let failures_before = self.failures.load(Ordering::Relaxed);
        // Other credentials may belong to another account. Without credentials, the account is still the last one.
        let session = self.sender.session(OPERATION, &Principal::operator()).await.ok();
        let credentials = session.as_ref().map(|session| &session.credentials);
        let is_fresh =
            |known: &KnownIdentity| Instant::now() < known.refresh_at && known.is_of_key(credentials);
        let mut last_error = match self.known_of(credentials) {
            Some(known) if is_fresh(&known) => return Ok(known.identity),
            Some(known) => match self.last_error.try_lock() {
                Ok(guard) => guard,
                Err(_) => return Ok(known.identity),
            },
            None => self.last_error.lock().await,
        };
        if let Some(known) = self.known_of(credentials).filter(is_fresh) {
            return Ok(known.identity);
        }
        if self.failures.load(Ordering::Relaxed) != failures_before
            && let Some(error) = &*last_error
        {
            return Err(error.clone());
        }
        // The reconciles that wait for the identity cannot continue without it, so the request has the highest
        // priority.
        let answer = self.get_caller_identity(Priority::Call).await;
        let mut stored = self.stored();
        match (answer, stored.as_mut().filter(|known| known.is_of(credentials))) {
            (Ok(obtained), _) => {
                if obtained.is_another(stored.as_ref()) {
                    info!(arn = obtained.arn, "obtained the identity of the AWS credentials");
                }
                Ok(stored.insert(obtained).identity.clone())
            }
            (Err(error), Some(known)) => {
                let AwsError { code, message, .. } = error;
                warn!(code, aws_message = message, "STS does not confirm the account of the AWS credentials");
                known.refresh_at = Instant::now() + FAILURE_TTL;
                if let Some(credentials) = credentials {
                    credentials.access_key_id().clone_into(&mut known.access_key_id);
                }
                Ok(known.identity.clone())
            }
            (Err(error), None) => {
                *last_error = Some(error.clone());
                self.failures.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// Returns the identity that is known of the credentials, or the last one if there are none.
    fn known_of(&self, credentials: Option<&Credentials>) -> Option<KnownIdentity> {
        self.stored().clone().filter(|known| known.is_of(credentials))
    }

    fn stored(&self) -> MutexGuard<'_, Option<KnownIdentity>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks the operator's clock: STS rejects a request with a wrong date. The cached identity is not used.
    pub(super) async fn verify_clock(&self) -> Result<(), AwsError> {
        self.get_caller_identity(Priority::Drift).await.map(drop)
    }

    /// Returns who the credentials belong to and how old the session is, and how AWS's clock differs: for a person who
    /// searches for the cause of a problem. AWS's clock is known even if AWS rejects the request because of the
    /// difference. The response is not cached.
    pub(super) async fn report_credentials(&self) -> CredentialsReport {
        let date = Arc::new(Mutex::new(None));
        let holder = self.holder(&date).await;
        let clock_ahead = *date.lock().unwrap_or_else(PoisonError::into_inner);
        CredentialsReport { holder, clock_ahead }
    }

    async fn holder(&self, date: &Arc<Mutex<Option<SignedDuration>>>) -> Result<Holder, AwsError> {
        let quota = QuotaScope { operation: OPERATION, account: None, region: self.region.clone() };
        self.sender
            .read(&quota, &Principal::operator(), Priority::Call, async |session| {
                let signer = session.signer();
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
                Ok(Holder { arn, session_age: signer.session_age })
            })
            .await
    }

    /// Returns the identity of the access key that signs the request.
    async fn get_caller_identity(&self, priority: Priority) -> Result<KnownIdentity, AwsError> {
        let quota = QuotaScope { operation: OPERATION, account: None, region: self.region.clone() };
        let (answer, access_key_id) = self
            .sender
            .read(&quota, &Principal::operator(), priority, async |session| {
                let access_key_id = session.credentials.access_key_id().to_owned();
                let overrides = Builder::default().credentials_provider(session.credentials);
                let request = self.client.get_caller_identity().customize().config_override(overrides);
                let answer = request.send().await.map_err(|error| aws_error(OPERATION, &error))?;
                Ok((answer, access_key_id))
            })
            .await?;
        let arn = truncate(answer.arn().unwrap_or_default(), MAX_MESSAGE_BYTES);
        let refresh_at = Instant::now() + IDENTITY_TTL;
        Ok(KnownIdentity { identity: identity(&answer)?, arn, access_key_id, refresh_at })
    }
}

/// What AWS reports about the credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialsReport {
    /// Who they belong to, or the error of AWS.
    pub holder: Result<Holder, AwsError>,
    /// By how much this machine's clock is ahead of AWS's, which has whole seconds; `None` if AWS sent no date.
    pub clock_ahead: Option<SignedDuration>,
}

/// Who the credentials belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The ARN of the user or of the assumed role.
    pub arn: String,
    /// The age of the session, as a lower bound; `None` for credentials without a session.
    pub session_age: Option<SignedDuration>,
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

/// Returns an ARN without the name of the session, which differs in each session of a role.
fn user_or_role(arn: &str) -> &str {
    let role = arn.rsplit_once('/').map(|(role, _)| role);
    role.filter(|role| role.contains(":assumed-role/")).unwrap_or(arn)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use aws_credential_types::credential_fn::provide_credentials_fn;
    use aws_credential_types::provider::SharedCredentialsProvider;
    use aws_sdk_sts::config::SharedHttpClient;
    use aws_smithy_http_client::test_util::{NeverClient, infallible_client_fn};
    use stream_encryption_core::model::aws_error::ErrorKind;

    use super::super::rate_limit::RateLimiter;
    use super::super::replay::{self, ReplayClient, sender};
    use super::super::request_sender::RequestSender;
    use super::super::sessions::Sessions;
    use super::*;

    fn answer(arn: &str) -> (u16, String) {
        let xml = format!(
            "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
             <Arn>{arn}</Arn><UserId>AROAEXAMPLE:operator</UserId><Account>111122223333</Account>\
             </GetCallerIdentityResult></GetCallerIdentityResponse>"
        );
        (200, xml)
    }

    fn failure() -> (u16, String) {
        (500, "<ErrorResponse><Error><Code>InternalFailure</Code></Error></ErrorResponse>".to_owned())
    }

    fn caller(recorded: &ReplayClient) -> IdentityClient {
        IdentityClient::new(&recorded.config(), sender(), "eu-west-1".parse().unwrap())
    }

    fn keys(recorded: &ReplayClient) -> Vec<String> {
        recorded.sent().into_iter().map(|sent| sent.access_key_id).collect()
    }

    /// Returns a client with another static key after 15 minutes. The source of the keys reports `account`.
    fn caller_with_new_keys(recorded: &ReplayClient, account: Option<&'static str>) -> IdentityClient {
        let queries = AtomicU64::new(0);
        let provider = provide_credentials_fn(move || {
            let number = queries.fetch_add(1, Ordering::Relaxed);
            let credentials = Credentials::builder().access_key_id(format!("AKIA{number}"));
            let mut credentials = credentials.secret_access_key("secret").provider_name("test");
            credentials.set_account_id(account.map(Into::into));
            async move { Ok(credentials.build()) }
        });
        let provider = SharedCredentialsProvider::new(provider);
        let start = Instant::now();
        let clock = Arc::new(move || SystemTime::UNIX_EPOCH + start.elapsed());
        let region: Region = "eu-west-1".parse().unwrap();
        let requests = RequestSender::new(RateLimiter::new(80));
        let sessions = Sessions::new(provider, &recorded.config(), region.clone(), requests.clone(), clock);
        IdentityClient::new(&recorded.config(), SignedRequestSender::new(requests, sessions), region)
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

    #[test]
    fn new_session_of_a_role_is_no_other_identity() {
        let identity = |arn: &str| KnownIdentity {
            identity: AwsAccount {
                account: "111122223333".parse().unwrap(),
                partition: "aws".parse().unwrap(),
            },
            arn: arn.to_owned(),
            access_key_id: String::new(),
            refresh_at: Instant::now(),
        };
        let mut before = None;
        for (arn, is_another) in [
            ("arn:aws:sts::111122223333:assumed-role/node/i-0123456789abcdef0", true),
            ("arn:aws:sts::111122223333:assumed-role/operator/session-1", true),
            ("arn:aws:sts::111122223333:assumed-role/operator/session-2", false),
            ("arn:aws:iam::111122223333:user/team/first", true),
            ("arn:aws:iam::111122223333:user/team/second", true),
            ("arn:aws:iam::111122223333:user/team/second", false),
        ] {
            let obtained = identity(arn);
            assert_eq!(obtained.is_another(before.as_ref()), is_another, "{arn}");
            before = Some(obtained);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn new_access_key_obtains_the_identity_again() {
        let user = |account: &str| {
            let (status, xml) = answer("arn:aws:iam::111122223333:user/operator");
            (status, xml.replace("<Account>111122223333", &format!("<Account>{account}")))
        };
        let recorded = ReplayClient::answers(["111122223333", "444455556666"].map(user));
        let caller = caller_with_new_keys(&recorded, None);
        for (minutes, account) in [(0, "111122223333"), (14, "111122223333"), (2, "444455556666")] {
            tokio::time::advance(Duration::from_mins(minutes)).await;
            assert_eq!(caller.identity().await.unwrap().account.as_str(), account);
        }
        assert_eq!(keys(&recorded), ["AKIA0", "AKIA1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn known_account_of_a_new_key_is_used_if_sts_fails() {
        for (account, is_known) in [("111122223333", true), ("444455556666", false)] {
            let user = answer("arn:aws:iam::111122223333:user/operator");
            let recorded = ReplayClient::answers([user, failure(), failure(), failure()]);
            let caller = caller_with_new_keys(&recorded, Some(account));
            let known = caller.identity().await.unwrap();
            tokio::time::advance(Duration::from_mins(16)).await;
            assert_eq!(caller.identity().await.ok(), is_known.then(|| known.clone()), "{account}");
            assert_eq!(keys(&recorded), ["AKIA0", "AKIA1", "AKIA1", "AKIA1"], "STS is requested first");
            if is_known {
                assert_eq!(caller.identity().await, Ok(known), "without a request");
                assert_eq!(recorded.sent().len(), 4);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_reconciles_share_a_failed_request() {
        let never = NeverClient::new();
        let config = replay::config(SharedHttpClient::new(never.clone()));
        let caller = IdentityClient::new(&config, sender(), "eu-west-1".parse().unwrap());
        // The second group finds STS still unavailable: the failure is not cached.
        for (seconds, requests) in [(31, 3), (10, 4)] {
            let start = Instant::now();
            for outcome in futures_util::future::join_all((0..20).map(|_| caller.identity())).await {
                assert_eq!(outcome.unwrap_err().kind, ErrorKind::Transient);
            }
            // One request and its two repetitions, of 10 seconds each, and the pauses between them; then a single request.
            assert_eq!((start.elapsed().as_secs(), never.num_calls()), (seconds, requests));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn identity_stays_in_use_while_sts_fails() {
        let arn = "arn:aws:iam::111122223333:user/operator";
        let recorded = ReplayClient::answers([answer(arn), failure(), failure(), failure(), answer(arn)]);
        let caller = caller(&recorded);
        let known = caller.identity().await.unwrap();
        tokio::time::advance(Duration::from_hours(2)).await;
        for _ in 0..50 {
            assert_eq!(caller.identity().await, Ok(known.clone()));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        // One request and its repetitions in the first minute.
        assert_eq!(recorded.sent().len(), 4);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(caller.identity().await, Ok(known));
        assert_eq!(recorded.sent().len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn one_reconcile_waits_for_sts_if_the_identity_is_known() {
        let never = NeverClient::new();
        let config = replay::config(SharedHttpClient::new(never.clone()));
        let caller = IdentityClient::new(&config, sender(), "eu-west-1".parse().unwrap());
        let identity =
            AwsAccount { account: "111122223333".parse().unwrap(), partition: "aws".parse().unwrap() };
        let access_key_id = replay::credentials().access_key_id().to_owned();
        let (arn, refresh_at) = ("arn:aws:iam::111122223333:user/operator".to_owned(), Instant::now());
        *caller.stored() = Some(KnownIdentity { identity: identity.clone(), arn, access_key_id, refresh_at });
        let start = Instant::now();
        let asked = (0..20).map(|_| async {
            assert_eq!(caller.identity().await, Ok(identity.clone()));
            start.elapsed()
        });
        let waits = futures_util::future::join_all(asked).await;
        assert_eq!(waits.iter().filter(|wait| !wait.is_zero()).count(), 1, "{waits:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn rejected_clock_is_reported_with_its_difference() {
        let client = infallible_client_fn(|_| {
            let ahead = Timestamp::now() + SignedDuration::from_mins(20);
            let date =
                jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&ahead).unwrap();
            let body = "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code></Error></ErrorResponse>";
            http::Response::builder().status(403).header("date", date).body(body).unwrap()
        });
        let config = replay::config(client);
        let caller = IdentityClient::new(&config, sender(), "eu-west-1".parse().unwrap());
        let report = caller.report_credentials().await;
        assert!(report.holder.is_err());
        assert_eq!(
            report.clock_ahead.map(|ahead| ahead.round(jiff::Unit::Minute).unwrap().as_mins()),
            Some(-20)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn clock_check_is_never_cached() {
        let arn = "arn:aws:iam::111122223333:user/operator";
        let denied = "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>".to_owned();
        let recorded = ReplayClient::answers([answer(arn), answer(arn), answer("nobody"), (403, denied)]);
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
