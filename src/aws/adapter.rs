//! The real AWS: the adapter of [`StreamApi`], with common deadlines, rate limits and sessions.
//!
//! This file builds the SDK configuration and delegates each request to the file of its service, which has
//! the format of the service's requests and responses. The SDK clients serve every principal, and so do their
//! connections: the credentials are set for each request. There is one client for each service and region, and
//! STS has two: for the operator's identity, and for the roles of policies.
//!
//! The SDK never repeats a request. `request_sender` repeats reads; nothing repeats Start, Stop and
//! `PutRecord`. The SDK signs with the operator's own clock, without correcting it. AWS therefore rejects
//! requests if the clock is more than 15 minutes off, and the ledger, which counts by that clock, relies on
//! this.

mod listing;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use stream_encryption_api::ledger::Action;
use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::controller::stream_api::{Priority, Signer, StreamApi};
use stream_encryption_core::model::arn::{AwsAccount, KmsKeyId, Region, StreamArn};
use stream_encryption_core::model::aws_error::{Accepted, AwsError};
use stream_encryption_core::model::key::{Key, KeyMetadata};
use stream_encryption_core::model::observation::StreamDescription;
use stream_encryption_core::model::principal::Principal;
use stream_encryption_core::model::request_limits::RequestLimits;
use stream_encryption_core::model::service::{Operation, profile};
use tracing::warn;

use super::credentials::Clock;
use super::credentials_source::CredentialsSource;
use super::event_queue::{EventQueue, QueueUrl};
use super::firehose::Firehose;
use super::http_client;
use super::identity::{CredentialsReport, IdentityClient};
use super::kinesis::Kinesis;
use super::kms::Kms;
use super::rate_limit::{DEFAULT_RATE_PERCENT, QuotaScope, RateLimiter};
use super::request_sender::{DEADLINE, RequestSender};
use super::sessions::Sessions;
use super::signed_request_sender::SignedRequestSender;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The operator's settings for AWS: the endpoint, and the share of the limits that it may use.
#[derive(Clone, Debug)]
pub struct AwsConfig {
    /// The operator's own region: for STS, and for streams that are given without a region.
    pub region: Region,
    /// A URL that replaces every service's endpoint. With `None`, the SDK determines the endpoint of each service: from
    /// `AWS_ENDPOINT_URL_<SERVICE>`, `AWS_ENDPOINT_URL` or the profile, otherwise AWS's own. That of the queue is in its URL.
    /// The URL does not apply to the STS from which the SDK obtains the operator's own credentials: there, the SDK always
    /// determines the endpoint.
    pub endpoint_url: Option<String>,
    /// Share of AWS's limits in requests per second that the operator may use, in percent: 1 to 100.
    pub rate_percent: u8,
    /// AWS's limits in requests per second.
    pub request_limits: RequestLimits,
}

/// The reason why the settings for AWS are invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAwsConfig {
    /// The endpoint is not a URL.
    #[error("invalid AWS endpoint {0:?}: expected http://HOST:PORT or https://HOST")]
    Url(String),
    /// The share is not a percentage.
    #[error("invalid share of AWS's limits {0}: expected a percentage from 1 to 100")]
    RatePercent(u8),
}

/// The real AWS, through its SDK.
pub struct Aws {
    firehose: Firehose,
    kinesis: Kinesis,
    kms: Arc<Kms>,
    caller: IdentityClient,
    sender: SignedRequestSender,
    rate_limiter: RateLimiter,
    config: SdkConfig,
    region: Region,
}

impl AwsConfig {
    /// Returns the default endpoints for `region`, with the default share of AWS's limits.
    #[must_use]
    pub fn of(region: Region) -> Self {
        Self {
            region,
            endpoint_url: None,
            rate_percent: DEFAULT_RATE_PERCENT,
            request_limits: RequestLimits::default(),
        }
    }

    fn check(&self) -> Result<(), InvalidAwsConfig> {
        if !(1..=100).contains(&self.rate_percent) {
            return Err(InvalidAwsConfig::RatePercent(self.rate_percent));
        }
        self.endpoint_url.as_deref().map_or(Ok(()), Self::check_endpoint_url)
    }

    /// Returns an error if a text is no URL for [`endpoint_url`](Self::endpoint_url).
    pub fn check_endpoint_url(url: &str) -> Result<(), InvalidAwsConfig> {
        if is_http_url(url) { Ok(()) } else { Err(InvalidAwsConfig::Url(url.to_owned())) }
    }
}

impl Aws {
    /// Creates an instance with the credentials of the
    /// [default chain](https://docs.aws.amazon.com/sdk-for-rust/latest/dg/credproviders.html). It sends no
    /// request to AWS yet, so missing credentials are reported by the first request.
    pub async fn new(settings: AwsConfig) -> Result<Self, InvalidAwsConfig> {
        settings.check()?;
        if std::env::var_os("AWS_CA_BUNDLE").is_some_and(|bundle| !bundle.is_empty()) {
            warn!("the AWS SDK for Rust ignores AWS_CA_BUNDLE; set SSL_CERT_FILE instead");
        }
        let config = loader(&settings).http_client(http_client::shared()).load().await;
        let limits = settings.request_limits.clone();
        let rate_limiter = RateLimiter::with_limits(settings.rate_percent, limits);
        let region = settings.region.clone();
        let http_client = config.http_client();
        let make = move || -> BoxFuture<'static, _> {
            let loader = loader(&settings);
            let loader = match &http_client {
                Some(http_client) => loader.http_client(http_client.clone()),
                None => loader,
            };
            Box::pin(async move { provider(&loader.load().await) })
        };
        let source = CredentialsSource::new(Box::new(make), |name| std::env::var(name).ok());
        Ok(Self::of(config, source, region, rate_limiter, Arc::new(SystemTime::now)))
    }

    /// Creates an instance that uses `config` from `region`, limited by `rate_limiter`, with `clock` for the
    /// age of sessions.
    #[must_use]
    pub fn from_config(config: SdkConfig, region: Region, rate_limiter: RateLimiter, clock: Clock) -> Self {
        let provider = provider(&config);
        Self::of(config, provider, region, rate_limiter, clock)
    }

    fn of(
        config: SdkConfig,
        source: impl Into<CredentialsSource>,
        region: Region,
        rate_limiter: RateLimiter,
        clock: Clock,
    ) -> Self {
        let config = config.into_builder().retry_config(RetryConfig::disabled());
        let mut config = config.disable_clock_skew_correction(true);
        config.set_credentials_provider(None);
        let config = config.build();
        let requests = RequestSender::new(rate_limiter.clone());
        let sessions = Sessions::new(source, &config, region.clone(), requests.clone(), clock);
        let sender = SignedRequestSender::new(requests, sessions);
        let kms = Arc::new(Kms::new(config.clone(), sender.clone()));
        Self {
            firehose: Firehose::new(config.clone(), sender.clone()),
            sender: sender.clone(),
            kinesis: Kinesis::new(config.clone(), sender.clone(), kms.clone()),
            caller: IdentityClient::new(&config, sender, region.clone()),
            kms,
            rate_limiter,
            config,
            region,
        }
    }

    /// Waits up to `deadline` for the source of the credentials, before the first request: a person may have to confirm on
    /// a device or in a browser. Each request reports a failure of the source.
    pub async fn wait_for_credentials(&self, deadline: Duration) {
        self.sender.wait_for_credentials(deadline).await;
    }

    /// Returns a client of the queue with this URL.
    #[must_use]
    pub fn event_queue(&self, queue: &QueueUrl) -> EventQueue {
        EventQueue::new(&self.config, self.sender.clone(), queue, &self.region)
    }

    /// Returns who the credentials belong to, and what is known of their age and of AWS's clock.
    pub async fn report_credentials(&self) -> CredentialsReport {
        self.caller.report_credentials().await
    }

    /// Returns the rate limiter, for the metrics.
    #[must_use]
    pub fn rate_limiter(&self) -> &RateLimiter {
        &self.rate_limiter
    }
}

impl StreamApi for Aws {
    async fn identity(&self) -> Result<AwsAccount, AwsError> {
        self.caller.identity().await
    }

    async fn verify_clock(&self) -> Result<(), AwsError> {
        self.caller.verify_clock().await
    }

    async fn describe_stream(
        &self,
        stream: &StreamArn,
        principal: &Principal,
        priority: Priority,
    ) -> Result<Option<(StreamDescription, Signer)>, AwsError> {
        match stream.service {
            Service::Firehose => self.firehose.describe_stream(stream, principal, priority).await,
            Service::Kinesis => self.kinesis.describe_stream(stream, principal, priority).await,
        }
    }

    async fn describe_key(
        &self,
        stream: &StreamArn,
        name: &KmsKeyId,
        principal: &Principal,
        priority: Priority,
    ) -> Result<Option<KeyMetadata>, AwsError> {
        self.kms.describe_key(stream, name, principal, priority).await
    }

    async fn acquire_permit(
        &self,
        stream: &StreamArn,
        action: Action,
        principal: &Principal,
        signer: &Signer,
    ) -> bool {
        let operation = Operation::change(stream.service, action);
        self.sender.acquire_permit_for(&QuotaScope::of(operation, stream), principal, signer).await
    }

    async fn start(
        &self,
        stream: &StreamArn,
        key: &Key,
        principal: &Principal,
        signer: &Signer,
        signing_time: Timestamp,
    ) -> Result<Accepted, AwsError> {
        match stream.service {
            Service::Firehose => self.firehose.start(stream, key, principal, signer, signing_time).await,
            Service::Kinesis => self.kinesis.start(stream, key, principal, signer, signing_time).await,
        }
    }

    async fn stop(
        &self,
        stream: &StreamArn,
        active_key: Option<&Key>,
        principal: &Principal,
        signer: &Signer,
        signing_time: Timestamp,
    ) -> Result<Accepted, AwsError> {
        match stream.service {
            Service::Firehose => self.firehose.stop(stream, principal, signer, signing_time).await,
            Service::Kinesis => self.kinesis.stop(stream, active_key, principal, signer, signing_time).await,
        }
    }

    async fn acquire_record_permit(
        &self,
        stream: &StreamArn,
        principal: &Principal,
        signer: &Signer,
    ) -> bool {
        let operation = profile(stream.service).put_record;
        self.sender.acquire_permit_for(&QuotaScope::of(operation, stream), principal, signer).await
    }

    async fn put_record(
        &self,
        stream: &StreamArn,
        record: &str,
        principal: &Principal,
        signer: &Signer,
    ) -> Result<bool, AwsError> {
        match stream.service {
            Service::Firehose => self.firehose.put_record(stream, record, principal, signer).await,
            Service::Kinesis => self.kinesis.put_record(stream, record, principal, signer).await,
        }
    }
}

fn provider(config: &SdkConfig) -> SharedCredentialsProvider {
    config
        .credentials_provider()
        .unwrap_or_else(|| unreachable!("the default credentials chain is always set"))
}

fn loader(settings: &AwsConfig) -> ConfigLoader {
    let deadlines = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(DEADLINE)
        .operation_timeout(DEADLINE)
        .build();
    let loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .region(aws_config::Region::new(settings.region.as_str().to_owned()))
        // For the sources of credentials, such as STS. `Aws::of` disables the retries of the clients.
        .retry_config(RetryConfig::standard())
        .timeout_config(deadlines);
    match &settings.endpoint_url {
        Some(url) => loader.endpoint_url(url),
        None => loader,
    }
}

fn is_http_url(url: &str) -> bool {
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    host.is_some_and(|host| !host.is_empty() && !host.starts_with('/') && !host.contains(char::is_whitespace))
}

#[cfg(test)]
mod tests;
