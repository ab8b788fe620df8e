//! What kstatus, the library of Flux and of `helm --wait`, says of every state is what `docs/conditions.md` says it does.
//!
//! `tests/suite/kstatus` is a Go program around the library itself.

use std::path::Path;
use std::process::Stdio;

use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::states::{State, WORDS, every, table};

/// What kstatus says of one resource.
#[derive(Deserialize)]
struct Answer {
    status: String,
    message: String,
}

/// Asks kstatus about all of them.
async fn ask(states: &[State]) -> Vec<Answer> {
    let module = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/kstatus"));
    let program = test_cluster::build_go_program(module, ".", "kstatus").await.expect("kstatus is built");
    let resources: Vec<_> = states.iter().map(|state| &state.resource).collect();
    let input = serde_json::to_vec(&resources).expect("JSON");
    let mut run = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    // It reads all of its input before it answers, so neither waits for the other.
    let mut pipe = run.stdin.take().expect("a pipe");
    pipe.write_all(&input).await.expect("it reads");
    drop(pipe);
    let output = run.wait_with_output().await.expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a list of answers")
}

#[tokio::test(flavor = "multi_thread")]
async fn kstatus_says_of_every_state_what_is_documented() {
    let (states, table) = (every(), table());
    let answers = ask(&states).await;
    assert_eq!(answers.len(), states.len());
    for (state, answer) in states.iter().zip(&answers) {
        assert_eq!(answer.status, table[state.row].kstatus, "{}: {}", state.row, state.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_with_kstatus_is_told_what_ready_tells() {
    let states = every();
    let answers = ask(&states).await;
    let told: Vec<_> = states
        .iter()
        .zip(&answers)
        .filter(|(state, _)| ["progressing", "unknown", "stalled", "reported"].contains(&state.row))
        .collect();
    assert!(!told.is_empty());
    for (state, answer) in told {
        assert_eq!(answer.message, WORDS, "{}: {}", state.row, state.name);
    }
}
