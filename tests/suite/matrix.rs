//! The fault matrix: faults around the operator, row by row, on a real API server. The table in
//! `docs/reliability.md` says which test covers which row.

mod api_server_errors;
mod kills;
mod ledgers;
mod outages;
mod process_env;
mod process_signals;
pub(crate) mod proxy;
mod replicas;
pub(crate) mod scenario;
mod startup_load;
mod watches;

use std::path::Path;

use crate::documentation::{sources, tests_of_row};

/// The table has all rows, and every test that it cites exists.
#[test]
fn every_matrix_row_cites_existing_tests() {
    let table = include_str!("../../docs/reliability.md");
    let mut all = String::new();
    for folder in ["/src", "/tests"] {
        sources(Path::new(&format!("{}{folder}", env!("CARGO_MANIFEST_DIR"))), &mut all);
    }
    for number in 1..=24 {
        for name in tests_of_row(table, &number.to_string()) {
            assert!(all.contains(&format!("fn {name}(")), "row {number}: there is no test {name}");
        }
    }
}
