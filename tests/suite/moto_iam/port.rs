//! AWS as the operator asks it, where moto answers: what moto takes as a record counts as an encrypted one.
//!
//! moto never says of a record that it was encrypted, so no proof would ever succeed. Everything else passes as it is, refusals
//! too, and nothing is asked that the operator does not ask.

use jiff::Timestamp;
use stream_encryption_operator::api::ledger::Action;
use stream_encryption_operator::aws::{Aws, Identity, Signer, Streams, Urgency};
use stream_encryption_operator::model::fault::Fault;
use stream_encryption_operator::model::key::{Key, KeyFacts, KeyName};
use stream_encryption_operator::model::observation::Look;
use stream_encryption_operator::model::principal::Principal;
use stream_encryption_operator::model::stream::StreamArn;

/// AWS by its SDKs, with moto behind them.
pub(super) struct Behind(pub(super) Aws);

impl Streams for Behind {
    async fn identity(&self) -> Result<Identity, Fault> {
        self.0.identity().await
    }

    async fn answers(&self) -> Result<(), Fault> {
        self.0.answers().await
    }

    async fn look(
        &self,
        stream: &StreamArn,
        by: &Principal,
        urgency: Urgency,
    ) -> Result<Option<(Look, Signer)>, Fault> {
        self.0.look(stream, by, urgency).await
    }

    async fn key(
        &self,
        stream: &StreamArn,
        name: &KeyName,
        by: &Principal,
        urgency: Urgency,
    ) -> Result<Option<KeyFacts>, Fault> {
        self.0.key(stream, name, by, urgency).await
    }

    async fn turn(&self, stream: &StreamArn, action: Action, by: &Principal, signer: &Signer) -> bool {
        self.0.turn(stream, action, by, signer).await
    }

    async fn start(
        &self,
        stream: &StreamArn,
        key: &Key,
        by: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), Fault> {
        self.0.start(stream, key, by, signer, reserved).await
    }

    async fn stop(
        &self,
        stream: &StreamArn,
        in_force: Option<&Key>,
        by: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), Fault> {
        self.0.stop(stream, in_force, by, signer, reserved).await
    }

    async fn put_record(
        &self,
        stream: &StreamArn,
        record: &str,
        by: &Principal,
        signer: &Signer,
    ) -> Result<bool, Fault> {
        self.0.put_record(stream, record, by, signer).await.map(|_encrypted| true)
    }
}
