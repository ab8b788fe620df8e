//! The simulated AWS as one value: streams, keys, queues, limits, faults, events and the log of every request.
//!
//! Pure and deterministic: no clock, no I/O, no randomness, no threads. Time is an argument. The same
//! requests at the same times always give the same answers. A simulation uses [`World::call`];
//! [`crate::SimulatedAws`] serves the model over HTTP.

pub(crate) mod date;
pub mod deliveries;
pub mod events;
pub mod faults;
mod firehose;
mod input;
pub mod key;
mod kinesis;
mod kms;
mod limits;
pub mod log;
pub mod outside;
mod policy;
pub mod queue;
pub mod request;
pub mod settings;
pub(crate) mod sqs;
mod state;
pub mod stream;
mod sts;
mod tags;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

pub use deliveries::Deliveries;
pub use events::Event;
pub use faults::{Fault, Rule};
pub use key::{Grant, Key, KeyState, PlantedKey};
pub use log::{Call, Calls, Principal, Session};
pub use queue::{Counts, Queue, Received};
pub use request::{AwsError, Caller, Delivery, Reply, Request, Service};
pub use settings::{
    BadKey, FirehoseCounts, KeyAfterDisabled, KeyIdEcho, SameKey, Settings, ShownKey, ShownWhileUpdating,
};
pub use state::PlantedRole;
pub use stream::{
    CreationFailure, EncryptionStatus, FailureType, NeverEncryptedShows, PlantedStream, Snapshot, Source,
    StreamId, StreamKey, StreamMode, StreamStatus,
};

use faults::{invalid_token, throttled, too_many_a_second};
use state::{Context, State};
use stream::{Stream, later};

/// A request that is executed later, after its caller has given up.
#[derive(Clone, Debug)]
struct LateRequest {
    due: Timestamp,
    caller: Caller,
    region: String,
    request: Request,
}

/// The complete state of the simulated AWS.
#[derive(Clone, Debug, Default)]
pub struct World {
    state: State,
    faults: faults::Faults,
    late: Vec<LateRequest>,
    calls: Vec<Call>,
    events: events::Events,
}

impl World {
    /// Creates an AWS without streams and keys.
    pub fn new(settings: Settings) -> World {
        World { state: State { settings, ..State::default() }, ..World::default() }
    }

    /// Handles one request. Executes the delayed requests that are due, applies the scripted fault, executes
    /// this request and writes the log. `region` is the region of the signature. The reply contains its
    /// delivery: a simulation must not show a lost answer to the caller.
    pub fn call(&mut self, now: Timestamp, caller: &Caller, region: &str, request: &Request) -> Reply {
        self.arrive_late(now);
        let principal = self.state.principal(caller);
        let fault = self.faults.meet(request, &caller.access_key, &principal.arn);
        if let Some(Fault::Late { by }) = fault {
            let due = later(now, by);
            self.late.push(LateRequest {
                due,
                caller: caller.clone(),
                region: region.to_owned(),
                request: request.clone(),
            });
        }
        self.execute(now, caller, region, request, fault.as_ref())
    }

    /// Executes the delayed requests that are due by now, ordered by their times, and sends the heartbeats.
    fn arrive_late(&mut self, now: Timestamp) {
        while let Some(at) =
            (0..self.late.len()).filter(|at| self.late[*at].due <= now).min_by_key(|at| self.late[*at].due)
        {
            let late = self.late.remove(at);
            self.execute(late.due, &late.caller, &late.region, &late.request, Some(&Fault::LoseReply));
        }
        self.beat(now);
    }

    /// Returns the time at which the next delayed request is due.
    fn next_late(&self) -> Option<Timestamp> {
        self.late.iter().map(|late| late.due).min()
    }

    fn execute(
        &mut self,
        now: Timestamp,
        caller: &Caller,
        region: &str,
        request: &Request,
        fault: Option<&Fault>,
    ) -> Reply {
        let region = if region.is_empty() { self.state.settings.region.clone() } else { region.to_owned() };
        let mut context = Context {
            now,
            principal: self.state.principal(caller),
            account: self.state.account(caller),
            region,
            request,
            no_op: matches!(fault, Some(Fault::NoOp)),
            fails: match fault {
                Some(Fault::FailsLater { failure }) => Some(*failure),
                _ => None,
            },
            takes: match fault {
                Some(Fault::Takes { time }) => Some(*time),
                _ => None,
            },
            stuck: matches!(fault, Some(Fault::Stuck)),
            lag: match fault {
                // Never newer than without the fault.
                Some(Fault::ReadLag { by }) => (*by).max(self.state.settings.read_lag),
                _ => self.state.settings.read_lag,
            },
            counted: false,
        };
        let arrives = !matches!(fault, Some(Fault::LoseRequest | Fault::Late { .. }));
        let wrong_date = (arrives && self.state.settings.checks_dates)
            .then(|| date::refusal(caller, request.service, now))
            .flatten();
        let (result, executed) = if let Some(error) = wrong_date.or_else(|| refusal(fault, &context)) {
            (Err(error), false)
        } else {
            let result = self.state.dispatch(&mut context);
            let executed = result.is_ok() && !context.no_op;
            (result, executed)
        };
        let result = match (fault, result) {
            (Some(Fault::ServerErrorAfterwards { status }), Ok(_)) => Err(server_error(*status)),
            (_, result) => result,
        };
        let delivery = match fault {
            Some(Fault::LoseRequest | Fault::LoseReply | Fault::Late { .. }) => Delivery::Lost,
            Some(Fault::Hold) => Delivery::Held,
            Some(Fault::Slow { by }) => Delivery::After(*by),
            _ => Delivery::Prompt,
        };
        let id = self.calls.len() as u64 + 1;
        if arrives {
            self.record_call(&context, &caller.user_agent, id, result.as_ref().err());
        }
        self.calls.push(Call {
            id,
            time: now,
            service: request.service,
            operation: request.operation.clone(),
            target: request.target().to_owned(),
            account: context.account,
            region: context.region,
            principal: context.principal,
            key: request.key().map(str::to_owned),
            outcome: result.as_ref().map_or_else(|error| error.code.clone(), |_| "OK".to_owned()),
            executed,
            counted: context.counted,
            answered: delivery != Delivery::Lost,
            fault: fault.map(fault_name),
        });
        Reply { call: id, result, delivery }
    }

    /// Plants a stream in any state, as if it had always been in that state, and returns its ARN. It replaces
    /// a stream of the same name.
    pub fn plant_stream(&mut self, planted: PlantedStream) -> String {
        let settings = &self.state.settings;
        let id = StreamId {
            service: planted.service,
            account: or(planted.account, &settings.account),
            region: or(planted.region, &settings.region),
            name: planted.name,
        };
        let created = planted.created.unwrap_or(Timestamp::constant(1_767_225_600, 0));
        let mut stream = Stream::new(id.clone(), planted.source, created, Timestamp::MIN, planted.state);
        stream.never_encrypted_shows = planted.never_encrypted_shows;
        stream.creation_failure = planted.creation_failure;
        stream.tags = planted.tags;
        let arn = id.arn();
        self.state.streams.insert(id, stream);
        arn
    }

    /// Plants a key and returns its ARN.
    pub fn plant_key(&mut self, planted: PlantedKey) -> String {
        let settings = &self.state.settings;
        let key = PlantedKey {
            account: or(planted.account, &settings.account),
            region: or(planted.region, &settings.region),
            ..planted
        };
        self.state.keys.plant(key, Timestamp::constant(1_767_225_600, 0))
    }

    /// Creates or moves an alias (`alias/orders`) in the key's account and region, and returns its ARN.
    pub fn plant_alias(&mut self, alias: &str, key_arn: &str) -> String {
        let prefix: Vec<&str> = key_arn.splitn(6, ':').take(5).collect();
        let arn = format!("{}:{alias}", prefix.join(":"));
        self.state.keys.set_alias(arn.clone(), key_arn.to_owned());
        arn
    }

    /// Plants a role, so that its trust policy is enforced.
    pub fn plant_role(&mut self, role: PlantedRole) {
        self.state.roles.insert(role.arn.clone(), role);
    }

    /// Assigns an access key to an account.
    pub fn plant_account(&mut self, access_key: &str, account: &str) {
        self.state.settings.accounts.insert(access_key.to_owned(), account.to_owned());
    }

    /// Scripts a fault and returns its number.
    pub fn script(&mut self, rule: Rule) -> u64 {
        self.faults.add(rule)
    }

    /// Removes one rule; returns false if it no longer exists.
    pub fn clear_fault(&mut self, number: u64) -> bool {
        self.faults.remove(number)
    }

    /// Removes all rules.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// Returns the active rules with their numbers.
    pub fn rules(&self) -> &[(u64, Rule)] {
        self.faults.rules()
    }

    /// Returns the log, oldest entry first. [`Calls`] counts over it.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// Executes the delayed requests that are due by now, and sends the heartbeats. [`World::call`] does this too.
    pub fn settle(&mut self, now: Timestamp) {
        self.arrive_late(now);
    }

    /// Returns the settings, which can be changed at any time.
    pub fn settings(&mut self) -> &mut Settings {
        &mut self.state.settings
    }

    /// Returns the real state of a stream at this time, regardless of what Describe shows.
    pub fn stream(&self, arn: &str, time: Timestamp) -> Option<&Snapshot> {
        self.state.streams.get(&stream_id(arn)?)?.at(time)
    }

    /// Returns every stream that exists at this time.
    pub fn streams(&self, time: Timestamp) -> impl Iterator<Item = (&StreamId, &Snapshot)> {
        self.state.streams.values().filter_map(move |stream| Some((&stream.id, stream.at(time)?)))
    }

    /// Sets the state of a stream from now on, without a request. A change in progress no longer completes.
    pub fn set_stream(&mut self, now: Timestamp, arn: &str, state: Snapshot) -> bool {
        let stream = stream_id(arn).and_then(|id| self.state.streams.get_mut(&id));
        stream.map(|stream| stream.write(now, state)).is_some()
    }

    /// Removes a stream immediately. Its calls still count towards the limit if it is created again.
    pub fn remove_stream(&mut self, arn: &str) -> bool {
        stream_id(arn).is_some_and(|id| self.state.streams.remove(&id).is_some())
    }

    pub fn key(&self, arn: &str) -> Option<&Key> {
        self.state.keys.get(arn)
    }

    /// Returns a key, to change its state, policy or kind without a request.
    pub fn key_mut(&mut self, arn: &str) -> Option<&mut Key> {
        self.state.keys.get_mut(arn)
    }

    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.state.keys.all()
    }

    /// Removes a key immediately.
    pub fn remove_key(&mut self, arn: &str) -> bool {
        self.state.keys.remove(arn).is_some()
    }

    /// Returns the grants that exist at this time.
    pub fn grants(&self, time: Timestamp) -> impl Iterator<Item = &Grant> {
        self.state
            .keys
            .grants
            .iter()
            .filter(move |g| g.created <= time && g.retired.is_none_or(|at| at > time))
    }
}

impl State {
    /// Checks the caller and the request rate, then dispatches to the service.
    fn dispatch(&mut self, context: &mut Context<'_>) -> Result<Value, AwsError> {
        let (service, operation) = (context.request.service, &context.request.operation);
        if context.principal.session.as_ref().is_some_and(|session| session.expires <= context.now) {
            let mut error = AwsError::new(
                "ExpiredTokenException",
                "The security token included in the request is expired",
            );
            if service == Service::Sts {
                "ExpiredToken".clone_into(&mut error.code);
                error.status = 403;
            }
            return Err(error);
        }
        let admitted = !self.settings.rate_limits
            || self.rates.admit(context.now, service, operation, &context.account, &context.region);
        if !admitted {
            return Err(too_many_a_second(service, operation, &context.account));
        }
        if !(context.request.body.is_object() || context.request.body.is_null()) {
            return Err(AwsError::new("SerializationException", "The request's body is no JSON object"));
        }
        match service {
            Service::Firehose => firehose::call(self, context),
            Service::Kinesis => kinesis::call(self, context),
            Service::Kms => kms::call(self, context),
            Service::Sts => sts::call(self, context),
            Service::Sqs => sqs::call(self, context),
        }
    }
}

/// Returns the error that a fault returns instead of executing the request.
fn refusal(fault: Option<&Fault>, context: &Context<'_>) -> Option<AwsError> {
    let request = context.request;
    Some(match fault? {
        Fault::Refuse { code, message, status } => {
            AwsError { status: *status, ..AwsError::new(code, message) }
        }
        Fault::AccessDenied => context.access_denied("identity-based"),
        Fault::DeniedBySessionPolicy => context.access_denied("session"),
        Fault::InvalidToken => invalid_token(request.service),
        Fault::Throttle => throttled(request.service, &context.account),
        Fault::ServerError { status } => server_error(*status),
        Fault::LoseRequest | Fault::Late { .. } => {
            AwsError { status: 0, ..AwsError::new("RequestLost", "never arrived") }
        }
        _ => return None,
    })
}

fn server_error(status: u16) -> AwsError {
    let code = if status == 503 { "ServiceUnavailableException" } else { "InternalFailure" };
    AwsError { status, ..AwsError::new(code, "The request failed because of an internal error. Try again.") }
}

/// Returns the fault's name as in JSON.
fn fault_name(fault: &Fault) -> String {
    json!(fault).get("type").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Parses a stream's ARN.
fn stream_id(arn: &str) -> Option<StreamId> {
    let mut parts = arn.splitn(6, ':').skip(2);
    let service = match parts.next()? {
        "firehose" => Service::Firehose,
        "kinesis" => Service::Kinesis,
        _ => return None,
    };
    let (region, account) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let (_, name) = parts.next()?.split_once('/')?;
    Some(StreamId { service, account, region, name: name.to_owned() })
}

fn or(given: String, default: &str) -> String {
    if given.is_empty() { default.to_owned() } else { given }
}

/// Twenty-four hours, the window of AWS's limits.
pub const DAY: SignedDuration = SignedDuration::from_hours(24);
