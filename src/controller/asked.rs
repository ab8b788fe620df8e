//! What a person asks for beside the spec, by annotations: where the spec belongs to Git, these do not fight it.

use crate::api::stream_encryption::StreamEncryption;
use crate::api::{RETRY_ANNOTATION, SUSPEND_ANNOTATION};

/// How much of a value that is not understood is quoted, in characters.
const LONGEST_QUOTE: usize = 64;

/// The value of the retry annotation.
#[must_use]
pub fn retry_of(resource: &StreamEncryption) -> Option<String> {
    annotation(resource, RETRY_ANNOTATION).map(|value| value.chars().take(256).collect())
}

/// Whether the operator is to leave the stream alone for now.
#[must_use]
pub fn is_suspended(resource: &StreamEncryption) -> bool {
    suspended_by(resource).is_some()
}

/// What suspends the resource. A value of the annotation that is neither true nor false is taken for true, and quoted: whoever wrote it
/// wants something left alone, and an operator that goes on is the worse mistake.
#[must_use]
pub fn suspended_by(resource: &StreamEncryption) -> Option<String> {
    if resource.spec.suspend {
        return Some("spec.suspend".to_owned());
    }
    let value = annotation(resource, SUSPEND_ANNOTATION)?;
    match value.trim().to_ascii_lowercase().as_str() {
        "" | "false" | "no" | "off" | "0" => None,
        "true" | "yes" | "on" | "1" => Some(format!("the annotation {SUSPEND_ANNOTATION}")),
        _ => {
            let value: String = value.chars().take(LONGEST_QUOTE).collect();
            Some(format!(
                "the annotation {SUSPEND_ANNOTATION} (its value {value:?} is unknown and counts as true)"
            ))
        }
    }
}

fn annotation<'a>(resource: &'a StreamEncryption, name: &str) -> Option<&'a String> {
    resource.metadata.annotations.as_ref()?.get(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(suspend: bool, annotation: Option<&str>) -> StreamEncryption {
        let annotations = annotation.map(|value| json!({"streamencryption.dev/suspend": value}));
        let resource = json!({
            "apiVersion": "streamencryption.dev/v1alpha1",
            "kind": "StreamEncryption",
            "metadata": {"name": "orders", "annotations": annotations},
            "spec": {"stream": {"service": "Kinesis", "name": "orders"}, "suspend": suspend},
        });
        serde_json::from_value(resource).unwrap()
    }

    #[test]
    fn unknown_value_of_suspend_annotation_is_quoted() {
        let by = |value| suspended_by(&resource(false, Some(value))).unwrap();
        assert!(by("until Monday").contains("\"until Monday\" is unknown"), "{}", by("until Monday"));
        let long = "x".repeat(1000);
        assert!(by(&long).len() < 200);
        assert_eq!(by("True"), by("true"));
    }

    #[test]
    fn the_spec_or_the_annotation_suspends_and_neither_takes_back_what_the_other_says() {
        for (spec, annotation, suspended) in [
            (false, None, false),
            (false, Some("true"), true),
            (false, Some("false"), false),
            (false, Some(""), false),
            (false, Some("True"), true),
            (false, Some("TRUE"), true),
            (false, Some("yes"), true),
            (false, Some("No"), false),
            (false, Some("False"), false),
            (false, Some("until Monday"), true),
            (true, None, true),
            (true, Some("false"), true),
        ] {
            assert_eq!(is_suspended(&resource(spec, annotation)), suspended, "{spec} {annotation:?}");
        }
    }
}
