//! Lists that AWS returns in pages: each page continues after the last item of the page before it.
//!
//! This module sends nothing and depends on no service. It never requests the same page twice: if AWS reports that more
//! items follow, a page that is empty or that ends where the page before it ended is an error.

use stream_encryption_core::model::aws_error::AwsError;
use stream_encryption_core::model::service::Operation;

use super::error::invalid_response;

/// Number of streams to request per page. AWS's maximum is 10,000 for both services.
pub(super) const STREAMS_PER_PAGE: i32 = 1_000;
/// Number of tags to request per page: the maximum number of tags of a stream.
pub(super) const TAGS_PER_PAGE: i32 = 50;

/// A tag of a stream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    /// The key.
    pub key: String,
    /// The value; empty if the tag has none.
    pub value: String,
}

/// One page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page<T> {
    /// The items, in AWS's order.
    pub(super) items: Vec<T>,
    /// Whether more items follow.
    pub(super) has_more: bool,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { items: Vec::new(), has_more: false }
    }
}

/// Requests every page of `operation` and returns all items. `name` identifies an item, after which a page continues.
pub(super) async fn all<T>(
    operation: Operation,
    name: impl Fn(&T) -> &str,
    page: impl AsyncFn(Option<String>) -> Result<Page<T>, AwsError>,
) -> Result<Vec<T>, AwsError> {
    let mut all: Vec<T> = Vec::new();
    loop {
        let after = all.last().map(|last| name(last).to_owned());
        let Page { items, has_more } = page(after.clone()).await?;
        let next = items.last().map(&name);
        if has_more && (next.is_none() || next == after.as_deref()) {
            return Err(invalid_response(operation, "next page"));
        }
        all.extend(items);
        if !has_more {
            return Ok(all);
        }
    }
}
