//! The log of every call: what was asked, by whom, when, and what became of it.
//!
//! It only records. Nothing in the simulation reads it to decide something; tests do.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;

use super::request::Service;
use super::stream::later;

/// One call, in the order of arrival.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Call {
    /// Its number, from 1.
    pub id: u64,
    /// When AWS got it.
    pub time: Timestamp,
    /// The service.
    pub service: Service,
    /// The operation.
    pub operation: String,
    /// The stream's name, the key or alias as given, or the role; empty: none.
    pub target: String,
    /// The caller's account.
    pub account: String,
    /// The region of the signature.
    pub region: String,
    /// Who called.
    pub principal: Principal,
    /// The key that was asked for, as given.
    pub key: Option<String>,
    /// `OK` or the error code.
    pub outcome: String,
    /// Whether the call passed the checks and did what it should (false also for a call that answers OK and does nothing).
    pub executed: bool,
    /// Whether it counts to a stream's limit of calls in 24 hours.
    pub counted: bool,
    /// Whether an answer was sent: at once or later. False: the connection was closed.
    pub answered: bool,
    /// The fault that it met, by name.
    pub fault: Option<String>,
    /// The records of a `PutRecord`, `PutRecordBatch` or `PutRecords`, as in the request: base64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Value>,
}

impl Call {
    /// Whether it is a Start or Stop of encryption: what AWS limits to 25 in 24 hours.
    #[must_use]
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

/// Who called, as `CloudTrail` would say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Principal {
    /// The access key id of the signature; empty for unsigned calls.
    pub access_key: String,
    /// The ARN of the user or of the role's session.
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
    /// `ExternalId` of the `AssumeRole` call.
    pub external_id: Option<String>,
    /// Session tags, as `Key=Value`.
    pub tags: Vec<String>,
    /// When the credentials were issued.
    pub issued: Timestamp,
    /// When they expire.
    pub expires: Timestamp,
}

/// Counts over a log.
pub trait Calls {
    /// How many calls of this operation were aimed at this target.
    fn count(&self, operation: &str, target: &str) -> usize;
    /// Starts and Stops of this stream that arrived in `(end - window, end]`.
    fn changes_in_window(&self, stream: &str, end: Timestamp, window: SignedDuration) -> usize;
    /// The most Starts and Stops of this stream that arrived in any such window.
    fn busiest_window(&self, stream: &str, window: SignedDuration) -> usize;
}

impl Calls for [Call] {
    fn count(&self, operation: &str, target: &str) -> usize {
        self.iter().filter(|call| call.operation == operation && call.target == target).count()
    }

    fn changes_in_window(&self, stream: &str, end: Timestamp, window: SignedDuration) -> usize {
        let start = later(end, -window);
        self.iter()
            .filter(|call| {
                call.changes_encryption() && call.target == stream && call.time > start && call.time <= end
            })
            .count()
    }

    fn busiest_window(&self, stream: &str, window: SignedDuration) -> usize {
        self.iter()
            .filter(|call| call.changes_encryption() && call.target == stream)
            .map(|call| self.changes_in_window(stream, call.time, window))
            .max()
            .unwrap_or(0)
    }
}
