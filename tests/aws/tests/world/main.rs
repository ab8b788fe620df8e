//! The model on a virtual clock, without HTTP: every state machine and limit that it has.

#![allow(clippy::similar_names, reason = "the stage and its state")]

mod faults;
mod firehose;
mod kinesis;
mod limits;
mod recorded;
mod sessions;
mod stage;
mod surroundings;
