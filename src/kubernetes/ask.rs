//! A request to the API server: its deadline, and its error in our words.

use std::future::Future;
use std::time::Duration;

use crate::controller::records::RecordError;
use crate::telemetry::error_chain;

/// How long any request may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(15);

/// A request with its deadline, and its error in our words.
pub(super) async fn ask<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, RecordError> {
    match tokio::time::timeout(DEADLINE, request).await {
        Ok(answer) => answer.map_err(|error| told(&error)),
        Err(_) => Err(RecordError::Unavailable(format!("within {} s", DEADLINE.as_secs()))),
    }
}

/// The same, for something that may not be there.
pub(super) async fn ask_for<T>(
    request: impl Future<Output = kube::Result<T>>,
) -> Result<Option<T>, RecordError> {
    let request = async {
        match request.await {
            Ok(found) => Ok(Some(found)),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    };
    ask(request).await
}

fn told(error: &kube::Error) -> RecordError {
    match error {
        kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() => {
            RecordError::Conflict
        }
        kube::Error::Api(status) if status.code >= 500 || status.code == 429 => {
            RecordError::Unavailable(status.message.clone())
        }
        // 401 comes while the API server restarts or a token is renewed.
        kube::Error::Api(status) if status.code == 401 => RecordError::Unavailable(status.message.clone()),
        kube::Error::Api(status) => RecordError::Unusable(status.message.clone()),
        kube::Error::SerdeError(error) => {
            RecordError::Unusable(format!("it is not of the expected form: {error}"))
        }
        other => RecordError::Unavailable(error_chain(other)),
    }
}
