//! Thousands of seeds, each a world of its own with its faults: no promise is broken in any.

use simulation::dice::plan;
use simulation::many::many;
use simulation::parts::Faithful;
use simulation::run::run;
use simulation::shrink::shrink;

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
}

#[test]
fn a_seed_tells_the_same_story_each_time() {
    for seed in 0..20 {
        let [one, other] = [(); 2].map(|()| run(&plan(seed), &Faithful, true));
        assert_eq!(one.story.to_string(), other.story.to_string());
        assert_eq!(one.broken, other.broken);
    }
}
