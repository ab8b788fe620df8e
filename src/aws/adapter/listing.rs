//! The streams that exist in an account and region, and their tags: the requests of `adopt`.
//!
//! They are not part of the operator's port `StreamApi`: the operator never lists. They have the priority of checks
//! for drift, so that a survey leaves at least half of AWS's limits to the operator.

use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::model::arn::{AwsAccount, Region, StreamArn};
use stream_encryption_core::model::aws_error::AwsError;
use stream_encryption_core::model::principal::Principal;
use stream_encryption_core::model::service::profile;

use super::super::error::invalid_response;
use super::super::pages::{self, Tag};
use super::super::rate_limit::QuotaScope;
use super::Aws;

impl Aws {
    /// Returns every stream of a service in an account and region, in AWS's order. `principal` must be one of
    /// `account`, because AWS lists the streams of the account of the credentials.
    pub async fn list_streams(
        &self,
        service: Service,
        account: &AwsAccount,
        region: &Region,
        principal: &Principal,
    ) -> Result<Vec<StreamArn>, AwsError> {
        let operation = profile(service).list;
        let quota = QuotaScope { operation, account: Some(account.account.clone()), region: region.clone() };
        let names = pages::all(operation, String::as_str, async |after: Option<String>| match service {
            Service::Firehose => self.firehose.list_page(&quota, principal, after.as_deref()).await,
            Service::Kinesis => self.kinesis.list_page(&quota, principal, after.as_deref()).await,
        });
        let AwsAccount { account, partition } = account;
        let arn = |name: String| {
            StreamArn::new(partition.clone(), service, region.clone(), account.clone(), &name)
                .map_err(|_| invalid_response(operation, "name of a stream"))
        };
        names.await?.into_iter().map(arn).collect()
    }

    /// Returns the tags of a stream; none if the stream does not exist.
    pub async fn list_tags(&self, stream: &StreamArn, principal: &Principal) -> Result<Vec<Tag>, AwsError> {
        let operation = profile(stream.service).list_tags;
        pages::all(
            operation,
            |tag: &Tag| tag.key.as_str(),
            async |after: Option<String>| match stream.service {
                Service::Firehose => self.firehose.tags_page(stream, principal, after.as_deref()).await,
                Service::Kinesis => self.kinesis.tags_page(stream, principal, after.as_deref()).await,
            },
        )
        .await
    }
}
