//! Benchmarks of what the operator computes for each resource: `cargo bench -p benches`.
//!
//! Each has a baseline of the same kind in the same run, such as a queue of a tenth of the size: times depend on the
//! machine, ratios do not. No test fails because of a figure.
