//! The accounts and regions of a verb that surveys AWS, and the identity with which they are read.

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::model::arn::{AwsAccount, Region, RoleArn};
use stream_encryption_core::model::principal::{ExternalId, Role};

use crate::adopt::survey::Place;
use crate::aws::rate_limit::DEFAULT_RATE_PERCENT;
use crate::aws::{Aws, AwsConfig};

/// The flags of every verb that surveys AWS.
#[derive(Args, Clone, Debug)]
pub(super) struct PlaceArguments {
    /// The regions, repeated or separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "REGION")]
    region: Vec<Region>,
    /// The roles to assume, one in each account, repeated or separated by commas. Default: your own account.
    #[arg(long, value_delimiter = ',', value_name = "ARN")]
    role_arn: Vec<RoleArn>,
    /// The external id that the roles require.
    #[arg(long, requires = "role_arn", value_name = "ID")]
    external_id: Option<ExternalId>,
    /// Survey the streams of this service only.
    #[arg(long, value_enum, ignore_case = true)]
    service: Option<ServiceName>,
    /// One URL for all AWS services, such as that of an AWS emulator.
    #[arg(long, value_name = "URL")]
    aws_endpoint_url: Option<String>,
    /// The operator's share of AWS's request rate limits, in percent. This command uses at most half of that share.
    #[arg(long, value_name = "PERCENT", default_value_t = DEFAULT_RATE_PERCENT)]
    aws_rate_percent: u8,
}

/// A service, as a spec names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ServiceName {
    /// Amazon Data Firehose.
    #[value(name = "Firehose")]
    Firehose,
    /// Kinesis data streams.
    #[value(name = "Kinesis")]
    Kinesis,
}

impl PlaceArguments {
    /// Creates the adapter; sends no request yet.
    pub(super) async fn connect(&self) -> anyhow::Result<Aws> {
        let Some(region) = self.region.first() else {
            return Err(super::usage("name the regions: --region eu-west-1"));
        };
        let config = AwsConfig {
            endpoint_url: self.aws_endpoint_url.clone(),
            rate_percent: self.aws_rate_percent,
            ..AwsConfig::of(region.clone())
        };
        Aws::new(config).await.context("AWS's configuration cannot be used")
    }

    /// Returns each account in each region. `own` is the account of the person's credentials.
    pub(super) fn places(&self, own: Option<&AwsAccount>) -> anyhow::Result<Vec<Place>> {
        let role = |arn: &RoleArn| {
            let account = AwsAccount { account: arn.account.clone(), partition: arn.partition.clone() };
            (account, Some(Role { arn: arn.clone(), external_id: self.external_id.clone() }))
        };
        let mut accounts: Vec<(AwsAccount, Option<Role>)> = self.role_arn.iter().map(role).collect();
        if accounts.is_empty() {
            accounts.push((own.context("your AWS account is not known")?.clone(), None));
        }
        let mut places: Vec<Place> = Vec::new();
        for (account, role) in accounts {
            for region in &self.region {
                ensure!(
                    region.partition() == account.partition,
                    "region {region} is in partition {}, and account {} in {}",
                    region.partition(),
                    account.account,
                    account.partition
                );
                let is_new = !places.iter().any(|place| place.account == account && place.region == *region);
                if is_new {
                    places.push(Place {
                        account: account.clone(),
                        region: region.clone(),
                        role: role.clone(),
                    });
                }
            }
        }
        Ok(places)
    }

    /// Returns the regions.
    pub(super) fn regions(&self) -> &[Region] {
        &self.region
    }

    /// Returns the roles to assume.
    pub(super) fn roles(&self) -> &[RoleArn] {
        &self.role_arn
    }

    /// Returns the URL that replaces AWS's.
    pub(super) fn endpoint_url(&self) -> Option<&str> {
        self.aws_endpoint_url.as_deref()
    }

    /// Returns the services to survey.
    pub(super) fn services(&self) -> Vec<Service> {
        match self.service {
            Some(ServiceName::Firehose) => vec![Service::Firehose],
            Some(ServiceName::Kinesis) => vec![Service::Kinesis],
            None => vec![Service::Firehose, Service::Kinesis],
        }
    }
}
