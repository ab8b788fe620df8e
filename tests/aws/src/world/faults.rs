//! Faults: their kind, the requests that they affect, and how often.
//!
//! Pure bookkeeping. This module selects the fault for a request; `World` acts on it.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::limits::per_second;
use super::request::{AwsError, Request, Service};
use super::stream::FailureType;

/// The kind of a fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
pub enum Fault {
    /// The request is refused with this error and not executed.
    Refuse {
        /// The error code.
        code: String,
        #[serde(default)]
        message: String,
        /// The HTTP status; 400 by default.
        #[serde(default = "bad_request")]
        status: u16,
    },
    /// The request is refused with `AccessDeniedException`, as for a missing IAM permission.
    AccessDenied,
    /// The request is refused with `AccessDeniedException`, as for a session whose policy lacks the permission.
    DeniedBySessionPolicy,
    /// The credentials are refused, as for an access key that AWS does not know.
    InvalidToken,
    /// The request is throttled, with the service's own error.
    Throttle,
    /// HTTP 5xx, not executed.
    ServerError {
        /// 500, 502, 503 or 504.
        status: u16,
    },
    /// HTTP 5xx, but executed.
    ServerErrorAfterwards {
        /// 500, 502, 503 or 504.
        status: u16,
    },
    /// The request is lost: the connection is closed and nothing is executed.
    LoseRequest,
    /// The reply is lost: the request is executed, then the connection is closed.
    LoseReply,
    /// The connection is closed at once, and the request is executed after this delay, by the first request
    /// or read of the state after that time. As on AWS, a signed request with a date is refused if the delay
    /// is longer than 15 minutes.
    Late {
        /// The delay.
        by: SignedDuration,
    },
    /// The request is executed; its reply is held back until it is released.
    Hold,
    /// The request is executed; its reply is delayed.
    Slow {
        /// The delay.
        by: SignedDuration,
    },
    /// A Start or Stop returns OK and has no effect. It counts towards the limit.
    NoOp,
    /// A Start or Stop is accepted, and ends in `ENABLING_FAILED` or `DISABLING_FAILED` with this type. A
    /// Kinesis stream returns to the old key.
    FailsLater {
        /// The type in `FailureDescription`.
        failure: FailureType,
    },
    /// A Start or Stop is accepted and takes this long instead of the duration in the settings.
    Takes { time: SignedDuration },
    /// A Start or Stop is accepted and never completes.
    Stuck,
    /// A Describe returns an earlier state of the stream.
    ReadLag {
        /// The age of that state; at least the `read_lag` of the settings.
        by: SignedDuration,
    },
}

fn bad_request() -> u16 {
    400
}

/// The requests that a fault affects. An absent field matches everything; the first rule that matches is
/// used. Text must match completely; `*` matches any text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Only this service.
    #[serde(default)]
    pub service: Option<Service>,
    /// Only this operation, `StartDeliveryStreamEncryption` or `Start*`.
    #[serde(default)]
    pub operation: Option<String>,
    /// Only this stream name, key or alias as the request gives it, or role ARN.
    #[serde(default)]
    pub target: Option<String>,
    /// Only requests for this key (as given; `AWS_OWNED_CMK`).
    #[serde(default)]
    pub key: Option<String>,
    /// Only this access key id or principal ARN.
    #[serde(default)]
    pub principal: Option<String>,
    /// The number of matching requests that pass first.
    #[serde(default)]
    pub skip: u32,
    /// The number of requests that are affected; absent: until cleared.
    #[serde(default)]
    pub times: Option<u32>,
    pub fault: Fault,
}

impl Rule {
    /// Affects every request until cleared.
    pub fn always(fault: Fault) -> Rule {
        Rule {
            service: None,
            operation: None,
            target: None,
            key: None,
            principal: None,
            skip: 0,
            times: None,
            fault,
        }
    }

    /// Affects the next request.
    pub fn once(fault: Fault) -> Rule {
        Rule { times: Some(1), ..Rule::always(fault) }
    }

    /// Restricts the rule to this operation.
    pub fn on(self, operation: &str) -> Rule {
        Rule { operation: Some(operation.to_owned()), ..self }
    }

    /// Restricts the rule to this stream, key, alias or role.
    pub fn of(self, target: &str) -> Rule {
        Rule { target: Some(target.to_owned()), ..self }
    }

    fn matches(&self, request: &Request, access_key: &str, principal_arn: &str) -> bool {
        let fits = |pattern: &Option<String>, text: &str| {
            pattern.as_ref().is_none_or(|pattern| super::policy::matches(pattern, text))
        };
        self.service.is_none_or(|service| service == request.service)
            && fits(&self.operation, &request.operation)
            && fits(&self.target, request.target())
            && fits(&self.key, request.key().unwrap_or_default())
            && (fits(&self.principal, access_key) || fits(&self.principal, principal_arn))
    }
}

/// The active rules, in the order in which they were scripted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    rules: Vec<(u64, Rule)>,
    scripted: u64,
}

impl Faults {
    pub(crate) fn add(&mut self, rule: Rule) -> u64 {
        self.scripted += 1;
        self.rules.push((self.scripted, rule));
        self.scripted
    }

    pub(crate) fn remove(&mut self, number: u64) -> bool {
        let before = self.rules.len();
        self.rules.retain(|(n, _)| *n != number);
        self.rules.len() < before
    }

    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    pub(crate) fn rules(&self) -> &[(u64, Rule)] {
        &self.rules
    }

    /// Returns the fault that affects this request. A rule that has affected its number of requests is
    /// removed.
    pub(crate) fn meet(&mut self, request: &Request, access_key: &str, principal_arn: &str) -> Option<Fault> {
        let at = self.rules.iter_mut().position(|(_, rule)| {
            let matches = rule.matches(request, access_key, principal_arn);
            if matches && rule.skip > 0 {
                rule.skip -= 1;
                return false;
            }
            matches && rule.times != Some(0)
        })?;
        let (_, rule) = &mut self.rules[at];
        let fault = rule.fault.clone();
        if let Some(times) = &mut rule.times {
            *times -= 1;
            if *times == 0 {
                self.rules.remove(at);
            }
        }
        Some(fault)
    }
}

pub(crate) fn throttled(service: Service, account: &str) -> AwsError {
    match service {
        // Kinesis uses one code for its request rate, its quotas and its 25 calls; an error for a stream
        // names the stream.
        Service::Kinesis => {
            AwsError::new("LimitExceededException", format!("Rate exceeded for account {account}."))
        }
        Service::Firehose => AwsError::new("ThrottlingException", "Rate exceeded"),
        Service::Kms => AwsError::new(
            "ThrottlingException",
            "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.",
        ),
        Service::Sts => AwsError::new("Throttling", "Rate exceeded"),
        Service::Sqs => AwsError { status: 403, ..AwsError::new("RequestThrottled", "Rate exceeded") },
    }
}

/// Returns each service's error for credentials that AWS does not know.
pub(crate) fn invalid_token(service: Service) -> AwsError {
    let message = "The security token included in the request is invalid.";
    match service {
        Service::Kinesis => AwsError::new("UnrecognizedClientException", message.trim_end_matches('.')),
        Service::Firehose | Service::Kms => AwsError::new("UnrecognizedClientException", message),
        Service::Sts | Service::Sqs => {
            AwsError { status: 403, ..AwsError::new("InvalidClientTokenId", message) }
        }
    }
}

/// Returns the error for more requests in a second than AWS accepts for the operation.
pub(crate) fn too_many_a_second(service: Service, operation: &str, account: &str) -> AwsError {
    match (service, per_second(service, operation)) {
        // The message ends there, without a name.
        (Service::Firehose, Some(most)) => AwsError::new(
            "ThrottlingException",
            format!("Please slow down. Max limit of {most} RPS has breached for "),
        ),
        _ => throttled(service, account),
    }
}
