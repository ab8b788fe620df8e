//! The simulation: the operator's own controller on an in-memory Kubernetes and the simulated AWS, in virtual
//! time, in a random environment that is reproducible from its seed.
//!
//! | module | content |
//! |---|---|
//! | [`event_queue`], [`environment`] | virtual time, and the complete state of the environment |
//! | [`store`], [`writes`], [`policies`], [`kubernetes_faults`] | Kubernetes in memory, the policies of administrators, and the faults of the API server |
//! | [`aws_model`] | the simulated AWS with the requests of the operator's AWS port |
//! | [`aws_events`] | the events of AWS, and the queue that delivers them |
//! | [`ports`], [`transport`], [`wiring`], [`replica`] | the operator: the real controller, its two ports, its driver |
//! | [`plan`], [`generator`], [`keys`], [`operations`] | the operations of users, other tools and nodes, generated from a seed |
//! | [`choices`], [`explore`] | the choices that a plan leaves open, from a seed or from a list, and every list within bounds |
//! | [`invariants`], [`convergence`] | the invariants, which docs call promises, and the required final state |
//! | [`single`] | one reconcile at a time, without other events |
//! | [`agreement`] | the comparison of a plan of a resource with the following reconciles |
//! | [`planted_bugs`] | operators with a planted bug, which prove that the invariants detect bugs |
//! | [`run`], [`batch`], [`shrink`], [`trace`], [`statistics`] | one run, many runs, the smallest failing run, the trace and the statistics |

#![allow(
    missing_docs,
    clippy::must_use_candidate,
    clippy::return_self_not_must_use,
    reason = "only this repository's tests use it"
)]

pub mod agreement;
pub mod aws_events;
pub mod aws_model;
pub mod batch;
pub mod caches;
pub mod choices;
pub mod convergence;
pub mod environment;
pub mod event_queue;
pub mod explore;
pub mod generator;
pub mod invariants;
pub mod keys;
pub mod kubernetes_faults;
pub mod operations;
pub mod plan;
pub mod planted_bugs;
pub mod policies;
pub mod ports;
pub mod replica;
pub mod run;
pub mod shrink;
pub mod single;
pub mod statistics;
pub mod store;
pub mod trace;
pub mod transport;
pub mod wiring;
pub mod writes;

#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;
