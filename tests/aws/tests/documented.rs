//! Runs the commands of docs/simulated-aws.md as written against the real program, and compares their output
//! with the page.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const PAGE: &str = include_str!("../../../docs/simulated-aws.md");

/// Time after which the test gives up on a program that neither listens nor ends. It is no promise.
const GIVE_UP: Duration = Duration::from_mins(5);

/// The program; it is killed when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the fenced blocks of the page, as (info line, content).
fn blocks() -> Vec<(&'static str, &'static str)> {
    let mut parts = PAGE.split("```");
    parts.next();
    parts.step_by(2).filter_map(|block| block.split_once('\n')).collect()
}

/// Returns whether the output contains what the page shows. JSON is compared as JSON, so the order of fields
/// is ignored.
fn holds(printed: &str, promised: &str) -> bool {
    let fields = |text: &str| {
        serde_json::from_str::<Value>(text).or_else(|_| serde_json::from_str(&format!("{{{text}}}")))
    };
    let Ok(promised) = fields(promised.trim_end_matches(',')) else { return printed.contains(promised) };
    let documents = serde_json::Deserializer::from_str(printed).into_iter::<Value>().filter_map(Result::ok);
    documents.into_iter().any(|document| somewhere_in(&document, &promised))
}

fn somewhere_in(printed: &Value, promised: &Value) -> bool {
    let here = match (printed, promised) {
        (Value::Object(printed), Value::Object(promised)) => {
            promised.iter().all(|(name, value)| printed.get(name) == Some(value))
        }
        _ => printed == promised,
    };
    here || match printed {
        Value::Object(fields) => fields.values().any(|value| somewhere_in(value, promised)),
        Value::Array(values) => values.iter().any(|value| somewhere_in(value, promised)),
        _ => false,
    }
}

#[test]
fn documented_commands_print_documented_output() {
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: the page uses curl, and there is none here");
        return;
    }
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
    let here = |text: &str| text.replace("127.0.0.1:4599", &format!("127.0.0.1:{port}"));
    let mut running = None;
    let mut printed = String::new();
    let mut ran = 0;
    for (kind, content) in blocks() {
        match kind {
            "sh run" => {
                let command = here(content);
                let (_, arguments) = command.split_once(" -- ").expect("arguments");
                let program = Command::new(env!("CARGO_BIN_EXE_simulated-aws"))
                    .args(arguments.split_whitespace())
                    .stdout(Stdio::null())
                    .spawn()
                    .expect("started");
                let program = running.insert(Running(program));
                let end = Instant::now() + GIVE_UP;
                while TcpStream::connect(("127.0.0.1", port)).is_err() {
                    let ended = program.0.try_wait().expect("its state can be read");
                    assert!(ended.is_none(), "the program has ended: {ended:?}");
                    assert!(Instant::now() < end, "the program does not listen");
                    std::thread::sleep(Duration::from_millis(25));
                }
            }
            "sh" => {
                let mut shell = Command::new("sh");
                for name in simulated_aws::MACHINE_VARIABLES {
                    shell.env_remove(name);
                }
                let output = shell.args(["-e", "-c", &here(content)]).output().expect("a shell with curl");
                printed = String::from_utf8_lossy(&output.stdout).into_owned();
                let complaint = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{content}\n{printed}\n{complaint}");
                ran += 1;
            }
            "text" => {
                for line in content.lines() {
                    assert!(holds(&printed, line), "the page promises {line}, printed was {printed}");
                }
            }
            other => panic!("a block of an unknown kind: {other}"),
        }
    }
    assert!(running.is_some());
    assert_eq!(ran, 6, "the page's blocks are found");
}
