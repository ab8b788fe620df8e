//! kstatus, the library that Flux and `helm --wait` use, reports every state as `docs/conditions.md` says.
//!
//! `tests/suite/kstatus` is a Go program that calls the library.

use std::path::Path;
use std::process::Stdio;

use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::resource_states::{State, WORDS, every, table};

/// The result of kstatus for one resource.
#[derive(Deserialize)]
struct Answer {
    status: String,
    message: String,
}

/// Runs kstatus on all states.
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
    // The program reads all of its input before it writes, so this cannot deadlock.
    let mut pipe = run.stdin.take().expect("a pipe");
    pipe.write_all(&input).await.expect("it reads");
    drop(pipe);
    let output = run.wait_with_output().await.expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a list of answers")
}

#[tokio::test(flavor = "multi_thread")]
async fn kstatus_result_of_every_state_is_as_documented() {
    let (states, table) = (every(), table());
    let answers = ask(&states).await;
    assert_eq!(answers.len(), states.len());
    for (state, answer) in states.iter().zip(&answers) {
        assert_eq!(answer.status, table[state.row].kstatus, "{}: {}", state.row, state.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kstatus_message_repeats_ready_message() {
    let states = every();
    let answers = ask(&states).await;
    let told: Vec<_> = states
        .iter()
        .zip(&answers)
        .filter(|(state, _)| {
            ["progressing", "unknown", "stalled", "different, with mode: Observe"].contains(&state.row)
        })
        .collect();
    assert!(!told.is_empty());
    for (state, answer) in told {
        assert_eq!(answer.message, WORDS, "{}: {}", state.row, state.name);
    }
}
