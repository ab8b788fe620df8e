//! A role's credentials, by `AssumeRole`
//! ([AssumeRole](https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html)), in a session that says which
//! resource it is for.
//!
//! The operator's own credentials assume the role, through STS in the operator's own region. The SDK's `AssumeRoleProvider`
//! does not do: it has an STS client for each role, asks for the operator's own credentials anew each time, and knows no
//! pace. The external id goes into the request and nowhere else; this file keeps nothing.

use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_sdk_sts::Client;
use aws_sdk_sts::config::Builder;
use aws_sdk_sts::operation::assume_role::AssumeRoleOutput;
use aws_sdk_sts::types::Tag;
use sha2::{Digest, Sha256};

use super::credentials::{Own, Session};
use super::faults::{fault, no_session, not_sent, not_signed, unreadable};
use super::pacing::{Quota, Turn};
use super::requests::{DEADLINE, Requests};
use super::signable::unsignable;
use crate::model::credentials::Missing;
use crate::model::fault::{Class, Fault, Operation};
use crate::model::principal::{Principal, Role, SESSION_TAGS};
use crate::model::stream::Region;

const OPERATION: Operation = Operation::AssumeRole;
/// How long a session lasts. A role that is assumed from a role gets no longer one
/// ([role chaining](https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles.html#iam-term-role-chaining)), and no role
/// allows less.
pub(super) const LASTS: Duration = Duration::from_hours(1);
/// The longest `RoleSessionName`.
const LONGEST_NAME: usize = 64;
/// The longest value of a session tag
/// ([session tags](https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html)).
const LONGEST_TAG: usize = 256;

/// Assumes roles.
pub(super) struct Assume {
    client: Client,
    requests: Requests,
    own: Arc<Own>,
    quota: Quota,
}

impl Assume {
    /// Roles assumed with the credentials of `own`, at the endpoint of STS that `config` names, in `region`.
    pub(super) fn new(config: &SdkConfig, region: Region, requests: Requests, own: Arc<Own>) -> Self {
        // AWS counts these of the account that asks, whichever account the role is of.
        let quota = Quota { operation: OPERATION, account: None, region };
        Self { client: Client::new(config), requests, own, quota }
    }

    /// Credentials of `role` in a new session for `by`.
    pub(super) async fn credentials(
        &self,
        role: &Role,
        by: &Principal,
        turn: &Turn,
    ) -> Result<Credentials, Fault> {
        let request = self
            .client
            .assume_role()
            .role_arn(role.arn.to_string())
            .set_external_id(role.external_id.as_ref().map(|id| id.as_str().to_owned()))
            .role_session_name(session_name(by))
            .set_tags(Some(tags(by)?))
            .duration_seconds(i32::try_from(LASTS.as_secs()).unwrap_or(i32::MAX));
        let send_as = async |own: Session| {
            let overrides = Builder::default().credentials_provider(own.credentials);
            let request = request.clone().customize().config_override(overrides);
            request.send().await.map_err(|error| fault(OPERATION, &error))
        };
        let send = async || {
            let own = self.own.session(DEADLINE).await.map_err(|error| no_session(OPERATION, &error))?;
            let outcome = send_as(own.clone()).await;
            if outcome.as_ref().is_err_and(Fault::rejects_the_session) && self.own.rejected(&own).await {
                let other =
                    self.own.session(DEADLINE).await.map_err(|error| no_session(OPERATION, &error))?;
                if !other.is_same(&own) {
                    return send_as(other).await;
                }
            }
            outcome
        };
        credentials(self.requests.read(&self.quota, turn, send).await?)
    }
}

fn credentials(answer: AssumeRoleOutput) -> Result<Credentials, Fault> {
    let given = answer.credentials.ok_or_else(|| unreadable(OPERATION, "Credentials"))?;
    let expiry = given.expiration.try_into().map_err(|_| unreadable(OPERATION, "Expiration"))?;
    let token = Some(given.session_token);
    let credentials =
        Credentials::new(given.access_key_id, given.secret_access_key, token, Some(expiry), "AssumeRole");
    match unsignable(&credentials) {
        Some(cause) => Err(not_signed(OPERATION, Missing::Unsignable, &cause)),
        None => Ok(credentials),
    }
}

fn tags(by: &Principal) -> Result<Vec<Tag>, Fault> {
    let values = [&by.namespace, &by.resource];
    let tags = SESSION_TAGS
        .iter()
        .zip(values)
        .map(|(&key, value)| Tag::builder().key(key).value(fitted(value, LONGEST_TAG)).build());
    tags.collect::<Result<_, _>>()
        .map_err(|error| not_sent(OPERATION, Class::Invalid, "UnreadableTag", &error.to_string()))
}

/// `NAMESPACE.RESOURCE`: a namespace's name has no dot, so the first one parts the two.
fn session_name(by: &Principal) -> String {
    fitted(&format!("{}.{}", by.namespace, by.resource), LONGEST_NAME)
}

/// `text`, if it is like a name of Kubernetes and not too long; else its beginning and a hash of all of it. No name of
/// Kubernetes has a plus sign, so what is cut never equals what is not.
fn fitted(text: &str, longest: usize) -> String {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
    if text.len() <= longest && text.chars().all(is_plain) {
        return text.to_owned();
    }
    let digest = Sha256::digest(text.as_bytes());
    let nibbles = digest[..10].iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let hash: String = nibbles.filter_map(|nibble| char::from_digit(u32::from(nibble), 16)).collect();
    let start = text.chars().map(|c| if is_plain(c) { c } else { '-' }).take(longest - hash.len() - 1);
    start.chain(['+']).chain(hash.chars()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    fn of(namespace: &str, resource: &str) -> Principal {
        Principal { role: None, namespace: namespace.to_owned(), resource: resource.to_owned() }
    }

    #[test]
    fn a_session_is_named_after_its_resource() {
        assert_eq!(session_name(&of("data", "orders.eu")), "data.orders.eu");
        let longest = "a".repeat(59);
        assert_eq!(session_name(&of("data", &longest)), format!("data.{longest}"));
    }

    #[test]
    fn two_resources_with_long_names_share_no_name_and_no_tag() {
        let long = |last: char| format!("{}{last}", "a".repeat(252));
        let names = ['a', 'b', 'c'].map(|last| session_name(&of("data", &long(last))));
        for name in &names {
            assert!(name.starts_with("data.aaaa") && name.len() == LONGEST_NAME, "{name}");
        }
        // Nor does one whose name was chosen to look like another one that was cut.
        let forged = session_name(&of("data", names[0].strip_prefix("data.").unwrap()));
        assert_eq!(names.iter().chain([&forged]).collect::<BTreeSet<_>>().len(), 4);
        assert_eq!(fitted(&long('a'), LONGEST_TAG), long('a'));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn sts_takes_every_name_and_every_tag(
            namespace in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", resource in "\\PC{0,300}|[a-z0-9.-]{1,253}",
        ) {
            let name = session_name(&of(&namespace, &resource));
            prop_assert!(Regex::new(r"^[A-Za-z0-9_+=,.@-]{2,64}$").unwrap().is_match(&name), "{}", name);
            let tag = fitted(&resource, LONGEST_TAG);
            prop_assert!(Regex::new(r"^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$").unwrap().is_match(&tag), "{}", tag);
            prop_assert!(tag.chars().count() <= 256, "{}", tag);
        }
    }
}
