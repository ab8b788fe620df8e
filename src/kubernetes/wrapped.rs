//! A client around another one: the shape that `retry`, `early_end` and `valid_text` share.

use std::future::Future;

use axum::BoxError;
use axum::http::{Request, Response};
use hyper::body::{Body as HttpBody, Bytes};
use kube::Client;
use kube::client::Body;
use tower::service_fn;

/// Returns a client that passes each request, with `client`, to `send`.
pub(super) fn wrapped<S, F, B>(client: Client, send: S) -> Client
where
    S: Fn(Client, Request<Body>) -> F + Clone + Send + 'static,
    F: Future<Output = kube::Result<Response<B>>> + Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let namespace = client.default_namespace().to_owned();
    Client::new(service_fn(move |request| send(client.clone(), request)), namespace)
}
