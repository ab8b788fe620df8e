//! As whom AWS is asked, and on whose behalf: a role, and the resource that a request is for.
//!
//! Pure. What a role's external id is goes to STS alone: it is in no message and in no debug output, because whoever knows
//! it is one step nearer to being taken for the operator.

use std::fmt;
use std::str::FromStr;

use super::stream::{Account, Malformed, Partition, arn_parts};

/// The longest name of a role ([IAM's limits](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html)).
const LONGEST_NAME: usize = 64;
/// The longest path of a role, with its first and last slash.
const LONGEST_PATH: usize = 512;
/// How long an external id is
/// ([AssumeRole](https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html)).
const EXTERNAL_ID: std::ops::RangeInclusive<usize> = 2..=1224;

/// The tags of a role's session: for a resource of which namespace the operator works, and for which one
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
    /// With its first and last slash; of a role without a path it is one slash.
    path: String,
    name: String,
}

/// A role that the operator assumes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Role {
    /// Which one.
    pub arn: RoleArn,
    /// The external id that its trust policy demands.
    pub external_id: Option<ExternalId>,
}

/// What the operator has to know, besides having its own role, to assume another
/// ([external id](https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_create_for-user_externalid.html)).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExternalId(String);

/// As whom AWS is asked, and for which resource. The resource is part of it: a role's session is named and tagged after it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal {
    /// The role; without one, the operator's own credentials.
    pub role: Option<Role>,
    /// The namespace of the resource.
    pub namespace: String,
    /// The name of the resource.
    pub resource: String,
}

impl RoleArn {
    /// The name, without the path.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Principal {
    /// The operator itself, on behalf of nobody in particular.
    #[must_use]
    pub fn operator() -> Self {
        Self { role: None, namespace: String::new(), resource: String::new() }
    }
}

impl ExternalId {
    /// As STS is told it. It goes nowhere else, but into a trust policy that somebody has printed.
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

/// IAM takes every visible character. A star is not taken here: in a policy that is printed it would mean many roles.
fn is_path(text: &str) -> bool {
    text == "/" || (is_all(text, 3..=LONGEST_PATH, b"_+=,.@:/-") && !text.contains("//"))
}

impl FromStr for ExternalId {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let good = is_all(text, EXTERNAL_ID, b"_+=,.@:/-");
        if good { Ok(Self(text.to_owned())) } else { Err(Malformed::ExternalId) }
    }
}

impl FromStr for RoleArn {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::RoleArn(text.to_owned());
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
    fn an_arn_is_written_as_it_was_read() {
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
    fn the_name_is_what_stands_behind_the_path() {
        let arn: RoleArn = "arn:aws-cn:iam::111122223333:role/teams/data/writer".parse().unwrap();
        let parts = [arn.partition.as_str(), arn.account.as_str(), arn.name()];
        assert_eq!(parts, ["aws-cn", "111122223333", "writer"]);
    }

    #[test]
    fn what_is_no_role_or_breaks_the_rules_of_iam_is_refused() {
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
    fn an_external_id_is_one_that_sts_takes() {
        for good in ["42", "a-b_c+d=e,f.g@h:i/j", &"a".repeat(1224)] {
            assert_eq!(good.parse::<ExternalId>().unwrap().as_str(), good);
        }
        for bad in ["", "a", "a b", "a;b", "ää", &"a".repeat(1225)] {
            assert_eq!(bad.parse::<ExternalId>(), Err(Malformed::ExternalId), "{bad}");
        }
    }

    #[test]
    fn nothing_that_is_written_of_a_principal_shows_the_external_id() {
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
    fn whether_a_role_has_an_external_id_is_shown() {
        assert!(format!("{:?}", role(None)).ends_with("external_id: None }"));
        assert!(format!("{:?}", role(Some("42"))).ends_with("external_id: Some((not shown)) }"));
    }
}
