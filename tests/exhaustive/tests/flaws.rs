//! The model can fail: for each wrong operator the checker finds a counterexample, within bounds in which the product has none.
//!
//! `cargo test -p exhaustive --test flaws -- --nocapture` tells the stories.

use exhaustive::flaw::EVERY_FLAW;
use exhaustive::report::{check_flaw, check_without};

#[test]
fn each_planted_bug_is_found_with_its_trace() {
    for flaw in EVERY_FLAW {
        let report = check_flaw(*flaw);
        let [(promise, story)] = &report.broken[..] else { panic!("{flaw:?} is not found: {report}") };
        println!("{flaw:?}: {promise}, broken in {} steps\n{}", story.steps, story.text);
    }
}

#[test]
fn product_keeps_promises_within_bounds_of_planted_bugs() {
    for flaw in EVERY_FLAW {
        let report = check_without(*flaw);
        assert!(report.broken.is_empty(), "{flaw:?}: {report}");
        println!("{flaw:?}: {} states, and nothing wrong", report.states);
    }
}
