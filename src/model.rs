//! The domain, without I/O: identities, what was observed, the decision, the ledger's arithmetic.
//!
//! Nothing here is async, reads a clock, or knows Kubernetes' or AWS's clients. Time comes in as a value. Everything
//! is total: there is an answer for each input, and a test can enumerate them.

pub mod backoff;
pub mod claims;
pub mod credentials;
pub mod decision;
pub mod fault;
pub mod iam;
#[cfg(test)]
mod identities;
pub mod key;
pub mod ledger;
pub mod message;
pub mod object;
pub mod observation;
pub mod pattern;
pub mod permission;
pub mod principal;
pub mod replaced;
#[cfg(test)]
mod situation;
pub mod stream;
pub mod turns;
