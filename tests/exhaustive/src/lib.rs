//! Every order in which two replicas of the operator, AWS, faults, people and time can act on one stream, within bounds.
//!
//! The steps of a replica are those of `src/core/controller.rs` and `src/core/controller/execute.rs`, in their order, and call the
//! product's own functions: `decide`, and the ledger's arithmetic. Everything around them is made up here. Nothing here
//! may decide what the product decides; what is not modelled is said in `docs/checking.md`.
//!
//! | module | what it is |
//! |---|---|
//! | [`bounds`] | how much of everything is explored |
//! | [`names`] | the one stream, its keys and its owner |
//! | [`aws`] | the stream as AWS has it, and what it counts |
//! | [`world`] | everything that there is at one moment, and when two worlds are the same |
//! | [`replica`] | the steps of a visit |
//! | [`protocol`] | what can happen next: the model that is checked |
//! | [`promise`] | what must never happen |
//! | [`reached`] | what must be reachable |
//! | [`rest`] | what must happen in the end |
//! | [`flaw`] | wrong operators, to prove that they are found |
//! | [`report`] | the check itself, and a counterexample as a story |

pub mod aws;
pub mod bounds;
pub mod flaw;
pub mod names;
pub mod promise;
pub mod protocol;
pub mod reached;
pub mod replica;
pub mod report;
pub mod rest;
pub mod world;
