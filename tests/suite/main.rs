//! The suite.
mod budget;
mod crds;
mod documents;
mod firehose;
mod kinesis;
mod layout;
mod mistakes;
mod play;
mod process;
mod schema;
mod emulators;
