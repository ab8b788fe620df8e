//! One Rust file as the layout rules see it: its code without comments, string literals and tests, and the
//! paths in it.

use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The tokens of a file, without the contents of literals and without items under `#[cfg(test)]`.
#[derive(Default)]
pub struct Source {
    tokens: Vec<String>,
    /// The test modules in files of their own that it declares.
    tests: Vec<String>,
}

impl Source {
    pub fn read(path: &Path) -> Self {
        Self::of(&fs::read_to_string(path).unwrap())
    }

    pub fn of(text: &str) -> Self {
        let mut source = Self::default();
        source.add(text.parse().expect("Rust"));
        source
    }

    /// Returns the test-only modules that this file declares.
    pub fn test_modules(&self, module: &str) -> Vec<String> {
        self.tests.iter().map(|name| super::join(module, name)).collect()
    }

    /// Returns the lines of code that contain a text. A line ends after each brace and semicolon, and has a space only
    /// between two words.
    pub fn lines_with(&self, text: &str) -> impl Iterator<Item = String> {
        let mut code = String::new();
        for token in &self.tokens {
            if is_name(token) && code.ends_with(|last: char| last.is_alphanumeric() || last == '_') {
                code.push(' ');
            }
            code.push_str(token);
            if ["{", "}", ";"].contains(&token.as_str()) {
                code.push('\n');
            }
        }
        let found: Vec<String> = code.lines().filter(|line| line.contains(text)).map(str::to_owned).collect();
        found.into_iter()
    }

    /// Returns the first segment of each path: crates, modules and types.
    pub fn heads(&self) -> Vec<String> {
        self.heads_at().map(|at| self.tokens[at].clone()).collect()
    }

    /// Returns every path that begins with `crate`, `super` or `self`, relative to the crate root.
    pub fn paths(&self, module: &str) -> Vec<Vec<String>> {
        let own: Vec<String> =
            module.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let mut branches = Vec::new();
        for at in self.heads_at() {
            branches_of(&self.tokens[at..], Vec::new(), &mut branches);
        }
        branches.iter().filter_map(|branch| from_root(&own, branch)).collect()
    }

    fn heads_at(&self) -> impl Iterator<Item = usize> {
        let is = |at: Option<usize>, text| at.and_then(|at| self.tokens.get(at)).is_some_and(|it| it == text);
        (0..self.tokens.len()).filter(move |&at| {
            is_name(&self.tokens[at]) && is(Some(at + 1), "::") && !is(at.checked_sub(1), "::")
        })
    }

    fn add(&mut self, tokens: TokenStream) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            let text = match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    let is_test = |next: &TokenTree| next.to_string().replace(' ', "") == "[cfg(test)]";
                    if tokens.next_if(is_test).is_some() {
                        self.skip_item(&mut tokens);
                        continue;
                    }
                    "#".to_owned()
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    let is_colon = |next: &TokenTree| next.to_string() == ":";
                    tokens.next_if(is_colon).map_or(":", |_| "::").to_owned()
                }
                TokenTree::Literal(_) => continue,
                TokenTree::Group(group) => {
                    let (open, close) = match group.delimiter() {
                        Delimiter::Parenthesis => ("(", ")"),
                        Delimiter::Bracket => ("[", "]"),
                        Delimiter::Brace => ("{", "}"),
                        Delimiter::None => ("", ""),
                    };
                    self.tokens.push(open.to_owned());
                    self.add(group.stream());
                    close.to_owned()
                }
                other => other.to_string(),
            };
            self.tokens.push(text);
        }
    }

    /// Skips an item, up to its block or its semicolon, and notes a module in a file of its own.
    fn skip_item(&mut self, tokens: &mut impl Iterator<Item = TokenTree>) {
        let mut item = Vec::new();
        for token in tokens {
            let is_block = matches!(&token, TokenTree::Group(it) if it.delimiter() == Delimiter::Brace);
            item.push(token.to_string());
            if is_block || item.last().is_some_and(|last| last == ";") {
                break;
            }
        }
        if let [module, name, end] = &item[..]
            && (module.as_str(), end.as_str()) == ("mod", ";")
        {
            self.tests.push(name.clone());
        }
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

/// Collects every branch of the path, or use tree, at the start of these tokens. Returns how many tokens it has.
fn branches_of(tokens: &[String], mut path: Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let is = |at: usize, texts: &[&str]| tokens.get(at).is_none_or(|token| texts.contains(&token.as_str()));
    let mut at = 0;
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while !is(at, &["}"]) {
                    at += branches_of(&tokens[at..], path.clone(), found);
                    // `as name` is not a part of the path.
                    while !is(at, &[",", "}"]) {
                        at += 1;
                    }
                    at += usize::from(is(at, &[","]));
                }
                return at + 1;
            }
            Some(name) if is_name(name) && (name != "self" || path.is_empty()) => path.push(name.to_owned()),
            _ => break,
        }
        at += 1;
        if !is(at, &["::"]) {
            break;
        }
        at += 1;
    }
    found.push(path);
    at
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
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
