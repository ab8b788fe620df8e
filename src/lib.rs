//! The stream encryption operator: keeps Amazon Data Firehose and Kinesis data streams encrypted with the
//! desired key, within AWS's limit of 25 calls per stream in 24 hours.
//!
//! The modules, from those without dependencies to those that depend on all others:
//!
//! | module | content |
//! |---|---|
//! | [`api`] | the types that Kubernetes stores: resource, policy, ledger, conditions |
//! | [`model`] | the domain, pure: identities, observation, [`model::decision::decide`], ledger arithmetic |
//! | [`aws`] | AWS requests: the port [`aws::StreamApi`] and its adapter [`aws::Aws`] |
//! | [`controller`] | one reconcile, a file per step, between two ports |
//! | [`kubernetes`] | the adapter of [`controller::kube_api::KubeApi`] to the API server |
//! | [`metrics`], [`admin`], [`leader`] | metrics for Prometheus, probes for the kubelet, leader election |
//! | [`operator`] | the runtime: watches, queue, shutdown |
//! | [`settings`], [`telemetry`], [`commands`] | the command line |

pub mod admin;
pub mod api;
pub mod aws;
pub mod commands;
pub mod controller;
pub mod kubernetes;
pub mod leader;
pub mod metrics;
pub mod model;
pub mod operator;
pub mod settings;
pub mod telemetry;
