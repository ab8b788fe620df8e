//! The survey: lists the streams of accounts and regions, and describes each of them with its tags.
//!
//! Many places are surveyed at the same time, each within its own limits of AWS: the rate limiter of [`Aws`] paces every
//! request. A place that refuses does not affect the others; its problems are part of the result. Every request only
//! reads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;
use jiff::Timestamp;
use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::controller::stream_api::{Priority, StreamApi as _};
use stream_encryption_core::model::arn::{AwsAccount, Region, StreamArn};
use stream_encryption_core::model::aws_error::{AwsError, ErrorKind};
use stream_encryption_core::model::observation::StreamDescription;
use stream_encryption_core::model::principal::{Principal, Role};

use super::found::FoundStream;
use super::owners::{Owner, owners};
use super::progress_file::ProgressFile;
use crate::aws::Aws;

/// Number of places to survey at the same time. Each has connections of its own, and Linux lets a process open 1,024 files by
/// default.
const PLACES: usize = 64;
/// Number of streams of one service to describe at the same time in a place. More than the requests that the rate limiter
/// permits in the time of an answer.
const CONCURRENCY: usize = 16;
/// Number of denied requests without a granted one after which the rest of the same kind is not requested. A person may be
/// permitted only some streams, and AWS lists the streams by name, so a few denials do not show that all are denied.
const MAX_DENIED: usize = 50;
/// Number of consecutive rejections of the credentials after which no stream is requested: an expired session does not
/// recover.
const MAX_REJECTED: usize = 3;

/// An account and a region, and the identity with which to read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The account.
    pub account: AwsAccount,
    /// The region.
    pub region: Region,
    /// The role to assume; `None` for the credentials of the person.
    pub role: Option<Role>,
}

/// The streams of one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceSurvey {
    /// The place.
    pub place: Place,
    /// Its streams, in the order of their ARNs.
    pub streams: Vec<FoundStream>,
    /// The services whose list of streams could be read.
    pub listed: Vec<Service>,
    /// The streams of these lists that could not be described.
    pub undescribed: Vec<StreamArn>,
    /// Number of streams that an earlier survey had described.
    pub reused: usize,
    /// What could not be read, and why.
    pub problems: Vec<String>,
}

impl PlaceSurvey {
    /// Creates the survey of a place in which nothing has been listed yet.
    #[must_use]
    pub fn new(place: Place) -> Self {
        Self {
            place,
            streams: Vec::new(),
            listed: Vec::new(),
            undescribed: Vec::new(),
            reused: 0,
            problems: Vec::new(),
        }
    }
}

/// Receives the progress of a survey, for a progress bar.
pub trait Observer: Sync {
    /// The streams of a service in a place were listed.
    fn listed(&self, _place: &Place, _service: Service, _streams: usize) {}
    /// One of them was described, could not be described, or was known.
    fn described(&self, _place: &Place, _service: Service) {}
}

/// Ignores the progress.
impl Observer for () {}

impl Place {
    /// Returns the identity of all requests to the place.
    #[must_use]
    pub fn principal(&self) -> Principal {
        // Without a namespace, which every request of the operator has.
        Principal { role: self.role.clone(), namespace: String::new(), resource: "adopt".to_owned() }
    }
}

/// Surveys these places, and returns them in their order. A stream that `progress` knows is not described again, and every
/// other one is added to it.
pub async fn survey(
    aws: &Aws,
    places: &[Place],
    services: &[Service],
    progress: &ProgressFile,
    observer: &impl Observer,
) -> Vec<PlaceSurvey> {
    let survey = &Survey { aws, progress, observer };
    let numbered = places.iter().enumerate();
    let surveys =
        numbered.map(|(number, place)| async move { (number, survey.place(place, services).await) });
    // In any order: a place with many streams must not keep others waiting.
    let mut surveys: Vec<(usize, PlaceSurvey)> =
        stream::iter(surveys).buffer_unordered(PLACES).collect().await;
    surveys.sort_by_key(|(number, _)| *number);
    surveys.into_iter().map(|(_, survey)| survey).collect()
}

struct Survey<'a, O> {
    aws: &'a Aws,
    progress: &'a ProgressFile,
    observer: &'a O,
}

/// The streams of one service in a place.
#[derive(Default)]
struct Part {
    streams: Vec<FoundStream>,
    is_listed: bool,
    undescribed: Vec<StreamArn>,
    reused: usize,
    problems: Vec<String>,
}

/// What AWS has refused of one service in a place so far.
#[derive(Default)]
struct Refused {
    tags: Denials,
    descriptions: Denials,
    /// Consecutive rejections of the credentials.
    credentials: AtomicUsize,
}

impl Refused {
    fn are_credentials_rejected(&self) -> bool {
        self.credentials.load(Ordering::Relaxed) >= MAX_REJECTED
    }
}

/// The denied requests of one kind.
#[derive(Default)]
struct Denials {
    count: AtomicUsize,
    is_one_granted: AtomicBool,
}

impl Denials {
    fn record<T>(&self, result: &Result<T, AwsError>) {
        match result {
            Ok(_) => self.is_one_granted.store(true, Ordering::Relaxed),
            Err(error) if error.kind == ErrorKind::Denied => drop(self.count.fetch_add(1, Ordering::Relaxed)),
            Err(_) => {}
        }
    }

    /// Returns whether the person seems to be permitted no request of this kind.
    fn is_everything_denied(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= MAX_DENIED && !self.is_one_granted.load(Ordering::Relaxed)
    }
}

enum Outcome {
    Known(FoundStream),
    Described(Option<FoundStream>),
    Failed(StreamArn, AwsError),
    Skipped(StreamArn),
}

impl<O: Observer> Survey<'_, O> {
    async fn place(&self, place: &Place, services: &[Service]) -> PlaceSurvey {
        let parts = join_all(services.iter().map(|service| self.service(place, *service))).await;
        let mut whole = PlaceSurvey::new(place.clone());
        for (service, part) in services.iter().zip(parts) {
            whole.streams.extend(part.streams);
            whole.listed.extend(part.is_listed.then_some(*service));
            whole.undescribed.extend(part.undescribed);
            whole.reused += part.reused;
            whole.problems.extend(part.problems);
        }
        whole.streams.sort_by(|one, other| one.arn.cmp(&other.arn));
        whole
    }

    async fn service(&self, place: &Place, service: Service) -> Part {
        let mut part = Part::default();
        let listed = self.aws.list_streams(service, &place.account, &place.region, &place.principal()).await;
        let mut remaining = match listed {
            Ok(streams) => streams,
            Err(error) => {
                part.problems.push(described(&error));
                return part;
            }
        };
        part.is_listed = true;
        self.observer.listed(place, service, remaining.len());
        let refused = Refused::default();
        let mut skipped = 0;
        let mut changing: HashMap<StreamArn, FoundStream> = HashMap::new();
        // After all others, once more: a failure that may pass, and a change that may have ended. While Kinesis changes a
        // stream, for example while it is resharded, AWS shows the old encryption, or the new one too early.
        for is_last in [false, true] {
            let requests = std::mem::take(&mut remaining).into_iter();
            let mut outcomes = stream::iter(requests.map(|stream| self.stream(place, &refused, stream)))
                .buffer_unordered(CONCURRENCY);
            let mut failed: Vec<(StreamArn, AwsError)> = Vec::new();
            while let Some(outcome) = outcomes.next().await {
                match outcome {
                    Outcome::Known(stream) => {
                        part.reused += 1;
                        part.streams.push(stream);
                    }
                    Outcome::Described(Some(stream)) if !is_last && stream.encryption.is_changing() => {
                        remaining.push(stream.arn.clone());
                        changing.insert(stream.arn.clone(), stream);
                        continue;
                    }
                    Outcome::Described(stream) => part.streams.extend(stream),
                    // The stream exists, and the first description shows why its encryption is not known.
                    Outcome::Failed(stream, _) | Outcome::Skipped(stream)
                        if changing.contains_key(&stream) =>
                    {
                        part.streams.extend(changing.remove(&stream));
                    }
                    Outcome::Failed(stream, error) if !is_last && error.kind.is_inconclusive() => {
                        remaining.push(stream);
                        continue;
                    }
                    Outcome::Failed(stream, error) => failed.push((stream, error)),
                    Outcome::Skipped(stream) => {
                        skipped += 1;
                        part.undescribed.push(stream);
                    }
                }
                self.observer.described(place, service);
            }
            part.problems.extend(summary(&failed));
            part.undescribed.extend(failed.into_iter().map(|(stream, _)| stream));
        }
        if skipped > 0 {
            part.problems.push(if refused.are_credentials_rejected() {
                format!("{skipped} streams were not described: AWS rejects the credentials now. Renew them and run the command again")
            } else {
                format!("{skipped} more streams were not requested, because AWS denied the first {MAX_DENIED} of them")
            });
        }
        let without_tags = part.streams.iter().filter(|stream| stream.owners.is_none()).count();
        if without_tags > 0 {
            part.problems.push(format!(
                "the tags of {without_tags} {service:?} streams cannot be read (AccessDenied), so tools that manage them are not recognized"
            ));
        }
        part
    }

    async fn stream(&self, place: &Place, refused: &Refused, stream: StreamArn) -> Outcome {
        if let Some(known) = self.progress.known(&stream) {
            return Outcome::Known(known.clone());
        }
        if refused.descriptions.is_everything_denied() || refused.are_credentials_rejected() {
            return Outcome::Skipped(stream);
        }
        let principal = place.principal();
        // The description is last and written at once, so that an ended survey never repeats it.
        let found = match self.owners(refused, &stream, &principal).await {
            Ok(owners) => {
                let described = self.aws.describe_stream(&stream, &principal, Priority::Drift).await;
                refused.descriptions.record(&described);
                let found = |description: Option<(StreamDescription, _)>| {
                    let description = description.map(|(description, _)| description);
                    FoundStream::of(&stream, description.as_ref(), owners, Timestamp::now())
                };
                described.map(found)
            }
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => {
                refused.credentials.store(0, Ordering::Relaxed);
                if let Some(found) = &found {
                    self.progress.add(found);
                }
                Outcome::Described(found)
            }
            Err(error) => {
                if error.kind == ErrorKind::CredentialsRejected {
                    refused.credentials.fetch_add(1, Ordering::Relaxed);
                }
                Outcome::Failed(stream, error)
            }
        }
    }

    /// Returns the tools that manage a stream; `None` if its tags may not be read.
    async fn owners(
        &self,
        refused: &Refused,
        stream: &StreamArn,
        principal: &Principal,
    ) -> Result<Option<Vec<Owner>>, AwsError> {
        if refused.tags.is_everything_denied() {
            return Ok(None);
        }
        let tags = self.aws.list_tags(stream, principal).await;
        refused.tags.record(&tags);
        match tags {
            Ok(tags) => Ok(Some(owners(&tags))),
            Err(error) if error.kind == ErrorKind::Denied => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Returns one line for each kind of failure.
fn summary(failed: &[(StreamArn, AwsError)]) -> Vec<String> {
    let mut lines: Vec<(String, &StreamArn, usize)> = Vec::new();
    for (stream, error) in failed {
        let kind = error.to_string();
        match lines.iter_mut().find(|(known, _, _)| *known == kind) {
            Some((_, _, count)) => *count += 1,
            None => lines.push((kind, stream, 1)),
        }
    }
    let line = |(kind, stream, count): (String, &StreamArn, usize)| match count {
        1 => format!("{}: {kind}", stream.name()),
        _ => format!("{} and {} more streams: {kind}", stream.name(), count - 1),
    };
    lines.into_iter().map(line).collect()
}

/// Returns an error of AWS for a person, with AWS's own message.
#[must_use]
pub fn described(error: &AwsError) -> String {
    let message = if error.message.is_empty() { String::new() } else { format!(": {}", error.message) };
    let hint = match error.kind {
        ErrorKind::CredentialsRejected => {
            ". If other regions work with these credentials, the account has not enabled this region"
        }
        _ => "",
    };
    format!("{error}{message}{hint}")
}

#[cfg(test)]
mod tests;
