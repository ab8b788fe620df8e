//! Key objects that `key.objectRef` names: their ARN, and a watch of their changes.
//!
//! Two controllers manage keys as Kubernetes objects: AWS Controllers for Kubernetes (ACK) and Crossplane's
//! provider for KMS (its namespaced kinds). Neither has to be installed: without them nothing is watched, and
//! a resource that names such an object reports `KeyReferenceCRDMissing`. This module only reads.

use std::time::Duration;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use stream_encryption_api::stream_encryption::KeyObjectReference;
use stream_encryption_core::controller::kube_api::{KubeError, ReferencedKey};
use stream_encryption_core::model::object::is_dns_subdomain;
use tracing::warn;

use super::change_detector::ChangeDetector;
use super::request::{is_missing_object, with_timeout};
use super::store::Key;
use super::trimmed::Trimmed;
use super::watches::{self, WatchBackoff};
use crate::telemetry::Warnings;

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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyObject {
    /// The API group of its kind.
    pub group: &'static str,
    /// Its namespace and name.
    pub key: Key,
}

/// Returns the ARN in the status of a key object. If the operator lacks the permission, this returns the error, as
/// every other request does. The log then has the cause, and the next reconcile tries again.
pub(super) async fn referenced_key(
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
            Ok(key) => {
                let arn = key.0.data.pointer(provider.arn).and_then(serde_json::Value::as_str);
                Ok(arn.map_or(ReferencedKey::NotReady, |arn| ReferencedKey::Arn(arn.to_owned())))
            }
            Err(kube::Error::Api(status)) if is_missing_object(&status) => Ok(ReferencedKey::NotReady),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(ReferencedKey::KindMissing),
            Err(error) => Err(error),
        }
    };
    with_timeout(request).await
}

/// Time until a kind that is not installed is requested again. Meanwhile a resource that names such an object checks
/// the object itself.
const UNTIL_INSTALLED: Duration = Duration::from_mins(5);

/// Returns a stream of the key objects that appear, change or are deleted. Those of a list come together, and only those
/// that have changed since the last list. The stream never ends.
///
/// The watches do not list again at intervals: every reconcile reads its key object live, so a change that a watch has
/// lost is found by the next one.
pub fn changes(
    client: &Client,
    namespace: Option<&str>,
) -> impl Stream<Item = Vec<KeyObject>> + Send + 'static {
    let watches = PROVIDERS.map(|provider| {
        let api: Api<Trimmed<PartialObjectMeta<DynamicObject>>> = match namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &provider.kind()),
            None => Api::all_with(client.clone(), &provider.kind()),
        };
        let events = watcher(api, watches::config()).then(|event| async {
            if event.as_ref().is_err_and(is_missing_kind) {
                tokio::time::sleep(UNTIL_INSTALLED).await;
            }
            event
        });
        let mut warnings = Warnings::default();
        let namespace = namespace.map(str::to_owned);
        let events = events.backoff(WatchBackoff::default()).inspect_err(move |error| {
            if !is_missing_kind(error) && warnings.take_due() {
                let kind = format!("keys.{}", provider.group);
                let cause = watches::explain(error, &kind);
                warn!(
                    namespace,
                    cause, "failed to watch {kind}, reconciling no resource when its key changes"
                );
            }
        });
        let mut detector = ChangeDetector::of_key_objects();
        events.map_ok(watches::unwrap_trimmed).filter_map(move |event| {
            let changed = event.map(|event| detector.observe(&event)).unwrap_or_default();
            let changed: Vec<KeyObject> =
                changed.into_iter().map(|key| KeyObject { group: provider.group, key }).collect();
            std::future::ready((!changed.is_empty()).then_some(changed))
        })
    });
    let [ack, crossplane] = watches;
    futures_util::stream::select(ack, crossplane)
}

/// Returns whether a watch failed because its kind is not installed, or not any more.
fn is_missing_kind(error: &watcher::Error) -> bool {
    watches::status_of(error).is_some_and(|status| status.code == 404)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::extract::Request;
    use axum::http::StatusCode;
    use kube::Config;
    use serde_json::{Value, json};

    use super::*;

    /// Returns the number of requests in one hour of the watches, for an API server that responds to each request,
    /// given as its query, with a status code and a body.
    async fn requests_in_an_hour(
        respond: impl Fn(&str) -> (StatusCode, &'static str) + Clone + Send + Sync + 'static,
    ) -> usize {
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        let server = Router::new().fallback(async move |request: Request| {
            counted.fetch_add(1, Ordering::Relaxed);
            respond(request.uri().query().unwrap_or_default())
        });
        let changes = changes(&Client::new(server, "default"), None).collect::<Vec<_>>();
        assert!(
            tokio::time::timeout(Duration::from_hours(1), changes).await.is_err(),
            "the stream never ends"
        );
        requests.load(Ordering::Relaxed)
    }

    /// A cluster without key controllers must not be asked for their kinds all the time.
    #[tokio::test(start_paused = true)]
    async fn missing_kind_is_requested_every_five_minutes() {
        let requests = requests_in_an_hour(|_| (StatusCode::NOT_FOUND, "404 page not found")).await;
        // Two kinds, twelve times an hour.
        assert!((22..=26).contains(&requests), "{requests} requests in an hour");
    }

    #[tokio::test(start_paused = true)]
    async fn kind_that_is_removed_is_requested_every_five_minutes() {
        let requests = requests_in_an_hour(|query| {
            if query.contains("watch=true") {
                return (StatusCode::NOT_FOUND, "404 page not found");
            }
            let list = r#"{"apiVersion":"v1","kind":"List","metadata":{"resourceVersion":"1"},"items":[]}"#;
            (StatusCode::OK, list)
        });
        let requests = requests.await;
        // Two lists more.
        assert!((24..=28).contains(&requests), "{requests} requests in an hour");
    }

    fn reference(name: &str) -> KeyObjectReference {
        KeyObjectReference {
            group: "kms.services.k8s.aws".to_owned(),
            kind: "Key".to_owned(),
            name: name.to_owned(),
        }
    }

    fn status(code: u16, reason: &str, message: &str, details: &Value) -> String {
        let status = json!({
            "apiVersion": "v1", "kind": "Status", "status": "Failure", "metadata": {},
            "code": code, "reason": reason, "message": message, "details": details,
        });
        status.to_string()
    }

    #[tokio::test]
    async fn forbidden_key_object_is_not_a_missing_kind() {
        let forbidden = "keys.kms.services.k8s.aws \"orders\" is forbidden";
        let object = json!({"name": "orders", "group": "kms.services.k8s.aws", "kind": "keys"});
        for (code, body, found) in [
            (404, "404 page not found".to_owned(), Ok(ReferencedKey::KindMissing)),
            (404, status(404, "NotFound", "not found", &json!({})), Ok(ReferencedKey::KindMissing)),
            (404, status(404, "NotFound", "not found", &object), Ok(ReferencedKey::NotReady)),
            (
                403,
                status(403, "Forbidden", forbidden, &object),
                Err(KubeError::Rejected(forbidden.to_owned())),
            ),
        ] {
            let code = StatusCode::from_u16(code).unwrap();
            let server = Router::new().fallback(async move || (code, body));
            let client = Client::new(server, "default");
            assert_eq!(referenced_key(&client, "data", &reference("orders")).await, found);
        }
    }

    #[tokio::test]
    async fn invalid_object_name_is_not_requested() {
        // Nothing listens at this address, so any request would be an error.
        let client = Client::try_from(Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        for name in ["my orders", "../../other/keys/orders", "orders?watch=true", "orders#", "", "\u{fc}"] {
            assert_eq!(
                referenced_key(&client, "data", &reference(name)).await,
                Ok(ReferencedKey::NotReady),
                "{name:?}"
            );
        }
    }
}
