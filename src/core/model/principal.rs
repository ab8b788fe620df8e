//! The identity with which an AWS request is made: a role, and the resource that the request is for.
//!
//! Pure. A role's external id is sent to STS only and appears in no message and no debug output: knowledge of
//! it is one step towards impersonating the operator.

use std::fmt;
use std::str::FromStr;

use super::arn::{ParseError, RoleArn, is_name};

/// The length of an external id
/// ([AssumeRole](https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html)).
const EXTERNAL_ID_LENGTH: std::ops::RangeInclusive<usize> = 2..=1224;

/// The tags of a role's session: the namespace and the name of the resource that a request is for
/// ([session tags](https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html)).
pub const SESSION_TAGS: [&str; 2] = ["streamencryption.dev/namespace", "streamencryption.dev/resource"];

/// A role that the operator assumes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Role {
    /// The role's ARN.
    pub arn: RoleArn,
    /// The external id that its trust policy requires.
    pub external_id: Option<ExternalId>,
}

/// A value that the operator must present, in addition to its own role, to assume another role
/// ([external id](https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_create_for-user_externalid.html)).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExternalId(String);

/// The identity of an AWS request, and the resource that it is for. The resource is part of the identity: a
/// role's session is named and tagged after it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal {
    /// The role; `None` for the operator's own credentials.
    pub role: Option<Role>,
    /// The namespace of the resource.
    pub namespace: String,
    /// The name of the resource.
    pub resource: String,
}

impl Principal {
    /// Returns the operator's own identity, for no particular resource.
    #[must_use]
    pub fn operator() -> Self {
        Self { role: None, namespace: String::new(), resource: String::new() }
    }
}

impl ExternalId {
    /// Returns the value for STS. It is used nowhere else, except in a trust policy that the CLI prints.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ExternalId {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let good = is_name(text, EXTERNAL_ID_LENGTH, b"_+=,.@:/-");
        if good { Ok(Self(text.to_owned())) } else { Err(ParseError::ExternalId) }
    }
}

impl fmt::Debug for ExternalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: &str = "arn:aws:iam::111122223333:role/stream-encryption";

    fn role(external_id: Option<&str>) -> Role {
        Role { arn: ROLE.parse().unwrap(), external_id: external_id.map(|id| id.parse().unwrap()) }
    }

    #[test]
    fn external_id_follows_sts_rules() {
        for good in ["42", "a-b_c+d=e,f.g@h:i/j", &"a".repeat(1224)] {
            assert_eq!(good.parse::<ExternalId>().unwrap().as_str(), good);
        }
        for bad in ["", "a", "a b", "a;b", "ää", &"a".repeat(1225)] {
            assert_eq!(bad.parse::<ExternalId>(), Err(ParseError::ExternalId), "{bad}");
        }
    }

    #[test]
    fn debug_output_hides_external_id() {
        for id in ["42", "a-very-secret-id"] {
            let (namespace, resource) = ("data".to_owned(), "orders".to_owned());
            let arn = ROLE.replace("111122223333", "999988887777").parse().unwrap();
            let role = Role { arn, ..role(Some(id)) };
            let principal = Principal { role: Some(role), namespace, resource };
            for written in [format!("{principal:?}"), format!("{principal:#?}")] {
                assert!(!written.contains(id), "{written}");
                assert!(written.contains("not shown") && written.contains("orders"), "{written}");
            }
        }
        assert!(!"a;very;secret;id".parse::<ExternalId>().unwrap_err().to_string().contains("secret"));
    }

    #[test]
    fn debug_output_shows_presence_of_external_id() {
        assert!(format!("{:?}", role(None)).ends_with("external_id: None }"));
        assert!(format!("{:?}", role(Some("42"))).ends_with("external_id: Some((not shown)) }"));
    }
}
