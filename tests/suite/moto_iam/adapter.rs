//! The AWS port for moto: a record that moto accepts counts as an encrypted one.
//!
//! moto never reports that a record was encrypted, so verification could not succeed. Everything else passes
//! unchanged, including refusals, and no request is added.

use jiff::Timestamp;
use stream_encryption_api::ledger::Action;
use stream_encryption_core::controller::stream_api::{Priority, Signer, StreamApi};
use stream_encryption_core::model::arn::{AwsAccount, KmsKeyId, StreamArn};
use stream_encryption_core::model::aws_error::{Accepted, AwsError};
use stream_encryption_core::model::key::{Key, KeyMetadata};
use stream_encryption_core::model::observation::StreamDescription;
use stream_encryption_core::model::principal::Principal;
use stream_encryption_operator::aws::Aws;

/// The AWS adapter, with moto behind it.
pub(super) struct MotoAdapter(pub(super) Aws);

impl StreamApi for MotoAdapter {
    async fn identity(&self) -> Result<AwsAccount, AwsError> {
        self.0.identity().await
    }

    async fn verify_clock(&self) -> Result<(), AwsError> {
        self.0.verify_clock().await
    }

    async fn describe_stream(
        &self,
        stream: &StreamArn,
        principal: &Principal,
        priority: Priority,
    ) -> Result<Option<(StreamDescription, Signer)>, AwsError> {
        self.0.describe_stream(stream, principal, priority).await
    }

    async fn describe_key(
        &self,
        stream: &StreamArn,
        name: &KmsKeyId,
        principal: &Principal,
        priority: Priority,
    ) -> Result<Option<KeyMetadata>, AwsError> {
        self.0.describe_key(stream, name, principal, priority).await
    }

    async fn acquire_permit(
        &self,
        stream: &StreamArn,
        action: Action,
        principal: &Principal,
        signer: &Signer,
    ) -> bool {
        self.0.acquire_permit(stream, action, principal, signer).await
    }

    async fn start(
        &self,
        stream: &StreamArn,
        key: &Key,
        principal: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<Accepted, AwsError> {
        self.0.start(stream, key, principal, signer, reserved).await
    }

    async fn stop(
        &self,
        stream: &StreamArn,
        active_key: Option<&Key>,
        principal: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<Accepted, AwsError> {
        self.0.stop(stream, active_key, principal, signer, reserved).await
    }

    async fn acquire_record_permit(
        &self,
        stream: &StreamArn,
        principal: &Principal,
        signer: &Signer,
    ) -> bool {
        self.0.acquire_record_permit(stream, principal, signer).await
    }

    async fn put_record(
        &self,
        stream: &StreamArn,
        record: &str,
        principal: &Principal,
        signer: &Signer,
    ) -> Result<bool, AwsError> {
        self.0.put_record(stream, record, principal, signer).await.map(|_encrypted| true)
    }
}
