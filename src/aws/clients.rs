//! AWS itself: the adapters of [`Streams`] behind one set of deadlines, limits and sessions.
//!
//! One client of the SDK for a service and region serves every principal, and so do its connections: the credentials come
//! with each request. The SDK never sends anything twice: reads are sent again by `requests`, and Start, Stop and `PutRecord`
//! by nobody. It signs with the operator's own clock, whatever that says: AWS then refuses whoever's clock is more than 15
//! minutes off, and the ledger, which counts by that clock, relies on it. This file is a table of contents; what a service
//! says and wants is in the service's own file.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tracing::warn;

use super::calls::Calls;
use super::credentials::Clock;
use super::firehose::Firehose;
use super::identity::Caller;
use super::kinesis::Kinesis;
use super::kms::Kms;
use super::pacing::{DEFAULT_SHARE, Pacer, Quota};
use super::port::{Identity, Signer, Streams, Urgency};
use super::requests::{DEADLINE, Requests};
use super::sessions::Sessions;
use super::source::Source;
use crate::api::ledger::Action;
use crate::api::stream_encryption::Service;
use crate::model::fault::{Fault, Operation};
use crate::model::key::{Key, KeyFacts, KeyName};
use crate::model::observation::Look;
use crate::model::principal::Principal;
use crate::model::stream::{Region, StreamArn};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Where AWS is, and how much of its limits the operator may use.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// The operator's own region: for STS, and for streams that are named without one.
    pub region: Region,
    /// One URL in the place of every service's; without it, AWS's own, or what `AWS_ENDPOINT_URL` says.
    pub endpoint_url: Option<String>,
    /// The share of AWS's limits of requests a second that the operator may use, in percent: 1 to 100.
    pub share: u8,
}

/// Why AWS cannot be set up as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEndpoints {
    /// Not a URL.
    #[error("{0:?} is not an endpoint: write http://HOST:PORT or https://HOST")]
    Url(String),
    /// Not a share.
    #[error("{0} is not a share of AWS's limits: write a percentage from 1 to 100")]
    Share(u8),
}

/// AWS, by its SDK.
pub struct Aws {
    firehose: Firehose,
    kinesis: Kinesis,
    kms: Arc<Kms>,
    caller: Caller,
    calls: Calls,
    pacer: Pacer,
}

impl Endpoints {
    /// AWS's own endpoints, and the default share of its limits.
    #[must_use]
    pub fn of(region: Region) -> Self {
        Self { region, endpoint_url: None, share: DEFAULT_SHARE }
    }

    fn check(&self) -> Result<(), BadEndpoints> {
        if !(1..=100).contains(&self.share) {
            return Err(BadEndpoints::Share(self.share));
        }
        match self.endpoint_url.as_deref() {
            Some(url) if !is_http_url(url) => Err(BadEndpoints::Url(url.to_owned())),
            _ => Ok(()),
        }
    }
}

impl Aws {
    /// AWS with the credentials of the
    /// [default chain](https://docs.aws.amazon.com/sdk-for-rust/latest/dg/credproviders.html). Sends no request to AWS
    /// yet, so missing credentials show at the first one.
    pub async fn new(endpoints: Endpoints) -> Result<Self, BadEndpoints> {
        endpoints.check()?;
        if std::env::var_os("AWS_CA_BUNDLE").is_some_and(|bundle| !bundle.is_empty()) {
            warn!(
                "AWS_CA_BUNDLE is set, and AWS's SDK for Rust does not read it: name the file in SSL_CERT_FILE instead"
            );
        }
        let config = loader(&endpoints).load().await;
        let (pacer, region) = (Pacer::new(endpoints.share), endpoints.region.clone());
        let http_client = config.http_client();
        let make = move || -> BoxFuture<'static, _> {
            let loader = loader(&endpoints);
            let loader = match &http_client {
                Some(http_client) => loader.http_client(http_client.clone()),
                None => loader,
            };
            Box::pin(async move { provider(&loader.load().await) })
        };
        let source = Source::new(Box::new(make), |name| std::env::var(name).ok());
        Ok(Self::of(config, source, region, pacer, Arc::new(SystemTime::now)))
    }

    /// AWS as `config` reaches it from `region`, paced by `pacer`, its sessions dated by `clock`.
    #[must_use]
    pub fn over(config: SdkConfig, region: Region, pacer: Pacer, clock: Clock) -> Self {
        let provider = provider(&config);
        Self::of(config, provider, region, pacer, clock)
    }

    fn of(config: SdkConfig, source: impl Into<Source>, region: Region, pacer: Pacer, clock: Clock) -> Self {
        let mut config = config.into_builder().disable_clock_skew_correction(true);
        config.set_credentials_provider(None);
        let config = config.build();
        let requests = Requests::new(pacer.clone());
        let sessions = Sessions::new(source, &config, region.clone(), requests.clone(), clock);
        let calls = Calls::new(requests, sessions);
        let kms = Arc::new(Kms::new(config.clone(), calls.clone()));
        Self {
            firehose: Firehose::new(config.clone(), calls.clone()),
            calls: calls.clone(),
            kinesis: Kinesis::new(config.clone(), calls.clone(), kms.clone()),
            caller: Caller::new(&config, calls, region),
            kms,
            pacer,
        }
    }

    /// What paces the requests, for the metrics.
    #[must_use]
    pub fn pacer(&self) -> &Pacer {
        &self.pacer
    }
}

impl Streams for Aws {
    async fn identity(&self) -> Result<Identity, Fault> {
        self.caller.identity().await
    }

    async fn answers(&self) -> Result<(), Fault> {
        self.caller.answers().await
    }

    async fn look(
        &self,
        stream: &StreamArn,
        by: &Principal,
        urgency: Urgency,
    ) -> Result<Option<(Look, Signer)>, Fault> {
        match stream.service {
            Service::Firehose => self.firehose.look(stream, by, urgency).await,
            Service::Kinesis => self.kinesis.look(stream, by, urgency).await,
        }
    }

    async fn key(
        &self,
        stream: &StreamArn,
        name: &KeyName,
        by: &Principal,
        urgency: Urgency,
    ) -> Result<Option<KeyFacts>, Fault> {
        self.kms.key(stream, name, by, urgency).await
    }

    async fn turn(&self, stream: &StreamArn, action: Action, by: &Principal, signer: &Signer) -> bool {
        let operation = Operation::change(stream.service, action);
        self.calls.turn_of(&Quota::of(operation, stream), by, signer).await
    }

    async fn start(
        &self,
        stream: &StreamArn,
        key: &Key,
        by: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), Fault> {
        match stream.service {
            Service::Firehose => self.firehose.start(stream, key, by, signer, reserved).await,
            Service::Kinesis => self.kinesis.start(stream, key, by, signer, reserved).await,
        }
    }

    async fn stop(
        &self,
        stream: &StreamArn,
        in_force: Option<&Key>,
        by: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), Fault> {
        match stream.service {
            Service::Firehose => self.firehose.stop(stream, by, signer, reserved).await,
            Service::Kinesis => self.kinesis.stop(stream, in_force, by, signer, reserved).await,
        }
    }

    async fn put_record(
        &self,
        stream: &StreamArn,
        record: &str,
        by: &Principal,
        signer: &Signer,
    ) -> Result<bool, Fault> {
        match stream.service {
            Service::Firehose => self.firehose.put_record(stream, record, by, signer).await,
            Service::Kinesis => self.kinesis.put_record(stream, record, by, signer).await,
        }
    }
}

fn provider(config: &SdkConfig) -> SharedCredentialsProvider {
    config.credentials_provider().unwrap_or_else(|| {
        unreachable!("the default chain is always set; that it finds nothing shows when it is asked")
    })
}

fn loader(endpoints: &Endpoints) -> ConfigLoader {
    let deadlines = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(DEADLINE)
        .operation_timeout(DEADLINE)
        .build();
    let loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .region(aws_config::Region::new(endpoints.region.as_str().to_owned()))
        .retry_config(RetryConfig::disabled())
        .timeout_config(deadlines);
    match &endpoints.endpoint_url {
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
