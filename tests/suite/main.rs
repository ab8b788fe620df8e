//! The suite.
mod crds;
