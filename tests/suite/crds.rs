//! `crds/` matches the code, and `kubectl apply` and Argo CD accept it without reporting a difference.
//!
//! `UPDATE_CRDS=1 cargo test --test suite crds` regenerates the files.

use std::fs;
use std::path::PathBuf;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;
use stream_encryption_api::crd::definitions;
use stream_encryption_operator::commands::definition_yaml;

use crate::readme::kept;

/// The annotation that `kubectl apply` writes holds 256 KiB. Every definition below this size fits.
const LARGEST: usize = 200 * 1024;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crds")
}

/// Every definition as JSON, by file name.
fn all() -> Vec<(&'static str, Value)> {
    definitions()
        .into_iter()
        .map(|(file, definition)| (file, serde_json::to_value(definition).unwrap()))
        .collect()
}

/// The schema of a definition's only version.
fn schema(definition: &Value) -> &Value {
    &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

/// Collects a schema and all schemas inside it, each with its path.
fn schemas<'a>(path: &str, schema: &'a Value, found: &mut Vec<(String, &'a Value)>) {
    found.push((path.to_owned(), schema));
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        schemas(&format!("{path}.{name}"), property, found);
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            schemas(&format!("{path}[]"), &schema[key], found);
        }
    }
    for key in ["anyOf", "allOf", "oneOf"] {
        for branch in schema[key].as_array().into_iter().flatten() {
            schemas(&format!("{path}({key})"), branch, found);
        }
    }
}

/// Checks every schema of every definition.
fn each_schema(check: impl Fn(&str, &Value)) {
    for (file, definition) in all() {
        let mut found = Vec::new();
        schemas("", schema(&definition), &mut found);
        assert!(found.len() > 10, "{file}: only {} schemas were found", found.len());
        for (path, schema) in found {
            check(&format!("{file}: {path}"), schema);
        }
    }
}

#[test]
fn files_in_crds_match_the_code() {
    for (file, definition) in definitions() {
        kept(&format!("crds/{file}"), &definition_yaml(&definition).unwrap(), "UPDATE_CRDS", "crds");
    }
}

#[test]
fn crds_contains_only_generated_files() {
    let made: Vec<&str> = definitions().into_iter().map(|(file, _)| file).collect();
    for entry in fs::read_dir(directory()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(made.contains(&name.as_str()), "crds/{name} is not generated: delete it");
    }
}

#[test]
fn definition_round_trips_through_yaml() {
    for (file, definition) in definitions() {
        let read: CustomResourceDefinition =
            serde_saphyr::from_str(&definition_yaml(&definition).unwrap()).unwrap();
        assert!(read == definition, "{file} is read back as something else");
    }
}

#[test]
fn definition_fits_into_last_applied_annotation() {
    for (file, definition) in definitions() {
        let size = definition_yaml(&definition).unwrap().len();
        assert!(size < LARGEST, "{file} has {size} bytes");
    }
}

#[test]
fn every_schema_suits_kubectl_and_gitops() {
    each_schema(|path, schema| {
        assert!(
            !path.contains("[]") || schema.get("default").is_none(),
            "{path}: a default in a list shows as a difference in GitOps"
        );
        assert!(
            schema["type"] != "array" || schema["x-kubernetes-list-type"].is_string(),
            "{path}: no x-kubernetes-list-type"
        );
        assert!(schema.get("nullable").is_none(), "{path} is nullable");
        assert!(schema["type"] != "number", "{path} is a float");
        assert!(schema.get("x-kubernetes-int-or-string").is_none(), "{path} is a number or a text");
        assert!(schema.get("x-kubernetes-preserve-unknown-fields").is_none(), "{path} takes anything");
        assert!(
            path.contains("[]") || path.contains('(') || schema["description"].is_string(),
            "{path}: no description for kubectl explain"
        );
        // Some API servers since Kubernetes 1.34 print a warning for other formats at each install.
        let format = schema["format"].as_str();
        assert!(matches!(format, None | Some("int32" | "int64" | "date-time")), "{path}: {format:?}");
        let whole = schema["type"] != "integer" || schema["format"] == "int64";
        let bounded = schema["minimum"].is_number() && schema["maximum"].is_number();
        assert!(whole || bounded, "{path}: a number without bounds");
        assert!(!schema["description"].to_string().contains('`'), "{path}: {}", schema["description"]);
    });
}

/// T16: user-written fields are stored, kept in memory and copied into messages.
#[test]
fn user_written_fields_are_bounded() {
    for (file, definition) in all().into_iter().filter(|(file, _)| !file.starts_with("streamledgers")) {
        let mut found = Vec::new();
        schemas("spec", &schema(&definition)["properties"]["spec"], &mut found);
        assert!(found.len() > 10, "{file}: only {} schemas were found", found.len());
        for (path, schema) in found {
            let says = |word: &str| schema[word].is_u64() || schema[word].is_array();
            let mut rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
            let is_one_word =
                |rule: &Value| rule["rule"].as_str().is_some_and(|rule| rule.starts_with("self == '"));
            let bounded = match schema["type"].as_str() {
                Some("string") => says("maxLength") || says("enum") || rules.any(is_one_word),
                Some("array") => says("maxItems"),
                Some("object") => !schema["additionalProperties"].is_object() || says("maxProperties"),
                _ => true,
            };
            assert!(bounded, "{file}: {path} can be of any length");
        }
    }
}

#[test]
fn every_kind_but_the_ledger_has_a_status_subresource() {
    for (file, definition) in all() {
        let has_status = definition["spec"]["versions"][0]["subresources"]["status"].is_object();
        assert_eq!(has_status, definition["spec"]["names"]["kind"] != "StreamLedger", "{file}");
    }
}
