//! What AWS has refused about the streams of one service in a place, and whether a survey goes on to ask. Pure.
//!
//! A denial may concern one stream only, because IAM policies name streams, or all of them. Each request takes about half
//! a second of AWS's limits, so a survey of thousands of streams must not ask in vain for hours, and must not give up
//! because of a few streams either. It therefore asks first for a sample that is spread over the list. IAM policies name
//! streams by the beginning of their names and AWS lists by name, so the streams that are allowed are neighbours in the
//! list, and the sample meets them. A rejection of the credentials concerns every request, so a few in a row suffice.

use std::sync::{Mutex, MutexGuard, PoisonError};

use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::model::aws_error::{AwsError, ErrorKind};
use stream_encryption_core::model::credentials::CredentialsRejection;
use stream_encryption_core::model::service::{Operation, profile};

/// Number of denied requests of one kind without a granted one after which the rest is not requested. A list that is not
/// longer is requested completely. In a longer one, neighbours that are a hundredth of the list are met by the sample,
/// which takes 50 seconds at two requests in a second.
pub const MAX_DENIED: usize = 100;
/// Number of streams in a row whose requests fail because of the credentials, after which the rest is not requested.
pub const MAX_REJECTED: usize = 5;

/// What AWS has refused so far.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    descriptions: Denials,
    tags: Denials,
    /// The streams in a row whose requests failed because of the credentials.
    rejected: usize,
    /// The last one of these failures.
    rejection: Option<AwsError>,
}

/// The denied requests of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Denials {
    denied: usize,
    is_one_granted: bool,
}

impl Denials {
    fn are_all_denied(self) -> bool {
        self.denied >= MAX_DENIED && !self.is_one_granted
    }
}

impl Refusals {
    /// Takes the outcome of the requests about a stream; `None` if AWS described it.
    pub fn take(&self, error: Option<&AwsError>) {
        let mut state = self.state();
        match error {
            None => {
                state.descriptions.is_one_granted = true;
                (state.rejected, state.rejection) = (0, None);
            }
            Some(error) if is_of_credentials(error) => {
                state.rejected += 1;
                state.rejection = Some(error.clone());
            }
            Some(error) => {
                if error.kind == ErrorKind::Denied {
                    state.descriptions.denied += 1;
                }
                if error.is_of_accepted_session() {
                    (state.rejected, state.rejection) = (0, None);
                }
            }
        }
    }

    /// Takes a stream that an earlier survey has described: AWS allows at least this one.
    pub fn take_known(&self) {
        self.state().descriptions.is_one_granted = true;
    }

    /// Takes whether AWS returned the tags of a stream, or denied them.
    pub fn take_tags(&self, is_granted: bool) {
        let tags = &mut self.state().tags;
        if is_granted {
            tags.is_one_granted = true;
        } else {
            tags.denied += 1;
        }
    }

    /// Returns whether to ask for a further stream.
    pub fn may_describe(&self) -> bool {
        let state = self.state();
        state.rejected < MAX_REJECTED && !state.descriptions.are_all_denied()
    }

    /// Returns whether to ask for the tags of a further stream.
    pub fn may_list_tags(&self) -> bool {
        !self.state().tags.are_all_denied()
    }

    /// Returns why the survey has ended early, with what to do; `None` if it has not. `rest` is the number of streams that
    /// were not described.
    pub fn problem(&self, service: Service, rest: usize) -> Option<String> {
        let state = self.state();
        let streams = if rest == 1 { "1 stream was".to_owned() } else { format!("{rest} streams were") };
        if let Some(error) = &state.rejection {
            let (cause, remedy) = (cause(error), remedy(error));
            let effect = if rest > 0 { format!(", so {streams} not described") } else { String::new() };
            return Some(format!("{cause} ({error}){effect}: {remedy}, and run the command again"));
        }
        if rest == 0 {
            return None;
        }
        let Denials { denied, .. } = state.descriptions;
        if !state.descriptions.are_all_denied() {
            // One of the last requests was granted, after the others had been given up.
            return Some(format!("{streams} not requested: run the command again"));
        }
        let action = profile(service).describe.iam_action();
        Some(format!(
            "AWS denied {action} for {denied} streams, spread over the list, and allowed it for none, so {streams} not requested: allow the action, and run the command again"
        ))
    }

    /// Returns the problem that the tags of these streams, given by name, are not known; `None` if there are none.
    pub fn problem_of_tags(&self, service: Service, without_tags: &[&str]) -> Option<String> {
        let first = without_tags.iter().min()?;
        let (streams, them) = match without_tags.len() {
            1 => (format!("1 {service:?} stream, {first},"), "it"),
            count => (format!("{count} {service:?} streams, such as {first},"), "them"),
        };
        let action = profile(service).list_tags.iam_action();
        let tags = self.state().tags;
        let extent = if tags.are_all_denied() {
            let denied = tags.denied;
            format!(" for {denied} streams, spread over the list, and allowed it for none, so the rest was not requested")
        } else {
            String::new()
        };
        Some(format!(
            "the tags of {streams} are not known, so tools that manage {them} are not recognized: AWS denied {action}{extent}. Allow the action, and run the command again"
        ))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the items in the order in which to request them: first [`MAX_DENIED`] that are spread evenly over the list,
/// then the others.
#[must_use]
pub fn sample_first<T>(items: Vec<T>) -> Vec<T> {
    let count = items.len();
    if count <= MAX_DENIED {
        return items;
    }
    // The first item of each of as many equal parts.
    let part = |at: usize| at * MAX_DENIED / count;
    let begins_part = |at: usize| at == 0 || part(at) != part(at - 1);
    let (sample, others): (Vec<(usize, T)>, Vec<(usize, T)>) =
        items.into_iter().enumerate().partition(|(at, _)| begins_part(*at));
    sample.into_iter().chain(others).map(|(_, item)| item).collect()
}

/// Returns what a person does about credentials that AWS rejects, or that cannot be used.
#[must_use]
pub fn remedy(error: &AwsError) -> &'static str {
    match (error.kind, rejection(error)) {
        (_, Some(CredentialsRejection::ClockWrong)) => "correct the clock of this computer",
        (_, Some(CredentialsRejection::SignatureWrong)) => {
            "check the secret access key, and whether a proxy changes the requests"
        }
        (_, Some(CredentialsRejection::NotEnabled)) => "enable the region for the account",
        (ErrorKind::CredentialsRejected | ErrorKind::NoCredentials, _) => "renew the credentials",
        _ => "allow your credentials to assume the role",
    }
}

/// Returns whether AWS rejects the credentials in this region only, as far as the error tells.
#[must_use]
pub fn may_be_of_region(error: &AwsError) -> bool {
    use CredentialsRejection::{KeyUnknown, NotEnabled};
    matches!(rejection(error), Some(KeyUnknown | NotEnabled))
}

fn rejection(error: &AwsError) -> Option<CredentialsRejection> {
    error.code.as_deref().and_then(|code| CredentialsRejection::of(code, &error.message))
}

fn cause(error: &AwsError) -> &'static str {
    match error.kind {
        ErrorKind::CredentialsRejected => "AWS rejects the credentials",
        ErrorKind::NoCredentials => "the AWS credentials cannot be used",
        _ => "AWS refuses the role",
    }
}

/// Returns whether a request about any other stream would fail, too: because of the credentials, or because their role
/// may not be assumed any more.
fn is_of_credentials(error: &AwsError) -> bool {
    match error.kind {
        ErrorKind::CredentialsRejected | ErrorKind::NoCredentials => true,
        _ => error.operation == Operation::AssumeRole && !error.kind.is_inconclusive(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(operation: Operation, kind: ErrorKind, code: &str) -> AwsError {
        AwsError { operation, kind, code: Some(code.to_owned()), message: String::new(), request_id: None }
    }

    fn denied() -> AwsError {
        error(Operation::DescribeDeliveryStream, ErrorKind::Denied, "AccessDeniedException")
    }

    fn expired() -> AwsError {
        let operation = Operation::ListTagsForDeliveryStream;
        error(operation, ErrorKind::CredentialsRejected, "ExpiredTokenException")
    }

    fn after(outcomes: &[Option<AwsError>]) -> Refusals {
        let refusals = Refusals::default();
        for outcome in outcomes {
            refusals.take(outcome.as_ref());
        }
        refusals
    }

    #[test]
    fn sample_is_spread_over_the_list() {
        let short: Vec<usize> = (0..MAX_DENIED).collect();
        assert_eq!(sample_first(short.clone()), short);
        for count in [MAX_DENIED + 1, 2 * MAX_DENIED - 1, 250, 10_000] {
            let mut order = sample_first((0..count).collect());
            let (first, last) = (order[0], order[MAX_DENIED - 1]);
            assert!(first == 0 && last >= count - count / MAX_DENIED - 1, "{count}: {first} to {last}");
            let gaps = order[..MAX_DENIED].windows(2).map(|pair| pair[1] - pair[0]);
            assert!(gaps.max() <= Some(count / MAX_DENIED + 1), "{count}");
            order.sort_unstable();
            assert!(order.into_iter().eq(0..count), "each stream of {count} is requested once");
        }
    }

    #[test]
    fn denials_end_a_survey_only_without_any_grant() {
        let mut outcomes = vec![Some(denied()); MAX_DENIED - 1];
        assert!(after(&outcomes).may_describe());
        outcomes.push(Some(denied()));
        assert!(!after(&outcomes).may_describe());
        outcomes.push(None);
        assert!(after(&outcomes).may_describe());
        let with_known = after(&outcomes[..MAX_DENIED]);
        with_known.take_known();
        assert!(with_known.may_describe());
    }

    #[test]
    fn unrequested_streams_are_not_called_denied() {
        let refusals = after(&vec![Some(denied()); MAX_DENIED]);
        assert_eq!(refusals.problem(Service::Firehose, 0), None);
        let problem = refusals.problem(Service::Firehose, 4900).unwrap();
        assert_eq!(
            problem,
            "AWS denied firehose:DescribeDeliveryStream for 100 streams, spread over the list, and allowed it for none, so 4900 streams were not requested: allow the action, and run the command again"
        );
        assert_eq!(after(&[None]).problem(Service::Firehose, 0), None);
    }

    #[test]
    fn rejected_credentials_end_a_survey_if_in_a_row() {
        let rejected = || vec![Some(expired()); MAX_REJECTED - 1];
        assert!(after(&rejected()).may_describe());
        // A description and a denial show that AWS accepts the credentials; a lost request shows nothing.
        let lost = error(Operation::DescribeDeliveryStream, ErrorKind::Transient, "InternalFailure");
        for (between, goes_on) in [(None, true), (Some(denied()), true), (Some(lost), false)] {
            let outcomes = [rejected(), vec![between.clone(), Some(expired())]].concat();
            assert_eq!(after(&outcomes).may_describe(), goes_on, "{between:?}");
        }
    }

    #[test]
    fn rejected_credentials_are_named_with_their_remedy() {
        let problem = |error: AwsError, rest| {
            after(&vec![Some(error); MAX_REJECTED]).problem(Service::Firehose, rest).unwrap()
        };
        assert_eq!(
            problem(expired(), 2800),
            "AWS rejects the credentials (firehose:ListTagsForDeliveryStream failed: ExpiredTokenException), so 2800 streams were not described: renew the credentials, and run the command again"
        );
        assert!(problem(expired(), 1).contains("so 1 stream was not described: renew"));
        assert!(problem(expired(), 0).contains("ExpiredTokenException): renew the credentials"));
        for (operation, kind, code, words) in [
            (Operation::ListTagsForStream, ErrorKind::NoCredentials, "NoCredentials", "renew the credentials"),
            (Operation::AssumeRole, ErrorKind::Denied, "AccessDenied", "allow your credentials to assume the role"),
            (Operation::ListTagsForStream, ErrorKind::CredentialsRejected, "RequestExpired", "correct the clock"),
        ] {
            let problem = problem(error(operation, kind, code), 7);
            assert!(problem.contains("7 streams were not described") && problem.contains(words), "{problem}");
        }
    }

    #[test]
    fn role_that_cannot_be_assumed_is_no_denied_stream() {
        let refused = error(Operation::AssumeRole, ErrorKind::Denied, "AccessDenied");
        let throttled = error(Operation::AssumeRole, ErrorKind::Throttled, "Throttling");
        assert!(!after(&vec![Some(refused); MAX_REJECTED]).may_describe());
        assert!(after(&vec![Some(throttled); MAX_REJECTED]).may_describe());
    }

    #[test]
    fn denied_tags_end_the_requests_only_without_any_grant() {
        let refusals = Refusals::default();
        (1..MAX_DENIED).for_each(|_| refusals.take_tags(false));
        assert!(refusals.may_list_tags());
        refusals.take_tags(false);
        assert!(!refusals.may_list_tags() && refusals.may_describe());
        let problem = refusals.problem_of_tags(Service::Kinesis, &["b", "a", "c"]).unwrap();
        assert!(problem.starts_with("the tags of 3 Kinesis streams, such as a, are not known, "), "{problem}");
        assert!(problem.contains("for 100 streams, spread over the list, and allowed it for none"), "{problem}");
        refusals.take_tags(true);
        assert!(refusals.may_list_tags());
    }

    #[test]
    fn streams_without_tags_are_counted_and_named() {
        let refusals = Refusals::default();
        refusals.take_tags(true);
        refusals.take_tags(false);
        assert_eq!(refusals.problem_of_tags(Service::Firehose, &[]), None);
        assert_eq!(
            refusals.problem_of_tags(Service::Firehose, &["orders"]).unwrap(),
            "the tags of 1 Firehose stream, orders, are not known, so tools that manage it are not recognized: AWS denied firehose:ListTagsForDeliveryStream. Allow the action, and run the command again"
        );
    }
}
