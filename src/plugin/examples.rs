//! The examples at the end of each verb's help. Tests parse their commands.

pub(super) const STATUS: &str = "\
Examples:
  # All streams that somebody must look after
  kubectl streamencryption status -A --only attention,plaintext
  # How many streams each key encrypts
  kubectl streamencryption status -A --by key
  # In a pipeline: fail if a stream is in plaintext, or if its last Describe is too old
  kubectl streamencryption status -n data --fail-on plaintext,stale";

pub(super) const EXPLAIN: &str = "\
Examples:
  # Why a resource is not ready, and what to do
  kubectl streamencryption explain orders -n data";

pub(super) const PLAN: &str = "\
Examples:
  # What the operator would do if a file were applied
  kubectl streamencryption plan -f orders.yaml
  # In a pipeline: fail if a folder of files would not work
  kubectl streamencryption plan -f streams -R --fail-on refused,waiting";

pub(super) const REPORT: &str = "\
Examples:
  # One page for an auditor
  kubectl streamencryption report -A -o html --file report.html
  # Also the streams of AWS that no StreamEncryption manages
  kubectl streamencryption report -A --aws --region eu-west-1,eu-central-1 -o csv";

pub(super) const DOCTOR: &str = "\
Examples:
  # Check the operator and what it depends on
  kubectl streamencryption doctor
  # The operator is in a namespace of its own name
  kubectl streamencryption doctor --operator-namespace encryption";

pub(super) const ADOPT: &str = "\
Examples:
  # Which streams there are, and who manages them
  kubectl streamencryption adopt --region eu-west-1
  # Write manifests for those that nothing manages
  kubectl streamencryption adopt --region eu-west-1 -n data --write streams
  # The streams of other accounts
  kubectl streamencryption adopt --region eu-west-1 --role-arn arn:aws:iam::444455556666:role/survey";

pub(super) const COMPLETION: &str = "\
Examples:
  # In ~/.bashrc
  source <(kubectl-streamencryption completion bash)";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{CommandFactory as _, Parser as _};

    use crate::settings::PluginArguments;

    /// The verbs, each with its `--help`.
    fn helps() -> Vec<(String, String)> {
        let mut program = PluginArguments::command();
        program.build();
        let verbs = program.get_subcommands_mut().filter(|verb| verb.get_name() != "help");
        verbs.map(|verb| (verb.get_name().to_owned(), verb.render_long_help().to_string())).collect()
    }

    #[test]
    fn each_verb_has_examples_that_are_valid() {
        for (verb, help) in helps() {
            let (_, examples) = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{verb} has none"));
            let commands: Vec<&str> =
                examples.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect();
            assert!((1..=3).contains(&commands.len()), "{verb}: {commands:?}");
            for command in commands {
                let words =
                    command.strip_prefix("source <(").map_or(command, |rest| rest.trim_end_matches(')'));
                let words = words
                    .strip_prefix("kubectl streamencryption ")
                    .or_else(|| words.strip_prefix("kubectl-streamencryption "))
                    .unwrap_or_else(|| panic!("{command} is no command of the plugin"));
                assert!(words.starts_with(&verb), "{verb}: {command}");
                let words = ["kubectl-streamencryption"].into_iter().chain(words.split(' '));
                assert!(PluginArguments::try_parse_from(words).is_ok(), "{command}");
            }
        }
    }

    #[test]
    fn help_explains_each_value_once() {
        for (verb, help) in helps() {
            let mut seen = BTreeSet::new();
            for value in help.lines().map(str::trim).filter(|line| line.starts_with("- ")) {
                assert!(seen.insert(value), "{verb}: {value}");
            }
        }
    }

    fn error(words: &[&str]) -> String {
        let words = ["kubectl-streamencryption"].iter().chain(words);
        PluginArguments::try_parse_from(words).expect_err("it is invalid").to_string()
    }

    #[test]
    fn format_that_changes_nothing_is_invalid() {
        for words in [&["plan", "-f", "orders.yaml", "-o", "wide"][..], &["doctor", "-o", "wide"]] {
            let error = error(words);
            assert!(error.contains("[possible values: table, json, yaml, csv]"), "{error}");
        }
        for words in [&["status", "-o", "wide"][..], &["adopt", "--region", "eu-west-1", "-o", "wide"]] {
            let words = ["kubectl-streamencryption"].iter().chain(words);
            assert!(PluginArguments::try_parse_from(words).is_ok());
        }
    }

    #[test]
    fn missing_file_names_both_flags() {
        let missing = error(&["plan"]);
        assert!(missing.contains("--filename") && missing.contains("--kustomize"), "{missing}");
        let both = error(&["plan", "-f", "orders.yaml", "-k", "streams"]);
        assert!(both.contains("cannot be used with"), "{both}");
    }

    #[test]
    fn invalid_finding_lists_the_valid_ones() {
        for flag in ["--only", "--fail-on"] {
            let error = error(&["status", flag, "nonsense"]);
            assert!(error.contains("[possible values: plaintext, not-ready,"), "{error}");
        }
    }

    #[test]
    fn help_of_a_verb_states_its_own_namespace() {
        let help_of = |name: &str| {
            let help = helps().into_iter().find(|(verb, _)| verb == name).expect("the verb").1;
            help.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert!(help_of("doctor").contains("Default: of all namespaces"));
        assert!(help_of("adopt").contains("that the manifests and the policies are for"));
        assert!(help_of("explain").contains("Default: that of the context, otherwise default"));
    }

    /// The flag means the same as for the operator, and a command that surveys AWS says how much of it is used.
    #[test]
    fn help_of_a_survey_states_its_share_of_the_rate() {
        for (verb, help) in
            helps().into_iter().filter(|(verb, _)| ["adopt", "report"].contains(&verb.as_str()))
        {
            let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(words.contains("This command uses at most half of that share"), "{verb}: {words}");
            assert!(words.contains("[default: 80]"), "{verb}: {words}");
        }
    }
}
