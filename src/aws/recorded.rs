//! For tests: the real SDKs over recorded answers of AWS, and what the SDKs sent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_sts::config::SharedHttpClient;
use aws_smithy_http_client::test_util::infallible_client_fn;
use serde_json::Value;

use super::calls::Calls;
use super::credentials::Sessions;
use super::pacing::Pacer;
use super::port::{Turn, Urgency};

/// Answers of AWS, given one after the other.
#[derive(Clone, Default)]
pub(super) struct Recorded {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    sent: Arc<Mutex<Vec<Sent>>>,
}

/// One answer of AWS, or of whatever stands where AWS should.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The header in which AWS names an error beside the body.
    pub(super) error_type: Option<String>,
    pub(super) body: Vec<u8>,
}

/// What was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) host: String,
    /// The operation, as `X-Amz-Target` names it behind the version of its API.
    pub(super) operation: String,
    pub(super) body: Value,
    /// Whose signature it carries.
    pub(super) access_key_id: String,
}

impl Recorded {
    /// These answers: HTTP status and body. A request too many gets a 599.
    pub(super) fn answers<B: Into<String>>(answers: impl IntoIterator<Item = (u16, B)>) -> Self {
        Self::raw(answers.into_iter().map(|(status, body)| {
            let body: String = body.into();
            Answer { status, error_type: None, body: body.into_bytes() }
        }))
    }

    /// These answers, byte for byte.
    pub(super) fn raw(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.into_iter().collect())), sent: Arc::default() }
    }

    /// The way to these answers.
    pub(super) fn http_client(&self) -> SharedHttpClient {
        let Self { answers, sent } = self.clone();
        infallible_client_fn(move |request| {
            let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
            let body = request.body().bytes().and_then(|bytes| serde_json::from_slice(bytes).ok());
            let signature = request.headers().get("authorization").and_then(|header| header.to_str().ok());
            let credential =
                signature.and_then(|header| header.split_once("Credential=")).map(|(_, rest)| rest);
            sent.lock().unwrap().push(Sent {
                access_key_id: credential
                    .and_then(|rest| rest.split('/').next())
                    .unwrap_or_default()
                    .to_owned(),
                host: request.uri().host().unwrap_or_default().to_owned(),
                operation: target.and_then(|target| target.split('.').nth(1)).unwrap_or_default().to_owned(),
                body: body.unwrap_or_default(),
            });
            let one_too_many = Answer { status: 599, error_type: None, body: Vec::new() };
            let Answer { status, error_type, body } =
                answers.lock().unwrap().pop_front().unwrap_or(one_too_many);
            let mut response = http::Response::builder().status(status);
            if let Some(error_type) = error_type {
                response = response.header("x-amzn-errortype", error_type);
            }
            response.body(body).unwrap()
        })
    }

    /// A configuration under which the SDKs meet these answers.
    pub(super) fn config(&self) -> SdkConfig {
        config(self.http_client())
    }

    /// Every request so far.
    pub(super) fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap().clone()
    }

    /// The operations of every request so far.
    pub(super) fn operations(&self) -> Vec<String> {
        self.sent().into_iter().map(|sent| sent.operation).collect()
    }
}

/// A configuration like the operator's, with credentials without a session.
pub(super) fn config(http_client: SharedHttpClient) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials()))
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_timeout(Duration::from_secs(10)).build())
        .http_client(http_client)
        .build()
}

/// Credentials without a session.
pub(super) fn credentials() -> Credentials {
    Credentials::new("AKIDEXAMPLE", "secret", None, None, "test")
}

/// Requests, paced as by default.
pub(super) fn calls() -> Calls {
    Calls::new(Pacer::new(80))
}

/// The sessions of credentials without a session.
pub(super) fn no_session() -> Sessions {
    Sessions::new(credentials(), Arc::new(SystemTime::now))
}

/// A look for drift.
pub(super) fn drift() -> Turn {
    Turn { urgency: Urgency::Drift, namespace: "data".to_owned() }
}
