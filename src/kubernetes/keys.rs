//! Keys of AWS Controllers for Kubernetes (ACK) that `key.ref` names: their ARN, and word of their changes.
//!
//! The kind need not be installed: then nothing is watched, and a resource that names one says so. Reads only.

use futures_util::{Stream, StreamExt};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};

use super::ask::ask;
use super::trimmed::Trimmed;
use super::watches;
use crate::api::stream_encryption::KeyObjectReference;
use crate::controller::records::{RecordError, ReferencedKey};
use crate::model::object::can_be_named;

fn kind() -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("kms.services.k8s.aws", "v1alpha1", "Key"),
        "keys",
    )
}

/// The ARN in the status of a key object.
pub(super) async fn arn(
    client: &Client,
    namespace: &str,
    reference: &KeyObjectReference,
) -> Result<ReferencedKey, RecordError> {
    // The schema refuses such a name; an object may be older than its rule.
    if !can_be_named(&reference.name) {
        return Ok(ReferencedKey::NotReady);
    }
    let api: Api<Trimmed<DynamicObject>> = Api::namespaced_with(client.clone(), namespace, &kind());
    let request = async {
        match api.get(&reference.name).await {
            Ok(key) => Ok(Some(key)),
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                // Without the kind, the API server does not know the path; without the object, it names the object.
                if status.details.as_ref().is_some_and(|details| details.name == reference.name) {
                    return Ok(None);
                }
                Err(kube::Error::Api(status))
            }
            Err(error) => Err(error),
        }
    };
    match ask(request).await {
        Ok(Some(key)) => {
            let arn =
                key.0.data.pointer("/status/ackResourceMetadata/arn").and_then(serde_json::Value::as_str);
            Ok(arn.map_or(ReferencedKey::NotReady, |arn| ReferencedKey::Arn(arn.to_owned())))
        }
        Ok(None) => Ok(ReferencedKey::NotReady),
        Err(RecordError::Unusable(_)) => Ok(ReferencedKey::KindMissing),
        Err(error) => Err(error),
    }
}

/// The namespace and name of every key object that appears, changes or goes, for ever.
pub fn changes(
    client: Client,
    namespace: Option<&str>,
) -> impl Stream<Item = (String, String)> + Send + 'static {
    let api: Api<Trimmed<PartialObjectMeta<DynamicObject>>> = match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &kind()),
        None => Api::all_with(client, &kind()),
    };
    let events = watcher(api, watches::config()).default_backoff();
    // Where the kind is not installed each attempt fails, and is made again with a growing wait.
    events.touched_objects().filter_map(async |touched| {
        let metadata = touched.ok()?.0.metadata;
        Some((metadata.namespace?, metadata.name?))
    })
}

#[cfg(test)]
mod tests {
    use kube::Config;

    use super::*;

    #[tokio::test]
    async fn a_name_that_no_object_can_have_is_asked_of_nobody() {
        // Nobody listens here, so whatever is asked is an error.
        let client = Client::try_from(Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        for name in ["my orders", "../../other/keys/orders", "orders?watch=true", "orders#", "", "\u{fc}"] {
            let reference = KeyObjectReference {
                api_version: "kms.services.k8s.aws/v1alpha1".to_owned(),
                kind: "Key".to_owned(),
                name: name.to_owned(),
            };
            assert_eq!(arn(&client, "data", &reference).await, Ok(ReferencedKey::NotReady), "{name:?}");
        }
    }
}
