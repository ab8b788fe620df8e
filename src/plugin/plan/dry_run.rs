//! The dry run of an object: what the API server would store if the file was applied, or why it refuses the file. Every
//! write is a dry run, so nothing is stored.
//!
//! The API server validates strictly, as `kubectl apply` requires it to: a field that it does not know is a refusal.

use std::time::Duration;

use kube::api::{
    Api, ApiResource, DynamicObject, GetParams, Patch, PatchParams, PostParams, ValidationDirective,
};
use kube::core::Request;
use kube::{Client, Resource as _, ResourceExt as _};
use serde::Serialize;
use serde_json::Value;

use super::merge::{self, LastApply};
use crate::kubernetes::{is_missing_object, strict};
use crate::plugin::cluster::readable;
use crate::telemetry::error_chain;

/// The longest pause for which an overloaded API server is waited for.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Part of the message with which the API server reports a missing permission. An admission webhook, a quota or an
/// admission policy that refuses the object may answer with the same code, 403.
const UNAUTHORIZED: &str = "is forbidden: User \"";
/// What the API server answers to a server-side apply that does not match the definition.
const UNTYPED: &str = "failed to create typed patch object";

/// The note if it is not known which fields the last apply has set.
const UNKNOWN_APPLY: &str = "The object does not record who applied it last, so what a tool such as Helm would remove is not considered.";

/// How an object differs from the stored one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Change {
    Created,
    Changed,
    Unchanged,
}

/// An object as it would be stored: with the uid, the status and the defaults that it would have.
pub(super) struct Accepted {
    pub(super) object: DynamicObject,
    pub(super) change: Change,
    /// What the plan assumes about the apply, as sentences; empty if nothing.
    pub(super) note: String,
}

/// Why it is not known what would be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotAccepted {
    /// An apply would be refused.
    Refused(String),
    /// The namespace does not exist.
    NoNamespace(String),
    /// The person may not write the object.
    Forbidden(String),
    /// The API server gave no answer about the object.
    Unanswered(String),
}

/// A request that failed.
enum Failure {
    Read(kube::Error),
    /// With what the plan assumes about the apply, as in [`Accepted::note`].
    Write(kube::Error, String),
}

/// Objects of one kind, in one namespace if the kind has namespaces.
pub(super) struct Target<'a> {
    pub(super) client: &'a Client,
    pub(super) kind: &'a ApiResource,
    pub(super) namespace: Option<&'a str>,
}

impl Target<'_> {
    /// Returns what would be stored if the object was applied. Tries once more if the object has changed meanwhile, or if
    /// the API server was overloaded.
    pub(super) async fn apply(&self, given: &DynamicObject) -> Result<Accepted, NotAccepted> {
        if given.name_any().is_empty() {
            return Err(NotAccepted::Refused("The object has no name.".to_owned()));
        }
        let failure = match self.attempt(given).await {
            Ok(accepted) => return Ok(accepted),
            Err(failure) => failure,
        };
        match pause(&failure) {
            Some(pause) => {
                tokio::time::sleep(pause).await;
                self.attempt(given).await.map_err(not_accepted)
            }
            None => Err(not_accepted(failure)),
        }
    }

    async fn attempt(&self, given: &DynamicObject) -> Result<Accepted, Failure> {
        let name = given.name_any();
        let request = self.requests().get(&name, &GetParams::default()).map_err(kube::Error::BuildRequest);
        let stored: DynamicObject = match self.client.request(request.map_err(Failure::Read)?).await {
            Ok(stored) => stored,
            Err(kube::Error::Api(status)) if is_missing_object(&status) => {
                let created = self.create(given).await;
                let object = created.map_err(|error| Failure::Write(error, String::new()))?;
                return Ok(Accepted { object, change: Change::Created, note: String::new() });
            }
            Err(error) => return Err(Failure::Read(error)),
        };
        let (before, file) = (value(&stored), value(given));
        let mut notes = Vec::new();
        let last = LastApply::of(&before);
        let object = match &last {
            LastApply::Client(last) => self.replace(&name, &merge::merged(&before, last, &file)).await,
            LastApply::Unknown => self.replace(&name, &merge::merged_with_unknown(&before, &file)).await,
            LastApply::Server(manager) => {
                notes.push(format!(
                    "Planned as a server-side apply of {manager}, which applied the object last."
                ));
                self.apply_as(manager, given, &mut notes).await
            }
        };
        let object = object.map_err(|error| {
            if last == LastApply::Unknown {
                notes.push(UNKNOWN_APPLY.to_owned());
            }
            Failure::Write(error, notes.join(" "))
        })?;
        let after = value(&object);
        let kept = merge::kept(&file, &after);
        if !kept.is_empty() {
            notes.push(format!("The object keeps what the file does not set: {}.", kept.join(", ")));
            if last == LastApply::Unknown {
                notes.push(UNKNOWN_APPLY.to_owned());
            }
        }
        let same = |path| before.pointer(path) == after.pointer(path);
        let is_same = same("/spec") && same("/metadata/annotations") && same("/metadata/labels");
        let change = if is_same { Change::Unchanged } else { Change::Changed };
        Ok(Accepted { object, change, note: notes.join(" ") })
    }

    fn requests(&self) -> Request {
        Request::new(DynamicObject::url_path(self.kind, self.namespace))
    }

    async fn create(&self, given: &DynamicObject) -> kube::Result<DynamicObject> {
        let request = self.requests().create(&params(), bytes(given)?).map_err(kube::Error::BuildRequest)?;
        self.client.request(strict(request)?).await
    }

    async fn replace(&self, name: &str, object: &Value) -> kube::Result<DynamicObject> {
        let request =
            self.requests().replace(name, &params(), bytes(object)?).map_err(kube::Error::BuildRequest)?;
        self.client.request(strict(request)?).await
    }

    /// Applies as this field manager. Fields of other managers are overwritten, as Flux and Argo CD do, with a note.
    async fn apply_as(
        &self,
        manager: &str,
        given: &DynamicObject,
        notes: &mut Vec<String>,
    ) -> kube::Result<DynamicObject> {
        let api: Api<DynamicObject> = match self.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, self.kind),
            None => Api::all_with(self.client.clone(), self.kind),
        };
        let mut params = PatchParams::apply(manager).dry_run();
        params.field_validation = Some(ValidationDirective::Strict);
        let (name, patch) = (given.name_any(), Patch::Apply(given));
        match api.patch(&name, &params, &patch).await {
            Err(kube::Error::Api(status))
                if status.code == 409 && status.message.contains("conflict with") =>
            {
                notes.push(format!(
                    "It overwrites fields of others, which kubectl refuses without --force-conflicts: {}.",
                    status.message.replace('\n', " ").trim_end_matches('.')
                ));
                api.patch(&name, &params.force(), &patch).await
            }
            other => other,
        }
    }
}

fn params() -> PostParams {
    PostParams { dry_run: true, field_manager: Some(crate::plugin::FILE_NAME.to_owned()) }
}

fn value(object: &impl Serialize) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

fn bytes(object: &impl Serialize) -> kube::Result<Vec<u8>> {
    serde_json::to_vec(object).map_err(kube::Error::SerdeError)
}

/// Returns how long to wait before the same request may succeed; `None` if it never does.
fn pause(failure: &Failure) -> Option<Duration> {
    let (Failure::Read(error) | Failure::Write(error, _)) = failure;
    let kube::Error::Api(status) = error else { return None };
    match status.code {
        409 => Some(Duration::ZERO),
        429 => {
            let seconds = status.details.as_ref().map_or(1, |details| details.retry_after_seconds.max(1));
            Some(Duration::from_secs(seconds.into()).min(LONGEST_PAUSE))
        }
        _ => None,
    }
}

/// Returns whether an apply would be refused, or nothing is known about the object.
fn not_accepted(failure: Failure) -> NotAccepted {
    match failure {
        Failure::Write(kube::Error::Api(status), note) => {
            let mut words = format!("The API server refuses it: {}", status.message);
            if !note.is_empty() {
                words = format!("{}. {note}", words.trim_end_matches('.'));
            }
            let names_namespace = status.details.as_ref().is_some_and(|details| details.kind == "namespaces");
            match status.code {
                404 if names_namespace => NotAccepted::NoNamespace(words),
                403 if status.message.contains(UNAUTHORIZED) => NotAccepted::Forbidden(words),
                400 | 403 | 404 | 413 | 422 => NotAccepted::Refused(words),
                409 if status.reason == "AlreadyExists" => NotAccepted::Refused(words),
                // So the API server refuses a field that is unknown in a server-side apply.
                500 if status.message.contains(UNTYPED) => NotAccepted::Refused(words),
                code => NotAccepted::Unanswered(format!(
                    "The API server answered with {code}: {}",
                    status.message
                )),
            }
        }
        Failure::Read(error @ kube::Error::Api(_)) => {
            NotAccepted::Unanswered(format!("The stored object could not be read: {:#}", readable(error)))
        }
        Failure::Read(error) | Failure::Write(error, _) => {
            NotAccepted::Unanswered(format!("The API server did not answer: {}", error_chain(&error)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::extract::Request as HttpRequest;
    use axum::response::{IntoResponse as _, Response};
    use serde_json::json;
    use stream_encryption_api::stream_encryption::StreamEncryption;

    use super::*;

    fn object(spec: &Value) -> Value {
        json!({"apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": {"name": "orders", "namespace": "data"}, "spec": spec})
    }

    fn status(code: u16, reason: &str, kind: &str) -> Response {
        let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
            "message": "why", "details": {"name": "orders", "kind": kind, "retryAfterSeconds": 0}});
        (http::StatusCode::from_u16(code).unwrap(), body.to_string()).into_response()
    }

    /// Applies an object to an API server that gives these answers, and returns its requests, too.
    async fn applied(answers: Vec<Response>) -> (Result<Accepted, NotAccepted>, Vec<String>) {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let answers = Arc::new(Mutex::new(answers.into_iter()));
        let seen = requests.clone();
        let server = Router::new().fallback(move |request: HttpRequest| {
            seen.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
            let answer = answers.lock().unwrap().next().expect("no more requests");
            std::future::ready(answer)
        });
        let kind = ApiResource::erase::<StreamEncryption>(&());
        let client = Client::new(server, "default");
        let target = Target { client: &client, kind: &kind, namespace: Some("data") };
        let given =
            serde_json::from_value(object(&json!({"stream": {"service": "Kinesis", "name": "a"}}))).unwrap();
        let result = target.apply(&given).await;
        let requests = requests.lock().unwrap().clone();
        (result, requests)
    }

    fn not_found() -> Response {
        status(404, "NotFound", "streamencryptions")
    }

    #[tokio::test]
    async fn every_write_is_a_strict_dry_run() {
        let stored =
            || object(&json!({"stream": {"service": "Kinesis", "name": "a"}})).to_string().into_response();
        for answers in [vec![not_found(), stored()], vec![stored(), stored()]] {
            let (result, requests) = applied(answers).await;
            assert!(result.is_ok());
            assert!(requests[1].contains("dryRun=All"), "{requests:?}");
            assert!(requests[1].ends_with("&fieldValidation=Strict"), "{requests:?}");
        }
    }

    #[tokio::test]
    async fn only_a_refusal_of_the_write_is_a_refusal() {
        for (code, reason, kind, refusal) in [
            (400, "BadRequest", "", Some("refused")),
            (422, "Invalid", "", Some("refused")),
            (403, "Forbidden", "", Some("refused")),
            (404, "NotFound", "namespaces", Some("no namespace")),
            (401, "Unauthorized", "", None),
            (500, "InternalError", "", None),
            (503, "ServiceUnavailable", "", None),
        ] {
            let (result, _) = applied(vec![not_found(), status(code, reason, kind)]).await;
            let of_write = match result {
                Ok(_) => panic!("{code} is no success"),
                Err(NotAccepted::Refused(_)) => Some("refused"),
                Err(NotAccepted::Forbidden(_)) => panic!("no authorizer has answered"),
                Err(NotAccepted::NoNamespace(_)) => Some("no namespace"),
                Err(NotAccepted::Unanswered(_)) => None,
            };
            assert_eq!(of_write, refusal, "{code}");
            let (result, _) = applied(vec![status(code, reason, kind), not_found()]).await;
            let is_unanswered = matches!(result, Err(NotAccepted::Unanswered(_)));
            assert_eq!(is_unanswered, reason != "NotFound", "{code} as the answer of a read");
        }
    }

    #[tokio::test]
    async fn refusal_has_the_note_about_the_last_apply() {
        let stored = |managers: &Value| {
            let mut stored = object(&json!({"stream": {"service": "Kinesis", "name": "a"}}));
            stored["metadata"]["managedFields"] = managers.clone();
            stored.to_string().into_response()
        };
        let flux = json!([{"manager": "flux", "operation": "Apply"}]);
        for (managers, words) in [(json!([]), "why. The object does not record"), (flux, "why. Planned as")] {
            let (result, _) = applied(vec![stored(&managers), status(422, "Invalid", "")]).await;
            let Err(NotAccepted::Refused(message)) = result else { panic!("it is refused") };
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn admission_that_denies_with_403_is_a_refusal() {
        let unauthorized = r#"streamencryptionpolicies.streamencryption.dev "data" is forbidden: User "ann" cannot patch resource "streamencryptionpolicies" in API group "streamencryption.dev" at the cluster scope"#;
        for (message, is_permission_missing) in [
            (unauthorized, true),
            (r#"admission webhook "policies.example.com" denied the request: not User "ann""#, false),
            (
                r#"streamencryptions.streamencryption.dev "orders" is forbidden: exceeded quota: streams"#,
                false,
            ),
            (
                r#"streamencryptions.streamencryption.dev "orders" is forbidden: ValidatingAdmissionPolicy 'keys' with binding 'keys' denied request: no"#,
                false,
            ),
        ] {
            let status = kube::core::Status::failure(message, "Forbidden").with_code(403);
            let result = not_accepted(Failure::Write(kube::Error::Api(status.boxed()), String::new()));
            assert_eq!(matches!(result, NotAccepted::Forbidden(_)), is_permission_missing, "{result:?}");
            assert_eq!(matches!(result, NotAccepted::Refused(_)), !is_permission_missing, "{result:?}");
        }
    }

    #[test]
    fn apply_that_does_not_match_the_definition_is_refused() {
        let status =
            kube::core::Status::failure(&format!("{UNTYPED} (data/orders): .spec.mod"), "").with_code(500);
        let result = not_accepted(Failure::Write(kube::Error::Api(status.boxed()), String::new()));
        assert!(matches!(result, NotAccepted::Refused(_)), "{result:?}");
    }

    #[tokio::test]
    async fn missing_definition_is_named() {
        let missing = (http::StatusCode::NOT_FOUND, "404 page not found").into_response();
        let (result, _) = applied(vec![missing]).await;
        let Err(NotAccepted::Unanswered(words)) = result else { panic!("it is not answered") };
        assert!(words.contains("not installed"), "{words}");
    }

    #[tokio::test]
    async fn conflict_and_overload_are_tried_once_more() {
        let stored =
            || object(&json!({"stream": {"service": "Kinesis", "name": "a"}})).to_string().into_response();
        let conflict = status(409, "Conflict", "streamencryptions");
        let (result, requests) = applied(vec![stored(), conflict, stored(), stored()]).await;
        assert!(result.is_ok() && requests.len() == 4, "{requests:?}");
        let conflicts = || status(409, "Conflict", "streamencryptions");
        let (result, _) = applied(vec![stored(), conflicts(), stored(), conflicts()]).await;
        assert!(matches!(result, Err(NotAccepted::Unanswered(_))));
    }
}
