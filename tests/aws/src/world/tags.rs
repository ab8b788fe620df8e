//! The tags of a stream, in pages: `ListTagsForDeliveryStream` and `ListTagsForStream` have one form.
//!
//! Pure. Tags are planted; no request changes them.

use serde_json::{Value, json};

use super::input::{number, text};
use super::request::{AwsError, Request};
use super::stream::Stream;

/// The maximum number of tags of a stream, and of a page.
const MOST: u64 = 50;

/// Returns one page of a stream's tags, in the order of their keys. `usual` is the length of a page if the request
/// names none.
pub(crate) fn page(stream: &Stream, request: &Request, usual: u64) -> Result<Value, AwsError> {
    let limit = usize::try_from(number(request, "Limit", 1, MOST, usual)?).unwrap_or(usize::MAX);
    let after = text(request, "ExclusiveStartTagKey")?.unwrap_or_default();
    let rest: Vec<_> = stream.tags.iter().filter(|(key, _)| key.as_str() > after).collect();
    let tags: Vec<Value> =
        rest.iter().take(limit).map(|(key, value)| json!({ "Key": key, "Value": value })).collect();
    Ok(json!({ "Tags": tags, "HasMoreTags": rest.len() > limit }))
}
