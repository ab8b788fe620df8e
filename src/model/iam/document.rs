//! A policy document as IAM and KMS read it
//! ([elements](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements.html)).
//!
//! Decides nothing: whoever makes a [`Statement`] says what is allowed. Each statement allows; none denies.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

/// The version of the policy language, of which there is no newer one.
const VERSION: &str = "2012-10-17";

/// A policy document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Policy {
    version: &'static str,
    /// What is allowed.
    pub statement: Vec<Statement>,
}

impl Policy {
    /// A policy of these statements.
    #[must_use]
    pub fn of(statement: Vec<Statement>) -> Self {
        Self { version: VERSION, statement }
    }
}

/// One statement, which allows something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Statement {
    /// What it is for, in one word.
    pub sid: &'static str,
    effect: Effect,
    /// To whom, where the policy belongs to a resource (a role's trust, a key).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<Principal>,
    /// What.
    pub action: Words,
    /// On what; nothing in a role's trust, which is about that role.
    #[serde(skip_serializing_if = "Words::is_empty")]
    pub resource: Words,
    /// Only if, by operator and condition key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub condition: BTreeMap<&'static str, BTreeMap<String, Words>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum Effect {
    Allow,
}

/// To whom something is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Principal {
    /// A role.
    #[serde(rename = "AWS")]
    Role(String),
    /// A service of AWS.
    Service(String),
    /// Whoever an identity provider vouches for.
    Federated(String),
}

impl Statement {
    /// Allows these actions, on nothing yet.
    pub fn allow(sid: &'static str, actions: impl IntoIterator<Item: ToString>) -> Self {
        Self {
            sid,
            effect: Effect::Allow,
            principal: None,
            action: actions.into_iter().collect(),
            resource: Words::default(),
            condition: BTreeMap::new(),
        }
    }

    /// The same, to `principal`.
    #[must_use]
    pub fn to(self, principal: Principal) -> Self {
        Self { principal: Some(principal), ..self }
    }

    /// The same, on these resources.
    #[must_use]
    pub fn on(self, resources: Words) -> Self {
        Self { resource: resources, ..self }
    }

    /// The same, and only if `key` is one of `values`, as `operator` compares them.
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

/// One word or several, each once, as they came; a single one is written without a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(Vec<String>);

impl Words {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl<T: ToString> FromIterator<T> for Words {
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

impl Serialize for Words {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [word] => word.serialize(serializer),
            words => words.serialize(serializer),
        }
    }
}
