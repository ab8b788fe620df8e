//! ARNs, names and aliases against the schema's own rules: the parsers accept exactly the texts that the API
//! server accepts.
//!
//! The rules are read from the definitions that are installed, so a change of only one side fails here.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use proptest::prelude::*;
use proptest::string::string_regex;
use regex::Regex;
use stream_encryption_api::crd::definitions;
use stream_encryption_api::stream_encryption::Service;

use super::arn::{KeyArn, KmsKeyId, ParseError, Region, StreamArn, alias};
use super::object;
use crate::model::scenario::stream;

/// The rules of the schema for one text field.
struct Rule {
    lengths: std::ops::RangeInclusive<usize>,
    /// The pattern of `self.matches('…')`.
    pattern: String,
    conditions: Vec<Condition>,
}

/// The forms of CEL that the rules for these texts use; a new form must be added here.
enum Condition {
    Matches(Regex),
    MatchesNot(Regex),
    StartsNotWith(String),
    /// `self.split(':')[part].size() <= longest`.
    PartIsAtMost {
        part: usize,
        longest: usize,
    },
}

impl Condition {
    fn of(cel: &str) -> Self {
        let between =
            |start: &str, end: &str| cel.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
        if let Some(pattern) = between("self.matches('", "')") {
            return Self::Matches(Regex::new(pattern).unwrap());
        }
        if let Some(pattern) = between("!self.matches('", "')") {
            return Self::MatchesNot(Regex::new(pattern).unwrap());
        }
        if let Some(start) = between("!self.startsWith('", "')") {
            return Self::StartsNotWith(start.to_owned());
        }
        let size = between("self.split(':')[", "").and_then(|rest| rest.split_once("].size() <= "));
        let Some((part, longest)) = size else { panic!("what does {cel} mean?") };
        Self::PartIsAtMost { part: part.parse().unwrap(), longest: longest.parse().unwrap() }
    }

    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Matches(pattern) => pattern.is_match(text),
            Self::MatchesNot(pattern) => !pattern.is_match(text),
            Self::StartsNotWith(start) => !text.starts_with(start),
            Self::PartIsAtMost { part, longest } => {
                text.split(':').nth(*part).is_some_and(|part| part.chars().count() <= *longest)
            }
        }
    }
}

impl Rule {
    /// Returns the rule of the field at `path` below `spec`.
    fn of(path: &[&str]) -> Self {
        let mut definitions = definitions().into_iter();
        let (_, mut resource) = definitions.find(|(_, it)| it.spec.names.kind == "StreamEncryption").unwrap();
        let schema = resource.spec.versions.remove(0).schema.unwrap().open_api_v3_schema.unwrap();
        let child = |schema: JSONSchemaProps, name: &str| schema.properties.unwrap().remove(name).unwrap();
        let field = path.iter().fold(child(schema, "spec"), |schema, name| child(schema, name));
        let length = |bound: Option<i64>| usize::try_from(bound.unwrap()).unwrap();
        let [rule] = field.x_kubernetes_validations.unwrap().try_into().unwrap();
        let conditions: Vec<Condition> = rule.rule.split(" && ").map(Condition::of).collect();
        let pattern = conditions.iter().find_map(|condition| match condition {
            Condition::Matches(pattern) => Some(pattern.as_str().to_owned()),
            Condition::MatchesNot(_) | Condition::StartsNotWith(_) | Condition::PartIsAtMost { .. } => None,
        });
        let lengths = length(field.min_length)..=length(field.max_length);
        Self { lengths, pattern: pattern.unwrap(), conditions }
    }

    fn takes(&self, text: &str) -> bool {
        self.lengths.contains(&text.chars().count())
            && self.conditions.iter().all(|condition| condition.holds(text))
    }
}

static STREAM_ARN: LazyLock<Rule> = LazyLock::new(|| Rule::of(&["stream", "arn"]));
static NAME: LazyLock<Rule> = LazyLock::new(|| Rule::of(&["stream", "name"]));
static REGION: LazyLock<Rule> = LazyLock::new(|| Rule::of(&["stream", "region"]));
static KEY_ARN: LazyLock<Rule> = LazyLock::new(|| Rule::of(&["key", "arn"]));
static KEY_OBJECT: LazyLock<Rule> = LazyLock::new(|| Rule::of(&["key", "objectRef", "name"]));
static ALIAS: LazyLock<Rule> = LazyLock::new(|| Rule::of(&["key", "alias"]));

/// Generates texts that match the pattern of `rule`; some of their repetitions are very long.
fn described(rule: &Rule) -> impl Strategy<Value = String> + use<> {
    let pattern = rule.pattern.trim_start_matches('^').trim_end_matches('$');
    let repeated = pattern.replace('+', "{1,60}");
    prop_oneof![
        3 => string_regex(&pattern.replace('+', "{1,6}").replace('*', "{0,2}")).unwrap(),
        1 => string_regex(&repeated.replace('*', "{0,4}")).unwrap(),
    ]
}

/// Partitions, each with one of its regions.
const PLACES: [(&str, &str); 8] = [
    ("aws", "eu-west-1"),
    ("aws-cn", "cn-north-1"),
    ("aws-eusc", "eusc-de-east-1"),
    ("aws-us-gov", "us-gov-west-1"),
    ("aws-iso", "us-iso-east-1"),
    ("aws-iso-b", "us-isob-east-1"),
    ("aws-iso-e", "eu-isoe-west-1"),
    ("aws-iso-f", "us-isof-south-1"),
];

/// Replaces partition and region of `text` with a matching pair, if `text` is an ARN: random ones hardly ever
/// match.
fn placed(text: &str, (partition, region): (&str, &str)) -> String {
    let mut parts: Vec<&str> = text.split(':').collect();
    if parts.len() >= 6 {
        parts[1] = partition;
        parts[3] = region;
    }
    parts.join(":")
}

/// Generates a character that resembles another one, or that ends a text in some context.
fn odd_character() -> impl Strategy<Value = char> {
    prop_oneof![
        4 => prop::sample::select(" :/-_.*?#%\\\"'\n\r\t\0aZ09".chars().collect::<Vec<_>>()),
        1 => prop::sample::select("٣３²ａéßΑ\u{200b}\u{feff}\u{202e}".chars().collect::<Vec<_>>()),
        1 => any::<char>(),
    ]
}

#[derive(Clone, Debug)]
enum Edit {
    Insert(char),
    Replace(char),
    Delete,
    Repeat(usize),
    Truncate,
}

fn edited(text: &str, edits: &[(prop::sample::Index, Edit)]) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    for (at, edit) in edits {
        let at = at.index(characters.len() + 1);
        match edit {
            Edit::Insert(character) => characters.insert(at, *character),
            Edit::Replace(character) if at < characters.len() => characters[at] = *character,
            Edit::Delete if at < characters.len() => drop(characters.remove(at)),
            Edit::Repeat(times) if at < characters.len() => {
                characters.splice(at..at, std::iter::repeat_n(characters[at], *times).collect::<Vec<_>>());
            }
            Edit::Truncate => characters.truncate(at),
            Edit::Replace(_) | Edit::Delete | Edit::Repeat(_) => {}
        }
    }
    characters.into_iter().collect()
}

/// Generates texts: some are valid, most are nearly valid, and some are arbitrary.
fn text(rule: &Rule) -> impl Strategy<Value = String> + use<> {
    let edit = prop_oneof![
        3 => odd_character().prop_map(Edit::Insert),
        3 => odd_character().prop_map(Edit::Replace),
        3 => Just(Edit::Delete),
        1 => (1_usize..700).prop_map(Edit::Repeat),
        1 => Just(Edit::Truncate),
    ];
    let edits = prop::collection::vec((any::<prop::sample::Index>(), edit), 0..3);
    prop_oneof![
        3 => (described(rule), edits.clone()).prop_map(|(text, edits)| edited(&text, &edits)),
        6 => (described(rule), prop::sample::select(&PLACES[..]), edits)
            .prop_map(|(text, place, edits)| edited(&placed(&text, place), &edits)),
        1 => any::<String>(),
    ]
}

/// Checks that the parser and the schema agree on `text`, and that a parsed text is written back unchanged.
fn agree<T: Display>(rule: &Rule, text: &str, read: &Result<T, ParseError>) -> Result<(), TestCaseError> {
    prop_assert_eq!(read.is_ok(), rule.takes(text), "the schema and the parser differ about {:?}", text);
    match read {
        Ok(read) => prop_assert_eq!(read.to_string(), text),
        Err(malformed) => prop_assert!(!malformed.to_string().is_empty()),
    }
    Ok(())
}

fn named(service: Service, name: &str) -> Result<StreamArn, ParseError> {
    let StreamArn { partition, region, account, .. } = stream(service);
    StreamArn::new(partition, service, region, account, name)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn schema_and_parser_accept_same_stream_arns(text in text(&STREAM_ARN)) {
        agree(&STREAM_ARN, &text, &StreamArn::from_str(&text))?;
    }

    #[test]
    fn schema_and_parser_accept_same_key_arns(text in text(&KEY_ARN)) {
        agree(&KEY_ARN, &text, &KeyArn::from_str(&text))?;
    }

    #[test]
    fn schema_and_parser_accept_same_aliases(text in text(&ALIAS)) {
        let read = alias(&text);
        agree(&ALIAS, &text, &read)?;
        prop_assert!(!matches!(read, Ok(KmsKeyId::Arn(_))));
    }

    #[test]
    fn schema_and_parser_accept_same_regions(text in text(&REGION)) {
        agree(&REGION, &text, &Region::from_str(&text))?;
    }

    #[test]
    fn schema_and_parser_accept_same_stream_names(text in text(&NAME)) {
        prop_assert_eq!(named(Service::Kinesis, &text).is_ok(), NAME.takes(&text), "{:?}", text);
        // The resource's own rule: a name with `service: Firehose` has at most 64 characters.
        let firehose = NAME.takes(&text) && text.len() <= 64;
        prop_assert_eq!(named(Service::Firehose, &text).is_ok(), firehose, "{:?}", text);
    }

    #[test]
    fn schema_and_parser_accept_same_key_object_names(text in text(&KEY_OBJECT)) {
        prop_assert_eq!(object::is_dns_subdomain(&text), KEY_OBJECT.takes(&text), "{:?}", text);
    }

    #[test]
    fn stream_by_name_equals_stream_by_arn(text in text(&NAME), firehose in any::<bool>()) {
        let service = if firehose { Service::Firehose } else { Service::Kinesis };
        if let Ok(stream) = named(service, &text) {
            prop_assert_eq!(stream.name(), &text);
            prop_assert_eq!(stream.to_string().parse(), Ok(stream));
        }
    }
}

#[test]
fn random_texts_are_often_valid_and_often_invalid() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    for rule in [&STREAM_ARN, &NAME, &REGION, &KEY_ARN, &ALIAS, &KEY_OBJECT] {
        let mut runner = TestRunner::deterministic();
        let texts = text(rule);
        let taken = (0..60).filter(|_| rule.takes(&texts.new_tree(&mut runner).unwrap().current())).count();
        assert!((12..48).contains(&taken), "{taken} of 60 are taken by {}", rule.pattern);
    }
}
