//! Tests the model on a virtual clock: all its state machines and limits. Only `recorded` uses HTTP, because it
//! compares complete answers.

#![allow(clippy::similar_names, reason = "the stage and its state")]

mod events;
mod faults;
mod firehose;
mod kinesis;
mod limits;
mod listing;
mod outside;
mod queue;
mod recorded;
mod sessions;
mod stage;
mod surroundings;
