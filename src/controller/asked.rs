//! What a person asks for beside the spec, by annotations: where the spec belongs to Git, these do not fight it.

use crate::api::stream_encryption::StreamEncryption;
use crate::api::{RETRY_ANNOTATION, SUSPEND_ANNOTATION};

/// The value of the retry annotation.
#[must_use]
pub fn retry_of(resource: &StreamEncryption) -> Option<String> {
    annotation(resource, RETRY_ANNOTATION).map(|value| value.chars().take(256).collect())
}

/// Whether the operator is to leave the stream alone for now.
#[must_use]
pub fn is_suspended(resource: &StreamEncryption) -> bool {
    resource.spec.suspend || annotation(resource, SUSPEND_ANNOTATION).is_some_and(|value| value == "true")
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
    fn the_spec_or_the_annotation_suspends_and_neither_takes_back_what_the_other_says() {
        for (spec, annotation, suspended) in [
            (false, None, false),
            (false, Some("true"), true),
            (false, Some("false"), false),
            (false, Some(""), false),
            (true, None, true),
            (true, Some("false"), true),
        ] {
            assert_eq!(is_suspended(&resource(spec, annotation)), suspended, "{spec} {annotation:?}");
        }
    }
}
