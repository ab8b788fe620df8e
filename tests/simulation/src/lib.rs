//! The simulation: the operator's real steps over an in-memory Kubernetes and the simulated AWS, on virtual time, from one seed.
//!
//! | module | what it is |
//! |---|---|
//! | [`agenda`], [`scene`] | time, and everything that exists in it |
//! | [`store`], [`writes`], [`policies`], [`faults`] | Kubernetes in memory, what administrators allow, and what goes wrong with it |
//! | [`cloud`] | the simulated AWS in the operator's verbs |
//! | [`ports`], [`parts`], [`replica`] | an operator on them: the real controller, its two ports, its driver |
//! | [`plan`], [`dice`], [`keys`], [`acts`] | what happens, from a seed |
//! | [`promises`], [`reckoning`] | what must never be, and what must be in the end |
//! | [`spoiled`] | operators with a planted bug, to prove that the promises would tell |
//! | [`run`], [`many`], [`shrink`], [`story`], [`tally`] | a run, many, the smallest one that fails, what is told and counted |

pub mod acts;
pub mod agenda;
pub mod cloud;
pub mod dice;
pub mod faults;
pub mod keys;
pub mod link;
pub mod many;
pub mod parts;
pub mod plan;
pub mod policies;
pub mod ports;
pub mod promises;
pub mod reckoning;
pub mod replica;
pub mod run;
pub mod scene;
pub mod shrink;
pub mod spoiled;
pub mod store;
pub mod story;
pub mod tally;
pub mod writes;

#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;
