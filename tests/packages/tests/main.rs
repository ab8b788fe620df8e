//! What users install does what its documentation says, with the real Helm, promtool, kubeconform, actionlint and kube-apiserver.
//! Nothing here needs a node or an image.

mod admission;
mod alerts;
mod dashboard;
mod definitions;
mod documents;
mod install;
mod kubeconform;
mod objects;
mod pods;
mod release;
mod rights;
mod stage;
mod values;
mod yaml;
