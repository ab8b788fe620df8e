//! Policies about roles: the trust policy of the operator's role; and hub and spoke, where the operator has a
//! role in one account (the hub) and assumes a role in each account that has streams (a spoke).
//!
//! The permissions of these roles on streams and keys are not defined here. A role's trust policy never names
//! an account or all principals, only one role, service or service account.

use std::str::FromStr;

use stream_encryption_core::model::arn::{Account, Arn, Partition, RoleArn, is_name};
use stream_encryption_core::model::object::is_dns_subdomain;
use stream_encryption_core::model::principal::ExternalId;

use super::document::{DocumentPrincipal, PolicyDocument, Statement};

/// The action that assumes a role.
const ASSUME_ROLE: &str = "sts:AssumeRole";
/// The action that tags the session. Without it AWS refuses a request for a session with tags.
const TAG_SESSION: &str = "sts:TagSession";

/// The ARN of a cluster's OIDC provider: `arn:aws:iam::ACCOUNT:oidc-provider/HOST/id/ID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OidcProvider {
    text: String,
    issuer: String,
}

/// The Kubernetes name of a namespace or of a service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName(String);

/// The error of an invalid text. Its message states what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoleParseError {
    /// Not an OIDC provider.
    #[error(
        "invalid OIDC provider {0:?}: expected arn:aws:iam::ACCOUNT:oidc-provider/oidc.eks.REGION.amazonaws.com/id/ID, as `aws iam list-open-id-connect-providers` shows it"
    )]
    OidcProvider(String),
    /// Not the name of an object.
    #[error(
        "invalid name of a namespace or service account {0:?}: expected 1 to 253 of the characters a-z 0-9 . -, starting and ending with a letter or digit"
    )]
    ObjectName(String),
}

/// Returns the policy of the operator's role in the hub, which allows it to assume the roles of the spokes.
#[must_use]
pub fn hub(spokes: &[RoleArn]) -> PolicyDocument {
    let statement = Statement::allow("AssumeSpokeRoles", [ASSUME_ROLE, TAG_SESSION]);
    PolicyDocument::of(vec![statement.on(spokes.iter().collect())])
}

/// Returns the trust policy of a spoke's role. It has two statements, as in AWS's own example: the external
/// ID belongs to the request for the role, and is not among the condition keys of `sts:TagSession`.
/// `sts:TagSession` alone gives no access.
#[must_use]
pub fn spoke_trust(hub: &RoleArn, external_id: &ExternalId) -> PolicyDocument {
    let hub = || DocumentPrincipal::Role(hub.to_string());
    PolicyDocument::of(vec![
        Statement::allow("AllowHubToAssumeRole", [ASSUME_ROLE]).to(hub()).only_if(
            "StringEquals",
            "sts:ExternalId",
            [external_id.as_str()],
        ),
        Statement::allow("AllowHubToTagSessions", [TAG_SESSION]).to(hub()),
    ])
}

/// Returns the trust policy of a role that EKS Pod Identity provides to pods
/// ([role](https://docs.aws.amazon.com/eks/latest/userguide/pod-id-role.html)).
#[must_use]
pub fn pod_identity_trust() -> PolicyDocument {
    let statement = Statement::allow("AllowEksPodIdentity", [ASSUME_ROLE, TAG_SESSION]);
    PolicyDocument::of(vec![statement.to(DocumentPrincipal::Service("pods.eks.amazonaws.com".to_owned()))])
}

/// Returns the trust policy of a role for one service account, by IRSA
/// ([role](https://docs.aws.amazon.com/eks/latest/userguide/associate-service-account-role.html)).
#[must_use]
pub fn irsa_trust(
    provider: &OidcProvider,
    namespace: &ObjectName,
    service_account: &ObjectName,
) -> PolicyDocument {
    let OidcProvider { text, issuer } = provider;
    let account = format!("system:serviceaccount:{}:{}", namespace.0, service_account.0);
    let statement = Statement::allow("AllowServiceAccountToAssumeRole", ["sts:AssumeRoleWithWebIdentity"]);
    PolicyDocument::of(vec![
        statement
            .to(DocumentPrincipal::Federated(text.clone()))
            .only_if("StringEquals", &format!("{issuer}:aud"), ["sts.amazonaws.com"])
            .only_if("StringEquals", &format!("{issuer}:sub"), [account]),
    ])
}

fn issuer(text: &str) -> Option<&str> {
    let arn = Arn::split(text).filter(|arn| arn.service == "iam" && arn.region.is_empty())?;
    let issuer =
        arn.resource.strip_prefix("oidc-provider/").filter(|issuer| is_name(issuer, 1..=255, b"._/-"))?;
    (arn.partition.parse::<Partition>().is_ok() && arn.account.parse::<Account>().is_ok()).then_some(issuer)
}

impl FromStr for OidcProvider {
    type Err = RoleParseError;
    fn from_str(text: &str) -> Result<Self, RoleParseError> {
        issuer(text)
            .map(|issuer| Self { text: text.to_owned(), issuer: issuer.to_owned() })
            .ok_or_else(|| RoleParseError::OidcProvider(text.to_owned()))
    }
}

impl FromStr for ObjectName {
    type Err = RoleParseError;
    fn from_str(text: &str) -> Result<Self, RoleParseError> {
        if is_dns_subdomain(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(RoleParseError::ObjectName(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROVIDER: &str = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE";

    #[test]
    fn oidc_provider_arn_is_parsed_into_trust_policy() {
        let provider: OidcProvider = PROVIDER.parse().unwrap();
        let [namespace, account] = ["stream-encryption-system", "operator"].map(|name| name.parse().unwrap());
        let policy = serde_json::to_value(irsa_trust(&provider, &namespace, &account)).unwrap();
        let statement = &policy["Statement"][0];
        assert_eq!(statement["Principal"]["Federated"], PROVIDER);
        let issuer = PROVIDER.split_once("oidc-provider/").unwrap().1;
        let only_if = &statement["Condition"]["StringEquals"];
        assert_eq!(
            only_if[format!("{issuer}:sub")].to_string().trim_matches(['[', ']', '"']),
            "system:serviceaccount:stream-encryption-system:operator"
        );
    }

    #[test]
    fn invalid_oidc_provider_is_rejected() {
        let longest = PROVIDER.split_once("oidc-provider/").unwrap().0.to_owned() + "oidc-provider/";
        assert!((longest.clone() + &"a".repeat(255)).parse::<OidcProvider>().is_ok());
        for bad in [
            "",
            "oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLE",
            "arn:aws:iam::111122223333:role/operator",
            "arn:aws:iam::111122223333:oidc-provider/",
            "arn:aws:iam::1111:oidc-provider/oidc.example.com",
            "arn:nowhere:iam::111122223333:oidc-provider/oidc.example.com",
            "arn:aws:sts::111122223333:oidc-provider/oidc.example.com",
            "arn:aws:iam::111122223333:oidc-provider/oidc.example.com\" , \"",
            &(longest + &"a".repeat(256)),
        ] {
            assert!(bad.parse::<OidcProvider>().is_err(), "{bad}");
        }
    }
}
