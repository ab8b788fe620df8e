//! Simulates the part of Amazon Data Firehose, Kinesis Data Streams, KMS, STS and SQS that concerns stream
//! encryption and its events, with the states, limits and failures that no emulator has.
//!
//! - [`world`]: the pure model. A simulation uses [`World::call`].
//! - [`http`]: the same model over HTTP, for the unmodified AWS SDKs, and `/_admin` to script it:
//!   [`SimulatedAws`].
//! - [`emulators`]: the third-party emulators moto and kinesis-local, to run the operator against.
//! - [`samples`]: the world of `config/samples`.
//! - [`raw_client`]: sends raw AWS messages to any of them.

#![allow(
    missing_docs,
    clippy::must_use_candidate,
    clippy::return_self_not_must_use,
    reason = "only this repository's tests use it"
)]

pub mod emulators;
pub mod http;
pub mod raw_client;
pub mod samples;
pub mod world;

pub use http::{Clock, SimulatedAws};
pub use world::{Caller, Fault, PlantedKey, PlantedStream, Request, Rule, Service, Settings, World};

/// Variables that a machine may have for programs of its own, such as those of a proxy, which cannot reach this server. They
/// are removed from the environment of each program that is to use it.
pub const MACHINE_VARIABLES: [&str; 10] = [
    "AWS_CA_BUNDLE",
    "AWS_PROFILE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
];
