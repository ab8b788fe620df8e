//! The order of the work queue, and what it must never do whatever happens.

use proptest::prelude::*;

use super::*;

const ZERO: Duration = Duration::ZERO;

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// A queue of numbered resources with four places for each scope.
struct Table {
    queue: WorkQueue<u32, &'static str>,
    work: HashMap<u32, Work<&'static str>>,
}

impl Table {
    fn new(concurrency: usize) -> Self {
        Self { queue: WorkQueue::new(concurrency, |_| 4), work: HashMap::new() }
    }

    fn due(&mut self, keys: impl IntoIterator<Item = u32>, scope: &'static str, lane: Lane, namespace: &str) {
        for key in keys {
            self.work.insert(key, Work { scope, lane, namespace: namespace.to_owned() });
            self.queue.schedule(key, ZERO);
        }
    }

    /// Makes the resources 0 to 99 of a namespace due, each in another scope, and starts as many as can run.
    fn start_in_many_scopes(&mut self, namespace: &str) -> Vec<u32> {
        for key in 0..100 {
            self.due([key], format!("region-{key}").leak(), Lane::Changed, namespace);
        }
        self.together()
    }

    fn start(&mut self, now: Duration) -> Option<u32> {
        let work = &self.work;
        self.queue.next(now, |key| work.get(key).cloned())
    }

    /// Determines the turn of everything that is due, before the first start.
    fn enqueue_all(&mut self) {
        while self.queue.next_due().is_some_and(|due| due == ZERO) {
            self.queue.enqueue_due(ZERO, &|key| self.work.get(key).cloned());
        }
    }

    /// Records whether AWS has responded to the request of a resource in its scope.
    fn respond(&mut self, key: u32, responds: bool, now: Duration) {
        let scope = self.work[&key].scope;
        self.queue.record_response(&key, &scope, responds, now);
    }

    /// Starts and ends one resource after the other.
    fn one_at_a_time(&mut self) -> Vec<u32> {
        let mut order = Vec::new();
        while let Some(key) = self.start(ZERO) {
            self.queue.end(key, None);
            order.push(key);
        }
        order
    }

    /// Starts as many as can run at the same time.
    fn together(&mut self) -> Vec<u32> {
        std::iter::from_fn(|| self.start(ZERO)).collect()
    }
}

#[test]
fn scope_that_begins_anew_does_not_precede_one_that_waits() {
    let mut table = Table::new(1);
    table.due(10..20, "large", Lane::Changed, "data");
    assert_eq!(table.start(ZERO), Some(10));
    table.queue.end(10, None);
    // Each of two scopes with one resource is due again while the other one runs.
    table.due([1], "a", Lane::Changed, "data");
    table.due([2], "b", Lane::Changed, "data");
    let mut order = Vec::new();
    for _ in 0..6 {
        let key = table.start(ZERO).unwrap();
        order.push(key);
        table.queue.end(key, (key < 10).then_some(ZERO));
    }
    assert!(order.iter().filter(|key| **key >= 10).count() >= 2, "{order:?}");
}

#[test]
fn resource_is_started_when_due_and_again_when_requested() {
    let mut table = Table::new(10);
    table.due([1], "a", Lane::Changed, "data");
    table.queue.schedule(1, seconds(5));
    assert_eq!(table.start(ZERO), Some(1), "the earlier time remains");
    table.queue.end(1, Some(seconds(60)));
    assert_eq!((table.start(seconds(59)), table.queue.next_due()), (None, Some(seconds(60))));
    table.queue.schedule(1, seconds(30));
    assert_eq!(table.start(seconds(30)), Some(1), "it was triggered");
    table.queue.end(1, None);
    assert_eq!(table.queue.next_due(), None);
}

#[test]
fn resource_triggered_while_running_runs_again_afterwards() {
    let mut table = Table::new(10);
    table.due([1], "a", Lane::Changed, "data");
    assert_eq!(table.start(ZERO), Some(1));
    table.queue.schedule(1, ZERO);
    assert_eq!(table.start(ZERO), None, "it is running");
    table.queue.end(1, Some(seconds(600)));
    assert_eq!(table.start(ZERO), Some(1));
}

#[test]
fn deleted_resource_leaves_the_queue() {
    let mut table = Table::new(10);
    table.queue.schedule(1, ZERO);
    assert_eq!(table.start(ZERO), None);
    assert!(table.queue.entries.is_empty());
}

#[test]
fn new_and_followed_resources_alternate() {
    let mut table = Table::new(10);
    table.due(0..4, "a", Lane::Changed, "data");
    table.due(10..14, "a", Lane::InProgress, "data");
    assert_eq!(table.one_at_a_time(), [0, 10, 1, 11, 2, 12, 3, 13]);
}

#[test]
fn drift_checks_yield_to_changes_but_not_for_ever() {
    let mut table = Table::new(10);
    table.due(100..103, "a", Lane::Drift, "lone");
    table.due(0..8, "a", Lane::Changed, "crowd");
    assert_eq!(table.one_at_a_time(), [0, 1, 2, 100, 3, 4, 5, 101, 6, 7, 102]);
}

#[test]
fn drift_checks_leave_half_of_the_places() {
    let mut table = Table::new(10);
    table.due(0..100, "a", Lane::Drift, "data");
    assert_eq!(table.together(), [0, 1]);
    table.due([500], "a", Lane::Changed, "data");
    assert_eq!(table.together(), [500]);
}

#[test]
fn changed_resource_leaves_the_drift_checks() {
    let mut table = Table::new(10);
    table.due(0..100, "a", Lane::Drift, "data");
    assert_eq!(table.together(), [0, 1]);
    table.due([90], "a", Lane::Changed, "data");
    assert_eq!(table.together(), [90]);
    assert_eq!(table.queue.waiting(Lane::Drift), 97);
    for key in [0, 1, 90] {
        table.queue.end(key, None);
    }
    assert_eq!(table.one_at_a_time(), (2..90).chain(91..100).collect::<Vec<_>>());
    assert!(table.queue.scopes.is_empty());
}

#[test]
fn events_precede_checks_and_every_fourth_start_is_a_check() {
    let mut table = Table::new(1);
    table.due(0..8, "a", Lane::Drift, "data");
    table.due(100..106, "a", Lane::Event, "data");
    assert_eq!(table.one_at_a_time()[..10], [100, 101, 102, 0, 103, 104, 105, 1, 2, 3]);
}

#[test]
fn events_leave_half_of_the_places_to_changes() {
    let mut table = Table::new(8);
    table.due(0..100, "a", Lane::Event, "data");
    table.due(100..200, "a", Lane::Drift, "data");
    assert_eq!(table.together().len(), 2, "half of the four places");
    table.due(200..202, "a", Lane::Changed, "data");
    assert_eq!(table.together(), [200, 201]);
}

#[test]
fn large_scope_delays_no_other_scope() {
    let mut table = Table::new(6);
    table.due(0..100, "large", Lane::Changed, "data");
    assert_eq!(table.together(), [0, 1, 2, 3], "all places of the scope");
    table.due(200..210, "small", Lane::Changed, "data");
    assert_eq!(table.together(), [200, 201]);
    table.queue.end(0, None);
    assert_eq!(table.together(), [202], "the scope with fewer running resources is next");
}

#[test]
fn long_reconciles_of_a_namespace_keep_only_their_share() {
    let mut table = Table::new(4);
    table.due(0..100, "a", Lane::Changed, "slow");
    assert_eq!(table.together(), [0, 1, 2, 3]);
    table.due(200..300, "a", Lane::Changed, "quick");
    // One reconcile of the slow namespace ends. From then on the other namespace uses its place.
    table.queue.end(3, None);
    for key in 200..300 {
        assert_eq!(table.together(), [key]);
        table.queue.end(key, None);
    }
}

#[test]
fn long_reconciles_in_many_scopes_leave_others_a_share() {
    let mut table = Table::new(8);
    // A user names a hundred regions that do not exist. Each reconcile lasts for ten others.
    let mut running: std::collections::VecDeque<u32> = table.start_in_many_scopes("slow").into();
    assert_eq!(running.len(), 8, "nothing else waits");
    table.due(1000..1400, "a", Lane::Drift, "quick");
    table.due(2000..2400, "b", Lane::Changed, "other");
    let (mut quick, mut steps) = (0, 0);
    while quick < 800 {
        steps += 1;
        // Of the slow ones, only the oldest ends in each tenth step, and is due again at once.
        if steps % 10 == 0
            && let Some(at) = running.iter().position(|key| *key < 1000)
        {
            let key = running.remove(at).unwrap();
            table.queue.end(key, Some(ZERO));
        }
        while let Some(at) = running.iter().position(|key| *key >= 1000) {
            let key = running.remove(at).unwrap();
            table.queue.end(key, None);
            quick += 1;
        }
        running.extend(table.together());
        let slow = running.iter().filter(|key| **key < 1000).count();
        // Two places are the share of each namespace, and the first four reconciles have ended.
        assert!(steps < 40 || quick >= 800 || slow <= 4, "{slow} of 8 places after {steps} steps");
    }
    assert!(steps < 300, "{steps}");
}

#[test]
fn change_of_another_namespace_does_not_hold_up_checks() {
    let mut table = Table::new(8);
    assert_eq!(table.start_in_many_scopes("slow").len(), 8);
    // In the scope in which "quick" has checks, "slow" has a change, which precedes them.
    table.due([500], "a", Lane::Changed, "slow");
    table.due(1000..1010, "a", Lane::Drift, "quick");
    table.due(2000..2400, "b", Lane::Changed, "other");
    // One slow reconcile after the other ends; those of the others end at once.
    let mut checks = 0;
    for key in 0..6 {
        table.queue.end(key, Some(seconds(1000)));
        for _ in 0..10 {
            for key in table.together().into_iter().filter(|key| *key >= 1000) {
                checks += usize::from(key < 2000);
                table.queue.end(key, None);
            }
        }
    }
    assert_eq!(checks, 10);
}

#[test]
fn one_namespace_alone_uses_all_places() {
    let mut table = Table::new(8);
    table.due(0..3, "a", Lane::Changed, "data");
    table.due(3..6, "b", Lane::Changed, "data");
    table.due(6..9, "c", Lane::Changed, "data");
    assert_eq!(table.together().len(), 8);
}

#[test]
fn namespaces_take_turns_whatever_their_queue_length() {
    let mut table = Table::new(1);
    table.due(0..9900, "a", Lane::Changed, "large");
    table.due(20_000..20_100, "a", Lane::Changed, "small");
    table.enqueue_all();
    let order = table.one_at_a_time();
    let last = order.iter().rposition(|key| *key >= 20_000).expect("a resource of the small namespace");
    assert!((198..=200).contains(&last), "{last}");
}

#[test]
fn many_due_resources_are_enqueued_in_batches() {
    let mut table = Table::new(1);
    table.due(0..1000, "a", Lane::Changed, "data");
    let asked = std::cell::Cell::new(0);
    let start = |table: &mut Table| {
        asked.set(0);
        let work = &table.work;
        table.queue.next(ZERO, |key| {
            asked.set(asked.get() + 1);
            work.get(key).cloned()
        })
    };
    assert_eq!(start(&mut table), Some(0));
    assert_eq!((asked.get(), table.queue.next_due()), (BATCH, Some(ZERO)), "the others remain due");
    table.enqueue_all();
    assert_eq!(table.queue.waiting(Lane::Changed), 999);
    // A change of all policies.
    (0..1000).for_each(|key| table.queue.schedule(key, ZERO));
    assert_eq!(start(&mut table), None, "one is running");
    assert_eq!((asked.get(), table.queue.next_due()), (BATCH, Some(ZERO)));
}

/// A table in which AWS has not responded in a hundred scopes, with these resources due again.
fn with_unresponsive_scopes(concurrency: usize) -> Table {
    let mut table = Table::new(concurrency);
    for key in 0..100 {
        table.due([key], format!("region-{key}").leak(), Lane::Changed, &format!("team-{key}"));
    }
    for _ in 0..100 {
        let key = table.start(ZERO).unwrap();
        table.respond(key, false, ZERO);
        table.queue.end(key, Some(ZERO));
    }
    table
}

#[test]
fn unresponsive_scopes_leave_half_of_the_places() {
    let mut table = with_unresponsive_scopes(8);
    table.due(1000..1100, "responsive", Lane::Changed, "data");
    let mut responsive = 0;
    let started = table.together();
    assert_eq!(started.len(), 8);
    for key in started.into_iter().filter(|key| *key >= 1000) {
        table.queue.end(key, None);
        responsive += 1;
    }
    // Those of the other scopes do not end.
    while let Some(key) = table.start(ZERO) {
        assert!(key >= 1000, "{key}");
        table.respond(key, true, ZERO);
        table.queue.end(key, None);
        responsive += 1;
    }
    assert_eq!(responsive, 100);
}

#[test]
fn scopes_that_respond_again_use_all_places() {
    let mut table = with_unresponsive_scopes(8);
    assert_eq!(table.together().len(), 4, "nothing else waits");
    let mut table = with_unresponsive_scopes(8);
    for _ in 0..100 {
        let key = table.start(ZERO).unwrap();
        table.respond(key, true, ZERO);
        table.queue.end(key, Some(seconds(1)));
    }
    assert!(table.queue.unresponsive.is_empty() && table.queue.unresponsive_startable.is_empty());
    assert_eq!(std::iter::from_fn(|| table.start(seconds(1))).count(), 8);
}

#[test]
fn unresponsive_scope_is_forgotten_after_an_hour() {
    let mut table = with_unresponsive_scopes(8);
    table.due([1000], "another", Lane::Changed, "data");
    while table.start(ZERO).is_some_and(|key| key != 1000) {}
    table.respond(1000, false, seconds(3601));
    // Those with a running resource are not forgotten.
    assert_eq!(table.queue.unresponsive.len(), table.queue.running_unresponsive);
    assert!(table.queue.running() <= 5);
}

/// One step of a random run.
#[derive(Clone, Debug)]
enum Step {
    Schedule { key: u32, after: u64 },
    Change { key: u32, lane: usize, scope: usize },
    Delete { key: u32 },
    Start,
    Respond { which: usize, responds: bool },
    End { which: usize, again: Option<u64> },
    Pass { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..12_u32, 0..20_u64).prop_map(|(key, after)| Step::Schedule { key, after }),
        2 => (0..12_u32, 0..Lane::ALL.len(), 0..2_usize).prop_map(|(key, lane, scope)| Step::Change { key, lane, scope }),
        1 => (0..12_u32).prop_map(|key| Step::Delete { key }),
        4 => Just(Step::Start),
        2 => (0..8_usize, any::<bool>()).prop_map(|(which, responds)| Step::Respond { which, responds }),
        3 => (0..8_usize, prop::option::of(0..20_u64)).prop_map(|(which, again)| Step::End { which, again }),
        1 => (0..10_u64).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

proptest! {
    #[test]
    fn nothing_runs_twice_and_nothing_is_lost(steps in prop::collection::vec(step(), 1..200)) {
        let scopes = ["a", "b"];
        let mut table = Table::new(5);
        let mut now = ZERO;
        let mut running: Vec<u32> = Vec::new();
        // When each resource is due at the latest.
        let mut due: HashMap<u32, Duration> = HashMap::new();
        for key in 0..12 {
            table.work.insert(key, Work { scope: "a", lane: Lane::Changed, namespace: format!("{}", key % 3) });
        }
        for step in steps {
            match step {
                Step::Schedule { key, after } => {
                    let at = now + seconds(after);
                    table.queue.schedule(key, at);
                    if table.work.contains_key(&key) || running.contains(&key) {
                        due.entry(key).and_modify(|due| *due = at.min(*due)).or_insert(at);
                    }
                }
                Step::Change { key, lane, scope } => {
                    let (scope, lane) = (scopes[scope], Lane::ALL[lane]);
                    table.work.insert(key, Work { scope, lane, namespace: format!("{}", key % 3) });
                    table.queue.schedule(key, now);
                    due.insert(key, now);
                }
                Step::Delete { key } => {
                    table.work.remove(&key);
                    table.queue.schedule(key, now);
                    due.remove(&key);
                }
                Step::Start => {
                    if let Some(key) = table.start(now) {
                        prop_assert!(!running.contains(&key), "{key} runs already");
                        running.push(key);
                        due.remove(&key);
                    }
                }
                Step::Respond { which, responds } => {
                    if let Some(key) = running.get(which) {
                        // The resource may have moved to another scope since it was started.
                        let scope = scopes[which % scopes.len()];
                        table.queue.record_response(key, &scope, responds, now);
                    }
                }
                Step::End { which, again } if !running.is_empty() => {
                    let key = running.remove(which % running.len());
                    let again = again.map(|after| now + seconds(after));
                    table.queue.end(key, again);
                    if let Some(at) = again {
                        due.entry(key).and_modify(|due| *due = at.min(*due)).or_insert(at);
                    }
                }
                Step::End { .. } => {}
                Step::Pass { seconds: passed } => now += seconds(passed),
            }
            prop_assert!(running.len() <= 5);
            let waiting = Lane::ALL.map(|lane| table.queue.waiting(lane)).iter().sum();
            prop_assert_eq!(table.queue.namespaces.totals(), (waiting, running.len()));
            prop_assert_eq!(table.queue.running(), running.len());
            let is_unresponsive = |key: &&u32| match table.queue.entries.get(*key) {
                Some(Entry::Running { work, .. }) => table.queue.unresponsive.contains_key(work.scope),
                _ => false,
            };
            let unresponsive = running.iter().filter(is_unresponsive).count();
            prop_assert_eq!(table.queue.running_unresponsive, unresponsive);
        }
        // In the end everything that exists and is due runs once, and then the queue is empty.
        for key in running {
            table.queue.end(key, None);
        }
        let mut started = std::collections::BTreeSet::new();
        now += seconds(1000);
        while let Some(key) = table.start(now) {
            prop_assert!(started.insert(key), "{key} ran twice");
            table.queue.end(key, None);
        }
        let expected: std::collections::BTreeSet<u32> =
            due.keys().copied().filter(|key| table.work.contains_key(key)).collect();
        prop_assert!(expected.is_subset(&started), "{expected:?} {started:?}");
        prop_assert!(table.queue.entries.is_empty() && table.queue.timers.is_empty());
        prop_assert!(table.queue.scopes.is_empty() && table.queue.startable.is_empty());
        prop_assert!(table.queue.unresponsive_startable.is_empty());
        prop_assert_eq!(Lane::ALL.map(|lane| table.queue.waiting(lane)), [0; 4]);
    }
}
