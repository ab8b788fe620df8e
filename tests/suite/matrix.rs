//! The fault matrix: what goes wrong around the operator, row by row, on a real API server. `docs/reliability.md` has the
//! table that says which test stands for which row.

mod answers;
mod aws;
mod crashes;
mod fuse;
mod herd;
mod kills;
mod ledgers;
mod outages;
mod owners;
pub(crate) mod proxy;
mod replicas;
pub(crate) mod rig;
mod signals;
mod site;
mod time;
mod watches;

use std::path::Path;

use crate::documents::{sources, tests_of_row};

/// Whatever the table says is tested is tested, and it has all rows.
#[test]
fn every_row_of_the_table_names_tests_that_exist() {
    let table = include_str!("../../docs/reliability.md");
    let mut all = String::new();
    sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite")), &mut all);
    for number in 1..=24 {
        for name in tests_of_row(table, &number.to_string()) {
            assert!(all.contains(&format!("async fn {name}()")), "row {number}: there is no test {name}");
        }
    }
}
