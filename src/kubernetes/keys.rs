//! Key objects that `key.objectRef` names: their ARN, and a watch of their changes.
//!
//! Two controllers manage keys as Kubernetes objects: AWS Controllers for Kubernetes (ACK) and Crossplane's
//! provider for KMS (its namespaced kinds). Neither has to be installed: without them nothing is watched, and
//! a resource that names such an object reports `KeyReferenceCRDMissing`. This module only reads.

use futures_util::{Stream, StreamExt};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::runtime::{WatchStreamExt, watcher};
use stream_encryption_api::stream_encryption::KeyObjectReference;
use stream_encryption_core::controller::kube_api::{KubeError, ReferencedKey};
use stream_encryption_core::model::object::is_dns_subdomain;

use super::request::with_timeout;
use super::trimmed::Trimmed;
use super::watches;

/// A controller whose `Key` objects can be referenced.
struct Provider {
    group: &'static str,
    version: &'static str,
    /// JSON pointer to the key's ARN.
    arn: &'static str,
}

/// [ACK](https://aws-controllers-k8s.github.io/community/reference/kms/v1alpha1/key/) and
/// [Crossplane](https://marketplace.upbound.io/providers/upbound/provider-aws-kms).
const PROVIDERS: [Provider; 2] = [
    Provider { group: "kms.services.k8s.aws", version: "v1alpha1", arn: "/status/ackResourceMetadata/arn" },
    Provider { group: "kms.aws.m.upbound.io", version: "v1beta1", arn: "/status/atProvider/arn" },
];

impl Provider {
    fn kind(&self) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(self.group, self.version, "Key"), "keys")
    }
}

/// A key object, by group, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyObject {
    /// The API group of its kind.
    pub group: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Returns the ARN in the status of a key object.
pub(super) async fn arn(
    client: &Client,
    namespace: &str,
    reference: &KeyObjectReference,
) -> Result<ReferencedKey, KubeError> {
    // The schema rejects such a group or name; an object may be older than the schema's rule.
    let Some(provider) = PROVIDERS.iter().find(|provider| provider.group == reference.group) else {
        return Ok(ReferencedKey::KindMissing);
    };
    if !is_dns_subdomain(&reference.name) {
        return Ok(ReferencedKey::NotReady);
    }
    let api: Api<Trimmed<DynamicObject>> = Api::namespaced_with(client.clone(), namespace, &provider.kind());
    let request = async {
        match api.get(&reference.name).await {
            Ok(key) => Ok(Some(key)),
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                // If the kind is missing, the error names no object; if the object is missing, the error
                // names it.
                if status.details.as_ref().is_some_and(|details| details.name == reference.name) {
                    return Ok(None);
                }
                Err(kube::Error::Api(status))
            }
            Err(error) => Err(error),
        }
    };
    match with_timeout(request).await {
        Ok(Some(key)) => {
            let arn = key.0.data.pointer(provider.arn).and_then(serde_json::Value::as_str);
            Ok(arn.map_or(ReferencedKey::NotReady, |arn| ReferencedKey::Arn(arn.to_owned())))
        }
        Ok(None) => Ok(ReferencedKey::NotReady),
        Err(KubeError::Rejected(_)) => Ok(ReferencedKey::KindMissing),
        Err(error) => Err(error),
    }
}

/// Returns a stream of every key object that appears, changes or is deleted. The stream never ends.
pub fn changes(client: &Client, namespace: Option<&str>) -> impl Stream<Item = KeyObject> + Send + 'static {
    let watches = PROVIDERS.map(|provider| {
        let api: Api<Trimmed<PartialObjectMeta<DynamicObject>>> = match namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &provider.kind()),
            None => Api::all_with(client.clone(), &provider.kind()),
        };
        // If the kind is not installed, each list fails and is retried with a backoff of at most half a
        // minute.
        let events = watcher(api, watches::config()).default_backoff();
        events.touched_objects().filter_map(move |touched| {
            std::future::ready(touched.ok().and_then(|touched| {
                let ObjectMeta { namespace, name, .. } = touched.0.metadata;
                Some(KeyObject { group: provider.group, namespace: namespace?, name: name? })
            }))
        })
    });
    let [ack, crossplane] = watches;
    futures_util::stream::select(ack, crossplane)
}

#[cfg(test)]
mod tests {
    use kube::Config;

    use super::*;

    #[tokio::test]
    async fn invalid_object_name_is_not_requested() {
        // Nothing listens at this address, so any request would be an error.
        let client = Client::try_from(Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        for name in ["my orders", "../../other/keys/orders", "orders?watch=true", "orders#", "", "\u{fc}"] {
            let reference = KeyObjectReference {
                group: "kms.services.k8s.aws".to_owned(),
                kind: "Key".to_owned(),
                name: name.to_owned(),
            };
            assert_eq!(arn(&client, "data", &reference).await, Ok(ReferencedKey::NotReady), "{name:?}");
        }
    }
}
