//! One Rust file as the layout rules see it: its code without comments, string literals and tests, and the
//! paths in it.
//!
//! The parser supports only as much of Rust as this repository uses.

use std::fs;
use std::path::Path;

/// The code of a file.
pub struct Source {
    code: String,
    tests: Vec<String>,
}

impl Source {
    pub fn read(path: &Path) -> Self {
        Self::of(&fs::read_to_string(path).unwrap())
    }

    pub fn of(text: &str) -> Self {
        let (code, tests) = without_tests(&without_comments_and_texts(text));
        Self { code, tests }
    }

    /// Returns the test-only modules that this file declares.
    pub fn test_modules(&self, module: &str) -> Vec<String> {
        self.tests
            .iter()
            .map(|name| {
                [module, name].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("::")
            })
            .collect()
    }

    /// Returns the lines of code that contain a text.
    pub fn lines_with<'a>(&'a self, text: &'a str) -> impl Iterator<Item = String> + 'a {
        self.code.lines().filter(move |line| line.contains(text)).map(|line| line.trim().to_owned())
    }

    /// Returns the first segment of each path: crates, modules and types.
    pub fn heads(&self) -> Vec<String> {
        self.heads_at().into_iter().map(|(_, head)| head).collect()
    }

    /// Returns every path that begins with `crate`, `super` or `self`, relative to the crate root.
    pub fn paths(&self, module: &str) -> Vec<Vec<String>> {
        let own: Vec<String> =
            module.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let mut found = Vec::new();
        for (at, _) in self.heads_at() {
            let mut branches = Vec::new();
            branches_of(&self.code[at..], &mut Vec::new(), &mut branches);
            for branch in branches {
                found.extend(from_root(&own, &branch));
            }
        }
        found
    }

    fn heads_at(&self) -> Vec<(usize, String)> {
        let bytes = self.code.as_bytes();
        let mut found = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            if !is_name(bytes[at]) {
                at += 1;
                continue;
            }
            let name: String =
                self.code[at..].chars().take_while(|c| c.is_ascii() && is_name(*c as u8)).collect();
            let before = self.code[..at].trim_end();
            if self.code[at + name.len()..].starts_with("::") && !before.ends_with("::") {
                found.push((at, name.clone()));
            }
            at += name.len();
        }
        found
    }
}

/// Resolves a path relative to the crate root, as the compiler does. `None` if it begins with another name.
fn from_root(own: &[String], path: &[String]) -> Option<Vec<String>> {
    let (head, rest) = path.split_first()?;
    match head.as_str() {
        "crate" => Some(rest.to_vec()),
        "self" => Some([own, rest].concat()),
        "super" => {
            let up = 1 + rest.iter().take_while(|part| *part == "super").count();
            Some([&own[..own.len().checked_sub(up)?], &rest[up - 1..]].concat())
        }
        _ => None,
    }
}

/// Collects every branch of the path, or use tree, at the start of `code`. Returns its length.
fn branches_of(code: &str, trunk: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let depth = trunk.len();
    let mut at = 0;
    loop {
        let rest = &code[at..];
        at += rest.len() - rest.trim_start().len();
        let rest = &code[at..];
        if let Some(list) = rest.strip_prefix('{') {
            let mut inside = 1;
            loop {
                inside +=
                    list[inside - 1..].len() - list[inside - 1..].trim_start_matches([' ', '\n', ',']).len();
                if rest[inside..].starts_with('}') || inside >= rest.len() {
                    break;
                }
                let length = branches_of(&rest[inside..], trunk, found);
                // `as name` and anything else is not a path.
                inside += length + rest[inside + length..].find([',', '}']).unwrap_or(0);
            }
            at += inside + 1;
            break;
        }
        let name: String = rest.chars().take_while(|c| c.is_ascii() && is_name(*c as u8)).collect();
        at += name.len();
        if name.is_empty() || (!trunk.is_empty() && name == "self") {
            found.push(trunk.clone());
            break;
        }
        trunk.push(name);
        if !code[at..].starts_with("::") {
            found.push(trunk.clone());
            break;
        }
        at += 2;
    }
    trunk.truncate(depth);
    at
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Removes comments and the contents of literals, and keeps the line breaks.
fn without_comments_and_texts(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) =
            raw_text(rest).filter(|_| !code.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
        {
            length
        } else if first == '"' {
            text_length(rest)
        } else if first == '\'' {
            char_length(rest)
        } else {
            0
        };
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
            rest = &rest[skipped..];
        }
    }
    code
}

fn raw_text(rest: &str) -> Option<usize> {
    let hashes = rest.strip_prefix('r')?;
    let count = hashes.bytes().take_while(|b| *b == b'#').count();
    let inside = hashes[count..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(count));
    Some(rest.len() - inside.len() + inside.find(&end)? + end.len())
}

fn text_length(rest: &str) -> usize {
    let mut escaped = false;
    let end = rest.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    end.map_or(rest.len(), |(at, _)| at + 1)
}

/// Returns the length of a character literal, or 0 for a lifetime.
fn char_length(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => rest[3..].find('\'').map_or(0, |end| end + 4),
        Some(_) => chars.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

/// Returns the code without items under `#[cfg(test)]`, and the names of test modules in files of their own.
fn without_tests(code: &str) -> (String, Vec<String>) {
    const MARK: &str = "#[cfg(test)]";
    let mut kept = String::new();
    let mut names = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        kept.push_str(&rest[..at]);
        let item = &rest[at + MARK.len()..];
        let end = item.find([';', '{']).unwrap_or(item.len());
        if let Some(name) = item[..end].trim().strip_prefix("mod ").filter(|_| item[end..].starts_with(';')) {
            names.push(name.to_owned());
        }
        let length =
            if item[end..].starts_with('{') { end + block(&item[end..]) } else { (end + 1).min(item.len()) };
        rest = &item[length..];
    }
    kept.push_str(rest);
    (kept, names)
}

/// Returns the length of the block at the start of `code`.
fn block(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

#[test]
fn comments_strings_and_tests_are_ignored() {
    let source = Source::of(
        "//! crate::a\nuse b::c; /* crate::d */\nconst X: &str = \"crate::e \\\" crate::f\";\nconst Y: &str = r#\"crate::g\"#;\nfn z<'a>(c: char) -> &'a str { if c == '\"' { crate::h::i } }\n#[cfg(test)]\nmod tests { use crate::j; }\n#[cfg(test)]\nmod more;\n",
    );
    assert_eq!(source.heads(), ["b", "crate"]);
    assert_eq!(source.paths(""), [["h", "i"]]);
    assert_eq!(source.test_modules("model"), ["model::more"]);
}

#[test]
fn use_trees_and_super_paths_are_resolved() {
    let source = Source::of(
        "use super::{a::{B, c::D as E}, self};\nuse crate::f::{self, G};\nlet x = super::super::h();\nuse self::i::*;",
    );
    let paths: Vec<String> = source.paths("m::n").iter().map(|path| path.join("::")).collect();
    assert_eq!(paths, ["m::a::B", "m::a::c::D", "m", "f", "f::G", "h", "m::n::i"]);
}
