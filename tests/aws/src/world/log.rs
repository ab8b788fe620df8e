//! The log of every request: its content, principal, time and outcome.
//!
//! It only records. No decision of the simulation depends on it; tests read it.

use jiff::Timestamp;
use serde::Serialize;

use super::request::Service;

/// One request; the log is in the order of arrival.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Call {
    /// The request's number, from 1.
    pub id: u64,
    /// The time at which AWS received it.
    pub time: Timestamp,
    pub service: Service,
    pub operation: String,
    /// The stream's name, the key or alias as given, or the role; empty if the request has no target.
    pub target: String,
    /// The caller's account.
    pub account: String,
    /// The region of the signature.
    pub region: String,
    /// The caller.
    pub principal: Principal,
    /// The requested key, as given.
    pub key: Option<String>,
    /// `OK` or the error code.
    pub outcome: String,
    /// Whether the request passed the checks and took effect; false also for a request that returns OK
    /// without an effect.
    pub executed: bool,
    /// Whether it counts towards a stream's limit of calls in 24 hours.
    pub counted: bool,
    /// Whether an answer was sent, at once or later; false if the connection was closed.
    pub answered: bool,
    /// The name of the fault that affected it.
    pub fault: Option<String>,
}

impl Call {
    /// Returns whether it is a Start or Stop of encryption, which AWS limits to 25 in 24 hours.
    pub fn changes_encryption(&self) -> bool {
        matches!(
            self.operation.as_str(),
            "StartDeliveryStreamEncryption"
                | "StopDeliveryStreamEncryption"
                | "StartStreamEncryption"
                | "StopStreamEncryption"
        )
    }
}

/// The caller, as in `CloudTrail`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Principal {
    /// The access key id of the signature; empty for unsigned requests.
    pub access_key: String,
    /// The ARN of the user or of the role session.
    pub arn: String,
    /// The session, for credentials of `AssumeRole`.
    pub session: Option<Session>,
}

/// A session of a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Session {
    /// The role's ARN.
    pub role: String,
    /// `RoleSessionName`.
    pub name: String,
    /// `ExternalId` of the `AssumeRole` request.
    pub external_id: Option<String>,
    /// Session tags, as `Key=Value`.
    pub tags: Vec<String>,
    /// The time at which the credentials were issued.
    pub issued: Timestamp,
    /// The time at which the credentials expire.
    pub expires: Timestamp,
}

/// Counts over a log.
pub trait Calls {
    /// Returns the number of requests with this operation and target.
    fn count(&self, operation: &str, target: &str) -> usize;
}

impl Calls for [Call] {
    fn count(&self, operation: &str, target: &str) -> usize {
        self.iter().filter(|call| call.operation == operation && call.target == target).count()
    }
}
