//! Test support: the real SDKs over recorded responses of AWS, and the requests that the SDKs sent.

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
use stream_encryption_core::controller::stream_api::Signer;
use stream_encryption_core::model::principal::{Principal, Role};

use super::credentials::Clock;
use super::rate_limit::RateLimiter;
use super::request_sender::RequestSender;
use super::sessions::Sessions;
use super::signed_request_sender::SignedRequestSender;

/// Recorded responses of AWS, returned one after the other.
#[derive(Clone, Default)]
pub(super) struct ReplayClient {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    sent: Arc<Mutex<Vec<Sent>>>,
    /// Whether every role can be assumed.
    assumed: bool,
}

/// One response of AWS, or of another server in its place.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The header that names an error in addition to the body.
    pub(super) error_type: Option<String>,
    pub(super) body: Vec<u8>,
}

/// A request that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) host: String,
    /// The operation, as in `X-Amz-Target` after the version of the API; for STS, as in `Action`.
    pub(super) operation: String,
    /// The body as JSON; for STS, the parameters as one string.
    pub(super) body: Value,
    /// The access key id of the signature.
    pub(super) access_key_id: String,
}

impl ReplayClient {
    /// Creates these responses, by HTTP status and body. Each further request gets a 599.
    pub(super) fn answers<B: Into<String>>(answers: impl IntoIterator<Item = (u16, B)>) -> Self {
        Self::raw(answers.into_iter().map(|(status, body)| {
            let body: String = body.into();
            Answer { status, error_type: None, body: body.into_bytes() }
        }))
    }

    /// Creates these responses, byte for byte.
    pub(super) fn raw(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.into_iter().collect())), ..Self::default() }
    }

    /// Returns the same responses, and lets every role be assumed: in sessions whose access key id is
    /// `ASIA.`, the session's name and its number.
    pub(super) fn assuming(self) -> Self {
        Self { assumed: true, ..self }
    }

    /// Returns an HTTP client that gets these responses.
    pub(super) fn http_client(&self) -> SharedHttpClient {
        let Self { answers, sent, assumed } = self.clone();
        infallible_client_fn(move |request| {
            let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
            let bytes = request.body().bytes().unwrap_or_default();
            let body = serde_json::from_slice(bytes)
                .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(bytes).into_owned()));
            let action = parameter(&body, "Action");
            let target = header("x-amz-target").and_then(|target| target.split('.').nth(1));
            let credential = header("authorization").and_then(|header| header.split_once("Credential="));
            let mut sent = sent.lock().unwrap();
            sent.push(Sent {
                access_key_id: credential
                    .and_then(|(_, rest)| rest.split('/').next())
                    .unwrap_or_default()
                    .to_owned(),
                host: request.uri().host().unwrap_or_default().to_owned(),
                operation: target.or(action).unwrap_or_default().to_owned(),
                body: body.clone(),
            });
            if assumed && action == Some("AssumeRole") {
                let name = parameter(&body, "RoleSessionName").unwrap_or_default();
                let number = sent.iter().filter(|sent| sent.operation == "AssumeRole").count();
                return http::Response::new(session(&format!("ASIA.{name}.{number}")).into_bytes());
            }
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

    /// Returns a configuration under which the SDKs get these responses.
    pub(super) fn config(&self) -> SdkConfig {
        config(self.http_client())
    }

    /// Returns every request so far.
    pub(super) fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap().clone()
    }

    /// Returns the operation of every request so far.
    pub(super) fn operations(&self) -> Vec<String> {
        self.sent().into_iter().map(|sent| sent.operation).collect()
    }
}

/// Returns a parameter of a request to STS, as it was encoded.
pub(super) fn parameter<'a>(body: &'a Value, name: &str) -> Option<&'a str> {
    let parameters = body.as_str()?.split('&').filter_map(|parameter| parameter.split_once('='));
    parameters.filter(|(known, _)| *known == name).map(|(_, value)| value).next()
}

/// Returns the response of STS to `AssumeRole`.
pub(super) fn session(access_key_id: &str) -> String {
    format!(
        "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials>\
         <AccessKeyId>{access_key_id}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>\
         <SessionToken>token</SessionToken><Expiration>2126-01-01T00:00:00Z</Expiration>\
         </Credentials></AssumeRoleResult></AssumeRoleResponse>"
    )
}

/// Returns a configuration like the operator's, with credentials without a session.
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

/// Returns credentials without a session.
pub(super) fn credentials() -> Credentials {
    Credentials::new("AKIDEXAMPLE", "secret", None, None, "test")
}

/// Returns a sender with the default rate limits, and credentials without a session.
pub(super) fn sender() -> SignedRequestSender {
    sender_with_sts(&ReplayClient::default(), Arc::new(SystemTime::now))
}

/// Returns a sender that assumes roles through `sts`, with `clock` for the age of sessions.
pub(super) fn sender_with_sts(sts: &ReplayClient, clock: Clock) -> SignedRequestSender {
    let requests = RequestSender::new(RateLimiter::new(80));
    let provider = SharedCredentialsProvider::new(credentials());
    let region = "eu-west-1".parse().unwrap();
    SignedRequestSender::new(
        requests.clone(),
        Sessions::new(provider, &sts.config(), region, requests, clock),
    )
}

/// Returns the signer of requests with [`credentials`].
pub(super) fn signer() -> Signer {
    Signer { access_key_id: credentials().access_key_id().to_owned(), session_age: None }
}

/// Returns a principal with the operator's own credentials, for a resource.
pub(super) fn somebody() -> Principal {
    Principal { role: None, namespace: "data".to_owned(), resource: "orders".to_owned() }
}

/// Returns a principal with a role in another account, for a resource.
pub(super) fn assuming(resource: &str) -> Principal {
    let arn = "arn:aws:iam::222222222222:role/stream-encryption".parse().unwrap();
    let role = Role { arn, external_id: Some("of-the-data-team".parse().unwrap()) };
    Principal { role: Some(role), namespace: "data".to_owned(), resource: resource.to_owned() }
}
