//! A background program that cannot outlive our process.
//!
//! Dropping a [`Process`] ends the program, and so does the end of our process, whatever the cause: the shell
//! that starts the program holds the read end of a pipe whose write end only we hold, and kills the program
//! when the pipe closes. `PR_SET_PDEATHSIG` is not sufficient: it follows the thread that started the
//! program, and each Rust test is a thread.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::Context as _;

/// `$$` is the shell's process id even in the subshell, and `exec` gives this id to the program. The program
/// is therefore watched from its start, and our [`Child`] is the program itself.
const WATCHED: &str = r#"exec 3<&0; { read -r _ <&3; kill -KILL $$; } & exec "$@" 3<&- </dev/null"#;

/// Settings of Go's garbage collector. Its default collects whenever the heap has doubled, which takes much of the CPU time of
/// etcd and of the API server, because their heaps are small. Here it collects when the heap has become four times as large,
/// or when the program uses this much memory. See <https://go.dev/doc/gc-guide>.
const GARBAGE_COLLECTION: [(&str, &str); 2] = [("GOGC", "300"), ("GOMEMLIMIT", "1536MiB")];

/// A program that runs until this value is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `program`; its output is appended to the file `log`.
    pub(crate) fn spawn(program: &Path, arguments: &[String], log: &Path) -> anyhow::Result<Self> {
        let log = File::options().create(true).append(true).open(log).context("cannot open a log file")?;
        let child = Command::new("sh")
            .args(["-c", WATCHED, "sh"])
            .arg(program)
            .args(arguments)
            .envs(GARBAGE_COLLECTION)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {} through `sh`", program.display()))?;
        Ok(Self { child })
    }

    /// Returns the program's process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the program's exit status, if it has ended.
    pub(crate) fn exited(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that the program has already ended. `wait` closes the pipe, which ends the watching
        // subshell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
