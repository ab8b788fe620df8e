//! The checks of AWS, with the credentials of the person who runs them: whose they are, how old, the clock, and the queue
//! of AWS's events.

use jiff::SignedDuration;

use super::{Check, events};
use crate::adopt::survey::described;
use crate::aws::{CredentialsReport, Holder};
use crate::plugin::age::short;
use crate::plugin::aws::AwsArguments;
use crate::plugin::operator_settings::OperatorSettings;

/// Difference of the clocks from which it is worth a look; AWS refuses requests beyond 15 minutes.
const CLOCK: SignedDuration = SignedDuration::from_secs(60);

/// Runs the checks. `queue` is the URL of the queue of AWS's events, if the operator has one.
pub(super) async fn all(
    settings: Option<&OperatorSettings>,
    arguments: &AwsArguments,
    queue: Option<&str>,
) -> Vec<Check> {
    let name = "your AWS credentials";
    let region = match arguments.region(settings.and_then(|settings| settings.region.as_deref())) {
        Ok(region) => region,
        Err(error) => return vec![Check::not_checked(name, format!("{error:#}"))],
    };
    let aws = match arguments.connect(region.clone()).await {
        Ok(aws) => aws,
        Err(error) => return vec![Check::not_checked(name, format!("{error:#}"))],
    };
    let CredentialsReport { holder, clock_ahead } = aws.report_credentials().await;
    let is_known = holder.is_ok();
    let mut checks = vec![match holder {
        Ok(Holder { arn, session_age }) => {
            let age = session_age.map(|age| format!(", session at least {} old", short(age)));
            Check::good(name, format!("{arn} in {region}{}", age.unwrap_or_default()))
        }
        Err(error) => Check::not_checked(name, described(&error)),
    }];
    // A wrong clock may be the reason why AWS rejects the credentials.
    checks.extend(clock_ahead.map(clock));
    if !is_known {
        return checks;
    }
    if let Some(url) = queue {
        checks.push(events::queue(&aws, url).await);
    }
    checks
}

fn clock(ahead: SignedDuration) -> Check {
    let by = short(ahead.abs());
    if ahead.abs() > CLOCK {
        let side = if ahead.is_negative() { "behind" } else { "ahead of" };
        Check::warning(
            "your clock",
            format!("{by} {side} AWS's"),
            "AWS refuses requests from 15 minutes on. Check the clocks of the nodes, too.",
        )
    } else {
        Check::good("your clock", format!("within {by} of AWS's"))
    }
}
