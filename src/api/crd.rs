//! The `CustomResourceDefinitions`, as `stream-encryption-operator crd` prints them and as `crds/` contains
//! them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use serde_json::json;

use super::ledger::StreamLedger;
use super::policy::StreamEncryptionPolicy;
use super::stream_encryption::{StreamEncryption, UNSEEN};

/// Returns every definition that the operator needs, with the name of its file in `crds/`, sorted by that
/// name.
#[must_use]
pub fn definitions() -> Vec<(&'static str, CustomResourceDefinition)> {
    vec![
        ("streamencryptionpolicies.streamencryption.dev.yaml", corrected(StreamEncryptionPolicy::crd())),
        ("streamencryptions.streamencryption.dev.yaml", unseen_at_first(corrected(StreamEncryption::crd()))),
        ("streamledgers.streamencryption.dev.yaml", corrected(StreamLedger::crd())),
    ]
}

/// Sets the default status, which a resource has until the operator writes one: see [`UNSEEN`].
fn unseen_at_first(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        let properties = schema.and_then(|schema| schema.properties.as_mut());
        if let Some(status) = properties.and_then(|properties| properties.get_mut("status")) {
            status.default = Some(JSON(json!({"observedGeneration": UNSEEN})));
        }
    }
    definition
}

/// Corrects the schemas that the derive generates. See [`correct`].
fn corrected(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            correct(schema);
        }
    }
    definition
}

/// Corrects a schema and every schema in it:
///
/// - The derive makes every optional field nullable. An absent field and a null field would then be two
///   states with one meaning: CEL treats a null field as present, and `GitOps` tools report a difference
///   between the two.
/// - Kubernetes has no unsigned integers: some API servers since 1.34 warn about the format `uint32`. The
///   bounds express the same.
/// - `kubectl explain` prints a description as plain text, where rustdoc's backticks are noise.
fn correct(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if schema.format.as_deref() == Some("uint32") {
        schema.format = Some("int32".to_owned());
        schema.minimum = schema.minimum.or(Some(0.0));
        schema.maximum = schema.maximum.or(Some(f64::from(i32::MAX)));
    }
    if let Some(description) = &mut schema.description {
        description.retain(|character| character != '`');
    }
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        correct(property);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => correct(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(correct),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        correct(values);
    }
}
