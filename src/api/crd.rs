//! The CustomResourceDefinitions, as `stream-encryption-operator crd` prints them and `crds/` holds them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use super::ledger::StreamLedger;
use super::stream_encryption::StreamEncryption;

/// Every definition that the operator needs, with the name of its file in `crds/`.
#[must_use]
pub fn definitions() -> Vec<(&'static str, CustomResourceDefinition)> {
    vec![
        ("streamencryptions.streamencryption.dev.yaml", StreamEncryption::crd()),
        ("streamledgers.streamencryption.dev.yaml", StreamLedger::crd()),
    ]
}

/// A definition as the file in `crds/` has it.
pub fn yaml(definition: &CustomResourceDefinition) -> anyhow::Result<String> {
    let mut text = String::from("# Made by `stream-encryption-operator crd`; a test holds it to the code.\n");
    text.push_str(&serde_saphyr::to_string(definition)?);
    Ok(text)
}
