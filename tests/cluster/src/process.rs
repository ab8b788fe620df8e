//! One program in the background that cannot outlive us.
//!
//! Dropping a [`Process`] ends the program, and so does the death of our process by whatever cause: the program's starter
//! holds the read end of a pipe whose write end only we hold, and kills the program when the pipe closes.
//! `PR_SET_PDEATHSIG` would not do: it follows the thread that started the program, and each Rust test is a thread.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::Context as _;

/// `$$` stays the shell's process id in the subshell, and `exec` makes it the program's. So there is no moment at which the
/// program runs unwatched, and our [`Child`] is the program itself.
const WATCHED: &str = r#"exec 3<&0; { read -r _ <&3; kill -KILL $$; } & exec "$@" 3<&- </dev/null"#;

/// A program that runs until this value is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `program` with its output in the file `log`, which is appended to.
    pub(crate) fn spawn(program: &Path, arguments: &[String], log: &Path) -> anyhow::Result<Self> {
        let log = File::options().create(true).append(true).open(log).context("cannot open a log file")?;
        let child = Command::new("sh")
            .args(["-c", WATCHED, "sh"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {} through `sh`", program.display()))?;
        Ok(Self { child })
    }

    /// The program's process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How the program ended, if it has ended.
    pub(crate) fn exited(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that the program has ended already. `wait` closes the pipe, which ends the watching subshell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
