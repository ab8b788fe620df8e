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
mod rig;
mod signals;
mod site;
mod time;
mod watches;

use crate::documents::tests_of_row;

/// Whatever the table says is tested is tested, and it has all rows.
#[test]
fn every_row_of_the_table_names_tests_that_exist() {
    let table = include_str!("../../docs/reliability.md");
    let suite = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite");
    let mut sources = String::new();
    for folder in [suite.to_owned(), format!("{suite}/matrix")] {
        for entry in std::fs::read_dir(folder).expect("the suite") {
            let path = entry.expect("a file").path();
            if path.is_file() {
                sources.push_str(&std::fs::read_to_string(path).expect("a source"));
            }
        }
    }
    for number in 1..=24 {
        for name in tests_of_row(table, &number.to_string()) {
            assert!(sources.contains(&format!("async fn {name}()")), "row {number}: there is no test {name}");
        }
    }
}
