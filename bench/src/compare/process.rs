//! Processes that the comparison starts: each in a group of its own, and none outlives it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Between SIGTERM and SIGKILL.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// For a process to say that it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two looks at something that nobody announces.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Lines of a log that are shown when its process fails.
const LAST_LINES: usize = 15;

/// Groups that run, for [`stop_all`].
static GROUPS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Why a process is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    #[error("{program} cannot be started: {source}")]
    Start { program: String, source: io::Error },
    #[error("{program} ended with {status}:\n{log}")]
    Ended {
        program: String,
        status: ExitStatus,
        log: String,
    },
    #[error("{program} did not say {wanted:?} in time:\n{log}")]
    Silent {
        program: String,
        wanted: String,
        log: String,
    },
    #[error("{path}: {source}")]
    Log { path: PathBuf, source: io::Error },
}

/// A process that runs until it is dropped. Its standard error, and its standard output where nobody reads that, are
/// in a file.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    lines: Option<mpsc::Receiver<String>>,
}

impl Process {
    /// Starts `command` in a process group of its own, with its log in `folder`.
    pub(crate) fn start(name: &str, command: Command, folder: &Path) -> Result<Self, ProcessError> {
        Self::spawn(name, command, folder, false)
    }

    /// The same, with standard output to be read by [`Process::line`].
    pub(crate) fn start_talking(name: &str, command: Command, folder: &Path) -> Result<Self, ProcessError> {
        Self::spawn(name, command, folder, true)
    }

    fn spawn(name: &str, mut command: Command, folder: &Path, talks: bool) -> Result<Self, ProcessError> {
        let log = folder.join(format!("{name}.log"));
        let broken = |source| ProcessError::Log {
            path: log.clone(),
            source,
        };
        let file = File::create(&log).map_err(broken)?;
        let out = match talks {
            true => Stdio::piped(),
            false => Stdio::from(file.try_clone().map_err(broken)?),
        };
        without_surprises(&mut command);
        command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(file)
            .process_group(0);
        let mut child = spawn(&mut command)?;
        let lines = child.stdout.take().map(|stdout| {
            let (sender, lines) = mpsc::channel();
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    // Nobody may listen any more; the pipe is read to its end all the same.
                    let _ = sender.send(line);
                }
            });
            lines
        });
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
            lines,
        })
    }

    /// Reads standard output up to a line that begins with `prefix`; the lines before it, and this one.
    pub(crate) fn lines_until(&mut self, prefix: &str) -> Result<Vec<String>, ProcessError> {
        let end = Instant::now() + READY_TIMEOUT;
        let mut seen = Vec::new();
        while let Some(lines) = &self.lines {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let is_last = line.starts_with(prefix);
                    seen.push(line);
                    if is_last {
                        return Ok(seen);
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => break,
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    // Its output ended, so it ends.
                    thread::sleep(LOOK_EVERY);
                    self.check()?;
                    break;
                }
            }
        }
        Err(ProcessError::Silent {
            program: self.name.clone(),
            wanted: prefix.to_owned(),
            log: self.last_words(),
        })
    }

    /// An error where the process has ended.
    pub(crate) fn check(&mut self) -> Result<(), ProcessError> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(ProcessError::Ended {
                program: self.name.clone(),
                status,
                log: self.last_words(),
            }),
            _ => Ok(()),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The end of the log.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LAST_LINES);
        lines.get(from..).unwrap_or_default().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let group = self.child.id().cast_signed();
        signal_group(group, Signal::TERM);
        let end = Instant::now() + STOP_TIMEOUT;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            thread::sleep(LOOK_EVERY);
        }
        // Also what its leader left behind.
        signal_group(group, Signal::KILL);
        let _ = self.child.wait();
        running().remove(&group);
    }
}

/// Runs a command to its end, as one of the processes that [`stop_all`] stops; what it printed on both outputs.
pub(crate) fn output(mut command: Command) -> Result<String, ProcessError> {
    without_surprises(&mut command);
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let child = spawn(&mut command)?;
    let group = child.id().cast_signed();
    let result = child.wait_with_output();
    running().remove(&group);
    let output = result.map_err(|source| ProcessError::Start {
        program: program.clone(),
        source,
    })?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Err(ProcessError::Ended {
        program,
        status: output.status,
        log: text,
    })
}

/// Kills every group that was started and runs still, removes `folder` and ends this process. Nothing can be started
/// meanwhile.
pub(crate) fn stop_all(folder: &Path, status: i32) -> ! {
    let groups = running();
    for group in groups.iter() {
        signal_group(*group, Signal::KILL);
    }
    // What is left of it is of no use.
    let _ = std::fs::remove_dir_all(folder);
    std::process::exit(status)
}

/// Starts a process and remembers its group, in one.
fn spawn(command: &mut Command) -> Result<Child, ProcessError> {
    let mut groups = running();
    let child = command.spawn().map_err(|source| ProcessError::Start {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    })?;
    groups.insert(child.id().cast_signed());
    Ok(child)
}

/// What of the caller's environment would change what is measured stays behind.
fn without_surprises(command: &mut Command) {
    for (key, _) in std::env::vars_os() {
        let upper = key.to_string_lossy().to_uppercase();
        if upper.starts_with("WEFT_") || upper.starts_with("OTEL_") || upper.ends_with("_PROXY") {
            command.env_remove(key);
        }
    }
}

fn signal_group(group: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(group) {
        // It may have ended already.
        let _ = kill_process_group(pid, signal);
    }
}

fn running() -> std::sync::MutexGuard<'static, BTreeSet<i32>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}
