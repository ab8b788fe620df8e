//! Replaces bytes in responses of the API server that are no UTF-8. The API server keeps such bytes in the managed fields of
//! some kinds, so a user can write them into the metadata of a namespace. kube parses text only: the list and the watch of all
//! namespaces would fail because of one of them.

use std::mem;

use axum::BoxError;
use futures_util::{StreamExt as _, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyStream, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::Client;
use kube::client::Body;

use super::wrapped::wrapped;

/// Stands for bytes that are no UTF-8.
const REPLACEMENT: &str = "\u{FFFD}";

/// Returns the same client, whose responses are valid text.
#[must_use]
pub fn with_valid_text(client: Client) -> Client {
    wrapped(client, |client, request| async move { Ok(client.send(request).await?.map(valid)) })
}

fn valid(body: Body) -> UnsyncBoxBody<Bytes, BoxError> {
    let frames = stream::unfold(Some((BodyStream::new(body), Text::default())), |state| async move {
        let (mut body, mut text) = state?;
        match body.next().await {
            Some(Ok(frame)) => {
                let frame = frame.map_data(|data| text.next(data));
                Some((Ok(frame), Some((body, text))))
            }
            Some(Err(error)) => Some((Err(BoxError::from(error)), None)),
            None => text.end().map(|rest| (Ok(Frame::data(rest)), None)),
        }
    });
    UnsyncBoxBody::new(StreamBody::new(frames))
}

/// A text that arrives in parts.
#[derive(Default)]
struct Text {
    /// The beginning of a character, the rest of which has not arrived yet: at most three bytes.
    incomplete: Vec<u8>,
}

impl Text {
    /// Returns the next part, as far as its characters are complete.
    fn next(&mut self, data: Bytes) -> Bytes {
        if self.incomplete.is_empty() && str::from_utf8(&data).is_ok() {
            return data;
        }
        let mut bytes = mem::take(&mut self.incomplete);
        bytes.extend_from_slice(&data);
        let (mut valid, mut rest) = (Vec::with_capacity(bytes.len()), &bytes[..]);
        while let Err(error) = str::from_utf8(rest) {
            let (good, bad) = rest.split_at(error.valid_up_to());
            valid.extend_from_slice(good);
            let Some(length) = error.error_len() else {
                self.incomplete = bad.to_vec();
                return valid.into();
            };
            valid.extend_from_slice(REPLACEMENT.as_bytes());
            rest = &bad[length..];
        }
        valid.extend_from_slice(rest);
        valid.into()
    }

    /// Returns what stands for a last character of which the rest never arrived.
    fn end(&mut self) -> Option<Bytes> {
        let is_complete = mem::take(&mut self.incomplete).is_empty();
        (!is_complete).then(|| Bytes::from_static(REPLACEMENT.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use futures_util::TryStreamExt as _;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{Api, ListParams, WatchParams};

    use super::*;

    /// Returns the parts of a text as they are read.
    fn read(parts: &[&[u8]]) -> Vec<String> {
        let mut text = Text::default();
        let mut read: Vec<Bytes> = parts.iter().map(|part| text.next(Bytes::copy_from_slice(part))).collect();
        read.extend(text.end());
        read.into_iter().map(|part| String::from_utf8(part.to_vec()).unwrap()).collect()
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_and_others_kept() {
        for (parts, expected) in [
            (&["key ü €".as_bytes(), b"\n"][..], &["key ü €", "\n"][..]),
            (&[b"a\xFFb\xC0\x80c"], &["a\u{FFFD}b\u{FFFD}\u{FFFD}c"]),
            // A character in two parts, and in three.
            (&[b"x\xE2\x82", b"\xACy"], &["x", "€y"]),
            (&[b"\xF0", b"\x9F\x94", b"\x91"], &["", "", "🔑"]),
            (&[b"x\xE2\x82", b"y"], &["x", "\u{FFFD}y"]),
            (&[b"x\xE2\x82"], &["x", "\u{FFFD}"]),
        ] {
            assert_eq!(read(parts), expected, "{parts:?}");
        }
    }

    #[tokio::test]
    async fn list_and_watch_with_bytes_that_are_no_text_are_read() {
        let handler = async |request: axum::extract::Request| {
            let object = |key: &[u8]| {
                let object = br#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "resourceVersion": "2",
                    "managedFields": [{"manager": "x", "fieldsV1": {"f:"#;
                let object = object.split(|byte| *byte == b'\n').collect::<Vec<_>>().concat();
                [&object[..], key, br#"": {}}}]}}"#].concat()
            };
            let is_watch = request.uri().query().is_some_and(|query| query.contains("watch"));
            let body = if is_watch {
                [&br#"{"type": "ADDED", "object": "#[..], &object(b"\xFF"), b"}\n"].concat()
            } else {
                let list = br#"{"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {}, "items": ["#;
                [&list[..], &object(b"\xFF"), b"]}"].concat()
            };
            axum::body::Body::from(body)
        };
        let client = Client::new(Router::new().fallback(handler), "default");
        let api: Api<ConfigMap> = Api::namespaced(with_valid_text(client), "default");
        assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 1);
        let events: Vec<_> =
            api.watch(&WatchParams::default(), "1").await.unwrap().try_collect().await.unwrap();
        assert_eq!(events.len(), 1);
    }
}
