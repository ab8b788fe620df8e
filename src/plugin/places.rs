//! The accounts and regions of a verb that surveys AWS, and the identity with which they are read.

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum, value_parser};
use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::controller::stream_api::StreamApi as _;
use stream_encryption_core::model::arn::{AwsAccount, Region, RoleArn};
use stream_encryption_core::model::aws_error::{AwsError, ErrorKind};
use stream_encryption_core::model::principal::{ExternalId, Role};

use super::aws::{endpoint_url_or_none, of_person};
use crate::adopt::survey::Place;
use crate::aws::rate_limit::DEFAULT_RATE_PERCENT;
use crate::aws::{Aws, AwsConfig};

/// The flags of every verb that surveys AWS.
#[derive(Args, Clone, Debug)]
pub(super) struct PlaceArguments {
    /// The regions, repeated or separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "REGION")]
    region: Vec<Region>,
    /// The roles to assume, one for each account, repeated or separated by commas. Default: your own account.
    #[arg(long, value_delimiter = ',', value_name = "ARN")]
    role_arn: Vec<RoleArn>,
    /// The external id that all these roles require. For roles with different ones, run the command once for each.
    #[arg(long, requires = "role_arn", value_name = "ID")]
    external_id: Option<ExternalId>,
    /// Survey the streams of this service only.
    #[arg(long, value_enum, ignore_case = true)]
    service: Option<ServiceName>,
    /// One URL for all AWS services, such as that of an AWS emulator.
    #[arg(long, value_name = "URL", value_parser = endpoint_url_or_none)]
    aws_endpoint_url: Option<String>,
    /// The operator's share of AWS's request rate limits, in percent. This command uses at most half of that share.
    #[arg(long, value_name = "PERCENT", default_value_t = DEFAULT_RATE_PERCENT, value_parser = value_parser!(u8).range(1..=100))]
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
    /// Creates the adapter. The account and the roles are asked for in the first region that answers, because the
    /// person's account may not have enabled each region of the roles.
    pub(super) async fn connect(&self) -> anyhow::Result<Aws> {
        self.check()?;
        let of_environment = std::env::var("AWS_REGION").ok().and_then(|region| region.parse().ok());
        let candidates = candidates(&self.region, of_environment.as_ref());
        Box::pin(self.connect_in_one(&candidates)).await
    }

    /// Returns the adapter in the first region that does not reject the credentials; otherwise in the first one.
    async fn connect_in_one(&self, candidates: &[Region]) -> anyhow::Result<Aws> {
        let mut unreachable = 0;
        for region in candidates.iter().filter(|_| candidates.len() > 1) {
            let aws = self.connect_in(region).await?;
            match aws.identity().await {
                Err(error) if may_answer_elsewhere(&error, &mut unreachable) => {}
                // The caller asks again, and reports its error.
                _ => return Ok(aws),
            }
        }
        // The caller reports its error.
        self.connect_in(candidates.first().ok_or_else(no_region)?).await
    }

    /// Returns an error if flags do not belong together.
    fn check(&self) -> anyhow::Result<()> {
        for (number, role) in self.role_arn.iter().enumerate() {
            let mut others = self.role_arn[..number].iter();
            if let Some(other) = others.find(|other| other.account == role.account && *other != role) {
                return Err(super::usage(&format!(
                    "{other} and {role} are roles of one account, which is surveyed with one role only: name one of them"
                )));
            }
        }
        if self.region.is_empty() { Err(no_region()) } else { Ok(()) }
    }

    async fn connect_in(&self, region: &Region) -> anyhow::Result<Aws> {
        let config = AwsConfig {
            endpoint_url: self.endpoint_url().map(str::to_owned),
            rate_percent: self.aws_rate_percent,
            ..AwsConfig::of(region.clone())
        };
        of_person(config).await
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
        self.aws_endpoint_url.as_deref().filter(|url| !url.is_empty())
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

/// Returns whether another region may answer. A region that the account has not enabled rejects its credentials, and one
/// region may be out of reach; without any route or credentials, each further region would only cost its timeout.
fn may_answer_elsewhere(error: &AwsError, unreachable: &mut usize) -> bool {
    match error.kind {
        ErrorKind::CredentialsRejected => true,
        ErrorKind::Transient => {
            *unreachable += 1;
            *unreachable == 1
        }
        _ => false,
    }
}

fn no_region() -> anyhow::Error {
    super::usage("name the regions: --region eu-west-1")
}

/// Returns the regions in which to ask for the account, in order and each once: those of the survey, then the one of the
/// environment, unless it is of another partition.
fn candidates(surveyed: &[Region], of_environment: Option<&Region>) -> Vec<Region> {
    let mut regions: Vec<Region> = Vec::new();
    for region in surveyed.iter().chain(of_environment) {
        let is_of_partition = surveyed.first().is_some_and(|first| first.partition() == region.partition());
        if is_of_partition && !regions.contains(region) {
            regions.push(region.clone());
        }
    }
    regions
}

#[cfg(test)]
mod tests {
    use stream_encryption_core::model::service::Operation;

    use super::*;

    #[test]
    fn only_a_region_that_rejects_or_is_out_of_reach_is_passed_over() {
        let error = |kind| AwsError {
            operation: Operation::GetCallerIdentity,
            kind,
            code: None,
            message: String::new(),
            request_id: None,
        };
        let mut unreachable = 0;
        for (kind, goes_on) in [
            (ErrorKind::NoCredentials, false),
            (ErrorKind::CredentialsRejected, true),
            (ErrorKind::CredentialsRejected, true),
            (ErrorKind::Transient, true),
            (ErrorKind::Transient, false),
        ] {
            assert_eq!(may_answer_elsewhere(&error(kind), &mut unreachable), goes_on, "{kind:?}");
        }
    }

    #[test]
    fn region_of_the_environment_is_asked_last() {
        let region = |name: &str| -> Region { name.parse().unwrap() };
        let surveyed = ["me-south-1", "eu-west-1", "me-south-1"].map(region);
        let names = |of_environment: Option<&str>| -> Vec<String> {
            candidates(&surveyed, of_environment.map(region).as_ref())
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(names(Some("us-east-1")), ["me-south-1", "eu-west-1", "us-east-1"]);
        for other in [None, Some("eu-west-1"), Some("cn-north-1")] {
            assert_eq!(names(other), ["me-south-1", "eu-west-1"], "{other:?}");
        }
    }
}
