//! The simulated AWS in this process and in virtual time: the SDKs' HTTP client is a function call.
//!
//! The limits of requests per second are those of AWS. A request takes no time, so the duration of a survey is the time
//! for which the rate limiter waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use aws_smithy_http_client::test_util::infallible_client_fn;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use simulated_aws::world::{Caller, PlantedStream, Request, Service, Settings, World};
use stream_encryption_core::model::arn::AwsAccount;
use stream_encryption_operator::adopt::survey::Place;
use stream_encryption_operator::aws::Aws;
use stream_encryption_operator::aws::rate_limit::RateLimiter;
use tokio::time::Instant;

use crate::harness::{ACCESS_KEY, ACCOUNT, REGION, sdk};

/// The simulated AWS.
#[derive(Clone)]
pub(super) struct VirtualAws {
    world: Arc<Mutex<World>>,
    start: Instant,
    /// The region that the account has not enabled.
    disabled_region: Option<&'static str>,
}

impl VirtualAws {
    /// Starts an AWS without streams.
    pub(super) fn start() -> Self {
        let world = World::new(Settings::default());
        Self { world: Arc::new(Mutex::new(world)), start: Instant::now(), disabled_region: None }
    }

    /// Returns the same AWS, in which the account has not enabled this region.
    pub(super) fn with_disabled(self, region: &'static str) -> Self {
        Self { disabled_region: Some(region), ..self }
    }

    /// Returns the model.
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plants streams with the names `s-0000`, `s-0001` and so on.
    pub(super) fn plant(&self, service: Service, region: &str, count: usize) {
        for number in 0..count {
            self.world().plant_stream(PlantedStream {
                service,
                region: region.to_owned(),
                name: format!("s-{number:04}"),
                tags: [("team".to_owned(), "data".to_owned())].into(),
                ..PlantedStream::default()
            });
        }
    }

    /// Returns the adapter of a person, with the default share of AWS's limits.
    pub(super) fn adapter(&self) -> Aws {
        let server = self.clone();
        let client = infallible_client_fn(move |request| {
            let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
            let (status, body) = server.answer(
                header("x-amz-target").unwrap_or_default(),
                header("authorization").unwrap_or_default(),
                request.body().bytes().unwrap_or_default(),
            );
            http::Response::builder().status(status).body(body.to_string()).expect("a response")
        });
        let config = sdk("http://aws.test", ACCESS_KEY).into_builder().http_client(client).build();
        let region = REGION.parse().expect("a region");
        Aws::from_config(config, region, RateLimiter::new(80), Arc::new(SystemTime::now))
    }

    fn answer(&self, target: &str, authorization: &str, body: &[u8]) -> (u16, Value) {
        let (prefix, operation) = target.split_once('.').expect("an operation");
        let service = match prefix {
            "Firehose_20150804" => Service::Firehose,
            "Kinesis_20131202" => Service::Kinesis,
            _ => Service::Kms,
        };
        let region = authorization.split('/').nth(2).expect("the scope of a signature");
        if self.disabled_region == Some(region) {
            let message = "The security token included in the request is invalid.";
            return (400, json!({"__type": "UnrecognizedClientException", "message": message}));
        }
        let body = serde_json::from_slice(body).expect("JSON");
        let request = Request { service, operation: operation.to_owned(), body };
        let reply = self.world().call(self.now(), &Caller::new(ACCESS_KEY), region, &request);
        match reply.result {
            Ok(answer) => (200, answer),
            Err(error) => (error.status, error.body()),
        }
    }

    /// Returns the time of its clock.
    pub(super) fn now(&self) -> Timestamp {
        let start: Timestamp = "2026-03-01T12:00:00Z".parse().expect("a time");
        start + SignedDuration::try_from(self.start.elapsed()).expect("a duration")
    }
}

/// Returns the place of the account in a region.
pub(super) fn place(region: &str) -> Place {
    let account = AwsAccount {
        account: ACCOUNT.parse().expect("an account"),
        partition: "aws".parse().expect("a partition"),
    };
    Place { account, region: region.parse().expect("a region"), role: None }
}
