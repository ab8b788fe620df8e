//! AWS: the port [`StreamApi`] and its adapters.
//!
//! No module above this one uses an AWS SDK, and nothing in this module depends on Kubernetes. The adapters
//! decide nothing about encryption: they send requests, convert responses and limit the request rate.

mod adapter;
mod assume_role;
mod bounded;
mod calls;
mod credentials;
mod error;
mod firehose;
mod identity;
mod kinesis;
mod kms;
mod port;
pub mod rate_limit;
#[cfg(test)]
mod recordings;
#[cfg(test)]
mod replay;
mod requests;
mod sessions;
mod signable;
mod source;
mod timestamp;

pub use adapter::{Aws, BadEndpoints, Endpoints};
pub use port::{Identity, Priority, Signer, StreamApi};
