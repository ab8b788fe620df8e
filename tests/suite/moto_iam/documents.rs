//! The policy documents that are tried: those that are shipped, those that are printed for one stream, and each without one action.
//!
//! They come from `config/iam`, put to moto's account, or from the code that prints those files. Nothing is ever added to one but
//! this: moto asks every document about the resource `*`, whatever a call is about, so that is what it is given for `Resource`.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use stream_encryption_operator::model::iam::scope::Scope;
use stream_encryption_operator::model::iam::{Feature, policy};

use super::ACCOUNT;

/// The accounts of the shipped documents: the operator's, and a spoke's.
const SHIPPED_FOR: [&str; 2] = ["111122223333", "444455556666"];

/// The statements of a policy.
#[derive(Clone)]
pub(super) struct Document(Vec<Value>);

impl Document {
    /// These files of `config/iam` in one.
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

    /// Every file of `config/iam` in one.
    pub(super) fn all_shipped() -> Self {
        let names =
            fs::read_dir(folder()).expect("config/iam").map(|entry| entry.expect("a file").file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().expect("UTF-8")).collect();
        names.sort();
        Self::shipped(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// What `iam policy` prints for a stream, with a customer managed key or without.
    pub(super) fn printed(stream: &str, key: Option<&str>, features: &[Feature]) -> Self {
        let keys = key.map(|key| key.parse().expect("a key")).into_iter().collect();
        let scope = Scope::new(vec![stream.parse().expect("a stream")], keys, Vec::new()).expect("a scope");
        Self::of(&serde_json::to_value(policy(&scope, features)).expect("JSON"))
    }

    /// The same without this action.
    pub(super) fn without(&self, action: &str) -> Self {
        let rest = self.0.iter().filter_map(|statement| {
            let kept: Vec<String> = actions(statement).into_iter().filter(|other| other != action).collect();
            let mut statement = statement.clone();
            statement["Action"] = json!(kept);
            (!kept.is_empty()).then_some(statement)
        });
        Self(rest.collect())
    }

    /// Everything that it allows.
    pub(super) fn actions(&self) -> BTreeSet<String> {
        self.0.iter().flat_map(actions).collect()
    }

    /// As moto can read it.
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
