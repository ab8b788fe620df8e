//! The placeholders of `docs/messages.md`: they replace the values of one case in a message.

use std::sync::LazyLock;

use regex::Regex;

/// The values of one case, as patterns, and their placeholders.
const PLACEHOLDERS: &[(&str, &str)] = &[
    ("arn:aws:kms:[a-z0-9:-]+key/[0-9]", "KEY"),
    ("arn:aws:[a-z]+:[a-z0-9:-]+stream/[a-z]+", "STREAM"),
    ("StreamLedger stream-[0-9a-f]+", "StreamLedger NAME"),
    ("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]+Z", "TIME"),
    ("\"(ROT13|SUSPENDED|a/b|arn:aws:firehose:VALUE:[^\"]*)\"", "\"VALUE\""),
    ("call: (x|InvalidArgumentException)[.]", "call: CODE."),
    ("refused (firehose|kinesis):[A-Za-z]+: (Code|InvalidArgumentException)[.]", "refused ACTION: CODE."),
    (": (Code|InternalFailure)[)]", ": CODE)"),
    (
        "[(](InternalFailure|LimitExceededException|KMSAccessDeniedException|InvalidKMSResourceException|KMSOptInRequired)[)]",
        "(CODE)",
    ),
    (": KMS_ACCESS_DENIED[.]", ": CODE."),
    ("[(](firehose:Describe|kinesis:Describe)[A-Za-z]+", "(ACTION"),
    ("response to (firehose|kinesis):[A-Za-z]+", "response to ACTION"),
    ("denies (firehose|kinesis):[A-Za-z]+", "denies ACTION"),
    ("HTTP status [0-9]+", "HTTP status STATUS"),
    (
        "stream orders of account [0-9]+ was not found in eu-west-1",
        "stream NAME of account ACCOUNT was not found in REGION",
    ),
    ("(found|not) in eu-west-1", "$1 in REGION"),
    (
        "region cn-north-1 is in partition aws-cn, not in aws",
        "region REGION is in partition VALUE, not in VALUE",
    ),
    ("KinesisStreamAsSource|MSKAsSource", "VALUE"),
    ("(status|AWS reports) CREATING_FAILED", "$1 VALUE"),
    ("last known state is ENABLED", "last known state is VALUE"),
    ("[0-9]+ of them by other callers", "EXTERNAL of them by other callers"),
    ("[0-9]+ of [0-9]+ encryption calls", "USED of LIMIT encryption calls"),
    ("[0-9]+ of [0-9]+ calls in 24 hours", "LEFT of LIMIT calls in 24 hours"),
    ("would call (Start|Stop)[A-Za-z]+", "would call OPERATION"),
];

static PATTERNS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    PLACEHOLDERS.iter().map(|(value, placeholder)| (pattern(value), *placeholder)).collect()
});

/// Returns a pattern.
pub(super) fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern")
}

/// Returns the message with placeholders for the values of one case.
pub(super) fn generalized(message: impl Into<String>) -> String {
    let mut message = message.into();
    for (value, placeholder) in PATTERNS.iter() {
        message = value.replace_all(&message, *placeholder).into_owned();
    }
    message
}
