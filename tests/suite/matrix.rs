//! The fault matrix: faults around the operator, row by row, on a real API server. The table in
//! `docs/reliability.md` says which test covers which row.

mod api_server_errors;
mod aws;
mod crash_injection;
mod crashes;
mod kills;
mod ledgers;
mod outages;
mod process_env;
mod process_signals;
pub(crate) mod proxy;
mod recreation;
mod replicas;
pub(crate) mod scenario;
mod startup_load;
mod time;
mod watches;

use std::path::Path;

use crate::documentation::{sources, tests_of_row};

/// The table has all rows, and every test that it cites exists.
#[test]
fn every_matrix_row_cites_existing_tests() {
    let table = include_str!("../../docs/reliability.md");
    let mut all = String::new();
    sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite")), &mut all);
    for number in 1..=24 {
        for name in tests_of_row(table, &number.to_string()) {
            assert!(all.contains(&format!("async fn {name}()")), "row {number}: there is no test {name}");
        }
    }
}
