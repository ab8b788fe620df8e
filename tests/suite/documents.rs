//! What the documentation says is what the code does.

use std::fs;
use std::path::PathBuf;

use stream_encryption_operator::api::condition::{ConditionType, Reason, Standing, find, standing};

/// One line of the table of reasons.
struct Line {
    reason: String,
    ready: String,
    reconciling: String,
    stalled: String,
    words: [String; 2],
}

fn table() -> Vec<Line> {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/conditions.md");
    let text = fs::read_to_string(page).unwrap();
    let (_, reasons) = text.split_once("\n## Reasons\n").expect("docs/conditions.md has a heading Reasons");
    let lines = reasons.lines().filter(|line| line.starts_with("| `"));
    lines
        .map(|line| {
            let cells: Vec<String> =
                line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
            let [reason, ready, reconciling, stalled, means, to_do] =
                cells.try_into().unwrap_or_else(|cells| {
                    panic!("docs/conditions.md: six cells are wanted: {cells:?}");
                });
            Line {
                reason: reason.trim_matches('`').to_owned(),
                ready,
                reconciling,
                stalled,
                words: [means, to_do],
            }
        })
        .collect()
}

#[test]
fn every_reason_is_documented_once_and_in_order_and_no_other() {
    let documented: Vec<String> = table().into_iter().map(|line| line.reason).collect();
    let reasons: Vec<String> = Reason::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(documented, reasons, "left: docs/conditions.md; right: the code");
}

#[test]
fn every_reason_is_documented_with_the_conditions_that_it_leads_to() {
    for line in table() {
        let reason: Reason =
            line.reason.parse().unwrap_or_else(|()| panic!("no reason is called {}", line.reason));
        let made = standing(&[], reason, "", None, jiff::Timestamp::UNIX_EPOCH);
        let mut expected = [ConditionType::Ready, ConditionType::Reconciling, ConditionType::Stalled]
            .map(|kind| find(&made, kind).map_or("-", |condition| condition.status.as_str()));
        if reason.standing() == Standing::Unchanged {
            expected[0] = "as before";
        }
        assert_eq!([line.ready, line.reconciling, line.stalled], expected, "{reason}");
    }
}

#[test]
fn every_reason_is_documented_with_its_meaning_and_what_to_do() {
    for line in table() {
        for words in line.words {
            assert!(words.ends_with('.') && words.len() > 4, "{}: {words:?} is no sentence", line.reason);
        }
    }
}
