//! Specs that a real API server accepts or rejects, each with a description and the message that the author
//! must see.
//!
//! `schema_agreement` in `src/core/model` proves for random texts that the rules and the parsers agree; these tables have a
//! row for each rule, and the texts on which engines of regular expressions differ. Only the tests of changes store objects. Each rejection must say how to fix the spec.

use kube::Client;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Request;
use serde_json::Value;

use crate::harness;

mod changes;
mod keys;
mod ledgers;
mod policies;
mod streams;

/// A description, a part of the `spec` as YAML, and the expected result.
type Row = (&'static str, &'static str, Verdict);

/// The expected result of a request.
#[derive(Clone, Copy, Debug)]
enum Verdict {
    Taken,
    /// Rejected, with this text in the message.
    Refused(&'static str),
}
use Verdict::{Refused, Taken};

const ENCRYPTIONS: &str = "/apis/streamencryption.dev/v1alpha1/namespaces/default/streamencryptions";
const LEDGERS: &str = "/apis/streamencryption.dev/v1alpha1/namespaces/default/streamledgers";

/// A client of the shared cluster, with the definitions installed. All tests share one installation: two at a time
/// would each find that the other has created an object.
async fn client() -> Client {
    harness::client(harness::cluster().await.kubeconfig()).await
}

fn encryption(name: &str, spec: &Value) -> Value {
    harness::manifest("default", name, spec)
}

/// Creates an object as `kubectl create --validate=strict` does. With `dry` it is not stored.
pub(crate) async fn create(client: &Client, path: &str, object: &Value, dry: bool) -> Result<Value, String> {
    let mut request =
        Request::new(path).create(&PostParams::default(), serde_json::to_vec(object).unwrap()).unwrap();
    let dry = if dry { "&dryRun=All" } else { "" };
    *request.uri_mut() = format!("{path}?fieldValidation=Strict{dry}").parse().unwrap();
    client.request(request).await.map_err(message)
}

/// Applies a JSON merge patch to an object.
async fn change(client: &Client, path: &str, name: &str, new: &Value) -> Result<Value, String> {
    let request = Request::new(path).patch(name, &PatchParams::default(), &Patch::Merge(new)).unwrap();
    client.request(request).await.map_err(message)
}

pub(crate) fn message(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message,
        other => panic!("the API server did not answer: {other}"),
    }
}

/// Returns `None` if the response is the expected one, else the difference.
fn disagreement(sentence: &str, verdict: Verdict, answer: &Result<Value, String>) -> Option<String> {
    match (verdict, answer) {
        (Taken, Ok(_)) => None,
        (Refused(piece), Err(message)) if message.contains(piece) => None,
        (Taken, Err(message)) => Some(format!("{sentence}: refused: {message}")),
        (Refused(_), Ok(_)) => Some(format!("{sentence}: taken")),
        (Refused(piece), Err(message)) => Some(format!("{sentence}: no {piece:?} in: {message}")),
    }
}

/// Judges specs, each of them this YAML with the row's part in the place of `...`.
async fn judge(spec: &str, rows: &[Row]) {
    judge_objects(
        ENCRYPTIONS,
        rows.iter().map(|(sentence, part, verdict)| {
            let spec: Value = serde_saphyr::from_str(&spec.replace("...", part)).unwrap();
            (*sentence, encryption("judged", &spec), *verdict)
        }),
    )
    .await;
}

/// Creates objects at a path, without storing them.
async fn judge_objects<S: std::fmt::Display>(
    path: &str,
    rows: impl IntoIterator<Item = (S, Value, Verdict)>,
) {
    let client = client().await;
    let mut wrong = Vec::new();
    for (sentence, object, verdict) in rows {
        let answer = create(&client, path, &object, true).await;
        wrong.extend(disagreement(&sentence.to_string(), verdict, &answer));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
