//! Tests the model on a virtual clock, without HTTP: all its state machines and limits.

#![allow(clippy::similar_names, reason = "the stage and its state")]

mod faults;
mod firehose;
mod kinesis;
mod limits;
mod recorded;
mod sessions;
mod stage;
mod surroundings;
