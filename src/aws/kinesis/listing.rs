//! Kinesis: the streams of an account and region, and the tags of a stream, page by page.
//!
//! Only `adopt` uses these requests. They read, and are paced and repeated like every other read. A page continues
//! after the name of a stream and not with `NextToken`, because a token expires after 300 seconds.

use aws_sdk_kinesis::config::Builder;
use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::controller::stream_api::Priority;
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_core::model::aws_error::AwsError;
use stream_encryption_core::model::principal::Principal;
use stream_encryption_core::model::service::{Operation, profile};

use super::super::error::{aws_error, not_found_as_none};
use super::super::pages::{Page, STREAMS_PER_PAGE, TAGS_PER_PAGE, Tag};
use super::super::rate_limit::QuotaScope;
use super::Kinesis;

impl Kinesis {
    /// Sends `ListStreams`: the names of one page of streams, after the stream `after`.
    pub(in super::super) async fn list_page(
        &self,
        quota: &QuotaScope,
        principal: &Principal,
        after: Option<&str>,
    ) -> Result<Page<String>, AwsError> {
        let request = self.client(&quota.region).list_streams().limit(STREAMS_PER_PAGE);
        let request = request.set_exclusive_start_stream_name(after.map(ToOwned::to_owned));
        self.sender
            .read(quota, principal, Priority::Drift, async |session| {
                let overrides = Builder::default().credentials_provider(session.credentials);
                let request = request.clone().customize().config_override(overrides);
                let answer = request.send().await.map_err(|error| aws_error(quota.operation, &error))?;
                Ok(Page { items: answer.stream_names, has_more: answer.has_more_streams })
            })
            .await
    }

    /// Sends `ListTagsForStream`: one page of tags, after the tag `after`; none if the stream does not exist.
    pub(in super::super) async fn tags_page(
        &self,
        stream: &StreamArn,
        principal: &Principal,
        after: Option<&str>,
    ) -> Result<Page<Tag>, AwsError> {
        let operation: Operation = profile(Service::Kinesis).list_tags;
        let request = self.client(&stream.region).list_tags_for_stream();
        let request = request.stream_arn(stream.to_string()).limit(TAGS_PER_PAGE);
        let request = request.set_exclusive_start_tag_key(after.map(ToOwned::to_owned));
        let answer = self
            .sender
            .read(&QuotaScope::of(operation, stream), principal, Priority::Drift, async |session| {
                let overrides = Builder::default().credentials_provider(session.credentials);
                let request = request.clone().customize().config_override(overrides);
                let answer = request.send().await.map_err(|error| aws_error(operation, &error))?;
                let tags = answer.tags.into_iter();
                let items = tags.map(|tag| Tag { key: tag.key, value: tag.value.unwrap_or_default() });
                Ok(Page { items: items.collect(), has_more: answer.has_more_tags })
            })
            .await;
        Ok(not_found_as_none(operation, answer)?.unwrap_or_default())
    }
}
