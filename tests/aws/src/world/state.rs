//! The state of the simulated AWS, and the context of one request.
//!
//! Plain data for the modules of the services. It must never decide an answer.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::key::Keys;
use super::limits::{Changes, Rates};
use super::log::Principal;
use super::log::Session;
use super::queue::Queues;
use super::request::{AwsError, Caller, Request, Service};
use super::settings::Settings;
use super::stream::{End, FailureType, Streams, later};

/// A role to plant. Any caller can assume a role that is not planted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlantedRole {
    /// The role's ARN.
    pub arn: String,
    /// The `sts:ExternalId` that its trust policy requires.
    pub external_id: Option<String>,
    /// The access key ids or principal ARNs that it trusts; empty: all.
    pub trusts: Vec<String>,
    /// The maximum session duration (`MaxSessionDuration`); one hour by default.
    pub max_session: Option<SignedDuration>,
}

/// The complete state.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) streams: Streams,
    pub(crate) keys: Keys,
    pub(crate) queues: Queues,
    pub(crate) sessions: BTreeMap<String, Session>,
    pub(crate) roles: BTreeMap<String, PlantedRole>,
    pub(crate) rates: Rates,
    pub(crate) changes: Changes,
    /// Counter for record ids and session keys.
    pub(crate) made: u64,
}

impl State {
    /// Returns the principal of an access key.
    pub(crate) fn principal(&self, caller: &Caller) -> Principal {
        let session = self.sessions.get(&caller.access_key).cloned();
        let arn = match &session {
            Some(session) => session_arn(session),
            None => format!("arn:aws:iam::{}:user/{}", self.account(caller), caller.access_key),
        };
        Principal { access_key: caller.access_key.clone(), arn, session }
    }

    /// Returns the account of an access key.
    pub(crate) fn account(&self, caller: &Caller) -> String {
        let of_session =
            self.sessions.get(&caller.access_key).and_then(|s| s.role.split(':').nth(4)).map(str::to_owned);
        of_session
            .or_else(|| self.settings.accounts.get(&caller.access_key).cloned())
            .unwrap_or_else(|| self.settings.account.clone())
    }

    /// Returns whether AWS has this account: it has made a request, or one of its resources was planted.
    pub(crate) fn has_account(&self, account: &str) -> bool {
        *account == self.settings.account
            || self.settings.accounts.values().any(|known| known == account)
            || self.streams.keys().any(|stream| stream.account == account)
            || self.keys.all().any(|key| key.account == account)
            || self.roles.keys().any(|role| role.split(':').nth(4) == Some(account))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.made += 1;
        self.made
    }
}

/// Returns `arn:aws:sts::account:assumed-role/role/session`.
pub(crate) fn session_arn(session: &Session) -> String {
    let account = session.role.split(':').nth(4).unwrap_or_default();
    let role = session.role.rsplit('/').next().unwrap_or_default();
    format!("arn:aws:sts::{account}:assumed-role/{role}/{}", session.name)
}

/// The context of one request.
#[derive(Clone, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) now: Timestamp,
    pub(crate) principal: Principal,
    pub(crate) account: String,
    pub(crate) region: String,
    pub(crate) request: &'a Request,
    /// A Start or Stop has no effect.
    pub(crate) no_op: bool,
    /// A Start or Stop fails at its end.
    pub(crate) fails: Option<FailureType>,
    /// Duration of a Start or Stop.
    pub(crate) takes: Option<SignedDuration>,
    /// A Start or Stop never completes.
    pub(crate) stuck: bool,
    /// A Describe returns a state of this age.
    pub(crate) lag: SignedDuration,
    /// Set when the request counts towards a stream's limit.
    pub(crate) counted: bool,
}

impl Context<'_> {
    /// Returns the names by which a key policy can refer to the caller.
    pub(crate) fn names(&self) -> Vec<String> {
        let role = self.principal.session.as_ref().map(|session| session.role.clone());
        std::iter::once(self.principal.arn.clone()).chain(role).collect()
    }

    /// Returns the time of the state that a Describe shows.
    pub(crate) fn seen(&self) -> Timestamp {
        later(self.now, -self.lag)
    }

    /// Returns how a change ends, given the failure that prevents it, if any.
    pub(crate) fn end(&self, usual: SignedDuration, against: Option<FailureType>) -> End {
        let after = self.takes.unwrap_or(usual);
        match self.fails.or(against) {
            _ if self.stuck => End::Never,
            Some(failure) => End::Fails { after, failure },
            None => End::Succeeds { after },
        }
    }

    /// Returns IAM's error when no policy of this kind (`identity-based`, `session`) allows the request.
    pub(crate) fn access_denied(&self, policy: &str) -> AwsError {
        let action = format!("{}:{}", self.request.service, self.request.operation);
        let code =
            if self.request.service == Service::Sts { "AccessDenied" } else { "AccessDeniedException" };
        let message = format!(
            "User: {} is not authorized to perform: {action} on resource: {} because no {policy} policy allows the {action} action",
            self.principal.arn,
            self.resource(),
        );
        let mut error = AwsError::new(code, message);
        if matches!(self.request.service, Service::Sts | Service::Sqs) {
            error.status = 403;
        }
        error
    }

    /// Returns the ARN of the request's target, whether it exists or not; `*` for a request without a target.
    fn resource(&self) -> String {
        if let Some(arn) = self.request.body.get("StreamARN").and_then(Value::as_str) {
            return arn.to_owned();
        }
        let (service, target) = (self.request.service, self.request.target());
        let kind = match service {
            _ if target.is_empty() => return "*".to_owned(),
            Service::Kms | Service::Sts if target.starts_with("arn:") => return target.to_owned(),
            Service::Kms if target.starts_with("alias/") => "",
            Service::Sqs => "",
            Service::Kms => "key/",
            Service::Sts => "role/",
            Service::Firehose => "deliverystream/",
            Service::Kinesis => "stream/",
        };
        format!("arn:aws:{service}:{}:{}:{kind}{target}", self.region, self.account)
    }
}
