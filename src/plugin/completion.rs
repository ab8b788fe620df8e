//! Completion of the commands in a shell: a script for the program itself, and the answers that kubectl asks a plugin for.
//!
//! kubectl runs `kubectl_complete-streamencryption` with the words that were typed
//! ([how kubectl completes plugins](https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/)): this program, once more,
//! under that name. It answers with one candidate in a line, and with a directive in the last.

use std::io::Write;

use clap::{Arg, Args, Command};
use clap_complete::Shell;

/// The name under which kubectl asks for candidates.
pub const FILE_NAME: &str = "kubectl_complete-streamencryption";

/// The flags of `completion`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The shell.
    shell: Shell,
}

/// Writes the script that completes the program in a shell.
pub fn write_script(arguments: &Arguments, mut command: Command, out: &mut impl Write) {
    clap_complete::generate(arguments.shell, &mut command, super::FILE_NAME, out);
}

/// What the shell does if there is no candidate: nothing, or complete file names.
const NO_FILES: &str = ":4";
const FILES: &str = ":0";

/// Returns the candidates for the last of the words, each with its description after a tab, and kubectl's directive.
#[must_use]
pub fn candidates(command: &Command, words: &[String]) -> Vec<String> {
    let (typed, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let verb = before.iter().find_map(|word| command.find_subcommand(word));
    let scope = verb.unwrap_or(command);
    let value_of =
        before.last().and_then(|flag| argument(scope, flag)).filter(|flag| flag.get_action().takes_values());
    let mut found: Vec<(String, String)> = Vec::new();
    if let Some(flag) = value_of {
        found.extend(flag.get_possible_values().iter().map(|value| {
            (value.get_name().to_owned(), value.get_help().map(ToString::to_string).unwrap_or_default())
        }));
    } else if typed.starts_with('-') {
        found.extend(scope.get_arguments().filter_map(|flag| {
            let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
            Some((format!("--{}", flag.get_long()?), help))
        }));
    } else if verb.is_none() {
        found.extend(command.get_subcommands().filter(|verb| !verb.is_hide_set()).map(|verb| {
            (verb.get_name().to_owned(), verb.get_about().map(ToString::to_string).unwrap_or_default())
        }));
    }
    let names_a_file = value_of.is_some_and(|flag| flag.get_possible_values().is_empty());
    let matching = found.into_iter().filter(|(name, _)| name.starts_with(typed));
    let line = |(name, help): (String, String)| {
        if help.is_empty() { name } else { format!("{name}\t{}", help.lines().next().unwrap_or_default()) }
    };
    matching.map(line).chain([if names_a_file { FILES } else { NO_FILES }.to_owned()]).collect()
}

/// Returns the flag that a word names.
fn argument<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let long = word.strip_prefix("--");
    let short = word.strip_prefix('-').and_then(|short| short.chars().next().filter(|_| short.len() == 1));
    command.get_arguments().find(|flag| {
        long.is_some() && flag.get_long() == long || short.is_some() && flag.get_short() == short
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Program {
        #[command(subcommand)]
        _command: crate::plugin::Command,
    }

    fn typed(words: &[&str]) -> Vec<String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let mut command = Program::command();
        command.build();
        candidates(&command, &words)
    }

    #[test]
    fn verbs_flags_and_values_are_completed() {
        assert_eq!(typed(&["stat"])[0].split('\t').next(), Some("status"));
        let verbs = typed(&[""]);
        assert!(verbs.iter().any(|line| line.starts_with("plan\t")), "{verbs:?}");
        let flags = typed(&["status", "--fail"]);
        assert!(flags[0].starts_with("--fail-on\t") && flags[1] == NO_FILES, "{flags:?}");
        let values = typed(&["status", "--by", "acc"]);
        assert!(values[0].starts_with("account\t"), "{values:?}");
        assert_eq!(typed(&["status", "-o", "js"]).len(), 2);
        assert_eq!(typed(&["plan", "-f", ""]), [FILES]);
        assert_eq!(typed(&["status", "x"]), [NO_FILES]);
    }
}
