//! The label selector of `--watch-label-selector`, in the syntax of `kubectl get --selector`.
//!
//! This module only parses. It rejects at startup what the API server would reject at each list, so that a typo
//! does not leave the resources of a shard without an operator.

use std::collections::BTreeSet;

use kube::core::{Expression, Selector};
use stream_encryption_core::model::object::is_dns_subdomain;

/// Maximum length of a label's value, and of its key without the prefix.
const LONGEST: usize = 63;

/// Parses the selector that is given as `flag`.
pub(super) fn selector(flag: &str, text: &str) -> anyhow::Result<Selector> {
    requirements(text).and_then(|parts| parts.into_iter().map(requirement).collect()).map_err(|why| {
        anyhow::anyhow!(
            "{flag} is {text:?}, but must be a label selector, such as shard=a or 'shard notin (a,b)': {why}"
        )
    })
}

/// Splits a selector at its commas, except for those between parentheses.
fn requirements(text: &str) -> Result<Vec<&str>, String> {
    let mut parts = Vec::new();
    let (mut begin, mut inside) = (0, false);
    for (at, character) in text.char_indices() {
        match character {
            '(' if !inside => inside = true,
            ')' if inside => inside = false,
            '(' | ')' => return Err("unbalanced parentheses".to_owned()),
            ',' if !inside => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err("unbalanced parentheses".to_owned());
    }
    parts.push(&text[begin..]);
    Ok(parts)
}

/// Parses one requirement.
fn requirement(text: &str) -> Result<Expression, String> {
    let text = text.trim();
    if let Some(key) = text.strip_prefix('!') {
        return Ok(Expression::DoesNotExist(label_key(key)?));
    }
    if let Some((key, of)) = text.split_once('=') {
        return match key.strip_suffix('!') {
            Some(key) => Ok(Expression::NotEqual(label_key(key)?, label_value(of)?)),
            // `==` is the same as `=`.
            None => Ok(Expression::Equal(label_key(key)?, label_value(of.strip_prefix('=').unwrap_or(of))?)),
        };
    }
    let Some((key, rest)) = text.split_once(char::is_whitespace) else {
        return Ok(Expression::Exists(label_key(text)?));
    };
    let (key, rest) = (label_key(key)?, rest.trim_start());
    // In this order, because `notin` begins otherwise.
    if let Some(set) = rest.strip_prefix("notin") {
        return Ok(Expression::NotIn(key, values(set)?));
    }
    match rest.strip_prefix("in") {
        Some(set) => Ok(Expression::In(key, values(set)?)),
        None => Err(format!("{rest:?} must be =, !=, in (...) or notin (...)")),
    }
}

/// Parses a list of values in parentheses.
fn values(text: &str) -> Result<BTreeSet<String>, String> {
    let inner = text.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    let inner = inner.ok_or_else(|| format!("{:?} must be values in parentheses", text.trim()))?;
    if inner.trim().is_empty() {
        return Err("at least one value is required in parentheses".to_owned());
    }
    inner.split(',').map(label_value).collect()
}

/// Checks the key of a label: an optional prefix, which is a DNS subdomain, and a name.
fn label_key(text: &str) -> Result<String, String> {
    let key = text.trim();
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if is_word(name) && prefix.is_none_or(is_dns_subdomain) {
        Ok(key.to_owned())
    } else {
        Err(format!("{key:?} is not the key of a label"))
    }
}

/// Checks the value of a label, which may be empty.
fn label_value(text: &str) -> Result<String, String> {
    let value = text.trim();
    if value.is_empty() || is_word(value) {
        Ok(value.to_owned())
    } else {
        Err(format!("{value:?} is not the value of a label"))
    }
}

fn is_word(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.len() <= LONGEST
        && end(text.bytes().next())
        && end(text.bytes().next_back())
        && text.bytes().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selector_is_written_as_the_api_server_reads_it() {
        for (text, written) in [
            ("shard=a", "shard=a"),
            (" shard == a ", "shard=a"),
            ("shard!=a", "shard!=a"),
            ("shard=", "shard="),
            ("shard", "shard"),
            ("! shard", "!shard"),
            ("shard in (b, a)", "shard in (a,b)"),
            ("shard notin(a,b)", "shard notin (a,b)"),
            (
                "example.com/shard=a,team in (data,web),!legacy",
                "example.com/shard=a,team in (data,web),!legacy",
            ),
        ] {
            assert_eq!(selector("--flag", text).unwrap().to_string(), written, "{text:?}");
        }
    }

    #[test]
    fn invalid_selector_is_rejected_with_the_cause() {
        let long = format!("shard={}", "a".repeat(64));
        for (text, words) in [
            ("", "\"\" is not the key"),
            ("shard=a,", "\"\" is not the key"),
            ("=a", "\"\" is not the key"),
            ("!", "\"\" is not the key"),
            ("-shard=a", "\"-shard\" is not the key"),
            ("Example/shard=a", "\"Example/shard\" is not the key"),
            ("shard=a b", "\"a b\" is not the value"),
            ("shard=a=b", "\"a=b\" is not the value"),
            (&long, "is not the value"),
            ("shard in a", "\"a\" must be values in parentheses"),
            ("shard in (a", "unbalanced parentheses"),
            ("shard in a)", "unbalanced parentheses"),
            ("shard in ((a))", "unbalanced parentheses"),
            ("shard in ()", "at least one value"),
            ("shard is a", "must be =, !=, in (...) or notin (...)"),
            ("shard>1", "\"shard>1\" is not the key"),
        ] {
            let error = selector("--flag", text).unwrap_err().to_string();
            assert!(error.starts_with("--flag is ") && error.contains(words), "{text:?}: {error}");
        }
    }
}
