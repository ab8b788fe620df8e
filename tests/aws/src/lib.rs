//! Amazon Data Firehose, Kinesis Data Streams, KMS and STS as far as stream encryption goes: with the states, limits and failures
//! that no emulator has.
//!
//! - [`world`]: the pure model. In a simulation: [`World::call`].
//! - [`http`]: the same model over HTTP, as the unchanged AWS SDKs speak it, and `/_admin` to script it: [`SimulatedAws`].
//! - [`emulators`]: moto and kinesis-local, which others wrote, to hold the model against.
//! - [`samples`]: the world of `config/samples`.
//! - [`raw_client`]: says raw AWS messages to any of them.

pub mod emulators;
pub mod http;
pub mod raw_client;
pub mod samples;
pub mod world;

pub use http::{Clock, SimulatedAws};
pub use world::{Caller, Fault, PlantedKey, PlantedStream, Request, Rule, Service, Settings, World};
