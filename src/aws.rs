//! AWS, in our verbs: the port [`Streams`] and its adapters.
//!
//! Nothing above this module knows an AWS SDK, and nothing in it knows Kubernetes. The adapters decide nothing about
//! encryption: they ask, translate and pace.

mod assumed;
mod bounded;
mod calls;
mod clients;
mod credentials;
mod faults;
mod firehose;
mod identity;
mod kinesis;
mod kms;
pub mod pacing;
mod port;
#[cfg(test)]
mod recorded;
#[cfg(test)]
mod recordings;
mod requests;
mod sessions;
mod signable;
mod source;
mod timestamp;

pub use clients::{Aws, BadEndpoints, Endpoints};
pub use port::{Identity, Signer, Streams, Urgency};
