//! The policy of a person who runs `adopt`: the permissions to read which streams exist and how they are encrypted.
//!
//! It is not a policy of the operator, which never lists. It allows no action that changes anything or reads a
//! record. Its resource is `*`, because the regions, accounts and keys to survey are not known beforehand, and AWS
//! offers no other resource for the two lists of streams.

use stream_encryption_core::model::service::{Operation, PROFILES};

use super::document::{PolicyDocument, Statement};

/// Returns the policy.
#[must_use]
pub fn policy() -> PolicyDocument {
    let allow = |sid, operations: Vec<Operation>| {
        Statement::allow(sid, operations.into_iter().map(Operation::iam_action))
            .on(["*"].into_iter().collect())
    };
    PolicyDocument::of(vec![
        allow("ListStreams", PROFILES.map(|profile| profile.list).into()),
        allow(
            "DescribeStreamsAndListTheirTags",
            PROFILES.iter().flat_map(|profile| [profile.describe, profile.list_tags]).collect(),
        ),
        allow("DescribeKeys", vec![Operation::DescribeKey]),
    ])
}
