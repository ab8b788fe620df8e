//! The identity with which an AWS request is made: a role, and the resource that the request is for.
//!
//! Pure. A role's external id is sent to STS only and appears in no message and no debug output: knowledge of
//! it is one step towards impersonating the operator.

use std::fmt;
use std::str::FromStr;

use super::stream::{Account, ParseError, Partition, arn_parts};

/// Maximum length of a role's name
/// ([IAM's limits](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html)).
const LONGEST_NAME: usize = 64;
/// Maximum length of a role's path, including its first and last slash.
const LONGEST_PATH: usize = 512;
/// The length of an external id
/// ([AssumeRole](https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html)).
const EXTERNAL_ID_LENGTH: std::ops::RangeInclusive<usize> = 2..=1224;

/// The tags of a role's session: the namespace and the name of the resource that a request is for
/// ([session tags](https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html)).
pub const SESSION_TAGS: [&str; 2] = ["streamencryption.dev/namespace", "streamencryption.dev/resource"];

/// The ARN of an IAM role: `arn:aws:iam::ACCOUNT:role/NAME`, or `arn:aws:iam::ACCOUNT:role/PATH/NAME`
/// ([Role](https://docs.aws.amazon.com/IAM/latest/APIReference/API_Role.html)).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleArn {
    /// The partition.
    pub partition: Partition,
    /// The account that owns the role.
    pub account: Account,
    /// The path, including its first and last slash; a single slash for a role without a path.
    path: String,
    name: String,
}

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

impl RoleArn {
    /// Returns the name, without the path.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
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

fn is_all(text: &str, lengths: std::ops::RangeInclusive<usize>, others: &[u8]) -> bool {
    lengths.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || others.contains(&b))
}

fn is_name(text: &str) -> bool {
    is_all(text, 1..=LONGEST_NAME, b"_+=,.@-")
}

/// IAM accepts every visible character in a path. Only `:`, `/` and the characters of a role's name are
/// accepted here. A star must be rejected: in a printed policy it would match many roles.
fn is_path(text: &str) -> bool {
    text == "/" || (is_all(text, 3..=LONGEST_PATH, b"_+=,.@:/-") && !text.contains("//"))
}

impl FromStr for ExternalId {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let good = is_all(text, EXTERNAL_ID_LENGTH, b"_+=,.@:/-");
        if good { Ok(Self(text.to_owned())) } else { Err(ParseError::ExternalId) }
    }
}

impl FromStr for RoleArn {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let malformed = || ParseError::RoleArn(text.to_owned());
        let ["arn", partition, "iam", "", account, resource] = arn_parts(text).ok_or_else(malformed)? else {
            return Err(malformed());
        };
        let resource = resource.strip_prefix("role").filter(|rest| rest.starts_with('/'));
        let (path, name) = resource.and_then(|rest| rest.rsplit_once('/')).ok_or_else(malformed)?;
        let path = format!("{path}/");
        if !is_path(&path) || !is_name(name) {
            return Err(malformed());
        }
        Ok(Self { partition: partition.parse()?, account: account.parse()?, path, name: name.to_owned() })
    }
}

impl fmt::Display for RoleArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, account, path, name } = self;
        write!(f, "arn:{partition}:iam::{account}:role{path}{name}")
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
    fn role_arn_round_trips() {
        for arn in [
            ROLE,
            "arn:aws:iam::111122223333:role/a",
            "arn:aws-cn:iam::111122223333:role/teams/data/stream-encryption",
            "arn:aws-us-gov:iam::111122223333:role/+=,.@_-9",
            "arn:aws:iam::111122223333:role/a:b/c",
        ] {
            assert_eq!(arn.parse::<RoleArn>().unwrap().to_string(), arn);
        }
    }

    #[test]
    fn role_name_excludes_path() {
        let arn: RoleArn = "arn:aws-cn:iam::111122223333:role/teams/data/writer".parse().unwrap();
        let parts = [arn.partition.as_str(), arn.account.as_str(), arn.name()];
        assert_eq!(parts, ["aws-cn", "111122223333", "writer"]);
    }

    #[test]
    fn invalid_role_arn_is_rejected() {
        let longest_name = format!("arn:aws:iam::111122223333:role/{}", "a".repeat(64));
        let longest_path = format!("arn:aws:iam::111122223333:role/{}/a", "a".repeat(510));
        for arn in [&longest_name, &longest_path] {
            assert!(arn.parse::<RoleArn>().is_ok(), "{arn}");
        }
        for arn in [
            "",
            "stream-encryption",
            "arn:aws:iam::111122223333:role",
            "arn:aws:iam::111122223333:role/",
            "arn:aws:iam::111122223333:role/teams/",
            "arn:aws:iam::111122223333:role//a",
            "arn:aws:iam::111122223333:role/a//b",
            "arn:aws:iam::111122223333:role/*",
            "arn:aws:iam::111122223333:role/*/b",
            "arn:aws:iam::111122223333:root",
            "arn:aws:iam::*:role/a",
            "arn:aws:iam::111122223333:roles/a",
            "arn:aws:iam::111122223333:user/a",
            "arn:aws:sts::111122223333:assumed-role/a/session",
            "arn:aws:iam:eu-west-1:111122223333:role/a",
            "arn:aws:iam::11112222333:role/a",
            "arn:gcp:iam::111122223333:role/a",
            "xrn:aws:iam::111122223333:role/a",
            "arn:aws:iam::111122223333:role/a b",
            "arn:aws:iam::111122223333:role/a/b:c",
            "arn:aws:iam::111122223333:role/ä",
            "arn:aws:iam::111122223333:role/a b/c",
            &longest_name.replace("role/", "role/a"),
            &longest_path.replace("role/", "role/a"),
        ] {
            assert!(arn.parse::<RoleArn>().is_err(), "{arn}");
        }
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
