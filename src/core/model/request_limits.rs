//! AWS's limits of requests per second, as the administrator knows them: AWS raises some for an account on request.
//!
//! Pure: for each operation, account and region, the limit that is set for it, or AWS's default. The share of a limit
//! that the operator uses is not decided here.

use super::arn::{Account, Region};
use super::service::Operation;

/// A limit that applies instead of AWS's default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLimit {
    /// The operation.
    pub operation: Operation,
    /// The account whose limit it is; `None` for all accounts.
    pub account: Option<Account>,
    /// The region whose limit it is; `None` for all regions.
    pub region: Option<Region>,
    /// The limit, in requests per second.
    pub requests_per_second: u32,
}

/// The limits of all operations, accounts and regions. By default they are
/// [those of AWS](Operation::requests_per_second).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestLimits(Vec<RequestLimit>);

impl RequestLimits {
    /// Returns limits that differ from AWS's defaults. Where several limits apply, the last one does.
    #[must_use]
    pub fn new(limits: Vec<RequestLimit>) -> Self {
        Self(limits)
    }

    /// Returns the same limit for every operation, such as that of an AWS emulator.
    #[must_use]
    pub fn same(requests_per_second: u32) -> Self {
        let limit = |operation| RequestLimit { operation, account: None, region: None, requests_per_second };
        Self(Operation::ALL.map(limit).into())
    }

    /// Returns the limit of an operation in an account and region, in requests per second. `None` stands for the
    /// operator's own account where that is not known; limits that are set for one account do not apply to it.
    #[must_use]
    pub fn of(&self, operation: Operation, account: Option<&Account>, region: &Region) -> u32 {
        let applies = |limit: &&RequestLimit| {
            limit.operation == operation
                && limit.account.as_ref().is_none_or(|limited| Some(limited) == account)
                && limit.region.as_ref().is_none_or(|limited| limited == region)
        };
        let limit = self.0.iter().rfind(applies).map(|limit| limit.requests_per_second);
        limit.unwrap_or(operation.requests_per_second())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "111122223333";
    const REGION: &str = "eu-west-1";

    fn limit(account: Option<&str>, region: Option<&str>, requests_per_second: u32) -> RequestLimit {
        RequestLimit {
            operation: Operation::DescribeDeliveryStream,
            account: account.map(|account| account.parse().unwrap()),
            region: region.map(|region| region.parse().unwrap()),
            requests_per_second,
        }
    }

    fn of(limits: &RequestLimits, account: Option<&str>, region: &str) -> u32 {
        let account = account.map(|account| account.parse().unwrap());
        limits.of(Operation::DescribeDeliveryStream, account.as_ref(), &region.parse().unwrap())
    }

    #[test]
    fn limit_applies_to_its_operation_account_and_region() {
        let limits = RequestLimits::new(vec![limit(Some(ACCOUNT), Some(REGION), 50)]);
        assert_eq!(of(&limits, Some(ACCOUNT), REGION), 50);
        assert_eq!(of(&limits, Some(ACCOUNT), "eu-west-2"), 5);
        assert_eq!(of(&limits, Some("444455556666"), REGION), 5);
        assert_eq!(of(&limits, None, REGION), 5, "the account is not known");
        let start = Operation::StartDeliveryStreamEncryption;
        assert_eq!(limits.of(start, Some(&ACCOUNT.parse().unwrap()), &REGION.parse().unwrap()), 5);
    }

    #[test]
    fn last_limit_that_applies_counts() {
        let limits = [limit(None, None, 10), limit(Some(ACCOUNT), None, 50), limit(None, Some(REGION), 20)];
        let limits = RequestLimits::new(limits.into());
        assert_eq!(of(&limits, Some(ACCOUNT), REGION), 20);
        assert_eq!(of(&limits, Some(ACCOUNT), "eu-west-2"), 50);
        assert_eq!(of(&limits, Some("444455556666"), "eu-west-2"), 10);
        assert_eq!(of(&limits, None, REGION), 20);
    }

    #[test]
    fn default_limits_are_those_of_aws() {
        for operation in Operation::ALL {
            let limit = RequestLimits::default().of(operation, None, &REGION.parse().unwrap());
            assert_eq!(limit, operation.requests_per_second());
            assert_eq!(RequestLimits::same(7).of(operation, None, &REGION.parse().unwrap()), 7);
        }
    }
}
