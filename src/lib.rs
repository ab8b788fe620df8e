//! The stream encryption operator.

pub mod api;
pub mod model;
