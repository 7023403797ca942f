//! A child process: started, watched, and ended in an orderly way; its whole process group goes with it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};

/// How much of a log's end is read to show its last lines, in bytes.
const TAIL_BYTES: u64 = 8 * 1024;

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invocation {
    pub program: String,
    pub arguments: Vec<String>,
    /// Added to the environment of this process.
    pub env: Vec<(String, String)>,
}

/// A process that ends, together with what it started, when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    group: Option<Pid>,
}

impl Process {
    /// Starts a process in a group of its own, so that Ctrl-C in the terminal does not reach it before its time, with
    /// all it prints appended to `log`.
    pub(crate) fn start_logged(invocation: &Invocation, log: &Path) -> io::Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        let mut command = invocation.command();
        command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0);
        let child = command.spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self { child, group })
    }

    /// Starts a process that shares this one's terminal.
    pub(crate) fn start_attached(invocation: &Invocation) -> io::Result<Self> {
        Ok(Self {
            child: invocation.command().spawn()?,
            group: None,
        })
    }

    /// Waits for its end. Can be given up and called again.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.end_group();
        Ok(status)
    }

    /// How it ended, if it has.
    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten();
        if status.is_some() {
            self.end_group();
        }
        status
    }

    /// Sends a signal: to the group where it has one of its own.
    pub(crate) fn signal(&self, signal: Signal) {
        // A process that has ended already does not mind.
        let _ = match (self.group, self.child.id()) {
            (Some(group), _) => rustix::process::kill_process_group(group, signal),
            (None, Some(id)) => match i32::try_from(id).ok().and_then(Pid::from_raw) {
                Some(pid) => rustix::process::kill_process(pid, signal),
                None => Ok(()),
            },
            (None, None) => Ok(()),
        };
    }

    /// SIGTERM, and SIGKILL for what is still there after `grace`.
    pub(crate) async fn stop(mut self, grace: Duration) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        if let Ok(status) = tokio::time::timeout(grace, self.ended()).await {
            return status.ok();
        }
        self.signal(Signal::KILL);
        self.ended().await.ok()
    }

    /// Ends what the process started and left behind. Once: the group's number may be another's afterwards.
    fn end_group(&mut self) {
        if let Some(group) = self.group.take() {
            // Mostly there is nobody left.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end_group();
    }
}

impl Invocation {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .kill_on_drop(true);
        command
    }
}

/// The last lines of a log; empty where there is none.
pub(crate) fn last_lines(log: &PathBuf, lines: usize) -> Vec<String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all.iter()
        .skip(all.len().saturating_sub(lines))
        .map(|line| (*line).to_owned())
        .collect()
}

/// `exited with status 3`, `was ended by signal 9`.
pub(crate) fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncBufReadExt, BufReader};

    fn shell(script: &str) -> Invocation {
        let arguments = vec!["-c".to_owned(), script.to_owned()];
        Invocation {
            program: "sh".to_owned(),
            arguments,
            env: vec![("GREETING".to_owned(), "hello".to_owned())],
        }
    }

    #[tokio::test]
    async fn what_it_prints_is_in_the_log_and_how_it_ended_is_known() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let mut process = Process::start_logged(&shell("echo 1; echo $GREETING; echo bad >&2; exit 3"), &log)
            .expect("starts");
        let status = process.ended().await.expect("ends");
        assert_eq!(how(status), "exited with status 3");
        assert_eq!(last_lines(&log, 2), ["hello", "bad"]);
    }

    #[tokio::test]
    async fn one_that_ignores_sigterm_is_killed_with_all_it_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let (log, held) = (folder.path().join("log"), folder.path().join("held"));
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&held)
                .status()
                .expect("mkfifo")
                .success()
        );
        // Both processes hold the pipe open, so that its end tells that both are gone.
        let script = format!(
            "trap '' TERM; exec 3> {}; echo ready >&3; sleep 600 & wait; sleep 600",
            held.display()
        );
        let process = Process::start_logged(&shell(&script), &log).expect("starts");
        let mut pipe = BufReader::new(tokio::fs::File::open(&held).await.expect("opens"));
        let mut line = String::new();
        pipe.read_line(&mut line).await.expect("reads");
        assert_eq!(line, "ready\n");
        let stopped =
            tokio::time::timeout(Duration::from_secs(30), process.stop(Duration::from_millis(100))).await;
        let status = stopped.expect("does not wait for ever").expect("ends");
        assert_eq!(how(status), "was ended by signal 9");
        let closed = tokio::time::timeout(Duration::from_secs(30), pipe.read_line(&mut line)).await;
        assert_eq!(closed.expect("nobody holds the pipe").expect("reads"), 0);
    }
}
