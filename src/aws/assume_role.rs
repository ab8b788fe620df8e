//! Credentials of a role, by `AssumeRole`
//! ([AssumeRole](https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html)), in a session that
//! names the resource that it serves.
//!
//! The role is assumed with the operator's own credentials, through STS in the operator's own region. The
//! SDK's `AssumeRoleProvider` is not suitable: it has an STS client for each role, requests the operator's
//! own credentials again each time, and has no rate limit. The external id is used in the request only; this
//! file caches nothing.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_sdk_sts::Client;
use aws_sdk_sts::config::Builder;
use aws_sdk_sts::operation::assume_role::AssumeRoleOutput;
use aws_sdk_sts::types::Tag;
use sha2::{Digest, Sha256};
use stream_encryption_core::model::arn::Region;
use stream_encryption_core::model::aws_error::{AwsError, ErrorKind};
use stream_encryption_core::model::credentials::CredentialsProblem;
use stream_encryption_core::model::principal::{Principal, Role, SESSION_TAGS};
use stream_encryption_core::model::service::Operation;
use tracing::warn;

use super::cached_credentials::Session;
use super::credentials::BaseCredentials;
use super::error::{aws_error, invalid_response, no_session, not_sent, not_signed};
use super::rate_limit::{QueueKey, QuotaScope};
use super::request_sender::{DEADLINE, RequestSender};
use super::signable::unsignable;

const OPERATION: Operation = Operation::AssumeRole;
/// Duration of a session: the maximum for a role that is assumed from a role
/// ([role chaining](https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles.html#iam-term-role-chaining)),
/// and a duration that every role allows.
pub(super) const SESSION_DURATION: Duration = Duration::from_hours(1);
/// Maximum length of `RoleSessionName`.
const LONGEST_NAME: usize = 64;
/// Maximum length of the value of a session tag
/// ([session tags](https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html)).
const LONGEST_TAG: usize = 256;

/// Assumes roles.
pub(super) struct RoleAssumer {
    client: Client,
    sender: RequestSender,
    base: BaseCredentials,
    quota: QuotaScope,
}

impl RoleAssumer {
    /// Creates an instance that assumes roles with the credentials of `base`, the operator's own, at the STS
    /// endpoint of `config`, in `region`.
    pub(super) fn new(
        config: &SdkConfig,
        region: Region,
        sender: RequestSender,
        base: BaseCredentials,
    ) -> Self {
        // AWS counts these requests against the caller's account, regardless of the role's account.
        let quota = QuotaScope { operation: OPERATION, account: None, region };
        Self { client: Client::new(config), sender, base, quota }
    }

    /// Returns credentials of `role` in a new session for `principal`.
    ///
    /// EKS Pod Identity gives the operator's own session six tags, which STS counts together with these. If all of them are
    /// too large, the tag of the resource is left out. The tag of the namespace is not: policies may depend on it.
    pub(super) async fn credentials(
        &self,
        role: &Role,
        principal: &Principal,
        queue_key: &QueueKey,
    ) -> Result<Credentials, AwsError> {
        let mut tags = tags(principal)?;
        let assumed = self.assume(role, principal, queue_key, tags.clone()).await;
        if !assumed.as_ref().is_err_and(|error| error.code.as_deref() == Some("PackedPolicyTooLarge")) {
            return assumed;
        }
        tags.truncate(1);
        // About once an hour for a resource: the session is cached.
        warn!(
            namespace = principal.namespace,
            name = principal.resource,
            role = role.arn.to_string(),
            "session tags are too large, leaving out the tag of the resource"
        );
        self.assume(role, principal, queue_key, tags).await
    }

    /// Requests credentials of `role` in a session with these tags.
    async fn assume(
        &self,
        role: &Role,
        principal: &Principal,
        queue_key: &QueueKey,
        tags: Vec<Tag>,
    ) -> Result<Credentials, AwsError> {
        let request = self
            .client
            .assume_role()
            .role_arn(role.arn.to_string())
            .set_external_id(role.external_id.as_ref().map(|id| id.as_str().to_owned()))
            .role_session_name(session_name(principal))
            .set_tags(Some(tags))
            .duration_seconds(i32::try_from(SESSION_DURATION.as_secs()).unwrap_or(i32::MAX));
        let send_as = async |base: Session| {
            let overrides = Builder::default().credentials_provider(base.credentials);
            let request = request.clone().customize().config_override(overrides);
            request.send().await.map_err(|error| aws_error(OPERATION, &error))
        };
        let send = async || {
            let base = self.base.session(DEADLINE).await.map_err(|error| no_session(OPERATION, &error))?;
            let outcome = send_as(base.clone()).await;
            if outcome.as_ref().err().is_none_or(AwsError::is_of_accepted_session) {
                self.base.mark_accepted(&base);
            }
            if let Err(error) = &outcome
                && error.may_succeed_with_new_session()
                && self.base.mark_rejected(&base, error.is_denied_by_own_policy())
            {
                let other =
                    self.base.session(DEADLINE).await.map_err(|error| no_session(OPERATION, &error))?;
                if !other.is_same(&base) {
                    return send_as(other).await;
                }
            }
            outcome
        };
        // Requests that wait for a source of credentials must not hold permits: they would be sent all at once.
        self.base.renew_ahead(DEADLINE).await;
        self.base.session(DEADLINE).await.map_err(|error| no_session(OPERATION, &error))?;
        credentials(self.sender.read(&self.quota, queue_key, send).await?)
    }
}

fn credentials(answer: AssumeRoleOutput) -> Result<Credentials, AwsError> {
    let given = answer.credentials.ok_or_else(|| invalid_response(OPERATION, "Credentials"))?;
    let expiry = given.expiration.try_into().map_err(|_| invalid_response(OPERATION, "Expiration"))?;
    let token = Some(given.session_token);
    let credentials =
        Credentials::new(given.access_key_id, given.secret_access_key, token, Some(expiry), "AssumeRole");
    match unsignable(&credentials) {
        Some(cause) => Err(not_signed(OPERATION, CredentialsProblem::Unsignable, &cause)),
        None => Ok(credentials),
    }
}

/// Returns the tags of a session: that of the namespace, then that of the resource.
fn tags(principal: &Principal) -> Result<Vec<Tag>, AwsError> {
    let values = [&principal.namespace, &principal.resource];
    let tags = SESSION_TAGS
        .iter()
        .zip(values)
        .map(|(&key, value)| Tag::builder().key(key).value(sanitize(value, LONGEST_TAG)).build());
    tags.collect::<Result<_, _>>()
        .map_err(|error| not_sent(OPERATION, ErrorKind::Invalid, "InvalidTag", &error.to_string()))
}

/// Returns `NAMESPACE.RESOURCE`. The name of a namespace has no dot, so the first dot separates the two.
fn session_name(principal: &Principal) -> String {
    sanitize(&format!("{}.{}", principal.namespace, principal.resource), LONGEST_NAME)
}

/// Returns `text` if it has only the characters of Kubernetes names and is not too long; otherwise its
/// beginning and a hash of the whole text. No name in Kubernetes has a plus sign, so a shortened text never
/// equals a complete one.
fn sanitize(text: &str, longest: usize) -> String {
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
    fn session_is_named_after_its_resource() {
        assert_eq!(session_name(&of("data", "orders.eu")), "data.orders.eu");
        let longest = "a".repeat(59);
        assert_eq!(session_name(&of("data", &longest)), format!("data.{longest}"));
    }

    #[test]
    fn long_resource_names_share_no_session_name_or_tag() {
        let long = |last: char| format!("{}{last}", "a".repeat(252));
        let names = ['a', 'b', 'c'].map(|last| session_name(&of("data", &long(last))));
        for name in &names {
            assert!(name.starts_with("data.aaaa") && name.len() == LONGEST_NAME, "{name}");
        }
        // A resource whose name was chosen to resemble a shortened one has a session name of its own, too.
        let forged = session_name(&of("data", names[0].strip_prefix("data.").unwrap()));
        assert_eq!(names.iter().chain([&forged]).collect::<BTreeSet<_>>().len(), 4);
        assert_eq!(sanitize(&long('a'), LONGEST_TAG), long('a'));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn session_names_and_tags_are_valid_for_sts(
            namespace in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", resource in "\\PC{0,300}|[a-z0-9.-]{1,253}",
        ) {
            let name = session_name(&of(&namespace, &resource));
            prop_assert!(Regex::new(r"^[A-Za-z0-9_+=,.@-]{2,64}$").unwrap().is_match(&name), "{}", name);
            let tag = sanitize(&resource, LONGEST_TAG);
            prop_assert!(Regex::new(r"^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$").unwrap().is_match(&tag), "{}", tag);
            prop_assert!(tag.chars().count() <= 256, "{}", tag);
        }
    }
}
