//! The two sides: a real API server, accessed by the clients of users and the operator, and the simulation's
//! store. Each executes the same operations and returns their results. Each side keeps what the operator has
//! read.

use futures_util::{StreamExt as _, TryStreamExt as _};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{
    Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use simulation::store::{Change, Name, Store};
use stream_encryption_api::RETRY_ANNOTATION;
use stream_encryption_api::ledger::{StreamLedger, StreamLedgerSpec};
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::controller::kube_api::{KubeApi as _, KubeError, ReadFrom};
use stream_encryption_operator::kubernetes::Cluster;

use super::operations::{Act, OBJECTS, ledger_spec, spec, status};
use super::views::{Ledger, Resource, Shown, Told};

/// The operator's own namespace.
pub(crate) const LEDGERS: &str = "stream-encryption-system";
/// The resource that is created last: when its event arrives, all earlier events have arrived.
const LAST: &str = "last";

/// The result of an operation.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    /// The object of the operation did not exist.
    Nothing,
    Done,
    Refused,
    Conflict,
    Unusable,
    Unavailable(String),
    Resource(Option<Box<Resource>>),
    Ledger(Option<Box<Ledger>>),
}

/// The current state of every object.
pub(crate) type Objects = (Vec<Option<Resource>>, Vec<Option<Ledger>>);

/// The objects that the operator last read or wrote.
#[derive(Default)]
struct Held {
    resources: [Option<StreamEncryption>; OBJECTS],
    ledgers: [Option<StreamLedger>; OBJECTS],
}

/// A namespace of a real API server.
pub(crate) struct Real {
    namespace: String,
    resources: Api<StreamEncryption>,
    ledgers: Api<StreamLedger>,
    operator: Cluster,
    since: String,
    held: Held,
    shown: Shown,
}

/// The simulation's store.
pub(crate) struct Model {
    namespace: String,
    store: Store,
    now: Timestamp,
    held: Held,
    shown: Shown,
}

fn resource_name(number: usize) -> String {
    format!("resource-{number}")
}

fn ledger_name(namespace: &str, number: usize) -> String {
    format!("{namespace}-{number}")
}

fn failed(error: KubeError) -> Answer {
    match error {
        KubeError::Conflict => Answer::Conflict,
        KubeError::Rejected(_) => Answer::Unusable,
        KubeError::Unavailable(why) => Answer::Unavailable(why),
    }
}

fn done<T>(result: Result<T, KubeError>) -> Answer {
    result.map_or_else(failed, |_| Answer::Done)
}

fn with_spec(held: &StreamLedger, number: usize) -> StreamLedger {
    StreamLedger { metadata: held.metadata.clone(), spec: ledger_spec(number) }
}

impl Held {
    fn keep(&mut self, shown: &mut Shown, at: usize, ledger: Result<StreamLedger, KubeError>) -> Answer {
        match ledger {
            Ok(ledger) => {
                let answer = Answer::Ledger(Some(Box::new(shown.ledger(&ledger))));
                self.ledgers[at] = Some(ledger);
                answer
            }
            Err(error) => failed(error),
        }
    }
}

impl Real {
    /// Creates a new namespace. The user has all permissions, the operator those of its roles.
    pub(crate) async fn new(user: Client, operator: Client, namespace: &str) -> Self {
        let metadata = ObjectMeta { name: Some(namespace.to_owned()), ..ObjectMeta::default() };
        let made = Namespace { metadata, ..Namespace::default() };
        Api::all(user.clone()).create(&PostParams::default(), &made).await.expect("a namespace");
        let resources: Api<StreamEncryption> = Api::namespaced(user.clone(), namespace);
        let list = resources.list(&ListParams::default()).await.expect("no resources");
        Self {
            namespace: namespace.to_owned(),
            resources,
            ledgers: Api::namespaced(user, LEDGERS),
            operator: Cluster::new(operator, LEDGERS, None),
            since: list.metadata.resource_version.expect("a version"),
            held: Held::default(),
            shown: Shown::default(),
        }
    }

    async fn read(&mut self, at: usize) {
        self.held.resources[at] = self
            .operator
            .resource(&self.namespace, &resource_name(at), ReadFrom::ApiServer)
            .await
            .expect("the resource is read");
    }

    async fn read_ledger(&mut self, at: usize) {
        let name = ledger_name(&self.namespace, at);
        self.held.ledgers[at] =
            self.operator.ledger(&name, ReadFrom::ApiServer).await.expect("the ledger is read");
    }

    /// Executes an operation.
    pub(crate) async fn act(&mut self, act: Act) -> Answer {
        match act {
            Act::Apply(of, number) => self.apply(&resource_name(of), number).await,
            Act::Annotate(of, retry) => {
                let body = json!({"metadata": {"annotations": {RETRY_ANNOTATION: retry.to_string()}}});
                let (name, parameters) = (resource_name(of), PatchParams::default());
                unless_gone(self.resources.patch(&name, &parameters, &Patch::Merge(&body)).await.map(drop))
            }
            Act::Delete(of) => {
                let name = resource_name(of);
                unless_gone(self.resources.delete(&name, &DeleteParams::default()).await.map(drop))
            }
            Act::Read(of) => {
                self.read(of).await;
                let read = self.held.resources[of].as_ref();
                Answer::Resource(read.map(|resource| Box::new(self.shown.resource(resource))))
            }
            Act::Status { of, status: number, fresh } => {
                if fresh {
                    self.read(of).await;
                }
                match &self.held.resources[of] {
                    Some(held) => done(self.operator.write_status(&held.metadata, &status(number)).await),
                    None => Answer::Nothing,
                }
            }
            Act::Finalizer { of, present, fresh } => {
                if fresh {
                    self.read(of).await;
                }
                match &self.held.resources[of] {
                    Some(held) => done(self.operator.set_finalizer(&held.metadata, present).await),
                    None => Answer::Nothing,
                }
            }
            Act::ReadLedger(at) => {
                self.read_ledger(at).await;
                let read = self.held.ledgers[at].as_ref();
                Answer::Ledger(read.map(|ledger| Box::new(self.shown.ledger(ledger))))
            }
            Act::Create(at, number) => {
                let name = ledger_name(&self.namespace, at);
                let made = self.operator.create_ledger(&name, &ledger_spec(number)).await;
                self.held.keep(&mut self.shown, at, made)
            }
            Act::Replace { ledger, spec, fresh } => {
                if fresh {
                    self.read_ledger(ledger).await;
                }
                let Some(held) = &self.held.ledgers[ledger] else { return Answer::Nothing };
                let replaced = self.operator.replace_ledger(&with_spec(held, spec)).await;
                self.held.keep(&mut self.shown, ledger, replaced)
            }
            Act::DeleteLedger { ledger, fresh } => {
                if fresh {
                    self.read_ledger(ledger).await;
                }
                match &self.held.ledgers[ledger] {
                    Some(held) => done(self.operator.delete_ledger(held).await),
                    None => Answer::Nothing,
                }
            }
            Act::Lose(at) => {
                let name = ledger_name(&self.namespace, at);
                unless_gone(self.ledgers.delete(&name, &DeleteParams::default()).await.map(drop))
            }
        }
    }

    async fn apply(&self, name: &str, number: usize) -> Answer {
        let body = json!({
            "apiVersion": "streamencryption.dev/v1alpha1",
            "kind": "StreamEncryption",
            "metadata": {"name": name},
            "spec": spec(number),
        });
        let parameters = PatchParams::apply("a-user").force();
        match self.resources.patch(name, &parameters, &Patch::Apply(&body)).await {
            Ok(_) => Answer::Done,
            Err(kube::Error::Api(status)) if status.code == 422 => Answer::Refused,
            Err(error) => Answer::Unavailable(error.to_string()),
        }
    }

    /// Returns the current state of every object.
    pub(crate) async fn objects(&mut self) -> Objects {
        let (mut resources, mut ledgers) = (Vec::new(), Vec::new());
        for at in 0..OBJECTS {
            let resource =
                self.operator.resource(&self.namespace, &resource_name(at), ReadFrom::ApiServer).await;
            let resource = resource.expect("the resource is read");
            resources.push(resource.map(|resource| self.shown.resource(&resource)));
            let ledger = self.operator.ledger(&ledger_name(&self.namespace, at), ReadFrom::ApiServer).await;
            ledgers.push(ledger.expect("the ledger is read").map(|ledger| self.shown.ledger(&ledger)));
        }
        (resources, ledgers)
    }

    /// Returns all events of the watch on resources, in order.
    pub(crate) async fn changes(&mut self) -> Vec<Told> {
        assert_eq!(self.apply(LAST, 0).await, Answer::Done);
        let watch = self.resources.watch(&WatchParams::default(), &self.since).await.expect("a watch");
        let mut watch = watch.boxed();
        let mut told = Vec::new();
        while let Some(event) = watch.try_next().await.expect("the watch goes on") {
            told.push(match event {
                WatchEvent::Added(resource) if resource.name_any() == LAST => break,
                WatchEvent::Added(resource) => Told::Added(self.shown.resource(&resource)),
                WatchEvent::Modified(resource) => Told::Modified(self.shown.resource(&resource)),
                WatchEvent::Deleted(resource) => Told::Deleted(self.shown.deleted(&resource)),
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(error) => panic!("the watch ends: {error:?}"),
            });
        }
        told
    }
}

fn unless_gone(result: kube::Result<()>) -> Answer {
    match result {
        Ok(()) => Answer::Done,
        Err(kube::Error::Api(status)) if status.code == 404 => Answer::Done,
        Err(error) => Answer::Unavailable(error.to_string()),
    }
}

impl Model {
    pub(crate) fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            store: Store::default(),
            now: Timestamp::constant(1_795_237_910, 123_456_789),
            held: Held::default(),
            shown: Shown::default(),
        }
    }

    fn name(&self, number: usize) -> Name {
        (self.namespace.clone(), resource_name(number))
    }

    fn read(&mut self, at: usize) {
        self.held.resources[at] = self.store.resource(&self.name(at)).map(|resource| (**resource).clone());
    }

    fn read_ledger(&mut self, at: usize) {
        self.held.ledgers[at] = self.store.ledger(&ledger_name(&self.namespace, at)).cloned();
    }

    /// Executes an operation.
    pub(crate) fn act(&mut self, act: Act) -> Answer {
        // Otherwise a second deletion mark would have a different time.
        self.now += SignedDuration::from_secs(10);
        match act {
            Act::Apply(of, number) => {
                let accepted = self.store.apply(&self.name(of), &spec(number), self.now);
                if accepted { Answer::Done } else { Answer::Refused }
            }
            Act::Annotate(of, retry) => {
                self.store.annotate(&self.name(of), &retry.to_string());
                Answer::Done
            }
            Act::Delete(of) => {
                self.store.delete(&self.name(of), self.now);
                Answer::Done
            }
            Act::Read(of) => {
                self.read(of);
                let read = self.held.resources[of].as_ref();
                Answer::Resource(read.map(|resource| Box::new(self.shown.resource(resource))))
            }
            Act::Status { of, status: number, fresh } => {
                if fresh {
                    self.read(of);
                }
                match &self.held.resources[of] {
                    Some(held) => done(self.store.write_status(&held.metadata, &status(number))),
                    None => Answer::Nothing,
                }
            }
            Act::Finalizer { of, present, fresh } => {
                if fresh {
                    self.read(of);
                }
                match &self.held.resources[of] {
                    Some(held) => done(self.store.set_finalizer(&held.metadata, present)),
                    None => Answer::Nothing,
                }
            }
            Act::ReadLedger(at) => {
                self.read_ledger(at);
                let read = self.held.ledgers[at].as_ref();
                Answer::Ledger(read.map(|ledger| Box::new(self.shown.ledger(ledger))))
            }
            Act::Create(at, number) => {
                let spec: StreamLedgerSpec = ledger_spec(number);
                let made = self.store.create_ledger(&ledger_name(&self.namespace, at), &spec);
                self.held.keep(&mut self.shown, at, made)
            }
            Act::Replace { ledger, spec, fresh } => {
                if fresh {
                    self.read_ledger(ledger);
                }
                let Some(held) = &self.held.ledgers[ledger] else { return Answer::Nothing };
                let replaced = self.store.replace_ledger(&with_spec(held, spec));
                self.held.keep(&mut self.shown, ledger, replaced)
            }
            Act::DeleteLedger { ledger, fresh } => {
                if fresh {
                    self.read_ledger(ledger);
                }
                match &self.held.ledgers[ledger] {
                    Some(held) => done(self.store.delete_ledger(held)),
                    None => Answer::Nothing,
                }
            }
            Act::Lose(at) => {
                self.store.remove_ledger(&ledger_name(&self.namespace, at));
                Answer::Done
            }
        }
    }

    /// Returns the current state of every object.
    pub(crate) fn objects(&mut self) -> Objects {
        let (mut resources, mut ledgers) = (Vec::new(), Vec::new());
        for at in 0..OBJECTS {
            let resource = self.store.resource(&self.name(at)).cloned();
            resources.push(resource.map(|resource| self.shown.resource(&resource)));
            let ledger = self.store.ledger(&ledger_name(&self.namespace, at));
            ledgers.push(ledger.map(|ledger| self.shown.ledger(ledger)));
        }
        (resources, ledgers)
    }

    /// Returns every change of a resource, as a watch would deliver it.
    pub(crate) fn changes(&mut self) -> Vec<Told> {
        let mut known = Vec::new();
        let mut told = Vec::new();
        for Change { resource, deleted } in self.store.changes() {
            let new = !known.contains(&resource.metadata.uid);
            known.push(resource.metadata.uid.clone());
            told.push(match (new, deleted) {
                (_, true) => Told::Deleted(self.shown.deleted(resource)),
                (true, false) => Told::Added(self.shown.resource(resource)),
                (false, false) => Told::Modified(self.shown.resource(resource)),
            });
        }
        told
    }
}
