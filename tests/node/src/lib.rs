//! The operator as people run it: its image in pods of a real node, with the simulated AWS beside them.
//!
//! `tests/node/run` starts the node and runs the tests in its network. Each begins with a [`stage::Stage`], which clears away what
//! the one before has left.

pub mod argocd;
pub mod commands;
pub mod stage;
