//! The domain, without I/O: identities, observations, the decision, the ledger's arithmetic.
//!
//! Nothing here is async, reads a clock, or depends on the clients of Kubernetes or AWS. Time is passed in as
//! a value. Every function is total: it has a result for each input, so a test can enumerate the inputs.

pub mod arn;
pub mod aws_error;
pub mod aws_event;
pub mod change_times;
pub mod credentials;
pub mod decision;
pub mod desired;
pub mod drift_turns;
pub mod fair_queue;
pub mod key;
pub mod ledger;
pub mod message;
pub mod object;
pub mod observation;
pub mod permission;
pub mod policy_status;
pub mod previous_key;
pub mod principal;
pub mod request_limits;
#[cfg(test)]
mod scenario;
pub mod schedule;
#[cfg(test)]
mod schema_agreement;
pub mod service;
pub mod status_fields;
