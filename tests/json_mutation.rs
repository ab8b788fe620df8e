//! For tests: stored JSON after a manual edit, after disk corruption, or as another version wrote it.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

/// One modification at some place in a value.
#[derive(Clone, Debug)]
pub enum JsonMutation {
    Remove,
    Replace(Value),
    Add(&'static str, Value),
    /// Repeats an item of a list the given number of times; `apart` gives each copy its own id or type.
    Repeat {
        times: usize,
        apart: bool,
    },
}

/// Generates up to `most` modifications and their places. `members` may be added where they do not belong.
/// `words`, and times within `times` (seconds since 1970), are among the replacement values.
pub fn mutations(
    most: usize,
    members: &[&'static str],
    words: &[&'static str],
    times: std::ops::Range<i64>,
) -> impl Strategy<Value = Vec<(Index, JsonMutation)>> + use<> {
    let thing = prop_oneof![
        3 => prop::sample::select(words.to_vec()).prop_map(Value::from),
        2 => prop::sample::select(TEXTS.to_vec()).prop_map(Value::from),
        2 => times.prop_map(|at| json!(jiff::Timestamp::from_second(at).unwrap().to_string())),
        1 => any::<String>().prop_map(Value::from),
        1 => (1_usize..20_000).prop_map(|length| Value::from("ü".repeat(length))),
        2 => prop::sample::select(vec![
            json!(null), json!(true), json!(false), json!(-1), json!(0), json!(4_294_967_295_u32),
            json!(4_294_967_296_u64), json!(1e300), json!([]), json!({}), json!([null]), json!({"action": "Stop"}),
        ]),
    ]
    .boxed();
    let added = (prop::sample::select(members.to_vec()), thing.clone());
    let times = prop_oneof![4 => 1_usize..40, 1 => Just(300)];
    let damage = prop_oneof![
        4 => Just(JsonMutation::Remove),
        8 => thing.prop_map(JsonMutation::Replace),
        2 => added.prop_map(|(name, value)| JsonMutation::Add(name, value)),
        3 => (times, prop::bool::weighted(0.7)).prop_map(|(times, apart)| JsonMutation::Repeat { times, apart }),
    ];
    prop::collection::vec((any::<Index>(), damage), 0..=most)
}

/// Texts that may replace any value.
const TEXTS: [&str; 12] = [
    "",
    "Perhaps",
    "Enabled\u{0}",
    "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks",
    "2025-12-31T23:59:60Z",
    "9999-12-30T22:00:00.999999Z",
    "-009999-01-02T01:59:59Z",
    "-9999-01-02T01:59:59Z",
    "0000-01-01T00:00:00Z",
    "yesterday",
    "../../x",
    "\n",
];

/// Applies the modifications to the value, each to the result of the previous one.
pub fn mutated(mut value: Value, damages: &[(Index, JsonMutation)]) -> Value {
    for (at, damage) in damages {
        let place = at.get(&places(&value, "")).clone();
        match damage {
            JsonMutation::Remove => remove(&mut value, &place),
            JsonMutation::Replace(new) => *value.pointer_mut(&place).unwrap() = new.clone(),
            JsonMutation::Add(name, new) => {
                if let Some(members) = value.pointer_mut(&place).and_then(Value::as_object_mut) {
                    members.insert((*name).to_owned(), new.clone());
                }
            }
            JsonMutation::Repeat { times, apart } => repeat(&mut value, *at, *times, *apart),
        }
    }
    value
}

/// Returns every place in a value as a JSON pointer.
fn places(value: &Value, at: &str) -> Vec<String> {
    let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
    let below = |name: &str, value: &Value| places(value, &format!("{at}/{}", escaped(name)));
    let mut all = vec![at.to_owned()];
    match value {
        Value::Object(members) => all.extend(members.iter().flat_map(|(name, value)| below(name, value))),
        Value::Array(items) => {
            all.extend(items.iter().enumerate().flat_map(|(at, value)| below(&at.to_string(), value)));
        }
        _ => {}
    }
    all
}

fn remove(value: &mut Value, place: &str) {
    let Some((parent, name)) = place.rsplit_once('/') else { return *value = Value::Null };
    match value.pointer_mut(parent).unwrap() {
        Value::Object(members) => drop(members.remove(&name.replace("~1", "/").replace("~0", "~"))),
        Value::Array(items) => drop(items.remove(name.parse().unwrap())),
        _ => {}
    }
}

fn repeat(value: &mut Value, at: Index, times: usize, apart: bool) {
    let lists = places(value, "");
    let lists: Vec<&String> =
        lists.iter().filter(|place| value.pointer(place).is_some_and(|list| list.get(0).is_some())).collect();
    if lists.is_empty() {
        return;
    }
    let list = value.pointer_mut(lists[at.index(lists.len())]).and_then(Value::as_array_mut).unwrap();
    let item = at.get(list).clone();
    for n in 0..times {
        let mut again = item.clone();
        for name in ["id", "type"] {
            if let Some(member) = again.get_mut(name).filter(|_| apart) {
                *member = json!(format!("Again{n}-{}", at.index(1_000_000)));
            }
        }
        list.push(again);
    }
}
