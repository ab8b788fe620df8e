//! A client that sends a raw message to an AWS-compatible server, and returns the raw answer.
//!
//! It signs nothing: the `Authorization` header carries only the credential scope, by which moto routes a
//! request. It must never retry.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::world::Service;
use crate::world::date::BASIC;

/// A raw answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The `x-amzn-ErrorType` header.
    pub error_type: Option<String>,
    /// The `x-amzn-RequestId` header.
    pub request_id: Option<String>,
    /// The `x-amzn-query-error` header, of SQS only.
    pub query_error: Option<String>,
    /// The body as text.
    pub text: String,
}

impl Answer {
    /// Returns the body as JSON; null if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// Returns the error code of an AWS JSON error, without its namespace.
    pub fn code(&self) -> Option<String> {
        let code = self.json().get("__type")?.as_str()?.to_owned();
        Some(code.rsplit('#').next().unwrap_or_default().to_owned())
    }
}

/// One server, and the claimed identity.
#[derive(Clone, Debug)]
pub struct RawClient {
    /// `http://127.0.0.1:port`.
    pub url: String,
    /// The access key id of the credential scope.
    pub access_key: String,
    /// The region of the credential scope.
    pub region: String,
    /// The `x-amz-date` header; `None` to omit it.
    pub date: Option<String>,
}

impl RawClient {
    /// Creates a client for the region `eu-west-1` that dates its requests with the machine's current time.
    pub fn new(url: &str) -> RawClient {
        RawClient {
            url: url.to_owned(),
            access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            region: "eu-west-1".to_owned(),
            date: Some(Timestamp::now().strftime(BASIC).to_string()),
        }
    }

    /// Sends an AWS JSON request, of version 1.1, for SQS 1.0.
    pub async fn json(&self, service: Service, operation: &str, body: &Value) -> anyhow::Result<Answer> {
        let prefix = match service {
            Service::Firehose => "Firehose_20150804",
            Service::Kinesis => "Kinesis_20131202",
            Service::Kms => "TrentService",
            Service::Sqs => "AmazonSQS",
            Service::Sts => bail!("STS speaks the query protocol: use `query`"),
        };
        let version = if service == Service::Sqs { "1.0" } else { "1.1" };
        self.target(service.prefix(), &format!("{prefix}.{operation}"), version, body).await
    }

    /// Sends a request to EventBridge, which only moto supports: `PutEvents`.
    pub async fn events(&self, operation: &str, body: &Value) -> anyhow::Result<Answer> {
        self.target("events", &format!("AWSEvents.{operation}"), "1.1", body).await
    }

    async fn target(
        &self,
        service: &str,
        target: &str,
        version: &str,
        body: &Value,
    ) -> anyhow::Result<Answer> {
        let kind = format!("application/x-amz-json-{version}");
        let authorization = self.authorization(service);
        let headers =
            [("content-type", kind.as_str()), ("x-amz-target", target), ("authorization", &authorization)];
        self.send(Method::POST, "/", &headers, body.to_string()).await
    }

    /// Sends an STS request: `Action=GetCallerIdentity&Version=2011-06-15`.
    pub async fn query(&self, body: &str) -> anyhow::Result<Answer> {
        self.form(Service::Sts.prefix(), body).await
    }

    /// Sends an IAM request, which only moto supports: `Action=ListRoles&Version=2010-05-08`.
    pub async fn iam(&self, body: &str) -> anyhow::Result<Answer> {
        self.form("iam", body).await
    }

    async fn form(&self, service: &str, body: &str) -> anyhow::Result<Answer> {
        let authorization = self.authorization(service);
        let headers =
            [("content-type", "application/x-www-form-urlencoded"), ("authorization", &authorization)];
        self.send(Method::POST, "/", &headers, body.to_owned()).await
    }

    /// Sends a request without AWS's headers, for example for `/_admin/log`.
    pub async fn plain(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Answer> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, path, &[("content-type", "application/json")], body).await
    }

    fn authorization(&self, service: &str) -> String {
        let scope = format!("{}/20260101/{}/{service}/aws4_request", self.access_key, self.region);
        format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host;x-amz-date, Signature=0")
    }

    /// Sends one message on its own connection.
    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> anyhow::Result<Answer> {
        let (url, date) = (&self.url, self.date.as_deref());
        let address = url.strip_prefix("http://").context("the URL must start with http://")?;
        let exchange = async {
            let socket = TcpStream::connect(address).await?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
            let connection = tokio::spawn(connection);
            let mut request = Request::builder().method(method).uri(path).header("host", address);
            for (name, value) in headers.iter().copied().chain(date.map(|date| ("x-amz-date", date))) {
                request = request.header(name, value);
            }
            let response = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
            let (parts, body) = response.into_parts();
            let text = String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned();
            connection.abort();
            let header =
                |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            anyhow::Ok(Answer {
                status: parts.status.as_u16(),
                error_type: header("x-amzn-errortype"),
                request_id: header("x-amzn-requestid"),
                query_error: header("x-amzn-query-error"),
                text,
            })
        };
        tokio::time::timeout(Duration::from_secs(30), exchange)
            .await
            .with_context(|| format!("{url} did not answer in 30 s"))?
    }
}
