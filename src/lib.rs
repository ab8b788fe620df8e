//! The stream encryption operator: keeps Amazon Data Firehose and Kinesis data streams encrypted with the key that a
//! team asked for, within AWS's limit of 25 calls per stream in 24 hours.
//!
//! A map, from what depends on nothing to what depends on all:
//!
//! | module | what it is |
//! |---|---|
//! | [`api`] | what Kubernetes stores: the resource, the ledger, the words of the status |
//! | [`model`] | the domain, pure: identities, observation, [`model::decision::decide`], the ledger's arithmetic |
//! | [`aws`] | AWS in our verbs: the port [`aws::Streams`] and its adapters |
//! | [`controller`] | one reconcile, a file per step, between two ports |
//! | [`kubernetes`] | the port [`controller::records::Records`] on the API server |
//! | [`metrics`], [`admin`], [`leader`] | what is told to Prometheus and the kubelet; which replica works |
//! | [`operator`] | the driver: watches, queue, shutdown |
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
