//! What users install, as tests see it: the chart as Helm renders it, `config/` as kustomize prints it, and what their
//! documentation says. Changes nothing in the repository, except [`kept`] when it is told to.

pub mod metrics;
pub mod objects;
pub mod programs;
pub mod promql;
pub mod schemas;
pub mod values;

use std::fs;
use std::path::{Path, PathBuf};

/// A file or folder of the repository.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

/// The text of a file of the repository.
///
/// # Panics
/// There is no such file.
#[must_use]
pub fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Where the chart is.
pub const CHART: &str = "charts/stream-encryption-operator";

/// Holds a generated file to what it is made of, or writes it anew with `UPDATE_PACKAGES=1`.
///
/// # Panics
/// The file is another.
pub fn kept(name: &str, made: &str) {
    if std::env::var("UPDATE_PACKAGES").is_ok_and(|value| value == "1") {
        fs::write(path(name), made).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let kept = fs::read_to_string(path(name)).unwrap_or_default();
    assert!(kept == made, "{name} is not what it is made of: UPDATE_PACKAGES=1 cargo test -p packages");
}
