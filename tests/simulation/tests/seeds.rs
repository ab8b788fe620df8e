//! Runs thousands of seeds, each a random environment with faults: no promise is broken in any of them.

use simulation::batch::many;
use simulation::generator::plan;
use simulation::run::run;
use simulation::shrink::shrink;
use simulation::stats::{Done, Tally};
use simulation::wiring::Faithful;
use stream_encryption_api::condition::Reason;

/// For more seeds: `cargo run --release --example simulate -- --seeds 1000000`.
const SEEDS: u64 = 20_000;

#[test]
fn no_seed_breaks_a_promise() {
    let all = many(0, SEEDS, 1);
    if let Some((seed, broken)) = all.broken.first() {
        let (smallest, broken) = shrink(&plan(*seed), broken, &Faithful);
        let story = run(&smallest, &Faithful, true).story;
        panic!(
            "seed {seed}: {broken}\n{story}\nfull trace: cargo run --release --example simulate -- --seed {seed}"
        );
    }
    assert_eq!(all.tally.runs, SEEDS);
    assert!(all.tally.seconds >= SEEDS * 48 * 3600, "each run is at least 48 hours long");
    assert!(
        all.tally.converged > SEEDS / 2,
        "only {} streams matched their spec in the end",
        all.tally.converged
    );
    assert!(all.tally.calls > SEEDS, "only {} calls: too few for a meaningful test", all.tally.calls);
    let missed = missed(&all.tally);
    assert!(missed.is_empty(), "rows of the decision that no seed has reached: {missed:?}");
}

/// Returns the rows of the decision that were not reached.
fn missed(tally: &Tally) -> Vec<(Option<Done>, Reason)> {
    let steps = [
        (Done::Describe, Reason::Settling),
        (Done::Start, Reason::Enabling),
        (Done::Stop, Reason::Disabling),
        (Done::Correct, Reason::Enabling),
        (Done::Correct, Reason::Disabling),
        (Done::Verify, Reason::Verifying),
        (Done::RemoveFinalizer, Reason::EncryptionDisabled),
        (Done::RemoveFinalizer, Reason::StreamNotFound),
        (Done::RemoveFinalizer, Reason::StreamAlreadyManaged),
        (Done::RemoveFinalizer, Reason::NotPermitted),
    ];
    // The schema rejects an invalid spec, and only `KeyUsable` has the reason KeyEnabled. AWS returns no
    // unknown states here, and the port always has credentials: the tests of the decision cover these rows.
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
fn seed_gives_same_trace_each_time() {
    for seed in 0..20 {
        let [one, other] = [(); 2].map(|()| run(&plan(seed), &Faithful, true));
        assert_eq!(one.story.to_string(), other.story.to_string());
        assert_eq!(one.broken, other.broken);
    }
}
