//! Kubernetes for the plan of one resource: the operator's own reads, with the policies of the person's files in place of
//! those that are stored. Every write returns an error, and is never sent.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use stream_encryption_api::ledger::{
    Call, ExternalCall, KnownEncryption, Owner, StreamLedger, StreamLedgerSpec,
};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::{
    KeyObjectReference, KeyType, StreamEncryption, StreamEncryptionStatus,
};
use stream_encryption_core::controller::kube_api::{
    KubeApi, KubeError, LedgerPage, ReadFrom, ReconcileEvent, ReferencedKey,
};
use stream_encryption_core::controller::ledger_store::resource_identity;
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_core::model::ledger;

use crate::kubernetes::Cluster;

/// The cluster as it would be with the files applied.
pub(super) struct PlannedCluster {
    /// The operator's own access.
    pub(super) cluster: Cluster,
    /// The ledgers.
    pub(super) ledgers: Ledgers,
}

/// The ledgers of a plan.
pub(super) enum Ledgers {
    /// Those of the cluster.
    Stored,
    /// Those of the cluster are not known. This one, which follows from the status of the resource, stands for the one of its
    /// stream; `None` if the status names no stream.
    Reported(Option<Box<StreamLedger>>),
}

impl Ledgers {
    /// Returns the ledger that follows from the status of a resource.
    pub(super) fn reported(resource: &StreamEncryption, now: Timestamp) -> Self {
        Self::Reported(reported(resource, now).map(Box::new))
    }
}

/// Returns a ledger with what a status reports: the calls, as if they were made now, and the encryption. Without it, the
/// operator's code would rebuild a ledger as after its loss, and wait until AWS's answers are newer than the rebuilt calls. The
/// operator has observed the effect of the real ones, so they are confirmed.
fn reported(resource: &StreamEncryption, now: Timestamp) -> Option<StreamLedger> {
    let status = resource.status.as_ref()?;
    let stream: StreamArn = status.stream.as_ref()?.arn.as_deref()?.parse().ok()?;
    let empty = ledger::new(&stream, resource_identity(resource));
    let used = status.calls.as_ref().map_or(0, |calls| calls.used);
    let external = status.calls.as_ref().and_then(|calls| calls.external).unwrap_or(0);
    // A rebuilt ledger has only the operator's own calls. The policies limit only these, but AWS limits the calls of all
    // callers.
    let own = used.saturating_sub(external);
    let mut spec = ledger::rebuilt_from_status(&empty, stream.service, own, now);
    for call in &mut spec.calls {
        call.confirmed = true;
    }
    let of_others = ledger::rebuilt_from_status(&empty, stream.service, external, now).calls.into_iter();
    spec.external_calls = of_others
        .map(|Call { id, target, time, .. }| ExternalCall {
            event_id: id,
            action: target.action,
            time,
            caller_type: None,
            code: None,
        })
        .collect();
    spec.known_encryption = known_encryption(status);
    Some(StreamLedger::new(&ledger::name(&stream), spec))
}

/// Returns the encryption that a status reports; `None` if it reports none, or does not disclose the key.
fn known_encryption(status: &StreamEncryptionStatus) -> Option<KnownEncryption> {
    let Some(key) = &status.active_key else {
        let since_time = MicroTime(status.plaintext_since_time.as_ref()?.0);
        return Some(KnownEncryption { key: None, since_time, encrypted_since_time: None });
    };
    let since_time = MicroTime(status.encrypted_since_time.as_ref()?.0);
    let is_disclosed = key.kind == KeyType::AwsOwned || key.arn.is_some();
    is_disclosed.then(|| KnownEncryption {
        key: Some(key.clone()),
        since_time: since_time.clone(),
        encrypted_since_time: Some(since_time),
    })
}

/// Returns the error of a plan whose ledger could not be read. The operator's code reports a rejected read as an invalid ledger.
/// The operator itself may be able to read the ledger: it has other permissions, and a newer version knows more fields.
fn unread_ledger(error: KubeError) -> KubeError {
    match error {
        KubeError::Rejected(why) => KubeError::Unavailable(format!(
            "you or this version of the plugin cannot read the StreamLedger: {why}"
        )),
        KubeError::Conflict | KubeError::Unavailable(_) => error,
    }
}

fn not_written<T>() -> Result<T, KubeError> {
    Err(KubeError::Rejected("a plan writes nothing".to_owned()))
}

impl KubeApi for PlannedCluster {
    async fn resource(
        &self,
        namespace: &str,
        name: &str,
        from: ReadFrom,
    ) -> Result<Option<StreamEncryption>, KubeError> {
        self.cluster.resource(namespace, name, from).await
    }

    async fn ledger(&self, name: &str, from: ReadFrom) -> Result<Option<StreamLedger>, KubeError> {
        match &self.ledgers {
            Ledgers::Stored => self.cluster.ledger(name, from).await.map_err(unread_ledger),
            Ledgers::Reported(ledger) => {
                let is_named = |ledger: &&StreamLedger| ledger.metadata.name.as_deref() == Some(name);
                Ok(ledger.as_deref().filter(is_named).cloned())
            }
        }
    }

    async fn ledgers(&self, after: Option<&str>) -> Result<LedgerPage, KubeError> {
        self.cluster.ledgers(after).await
    }

    async fn create_ledger(&self, _: &str, _: &StreamLedgerSpec) -> Result<StreamLedger, KubeError> {
        not_written()
    }

    async fn replace_ledger(&self, _: &StreamLedger) -> Result<StreamLedger, KubeError> {
        not_written()
    }

    async fn delete_ledger(&self, _: &StreamLedger) -> Result<(), KubeError> {
        not_written()
    }

    async fn write_status(
        &self,
        _: &ObjectMeta,
        _: &StreamEncryptionStatus,
    ) -> Result<Option<String>, KubeError> {
        not_written()
    }

    async fn publish_event(&self, _: &Owner, _: &ReconcileEvent) -> Result<(), KubeError> {
        not_written()
    }

    async fn set_finalizer(&self, _: &ObjectMeta, _: bool) -> Result<Option<String>, KubeError> {
        not_written()
    }

    async fn policies(
        &self,
        namespace: &str,
        from: ReadFrom,
    ) -> Result<Vec<StreamEncryptionPolicySpec>, KubeError> {
        self.cluster.policies(namespace, from).await
    }

    async fn referenced_key(
        &self,
        namespace: &str,
        reference: &KeyObjectReference,
    ) -> Result<ReferencedKey, KubeError> {
        self.cluster.referenced_key(namespace, reference).await
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::{StatusCode, Uri};
    use jiff::SignedDuration;
    use kube::Client;
    use serde_json::{Value, json};
    use stream_encryption_api::condition::Reason;
    use stream_encryption_api::ledger::{Action, Target};
    use stream_encryption_api::stream_encryption::{KeyIdentity, Service};
    use stream_encryption_core::controller::memory::Memory;
    use stream_encryption_core::controller::preview::{PlannedStep, Preview, PreviewError, preview};
    use stream_encryption_core::controller::stream_api::{Priority, Signer, StreamApi};
    use stream_encryption_core::controller::{Clock, Config, Context, NoMetrics};
    use stream_encryption_core::model::arn::{AwsAccount, KmsKeyId};
    use stream_encryption_core::model::aws_error::{Accepted, AwsError};
    use stream_encryption_core::model::decision::decide;
    use stream_encryption_core::model::key::{Key, KeyMetadata, KeyState};
    use stream_encryption_core::model::observation::{ReportedEncryption, StreamDescription, StreamState};
    use stream_encryption_core::model::principal::Principal;

    use super::super::Finding;
    use super::super::dry_run::Change;
    use super::super::row::Row;
    use super::*;

    const STREAM: &str = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders";
    const OLD_KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/old";
    const NEW_KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/new";

    /// An AWS in which each stream is encrypted with [`OLD_KEY`], for which each alias stands.
    struct Encrypted;

    impl StreamApi for Encrypted {
        async fn identity(&self) -> Result<AwsAccount, AwsError> {
            Ok(AwsAccount::of(&STREAM.parse().unwrap()))
        }

        async fn verify_clock(&self) -> Result<(), AwsError> {
            Ok(())
        }

        async fn describe_stream(
            &self,
            stream: &StreamArn,
            _: &Principal,
            _: Priority,
        ) -> Result<Option<(StreamDescription, Signer)>, AwsError> {
            let description = StreamDescription {
                arn: stream.clone(),
                created: None,
                source: Some("DirectPut".to_owned()),
                state: StreamState::Active,
                raw_status: "ACTIVE".to_owned(),
                encryption: ReportedEncryption::On(Key::Customer(OLD_KEY.parse().unwrap())),
                retention: SignedDuration::from_hours(24),
            };
            Ok(Some((description, Signer { access_key_id: "AKIDEXAMPLE".to_owned(), session_age: None })))
        }

        async fn describe_key(
            &self,
            _: &StreamArn,
            name: &KmsKeyId,
            _: &Principal,
            _: Priority,
        ) -> Result<Option<KeyMetadata>, AwsError> {
            let arn = match name {
                KmsKeyId::Arn(arn) => arn.clone(),
                KmsKeyId::Alias(_) => OLD_KEY.parse().unwrap(),
            };
            let state = KeyState::Enabled;
            Ok(Some(KeyMetadata { arn, state, symmetric: true, encrypts: true, aws_managed: false }))
        }

        async fn acquire_permit(&self, _: &StreamArn, _: Action, _: &Principal, _: &Signer) -> bool {
            unreachable!("a plan sends no call")
        }

        async fn start(
            &self,
            _: &StreamArn,
            _: &Key,
            _: &Principal,
            _: &Signer,
            _: Timestamp,
        ) -> Result<Accepted, AwsError> {
            unreachable!("a plan sends no call")
        }

        async fn stop(
            &self,
            _: &StreamArn,
            _: Option<&Key>,
            _: &Principal,
            _: &Signer,
            _: Timestamp,
        ) -> Result<Accepted, AwsError> {
            unreachable!("a plan sends no call")
        }

        async fn put_record(
            &self,
            _: &StreamArn,
            _: &str,
            _: &Principal,
            _: &Signer,
        ) -> Result<bool, AwsError> {
            unreachable!("a plan writes no test record")
        }
    }

    /// Returns a resource whose key has this field. Its status reports the old key, and one call.
    fn resource(field: &str, key: &str) -> StreamEncryption {
        serde_json::from_value(json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": {"name": "orders", "namespace": "data", "uid": "uid-1", "generation": 2},
            "spec": {"stream": {"arn": STREAM}, "key": {"type": "CUSTOMER_MANAGED_CMK", field: key}},
            "status": {
                "stream": {"arn": STREAM, "service": "Firehose", "region": "eu-west-1", "name": "orders"},
                "activeKey": {"type": "CUSTOMER_MANAGED_CMK", "arn": OLD_KEY},
                "encryptedSinceTime": "2020-01-01T00:00:00Z",
                "calls": {"used": 1, "limit": 20},
            },
        }))
        .unwrap()
    }

    /// Plans a resource in a cluster that answers so to the read of a ledger.
    async fn planned(
        resource: &StreamEncryption,
        ledgers: Ledgers,
        (code, ledger): (u16, Value),
    ) -> Result<Preview, PreviewError> {
        let server = Router::new().fallback(async move |uri: Uri| {
            if uri.path().contains("/streamledgers/") {
                return (StatusCode::from_u16(code).unwrap(), ledger.to_string());
            }
            let policies = json!({
                "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryptionPolicyList",
                "metadata": {"resourceVersion": "1"}, "items": [],
            });
            (StatusCode::OK, policies.to_string())
        });
        let policy = StreamEncryptionPolicySpec::own_account();
        let cluster = Cluster::new(Client::new(server, "operator"), "operator", Some(policy));
        let context = Context {
            aws: Encrypted,
            kube: PlannedCluster { cluster, ledgers },
            clock: Clock::system(),
            decide,
            config: Config {
                region: "eu-west-1".parse().unwrap(),
                drift_interval: SignedDuration::from_mins(10),
                drift_interval_with_events: None,
            },
            memory: Memory::default(),
            metrics: Box::new(NoMetrics),
        };
        Box::pin(preview(&context, resource)).await
    }

    /// The call that the status counts was made long ago, or AWS has confirmed it.
    #[tokio::test]
    async fn unknown_ledger_delays_no_planned_call() {
        let key = KeyIdentity { kind: KeyType::CustomerManaged, arn: Some(NEW_KEY.to_owned()) };
        let start = PlannedStep::Call(Target { action: Action::Start, key: Some(key) });
        for (field, key, change, step) in [
            ("arn", NEW_KEY, Change::Changed, start),
            ("arn", OLD_KEY, Change::Unchanged, PlannedStep::Nothing),
            ("alias", "alias/orders", Change::Unchanged, PlannedStep::Nothing),
        ] {
            let resource = resource(field, key);
            let ledgers = Ledgers::reported(&resource, Timestamp::now());
            let plan = planned(&resource, ledgers, (404, Value::Null)).await.unwrap();
            assert_eq!((&plan.step, plan.calls.map(|calls| calls.used)), (&step, Some(1)), "{plan:?}");
            let row = Row::planned("data", &resource, change, String::new(), plan, None, false);
            assert_eq!(row.has(Finding::Calls), change == Change::Changed, "{row:?}");
        }
    }

    /// The operator has made fewer calls than the policies allow, but no call of AWS's limit is left.
    #[tokio::test]
    async fn unknown_ledger_counts_the_calls_of_others() {
        let kinesis_stream = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders";
        for (service, stream) in [(Service::Firehose, STREAM), (Service::Kinesis, kinesis_stream)] {
            let mut resource = resource("arn", NEW_KEY);
            resource.spec.stream.arn = Some(stream.to_owned());
            let status = resource.status.as_mut().unwrap();
            let reported = status.stream.as_mut().unwrap();
            (reported.arn, reported.service) = (Some(stream.to_owned()), service);
            status.calls =
                Some(serde_json::from_value(json!({"used": 25, "external": 23, "limit": 25})).unwrap());
            let ledgers = Ledgers::reported(&resource, Timestamp::now());
            let plan = planned(&resource, ledgers, (404, Value::Null)).await.unwrap();
            let outcome = (&plan.step, plan.reason, plan.calls.map(|calls| (calls.used, calls.limit)));
            let expected = (&PlannedStep::Nothing, Some(Reason::CallLimitReached), Some((25, 25)));
            assert_eq!(outcome, expected, "{plan:?}");
        }
    }

    #[tokio::test]
    async fn ledger_is_not_invalid_because_the_plugin_cannot_read_it() {
        let resource = resource("arn", OLD_KEY);
        let owner = json!({"namespace": "data", "name": "orders", "uid": "uid-1"});
        let ledger = |spec: Value| {
            let ledger = json!({"apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamLedger",
                "metadata": {"name": "stream-1"}, "spec": spec});
            (200, ledger)
        };
        let newer = ledger(json!({"streamARN": STREAM, "owner": owner, "futureField": 1}));
        let forbidden = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden",
            "code": 403, "message": "you cannot get streamledgers"});
        for answer in [newer, (403, forbidden)] {
            let error = planned(&resource, Ledgers::Stored, answer).await.unwrap_err();
            let is_unread = matches!(&error, PreviewError::Kubernetes(KubeError::Unavailable(why))
                if why.contains("cannot read the StreamLedger"));
            assert!(is_unread, "{error:?}");
        }
        let of_another_stream = ledger(json!({"streamARN": "arn", "owner": owner}));
        let plan = planned(&resource, Ledgers::Stored, of_another_stream).await.unwrap();
        assert_eq!(plan.reason, Some(Reason::LedgerInvalid));
    }
}
