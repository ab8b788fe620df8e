//! The operator as users run it: its image in pods of a real node, with the simulated AWS on the same
//! machine.
//!
//! `tests/node/run` starts the node and runs the tests in its network. Each test begins with a
//! [`stage::Stage`], which removes everything that the previous test has left.

#![allow(
    clippy::must_use_candidate,
    clippy::missing_panics_doc,
    reason = "only this repository's tests use it"
)]

pub mod argocd;
pub mod commands;
pub mod stage;
