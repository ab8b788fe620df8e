//! Tests that the installation artifacts work as documented, with the real Helm, promtool, kubeconform,
//! actionlint and kube-apiserver. No test needs a node or an image.

mod admission;
mod alerts;
mod components;
mod conventions;
mod dashboard;
mod definitions;
mod documents;
mod events;
mod flux;
mod install;
mod kube_state_metrics;
mod kubeconform;
mod objects;
mod pods;
mod release;
mod rights;
mod runbooks;
mod sharding;
mod stage;
mod values;
mod yaml;
