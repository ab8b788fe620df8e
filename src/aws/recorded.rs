//! For tests: the real SDKs over recorded answers of AWS, and what they sent.

use std::sync::Arc;
use std::time::SystemTime;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_sts::config::SharedHttpClient;
use aws_sdk_sts::primitives::SdkBody;
use aws_smithy_http_client::test_util::{ReplayEvent, StaticReplayClient};
use serde_json::Value;

use super::calls::Calls;
use super::credentials::Sessions;
use super::pacing::Pacer;
use super::{Turn, Urgency};

/// Answers of AWS, given one after the other.
#[derive(Clone)]
pub(super) struct Recorded(StaticReplayClient);

/// What was sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) host: String,
    /// The operation, as `X-Amz-Target` names it behind the version of its API.
    pub(super) operation: String,
    pub(super) body: Value,
}

impl Recorded {
    /// These answers: HTTP status and body.
    pub(super) fn answers<B: Into<String>>(answers: impl IntoIterator<Item = (u16, B)>) -> Self {
        let event = |(status, body): (u16, B)| {
            let answer = http::Response::builder()
                .status(status)
                .header("content-type", "application/x-amz-json-1.1")
                .body(SdkBody::from(body.into()))
                .unwrap();
            ReplayEvent::new(http::Request::new(SdkBody::empty()), answer)
        };
        Self(StaticReplayClient::new(answers.into_iter().map(event).collect()))
    }

    /// A configuration under which the SDKs meet these answers.
    pub(super) fn config(&self) -> SdkConfig {
        config(SharedHttpClient::new(self.0.clone()))
    }

    /// Every request so far.
    pub(super) fn sent(&self) -> Vec<Sent> {
        self.0
            .actual_requests()
            .map(|request| Sent {
                host: request.uri().split('/').nth(2).unwrap_or_default().to_owned(),
                operation: request
                    .headers()
                    .get("x-amz-target")
                    .and_then(|target| target.split('.').nth(1))
                    .unwrap_or_default()
                    .to_owned(),
                body: request
                    .body()
                    .bytes()
                    .and_then(|bytes| serde_json::from_slice(bytes).ok())
                    .unwrap_or_default(),
            })
            .collect()
    }
}

/// A configuration like the operator's, with credentials without a session.
pub(super) fn config(http_client: SharedHttpClient) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::for_tests()))
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_timeout(super::clients::DEADLINE).build())
        .sleep_impl(aws_config::default_provider::sleep())
        .http_client(http_client)
        .build()
}

/// Requests, paced as by default.
pub(super) fn calls() -> Calls {
    Calls::new(Pacer::new(80))
}

/// Credentials without a session.
pub(super) fn no_session() -> Sessions {
    Sessions::new(Credentials::for_tests(), Arc::new(SystemTime::now))
}

/// A look for drift.
pub(super) fn drift() -> Turn {
    Turn { urgency: Urgency::Drift, namespace: "data".to_owned() }
}
