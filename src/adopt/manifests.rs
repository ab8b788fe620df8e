//! The content of the manifests: one `StreamEncryption` for each stream. Pure.
//!
//! A manifest keeps a stream as it is: it names the active key, observes by default, and leaves the encryption in place
//! when it is deleted. The same stream always gets the same text.

use serde::Serialize;
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::{
    DeletionPolicy, Encryption, KeyReference, Mode, StreamReference,
};

use super::found::FoundStream;
use super::keys::ManifestKey;

/// The API version of all kinds of the operator.
const API_VERSION: &str = "streamencryption.dev/v1alpha1";
/// The first line of every file.
const WRITTEN_BY: &str = "# Written by kubectl streamencryption adopt.\n";

/// What is the same for all manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The namespace of the resources.
    pub namespace: String,
    /// The mode of the resources.
    pub mode: Mode,
}

/// An object of Kubernetes. Serialized from structures, so that the order of the fields is the same in each build.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<'a, S> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata<'a>,
    spec: S,
}

#[derive(Serialize)]
struct Metadata<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
}

/// The fields of a spec that a reader needs; the others have their defaults.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    stream: StreamReference,
    key: KeyReference,
    encryption: Encryption,
    mode: Mode,
    deletion_policy: DeletionPolicy,
}

/// Returns the manifest of a stream.
pub fn stream_encryption(
    name: &str,
    stream: &FoundStream,
    key: &ManifestKey,
    options: &Options,
) -> anyhow::Result<String> {
    yaml(&Object {
        api_version: API_VERSION,
        kind: "StreamEncryption",
        metadata: Metadata { name, namespace: Some(&options.namespace) },
        spec: Spec {
            stream: StreamReference { arn: Some(stream.arn.to_string()), ..StreamReference::default() },
            key: key.reference(),
            encryption: Encryption::Enabled,
            mode: options.mode,
            deletion_policy: DeletionPolicy::Retain,
        },
    })
}

/// Returns the manifest of a policy.
pub fn policy(name: &str, spec: &StreamEncryptionPolicySpec) -> anyhow::Result<String> {
    let metadata = Metadata { name, namespace: None };
    yaml(&Object { api_version: API_VERSION, kind: "StreamEncryptionPolicy", metadata, spec })
}

/// Returns an object as the text of a file.
pub fn yaml(object: &impl Serialize) -> anyhow::Result<String> {
    Ok(format!("{WRITTEN_BY}{}", serde_saphyr::to_string(object)?))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::found::FoundEncryption;
    use super::*;

    const ORDERS: &str = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders";
    const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    fn made(key: &ManifestKey, mode: Mode) -> String {
        let arn = ORDERS.parse().unwrap();
        let (described_time, encryption) = (Timestamp::UNIX_EPOCH, FoundEncryption::Plaintext);
        let stream = FoundStream { arn, described_time, encryption, owners: None };
        let options = Options { namespace: "data".to_owned(), mode };
        stream_encryption("firehose-orders", &stream, key, &options).unwrap()
    }

    #[test]
    fn manifest_has_exactly_the_documented_fields() {
        assert_eq!(
            made(&ManifestKey::Arn(KEY.parse().unwrap()), Mode::Observe),
            format!(
                "# Written by kubectl streamencryption adopt.
apiVersion: streamencryption.dev/v1alpha1
kind: StreamEncryption
metadata:
  name: firehose-orders
  namespace: data
spec:
  stream:
    arn: {ORDERS}
  key:
    type: CUSTOMER_MANAGED_CMK
    arn: {KEY}
  encryption: Enabled
  mode: Observe
  deletionPolicy: Retain
"
            )
        );
    }

    #[test]
    fn mode_and_key_follow_the_choice() {
        let alias = ManifestKey::Alias("alias/orders".to_owned(), KEY.parse().unwrap());
        let text = made(&alias, Mode::Enforce);
        assert!(
            text.contains("mode: Enforce") && text.contains("alias: alias/orders") && !text.contains(KEY),
            "{text}"
        );
        assert!(made(&ManifestKey::AwsOwned, Mode::Observe).contains("type: AWS_OWNED_CMK"));
    }
}
