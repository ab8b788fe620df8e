//! The stream encryption operator: keeps Amazon Data Firehose and Kinesis data streams encrypted with the
//! desired key, within AWS's limit of 25 calls per stream in 24 hours.
//!
//! This crate is the program: the adapters, the runtime and the command line. The types that Kubernetes stores are in
//! [`stream_encryption_api`], the domain and the reconcile in [`stream_encryption_core`]. The modules:
//!
//! | module | content |
//! |---|---|
//! | [`iam`] | the IAM policies and roles that the operator requires |
//! | [`aws`] | the adapter [`aws::Aws`] of the port [`stream_encryption_core::controller::stream_api`] to AWS |
//! | [`adopt`] | the survey of existing streams, and the manifests with which the operator takes them over |
//! | [`settings`], [`telemetry`] | the flags and the environment; logs and traces |
//! | [`kubernetes`] | the adapter of the port [`stream_encryption_core::controller::kube_api`] to the API server |
//! | [`metrics`], [`admin`], [`leader`] | metrics for Prometheus, probes for the kubelet, leader election |
//! | [`operator`] | the runtime: watches, queue, shutdown |
//! | [`plugin`] | the kubectl plugin: commands for people, which only read |
//! | [`commands`] | the commands of the program |

// `println!` panics if the standard output is full or closed: write to it, and return the error.
#![warn(clippy::print_stdout)]

pub mod admin;
pub mod adopt;
pub mod aws;
pub mod commands;
pub mod iam;
#[cfg(test)]
#[path = "../tests/json_mutation.rs"]
mod json_mutation;
pub mod kubernetes;
pub mod leader;
pub mod metrics;
pub mod operator;
pub mod plugin;
pub mod settings;
pub mod telemetry;
#[cfg(test)]
mod test_log;
