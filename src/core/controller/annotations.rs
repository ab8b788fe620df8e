//! Requests of users beside the spec, by annotations: if Git owns the spec, annotations do not conflict with
//! it.

use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_api::{RETRY_ANNOTATION, SUSPEND_ANNOTATION};

/// Maximum length of the quotation of an unknown value, in characters.
const LONGEST_QUOTE: usize = 64;

/// Returns the value of the retry annotation, truncated to 256 characters.
#[must_use]
pub fn retry_token(resource: &StreamEncryption) -> Option<String> {
    annotation(resource, RETRY_ANNOTATION).map(|value| value.chars().take(256).collect())
}

/// Returns whether reconciliation is suspended.
#[must_use]
pub fn is_suspended(resource: &StreamEncryption) -> bool {
    suspended_by(resource).is_some()
}

/// Returns the source of the suspension; `None` if the resource is not suspended. A value of the annotation
/// that is neither true nor false counts as true and is quoted: its author intended to stop something, and an
/// operator that continues would be the worse mistake.
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
    fn suspended_if_spec_or_annotation_is_set() {
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
