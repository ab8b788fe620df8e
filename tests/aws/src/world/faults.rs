//! Faults: what goes wrong, for which calls, and how often.
//!
//! Pure bookkeeping. It decides which fault a call meets; `World` acts on it.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::request::{AwsError, Request, Service};
use super::stream::FailureType;

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
pub enum Fault {
    /// The call is refused with this error and not executed.
    Refuse {
        /// The error code.
        code: String,
        /// The text.
        #[serde(default)]
        message: String,
        /// The HTTP status, 400 unless told.
        #[serde(default = "bad_request")]
        status: u16,
    },
    /// The call is refused with `AccessDeniedException`, as a missing IAM permission would.
    AccessDenied,
    /// The call is refused as too fast, in the service's own words.
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
    /// The request is lost: the connection is closed, nothing is executed.
    LoseRequest,
    /// The reply is lost: the call is executed, then the connection is closed.
    LoseReply,
    /// The connection is closed at once and the call is executed this much later, at the first call or look after that time.
    /// AWS takes a signed request for 15 minutes: dated, it is refused after a longer delay, as at AWS.
    Late {
        /// How much later.
        by: SignedDuration,
    },
    /// The call is executed; its reply is held back until it is released.
    Hold,
    /// The call is executed; its reply comes this much later.
    Slow {
        /// How much later.
        by: SignedDuration,
    },
    /// A Start or Stop answers OK and does nothing. It counts to the limit.
    NoOp,
    /// A Start or Stop is accepted, and ends in `ENABLING_FAILED` or `DISABLING_FAILED` with this type (Kinesis: back to the old key).
    FailsLater {
        /// The type in `FailureDescription`.
        failure: FailureType,
    },
    /// A Start or Stop is accepted and takes this long instead of what the settings say.
    Takes {
        /// How long.
        time: SignedDuration,
    },
    /// A Start or Stop is accepted and never ends.
    Stuck,
    /// A Describe shows the stream as it was this long ago.
    ReadLag {
        /// How long ago.
        by: SignedDuration,
    },
}

fn bad_request() -> u16 {
    400
}

/// Which calls meet a fault. What is absent matches everything; the first rule that matches wins.
/// Text matches as a whole, or with `*` for any text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Only this service.
    #[serde(default)]
    pub service: Option<Service>,
    /// Only this operation, `StartDeliveryStreamEncryption` or `Start*`.
    #[serde(default)]
    pub operation: Option<String>,
    /// Only this stream's name, or key or alias as the call names it, or role ARN.
    #[serde(default)]
    pub target: Option<String>,
    /// Only calls that ask for this key (as given; `AWS_OWNED_CMK`).
    #[serde(default)]
    pub key: Option<String>,
    /// Only this access key id or principal ARN.
    #[serde(default)]
    pub principal: Option<String>,
    /// Let this many matching calls pass first.
    #[serde(default)]
    pub skip: u32,
    /// For this many calls; absent: until cleared.
    #[serde(default)]
    pub times: Option<u32>,
    /// What goes wrong.
    pub fault: Fault,
}

impl Rule {
    /// Every call, until cleared.
    #[must_use]
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

    /// The next call.
    #[must_use]
    pub fn once(fault: Fault) -> Rule {
        Rule { times: Some(1), ..Rule::always(fault) }
    }

    /// Only this operation.
    #[must_use]
    pub fn on(self, operation: &str) -> Rule {
        Rule { operation: Some(operation.to_owned()), ..self }
    }

    /// Only this stream, key, alias or role.
    #[must_use]
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

/// The rules in force, in the order in which they were scripted.
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

    /// The fault that this call meets; a rule that has done its number of calls is gone.
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

/// How each service says "too fast".
pub(crate) fn throttled(service: Service, account: &str) -> AwsError {
    match service {
        // Kinesis has one code for its rate, its quotas and its 25 calls; one of a stream names the stream.
        Service::Kinesis => {
            AwsError::new("LimitExceededException", format!("Rate exceeded for account {account}."))
        }
        Service::Firehose => AwsError::new("ThrottlingException", "Rate exceeded"),
        Service::Kms => AwsError::new(
            "ThrottlingException",
            "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.",
        ),
        Service::Sts => AwsError::new("Throttling", "Rate exceeded"),
    }
}
