//! `crds/` holds what the code says, and that is something which `kubectl apply` and Argo CD take without a difference.
//!
//! `UPDATE_CRDS=1 cargo test --test suite crds` writes the files anew.

use std::fs;
use std::path::PathBuf;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;
use stream_encryption_operator::api::crd::{definitions, yaml};

/// The annotation that `kubectl apply` writes holds 256 KiB; below this everything fits.
const LARGEST: usize = 200 * 1024;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crds")
}

/// Every definition as JSON, by the name of its file.
fn all() -> Vec<(&'static str, Value)> {
    definitions()
        .into_iter()
        .map(|(file, definition)| (file, serde_json::to_value(definition).unwrap()))
        .collect()
}

/// The schema of the one version that a definition has.
fn schema(definition: &Value) -> &Value {
    &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

/// A schema and every schema in it, each with its path.
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

/// Every schema of every definition.
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
fn the_files_in_crds_are_what_the_code_says() {
    let update = std::env::var("UPDATE_CRDS").is_ok_and(|value| value == "1");
    for (file, definition) in definitions() {
        let path = directory().join(file);
        let made = yaml(&definition).unwrap();
        if update {
            fs::create_dir_all(directory()).unwrap();
            fs::write(&path, &made).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == made,
            "crds/{file} is not what the code says: UPDATE_CRDS=1 cargo test --test suite crds"
        );
    }
}

#[test]
fn crds_holds_no_file_that_the_code_does_not_make() {
    let made: Vec<&str> = definitions().into_iter().map(|(file, _)| file).collect();
    for entry in fs::read_dir(directory()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(made.contains(&name.as_str()), "crds/{name} is made by nothing: delete it");
    }
}

#[test]
fn each_file_is_read_back_as_the_definition_it_was_made_from() {
    for (file, definition) in definitions() {
        let read: CustomResourceDefinition = serde_saphyr::from_str(&yaml(&definition).unwrap()).unwrap();
        assert!(read == definition, "{file} is read back as something else");
    }
}

#[test]
fn each_definition_fits_into_the_annotation_of_kubectl_apply() {
    for (file, definition) in definitions() {
        let size = yaml(&definition).unwrap().len();
        assert!(size < LARGEST, "{file} has {size} bytes");
    }
}

#[test]
fn no_default_lies_inside_a_list() {
    each_schema(|path, schema| {
        assert!(
            !path.contains("[]") || schema.get("default").is_none(),
            "{path}: a default in a list shows as a difference in GitOps"
        );
    });
}

#[test]
fn every_list_says_how_it_is_merged() {
    each_schema(|path, schema| {
        assert!(
            schema["type"] != "array" || schema["x-kubernetes-list-type"].is_string(),
            "{path}: no x-kubernetes-list-type"
        );
    });
}

#[test]
fn nothing_is_nullable_a_float_or_either_a_number_or_a_text() {
    each_schema(|path, schema| {
        assert!(schema.get("nullable").is_none(), "{path} is nullable");
        assert!(schema["type"] != "number", "{path} is a float");
        assert!(schema.get("x-kubernetes-int-or-string").is_none(), "{path} is a number or a text");
        assert!(schema.get("x-kubernetes-preserve-unknown-fields").is_none(), "{path} takes anything");
    });
}

/// T16: what people write is stored, kept in memory and put into messages.
#[test]
fn nothing_that_people_write_can_be_of_any_length() {
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
fn every_field_has_a_description() {
    each_schema(|path, schema| {
        assert!(
            path.contains("[]") || path.contains('(') || schema["description"].is_string(),
            "{path}: kubectl explain would say nothing"
        );
    });
}

/// Some API servers since Kubernetes 1.34 warn of other formats at each install.
#[test]
fn every_format_is_one_that_kubernetes_knows() {
    each_schema(|path, schema| {
        let format = schema["format"].as_str();
        assert!(matches!(format, None | Some("int32" | "int64" | "date-time")), "{path}: {format:?}");
        let whole = schema["type"] != "integer" || schema["format"] == "int64";
        let bounded = schema["minimum"].is_number() && schema["maximum"].is_number();
        assert!(whole || bounded, "{path}: a number without bounds");
    });
}

#[test]
fn no_description_has_the_backticks_of_rustdoc() {
    each_schema(|path, schema| {
        assert!(!schema["description"].to_string().contains('`'), "{path}: {}", schema["description"]);
    });
}

#[test]
fn only_a_stream_encryption_has_a_status() {
    for (file, definition) in all() {
        let has_status = definition["spec"]["versions"][0]["subresources"]["status"].is_object();
        assert_eq!(has_status, definition["spec"]["names"]["kind"] == "StreamEncryption", "{file}");
    }
}

#[test]
fn what_is_left_out_shows_with_its_default_and_suspend_and_verify_stay_out() {
    let (_, definition) = all()
        .into_iter()
        .find(|(_, definition)| definition["spec"]["names"]["kind"] == "StreamEncryption")
        .unwrap();
    let properties = &schema(&definition)["properties"]["spec"]["properties"];
    assert_eq!(properties["encryption"]["default"], "Enabled");
    assert_eq!(properties["drift"]["default"], "Correct");
    assert_eq!(properties["deletionPolicy"]["default"], "Retain");
    for field in ["stream", "key", "suspend", "verify"] {
        assert!(properties[field].get("default").is_none(), "spec.{field} has a default");
    }
}
