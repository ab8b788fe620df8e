//! The suite.
mod argocd;
mod budget;
mod crds;
mod documents;
mod emulators;
mod firehose;
mod kinesis;
mod kstatus;
mod layout;
mod ledgers;
mod matrix;
mod mistakes;
mod play;
mod process;
mod readme;
mod schema;
mod states;
