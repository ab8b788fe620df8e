//! Whose credentials the operator has, by `GetCallerIdentity`
//! ([GetCallerIdentity](https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html)).
//!
//! The answer is kept for an hour, and one request at a time asks for it. It is always about the operator itself: who a
//! role is, its ARN says.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_sts::Client;
use aws_sdk_sts::config::Builder;
use aws_sdk_sts::operation::get_caller_identity::GetCallerIdentityOutput;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::calls::Calls;
use super::faults::{fault, unreadable};
use super::pacing::Quota;
use super::port::{Identity, Urgency};
use crate::model::fault::{Fault, Operation};
use crate::model::principal::Principal;
use crate::model::stream::Region;

const OPERATION: Operation = Operation::GetCallerIdentity;
/// The role of a workload hardly ever changes while it runs.
const KEPT_FOR: Duration = Duration::from_hours(1);

/// The caller, as STS knows it.
pub(super) struct Caller {
    client: Client,
    calls: Calls,
    region: Region,
    known: Mutex<Option<(Instant, Identity)>>,
}

impl Caller {
    /// The caller, asked for where `config` says, in `region`.
    pub(super) fn new(config: &SdkConfig, calls: Calls, region: Region) -> Self {
        Self { client: Client::new(config), calls, region, known: Mutex::new(None) }
    }

    /// Account and partition of the caller.
    pub(super) async fn identity(&self) -> Result<Identity, Fault> {
        let mut known = self.known.lock().await;
        if let Some((since, identity)) = known.as_ref()
            && since.elapsed() < KEPT_FOR
        {
            return Ok(identity.clone());
        }
        // Nothing goes on without it.
        let identity = self.ask(Urgency::Call).await?;
        *known = Some((Instant::now(), identity.clone()));
        Ok(identity)
    }

    /// Whether AWS answers now. What it answered before is no answer.
    pub(super) async fn answers(&self) -> Result<(), Fault> {
        self.ask(Urgency::Drift).await.map(drop)
    }

    async fn ask(&self, urgency: Urgency) -> Result<Identity, Fault> {
        let quota = Quota { operation: OPERATION, account: None, region: self.region.clone() };
        let answer = self
            .calls
            .read(&quota, &Principal::operator(), urgency, async |session| {
                let overrides = Builder::default().credentials_provider(session.credentials);
                let request = self.client.get_caller_identity().customize().config_override(overrides);
                request.send().await.map_err(|error| fault(OPERATION, &error))
            })
            .await?;
        identity(&answer)
    }
}

fn identity(answer: &GetCallerIdentityOutput) -> Result<Identity, Fault> {
    let account = answer.account().and_then(|account| account.parse().ok());
    let partition = answer.arn().and_then(|arn| arn.split(':').nth(1)).and_then(|text| text.parse().ok());
    Ok(Identity {
        account: account.ok_or_else(|| unreadable(OPERATION, "Account"))?,
        partition: partition.ok_or_else(|| unreadable(OPERATION, "Arn"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::recorded::{Recorded, calls};
    use super::*;

    fn answer(arn: &str) -> (u16, String) {
        let xml = format!(
            "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
             <Arn>{arn}</Arn><UserId>AROAEXAMPLE:operator</UserId><Account>111122223333</Account>\
             </GetCallerIdentityResult></GetCallerIdentityResponse>"
        );
        (200, xml)
    }

    fn caller(recorded: &Recorded) -> Caller {
        Caller::new(&recorded.config(), calls(), "eu-west-1".parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn account_and_partition_come_from_sts() {
        for (arn, partition) in [
            ("arn:aws:sts::111122223333:assumed-role/operator/session", "aws"),
            ("arn:aws-cn:sts::111122223333:assumed-role/operator/session", "aws-cn"),
            ("arn:aws-us-gov:iam::111122223333:user/operator", "aws-us-gov"),
        ] {
            let recorded = Recorded::answers([answer(arn)]);
            let identity = caller(&recorded).identity().await.unwrap();
            assert_eq!((identity.account.as_str(), identity.partition.as_str()), ("111122223333", partition));
            assert_eq!(recorded.sent()[0].host, "sts.eu-west-1.amazonaws.com");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_is_kept_for_an_hour() {
        let arn = "arn:aws:iam::111122223333:user/operator";
        let recorded = Recorded::answers([answer(arn), answer(arn)]);
        let caller = caller(&recorded);
        for _ in 0..3 {
            caller.identity().await.unwrap();
        }
        tokio::time::advance(Duration::from_mins(59)).await;
        caller.identity().await.unwrap();
        assert_eq!(recorded.sent().len(), 1);
        tokio::time::advance(Duration::from_mins(1)).await;
        caller.identity().await.unwrap();
        assert_eq!(recorded.sent().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn whether_aws_answers_is_asked_each_time() {
        let arn = "arn:aws:iam::111122223333:user/operator";
        let recorded = Recorded::answers([answer(arn), answer(arn), answer("nobody"), (403, String::new())]);
        let caller = caller(&recorded);
        caller.identity().await.unwrap();
        assert_eq!(caller.answers().await, Ok(()));
        for _ in 0..2 {
            assert!(caller.answers().await.is_err());
        }
        assert_eq!(recorded.sent().len(), 4);
        caller.identity().await.unwrap();
        assert_eq!(recorded.sent().len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn an_identity_that_cannot_be_read_is_a_fault() {
        let recorded = Recorded::answers([answer("nobody")]);
        let fault = caller(&recorded).identity().await.unwrap_err();
        assert_eq!(fault.code.as_deref(), Some("UnreadableAnswer"));
    }
}
