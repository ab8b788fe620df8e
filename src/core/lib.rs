//! The core of the operator: what happens to a stream, and how one resource is reconciled.
//!
//! | module | content |
//! |---|---|
//! | [`model`] | the domain, pure: identities, observation, [`model::decision::decide`], ledger arithmetic |
//! | [`work_queue`] | which resource is reconciled next, pure |
//! | [`packed`] | values kept as text, pure |
//! | [`controller`] | one reconcile, a file per step, between the ports [`controller::stream_api`] and [`controller::kube_api`] |
//!
//! This crate depends on no client of Kubernetes and on no AWS SDK. It reaches both through its ports only, so
//! the same code runs in the operator and in the simulation.

pub mod controller;
#[cfg(test)]
#[path = "../../tests/json_mutation.rs"]
mod json_mutation;
pub mod model;
pub mod packed;
pub mod work_queue;
