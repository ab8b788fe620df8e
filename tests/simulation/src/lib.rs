//! The simulation: the operator's own controller on an in-memory Kubernetes and the simulated AWS, in virtual
//! time, in a random environment that is reproducible from its seed.
//!
//! | module | content |
//! |---|---|
//! | [`agenda`], [`scene`] | virtual time, and the complete state of the environment |
//! | [`store`], [`writes`], [`policies`], [`faults`] | Kubernetes in memory, the policies of administrators, and the faults of the API server |
//! | [`cloud`] | the simulated AWS with the operations of the operator's AWS port |
//! | [`ports`], [`parts`], [`replica`] | the operator: the real controller, its two ports, its driver |
//! | [`plan`], [`dice`], [`keys`], [`acts`] | the events, generated from a seed |
//! | [`promises`], [`reckoning`] | the invariants, and the required final state |
//! | [`spoiled`] | operators with a planted bug, which prove that the promises detect bugs |
//! | [`run`], [`many`], [`shrink`], [`story`], [`tally`] | one run, many runs, the smallest failing run, the trace and the statistics |

pub mod aws_model;
pub mod batch;
pub mod convergence;
pub mod environment;
pub mod event_queue;
pub mod faults;
pub mod generator;
pub mod invariants;
pub mod keys;
pub mod operations;
pub mod plan;
pub mod planted_bugs;
pub mod policies;
pub mod ports;
pub mod replica;
pub mod run;
pub mod shrink;
pub mod stats;
pub mod store;
pub mod trace;
pub mod transport;
pub mod wiring;
pub mod writes;

#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;
