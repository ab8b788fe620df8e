//! A policy document in the format of IAM and KMS
//! ([elements](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements.html)).
//!
//! This module decides nothing: the caller that creates a [`Statement`] decides what it allows or denies.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

/// The version of the policy language. It is the newest one.
const VERSION: &str = "2012-10-17";

/// Maximum length of a managed policy in characters, not counting white space
/// ([quotas](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html)).
pub const LONGEST_MANAGED_POLICY: usize = 6144;

/// Returns the length of a policy as IAM counts it: in characters, not counting white space.
#[must_use]
pub fn characters(policy: &PolicyDocument) -> usize {
    let text = serde_json::to_string(policy).unwrap_or_default();
    text.chars().filter(|character| !character.is_whitespace()).count()
}

/// A policy document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyDocument {
    version: &'static str,
    /// The statements.
    pub statement: Vec<Statement>,
}

impl PolicyDocument {
    /// Creates a policy of these statements.
    #[must_use]
    pub fn of(statement: Vec<Statement>) -> Self {
        Self { version: VERSION, statement }
    }
}

/// One statement, which allows actions, or denies them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Statement {
    /// The purpose of the statement, in one word.
    pub sid: &'static str,
    effect: Effect,
    /// The principal, if the policy belongs to a resource (a role's trust policy, a key policy).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<DocumentPrincipal>,
    /// The actions.
    pub action: StringOrList,
    /// The resources; empty in a role's trust policy, which applies to that role.
    #[serde(skip_serializing_if = "StringOrList::is_empty")]
    pub resource: StringOrList,
    /// The conditions, by operator and condition key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub condition: BTreeMap<&'static str, BTreeMap<String, StringOrList>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum Effect {
    Allow,
    Deny,
}

/// The principal to which a statement applies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum DocumentPrincipal {
    /// A role.
    #[serde(rename = "AWS")]
    Role(String),
    /// An AWS service.
    Service(String),
    /// The identities of an identity provider.
    Federated(String),
    /// Every principal.
    #[serde(rename = "*")]
    Everyone,
}

impl Statement {
    /// Creates a statement that allows these actions, without resources.
    pub fn allow(sid: &'static str, actions: impl IntoIterator<Item: ToString>) -> Self {
        Self::of(Effect::Allow, sid, actions)
    }

    /// Creates a statement that denies these actions, whatever else allows them, without resources.
    pub fn deny(sid: &'static str, actions: impl IntoIterator<Item: ToString>) -> Self {
        Self::of(Effect::Deny, sid, actions)
    }

    fn of(effect: Effect, sid: &'static str, actions: impl IntoIterator<Item: ToString>) -> Self {
        Self {
            sid,
            effect,
            principal: None,
            action: actions.into_iter().collect(),
            resource: StringOrList::default(),
            condition: BTreeMap::new(),
        }
    }

    /// Sets the principal.
    #[must_use]
    pub fn to(self, principal: DocumentPrincipal) -> Self {
        Self { principal: Some(principal), ..self }
    }

    /// Sets the resources.
    #[must_use]
    pub fn on(self, resources: StringOrList) -> Self {
        Self { resource: resources, ..self }
    }

    /// Adds a condition: `key` must be one of `values`, as `operator` compares them.
    #[must_use]
    pub fn only_if(
        mut self,
        operator: &'static str,
        key: &str,
        values: impl IntoIterator<Item: ToString>,
    ) -> Self {
        self.condition.entry(operator).or_default().insert(key.to_owned(), values.into_iter().collect());
        self
    }
}

/// One string or several, without duplicates, in order of insertion. A single one is serialized without a
/// list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StringOrList(Vec<String>);

impl StringOrList {
    /// Returns whether there are no strings.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns an iterator over the strings.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl<T: ToString> FromIterator<T> for StringOrList {
    fn from_iter<I: IntoIterator<Item = T>>(words: I) -> Self {
        let mut kept = Vec::new();
        for word in words {
            let word = word.to_string();
            if !kept.contains(&word) {
                kept.push(word);
            }
        }
        Self(kept)
    }
}

impl Serialize for StringOrList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [word] => word.serialize(serializer),
            words => words.serialize(serializer),
        }
    }
}
