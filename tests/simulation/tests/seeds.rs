//! Thousands of seeds, each a world of its own with its faults: no promise is broken in any.

use simulation::dice::plan;
use simulation::many::many;
use simulation::parts::Faithful;
use simulation::run::run;
use simulation::shrink::shrink;
use simulation::tally::{Done, Tally};
use stream_encryption_operator::api::condition::Reason;

/// More of them: `cargo run --release --example simulate -- --seeds 1000000`.
const SEEDS: u64 = 20_000;

#[test]
fn no_seed_breaks_a_promise() {
    let all = many(0, SEEDS, 1);
    if let Some((seed, broken)) = all.broken.first() {
        let (smallest, broken) = shrink(&plan(*seed), broken, &Faithful);
        let story = run(&smallest, &Faithful, true).story;
        panic!(
            "seed {seed}: {broken}\n{story}\nall of it: cargo run --release --example simulate -- --seed {seed}"
        );
    }
    assert_eq!(all.tally.runs, SEEDS);
    assert!(all.tally.seconds >= SEEDS * 48 * 3600, "each run is at least 48 hours long");
    assert!(all.tally.converged > SEEDS / 2, "only {} streams came to be as asked for", all.tally.converged);
    assert!(all.tally.calls > SEEDS, "only {} calls: nothing would be proven", all.tally.calls);
    let missed = missed(&all.tally);
    assert!(missed.is_empty(), "rows of the decision that no seed has reached: {missed:?}");
}

/// The rows of the decision that were not reached.
fn missed(tally: &Tally) -> Vec<(Option<Done>, Reason)> {
    let steps = [
        (Done::Look, Reason::Settling),
        (Done::Start, Reason::Enabling),
        (Done::Stop, Reason::Disabling),
        (Done::Correct, Reason::Enabling),
        (Done::Correct, Reason::Disabling),
        (Done::Verify, Reason::Verifying),
        (Done::Release, Reason::EncryptionDisabled),
        (Done::Release, Reason::StreamNotFound),
        (Done::Release, Reason::StreamOwnedByAnother),
        (Done::Release, Reason::NotPermitted),
    ];
    // A spec without a meaning is refused by the schema, and that a key is enabled is said of the key only.
    // AWS uses no unknown words here, and its adapter always has credentials: the rows of the decision's own tests hold those.
    let decided = |reason: &&Reason| {
        let elsewhere = [
            Reason::SpecInvalid,
            Reason::KeyEnabled,
            Reason::KeyStateUnrecognized,
            Reason::StreamStateUnrecognized,
            Reason::NoCredentials,
        ];
        !elsewhere.contains(reason)
    };
    let reasons = Reason::ALL.iter().filter(decided).map(|reason| (None, *reason));
    let reached = |step: Option<Done>, reason| {
        tally.rows.keys().any(|row| row.reason == reason && step.is_none_or(|step| row.step == step))
    };
    let rows = steps.into_iter().map(|(step, reason)| (Some(step), reason)).chain(reasons);
    rows.filter(|(step, reason)| !reached(*step, *reason)).collect()
}

#[test]
fn a_seed_tells_the_same_story_each_time() {
    for seed in 0..20 {
        let [one, other] = [(); 2].map(|()| run(&plan(seed), &Faithful, true));
        assert_eq!(one.story.to_string(), other.story.to_string());
        assert_eq!(one.broken, other.broken);
    }
}
