//! Requests to the API server: their deadline, and the conversion of their errors.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use axum::http;
use futures_util::AsyncReadExt as _;
use kube::Client;
use kube::core::Status;
use serde::de::DeserializeOwned;
use stream_encryption_core::controller::kube_api::KubeError;
use tokio::sync::Semaphore;

use super::retry::is_temporary_code;
use crate::telemetry::error_chain;

/// Deadline of every request, except for watches and the lists with which they begin.
pub(super) const DEADLINE: Duration = Duration::from_secs(15);

/// Sends a request with the deadline, and converts its error.
pub(super) async fn with_timeout<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, KubeError> {
    match tokio::time::timeout(DEADLINE, request).await {
        Ok(answer) => answer.map_err(|error| to_kube_error(&error)),
        Err(_) => Err(KubeError::Unavailable(format!("no response within {} s", DEADLINE.as_secs()))),
    }
}

/// Sends a request for an object; returns `None` if the object does not exist.
pub(super) async fn none_if_missing<T>(
    request: impl Future<Output = kube::Result<T>>,
) -> Result<Option<T>, KubeError> {
    let request = async {
        match request.await {
            Ok(found) => Ok(Some(found)),
            Err(kube::Error::Api(status)) if is_missing_object(&status) => Ok(None),
            Err(error) => Err(error),
        }
    };
    with_timeout(request).await
}

/// Sends a request, and acquires one of `permits` before it reads the body of the response.
///
/// The permits limit how many large objects are in memory. The API server may answer a write late, because a webhook of some
/// namespace does not respond. Until the response begins, such a write holds no permit, or it would keep other namespaces
/// from reading.
pub(super) async fn send_then_acquire<T: DeserializeOwned>(
    client: &Client,
    request: hyper::Request<Vec<u8>>,
    permits: &Semaphore,
) -> kube::Result<T> {
    let response = client.request_stream(request).await?;
    // The semaphore is never closed, so this always acquires a permit.
    let _permit = permits.acquire().await;
    let mut body = Vec::new();
    pin!(response).read_to_end(&mut body).await.map_err(|error| kube::Error::Service(error.into()))?;
    serde_json::from_slice(&body).map_err(kube::Error::SerdeError)
}

/// Adds strict validation to a write, which kube's parameters cannot express: the API server refuses a field that it does not
/// know. Otherwise it would store the object without the field.
/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#setting-the-field-validation-level>
pub fn strict(request: http::Request<Vec<u8>>) -> kube::Result<http::Request<Vec<u8>>> {
    let (mut parts, body) = request.into_parts();
    let separator = if parts.uri.query().is_some() { '&' } else { '?' };
    let uri = format!("{}{separator}fieldValidation=Strict", parts.uri);
    parts.uri = uri.parse().map_err(|error: http::uri::InvalidUri| kube::Error::HttpError(error.into()))?;
    Ok(http::Request::from_parts(parts, body))
}

/// Returns whether the API server responds that an object does not exist. Its response to a path that it does not serve has
/// the code 404, too: the kind or the version is not installed, or a proxy does not know the path. That response names no
/// object, so nothing follows from it about any object.
pub fn is_missing_object(status: &Status) -> bool {
    status.is_not_found() && status.details.as_ref().is_some_and(|details| !details.name.is_empty())
}

fn to_kube_error(error: &kube::Error) -> KubeError {
    match error {
        kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() => KubeError::Conflict,
        kube::Error::Api(status) if is_temporary_code(status.code) => {
            KubeError::Unavailable(status.message.clone())
        }
        // 401 occurs while the API server restarts or a token is renewed.
        kube::Error::Api(status) if status.code == 401 => KubeError::Unavailable(status.message.clone()),
        kube::Error::Api(status) => KubeError::Rejected(status.message.clone()),
        kube::Error::SerdeError(error) => {
            KubeError::Rejected(format!("the object cannot be parsed: {error}"))
        }
        // Nothing was sent: the name of the object, which somebody wrote by hand, is no name.
        kube::Error::BuildRequest(_) => KubeError::Rejected(error_chain(error)),
        other => KubeError::Unavailable(error_chain(other)),
    }
}

#[cfg(test)]
mod tests {
    use kube::api::GetParams;
    use kube::core::Request;
    use serde_json::json;

    use super::*;

    /// A ledger is deleted if its owner does not exist, so this must not be concluded from any other response.
    #[tokio::test]
    async fn unknown_path_is_not_a_missing_object() {
        let not_found = |reason: &str, details: Option<&str>| {
            let details = details.map(|name| json!({ "name": name }));
            let status = Status::failure("not found", reason).with_code(404);
            Status { details: details.map(|details| serde_json::from_value(details).unwrap()), ..status }
                .boxed()
        };
        for (status, is_missing) in [
            (not_found("NotFound", Some("orders")), true),
            (not_found("NotFound", Some("")), false),
            (not_found("NotFound", None), false),
            // How kube represents a response that is no Status.
            (not_found("Failed to parse error data", None), false),
        ] {
            let answer =
                none_if_missing::<()>(std::future::ready(Err(kube::Error::Api(status.clone())))).await;
            assert_eq!(answer == Ok(None), is_missing, "{status:?}");
            assert!(is_missing || matches!(answer, Err(KubeError::Rejected(_))), "{answer:?}");
        }
    }

    #[test]
    fn request_for_an_impossible_name_is_a_lasting_refusal() {
        for name in ["", "my orders"] {
            let error =
                Request::new("/api/v1/namespaces/data/pods").get(name, &GetParams::default()).unwrap_err();
            let error = to_kube_error(&kube::Error::BuildRequest(error));
            assert!(matches!(error, KubeError::Rejected(_)), "{name:?}: {error:?}");
        }
    }
}
