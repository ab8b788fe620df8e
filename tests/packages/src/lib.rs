//! The installation artifacts under test: the chart as Helm renders it, `config/` as kustomize prints it, and
//! their documentation. Changes nothing in the repository, except [`kept`] when `UPDATE_PACKAGES` is set.

#![allow(
    missing_docs,
    clippy::must_use_candidate,
    clippy::missing_panics_doc,
    reason = "only this repository's tests use it"
)]

pub mod metrics;
pub mod objects;
pub mod programs;
pub mod promql;
pub mod schemas;
pub mod values;

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the path of a file or folder of the repository.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

/// Returns the text of a file of the repository.
pub fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The folder of the chart.
pub const CHART: &str = "charts/stream-encryption-operator";

/// Compares a generated file with its expected content, or regenerates it with `UPDATE_PACKAGES=1`.
pub fn kept(name: &str, made: &str) {
    if std::env::var("UPDATE_PACKAGES").is_ok_and(|value| value == "1") {
        fs::write(path(name), made).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let kept = fs::read_to_string(path(name)).unwrap_or_default();
    assert!(kept == made, "{name} is outdated; regenerate it with: UPDATE_PACKAGES=1 cargo test -p packages");
}
