//! AWS: the adapter [`Aws`] of the port [`stream_encryption_core::controller::stream_api`].
//!
//! No other module uses an AWS SDK, and nothing in this module depends on Kubernetes. The adapter decides nothing
//! about encryption: it sends requests, converts responses and limits the request rate.

mod adapter;
mod assume_role;
mod bounded_cache;
mod cached_credentials;
mod credentials;
mod credentials_source;
mod error;
mod event_queue;
mod firehose;
mod http_client;
mod identity;
mod kinesis;
mod kms;
mod pages;
pub mod rate_limit;
#[cfg(test)]
mod recordings;
#[cfg(test)]
mod replay;
mod request_sender;
mod sessions;
mod signable;
mod signed_request_sender;
mod timestamp;

pub use adapter::{Aws, AwsConfig, InvalidAwsConfig};
pub use event_queue::{EventQueue, InvalidQueueUrl, Message, QueueState, QueueUrl};
pub use identity::{CredentialsReport, Holder};
pub use pages::Tag;
