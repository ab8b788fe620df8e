//! The message about a command line of `run` that clap does not accept. Like that of every other invalid setting, it is one
//! line that names the flag and its variable: the last line of a pod's log. clap's own message has several lines, of which
//! the last one names the help, and no variable.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

/// What the value of a flag must be, for the flags whose values clap parses and does not list. The ranges are those of
/// `RunArguments::check`.
const EXPECTED: [(&str, &str); 5] = [
    ("--aws-rate-percent", "a whole number from 1 to 100"),
    ("--concurrency", "a whole number from 1 to 65535"),
    ("--drift-interval-seconds", "a whole number from 10 to 86400"),
    ("--events-drift-interval-seconds", "a whole number from 10 to 86400"),
    ("--listen", "an address and a port, such as [::]:8080"),
];

/// Returns the message. `run` is the command of the operator.
pub(crate) fn message(error: &clap::Error, run: &Command) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    // clap shows a flag with its value: `--listen <LISTEN>`.
    let flag = text(ContextKind::InvalidArg).and_then(|shown| shown.split([' ', '=']).next());
    let value = text(ContextKind::InvalidValue);
    match (error.kind(), flag, value, flag.and_then(|flag| expected(error, flag))) {
        (ErrorKind::ValueValidation | ErrorKind::InvalidValue, Some(flag), Some(value), Some(expected)) => {
            format!("{} is {value:?}, but must be {expected}", named(flag, run))
        }
        (ErrorKind::UnknownArgument, Some(flag), ..) => match text(ContextKind::SuggestedArg) {
            Some(meant) => format!("unknown argument {flag}; did you mean {}?", named(meant, run)),
            None => format!("unknown argument {flag}"),
        },
        (_, flag, ..) => {
            let rendered = error.to_string();
            let line = rendered.lines().next().unwrap_or_default();
            let line = line.strip_prefix("error: ").unwrap_or(line);
            flag.map_or_else(|| line.to_owned(), |flag| format!("{}: {line}", named(flag, run)))
        }
    }
}

/// Returns what the value of a flag must be, if that is known.
fn expected(error: &clap::Error, flag: &str) -> Option<String> {
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) if !values.is_empty() => Some(values.join(" or ")),
        _ => {
            let (_, words) = EXPECTED.iter().find(|(name, _)| *name == flag)?;
            Some((*words).to_owned())
        }
    }
}

/// Returns a flag with its variable, as all messages about settings name it.
pub(super) fn named(flag: &str, run: &Command) -> String {
    let is_it = |arg: &&Arg| arg.get_long().is_some_and(|long| flag.strip_prefix("--") == Some(long));
    let variable = run.get_arguments().find(is_it).and_then(Arg::get_env);
    variable.map_or_else(|| flag.to_owned(), |variable| format!("{flag} ({})", variable.display()))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::settings::Arguments;

    fn message_of(flags: &[&str]) -> String {
        let all = ["stream-encryption-operator", "run"].iter().chain(flags);
        let error = Arguments::try_parse_from(all).expect_err("it is invalid");
        message(&error, Arguments::command().find_subcommand("run").unwrap())
    }

    #[test]
    fn message_names_flag_variable_value_and_what_is_expected() {
        for (flags, expected) in [
            (
                &["--listen", ":8080"][..],
                r#"--listen (LISTEN) is ":8080", but must be an address and a port, such as [::]:8080"#,
            ),
            (
                &["--concurrency=abc"],
                r#"--concurrency (CONCURRENCY) is "abc", but must be a whole number from 1 to 65535"#,
            ),
            (
                &["--aws-rate-percent", "300"],
                r#"--aws-rate-percent (AWS_RATE_PERCENT) is "300", but must be a whole number from 1 to 100"#,
            ),
            (&["--log-format", "xml"], r#"--log-format (LOG_FORMAT) is "xml", but must be json or text"#),
            (
                &["--leader-election", "yes\n"],
                r#"--leader-election (LEADER_ELECTION) is "yes\n", but must be true or false"#,
            ),
            (&["--lisen", "[::]:8080"], "unknown argument --lisen; did you mean --listen (LISTEN)?"),
            (&["--zzz=1"], "unknown argument --zzz"),
            (&["now"], "unknown argument now"),
            (
                &["--lease"],
                "--lease (LEASE_NAME): a value is required for '--lease <LEASE>' but none was supplied",
            ),
            (
                &["--lease", "a", "--lease", "b"],
                "--lease (LEASE_NAME): the argument '--lease <LEASE>' cannot be used multiple times",
            ),
        ] {
            assert_eq!(message_of(flags), expected, "{flags:?}");
        }
    }

    #[test]
    fn every_flag_that_clap_parses_has_an_expected_value() {
        let command = Arguments::command();
        let run = command.find_subcommand("run").unwrap();
        let flags = run.get_arguments().filter_map(Arg::get_long);
        let mut refused = 0;
        for flag in flags {
            let flag = format!("--{flag}=no such value");
            if Arguments::try_parse_from(["stream-encryption-operator", "run", &flag]).is_err() {
                assert!(message_of(&[&flag]).contains("\"no such value\", but must be "), "{flag}");
                refused += 1;
            }
        }
        assert!(refused >= EXPECTED.len(), "the flags are read wrongly: {refused}");
    }
}
