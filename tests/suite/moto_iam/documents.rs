//! The tested policy documents: the shipped ones, those printed for one stream, and each without one action.
//!
//! They come from `config/iam`, changed to moto's account, or from the code that prints those files. Only one
//! thing is changed: moto checks every document against the resource `*`, whatever the request is for, so
//! `Resource` is `*`.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use stream_encryption_operator::iam::scope::Scope;
use stream_encryption_operator::iam::{Feature, policy};

use super::ACCOUNT;

/// The accounts in the shipped documents: the operator's, and a spoke's.
const SHIPPED_FOR: [&str; 2] = ["111122223333", "444455556666"];

/// The statements of a policy.
#[derive(Clone)]
pub(super) struct Document(Vec<Value>);

impl Document {
    /// Combines these files of `config/iam`.
    pub(super) fn shipped(files: &[&str]) -> Self {
        let statements = files.iter().flat_map(|file| {
            let mut text = fs::read_to_string(folder().join(file)).expect(file);
            for account in SHIPPED_FOR {
                text = text.replace(account, ACCOUNT);
            }
            let Document(statements) = Self::of(&serde_json::from_str(&text).expect(file));
            statements
        });
        Self(statements.collect())
    }

    /// Combines all files of `config/iam`, except the one for the person who runs `adopt`, and those for the queue of
    /// AWS's events, which no scenario here has.
    pub(super) fn all_shipped() -> Self {
        let names =
            fs::read_dir(folder()).expect("config/iam").map(|entry| entry.expect("a file").file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().expect("UTF-8")).collect();
        names.retain(|name| name != "adopt.json" && !name.starts_with("events"));
        names.sort();
        Self::shipped(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The output of `iam policy` for a stream, with or without a customer managed key.
    pub(super) fn printed(stream: &str, key: Option<&str>, features: &[Feature]) -> Self {
        let keys = key.map(|key| key.parse().expect("a key")).into_iter().collect();
        let scope = Scope::new(vec![stream.parse().expect("a stream")], keys, Vec::new()).expect("a scope");
        Self::of(&serde_json::to_value(policy(&scope, features)).expect("JSON"))
    }

    /// Returns the document without this action.
    pub(super) fn without(&self, action: &str) -> Self {
        let rest = self.0.iter().filter_map(|statement| {
            let kept: Vec<String> = actions(statement).into_iter().filter(|other| other != action).collect();
            let mut statement = statement.clone();
            statement["Action"] = json!(kept);
            (!kept.is_empty()).then_some(statement)
        });
        Self(rest.collect())
    }

    /// Returns all actions that it allows.
    pub(super) fn actions(&self) -> BTreeSet<String> {
        self.0.iter().flat_map(actions).collect()
    }

    /// Returns the document in the form that moto accepts.
    pub(super) fn for_moto(&self) -> String {
        let mut statements = self.0.clone();
        for statement in &mut statements {
            statement["Resource"] = json!("*");
        }
        json!({"Version": "2012-10-17", "Statement": statements}).to_string()
    }

    fn of(policy: &Value) -> Self {
        Self(policy["Statement"].as_array().expect("statements").clone())
    }
}

fn actions(statement: &Value) -> Vec<String> {
    match &statement["Action"] {
        Value::String(action) => vec![action.clone()],
        several => serde_json::from_value(several.clone()).expect("actions"),
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/iam")
}
