//! One process under test: what it prints is kept, and it does not outlive its test.

use std::fmt::Write;
use std::io::{BufRead, BufReader, PipeReader};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, kill_process, pidfd_getfd, pidfd_open};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::wait::within;

/// A running process.
pub struct Process {
    name: String,
    child: Child,
    pid: Pid,
    stdout: watch::Receiver<Lines>,
    stderr: watch::Receiver<Lines>,
    readers: [Option<JoinHandle<()>>; 2],
    exited: Option<ExitStatus>,
}

/// What came out of a process so far.
#[derive(Debug, Clone, Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

impl Process {
    /// Starts `program` in an environment without `WEFT_*`, `OTEL_*` and proxy variables but those given.
    pub fn start(name: &str, program: &Path, args: &[String], env: &[(String, String)]) -> Self {
        let mut command = Command::new(program);
        for (key, _) in std::env::vars() {
            let upper = key.to_uppercase();
            if upper.starts_with("WEFT_") || upper.starts_with("OTEL_") || upper.ends_with("_PROXY") {
                command.env_remove(key);
            }
        }
        command
            .args(args)
            .envs(env.iter().map(|(key, value)| (key, value)));
        let (out, to_out) = std::io::pipe().expect("a pipe");
        let (err, to_err) = std::io::pipe().expect("a pipe");
        command
            .stdin(Stdio::null())
            .stdout(to_out)
            .stderr(to_err)
            .kill_on_drop(true);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let pid = child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()))
            .expect("a process id");
        let (stdout, out) = keep(out);
        let (stderr, err) = keep(err);
        Self {
            name: name.to_owned(),
            child,
            pid,
            stdout,
            stderr,
            readers: [Some(out), Some(err)],
            exited: None,
        }
    }

    /// Waits for a line on standard output that begins with `prefix`, and returns the rest of it. Fails where
    /// the process ends before.
    pub async fn line(&self, prefix: &str) -> String {
        find(&self.stdout, &self.name, prefix, |line| {
            line.strip_prefix(prefix).map(str::to_owned)
        })
        .await
    }

    /// Waits for a line of the log, on standard error, that contains `text`.
    pub async fn log_line(&self, text: &str) -> String {
        find(&self.stderr, &self.name, text, |line| {
            line.contains(text).then(|| line.to_owned())
        })
        .await
    }

    /// All lines of standard output so far.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.borrow().lines.clone()
    }

    /// All lines of the log so far.
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.borrow().lines.clone()
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Resident memory in bytes, as the kernel says.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid.as_raw_nonzero()));
        let status = status.expect("the process lives");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("VmRSS");
        let kib = line
            .split_whitespace()
            .nth(1)
            .and_then(|text| text.parse::<u64>().ok());
        kib.expect("a number") * 1024
    }

    /// Its connections to `peer`, as handles of this process on the same sockets. `None` where the system gives none.
    pub fn connections_to(&self, peer: SocketAddr) -> Option<Vec<TcpStream>> {
        let process = pidfd_open(self.pid, PidfdFlags::empty()).ok()?;
        let folder = std::fs::read_dir(format!("/proc/{}/fd", self.pid.as_raw_nonzero())).ok()?;
        let mut found = Vec::new();
        for entry in folder {
            let name = entry.ok()?.file_name();
            let number = name.to_str().and_then(|name| name.parse().ok())?;
            match pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) {
                Ok(handle) => {
                    let stream = TcpStream::from(handle);
                    if stream.peer_addr().is_ok_and(|address| address == peer) {
                        found.push(stream);
                    }
                }
                // It was closed meanwhile.
                Err(Errno::BADF) => {}
                Err(_) => return None,
            }
        }
        Some(found)
    }

    /// Whether the process has not ended.
    pub fn is_running(&mut self) -> bool {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().expect("the process can be asked");
        }
        self.exited.is_none()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap_or_else(|error| panic!("signal to {}: {error}", self.name));
    }

    /// Waits for the end, and returns how it ended; everything that it printed is known then.
    pub async fn ended(&mut self) -> ExitStatus {
        if let Some(status) = self.exited {
            return status;
        }
        let status = within(&format!("the end of {}", self.name), self.child.wait()).await;
        let status = status.expect("the process can be waited for");
        for lines in [&self.stdout, &self.stderr] {
            let mut lines = lines.clone();
            drop(within("the end of its output", lines.wait_for(|lines| lines.ended)).await);
        }
        self.exited = Some(status);
        status
    }

    /// SIGKILL, and its end.
    pub async fn kill(&mut self) {
        if self.is_running() {
            self.signal(Signal::KILL);
            self.ended().await;
        }
    }

    /// SIGTERM, and its end.
    pub async fn terminate(&mut self) -> ExitStatus {
        if self.is_running() {
            self.signal(Signal::TERM);
        }
        self.ended().await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.start_kill();
        if std::thread::panicking() {
            // They end with the process; then everything that it said is known.
            self.readers
                .iter_mut()
                .filter_map(Option::take)
                .for_each(|reader| drop(reader.join()));
            let mut text = format!("---- {} ----\n", self.name);
            for (from, lines) in [("out", &self.stdout), ("err", &self.stderr)] {
                let lines = &lines.borrow().lines;
                for line in lines.iter().skip(lines.len().saturating_sub(200)) {
                    let _ = writeln!(text, "{from}| {line}");
                }
            }
            eprint!("{text}");
        }
    }
}

/// Reads on a thread: it goes on while the test's own runtime does not.
fn keep(pipe: PipeReader) -> (watch::Receiver<Lines>, JoinHandle<()>) {
    let (sender, receiver) = watch::channel(Lines::default());
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            sender.send_modify(|lines| lines.lines.push(line));
        }
        sender.send_modify(|lines| lines.ended = true);
    });
    (receiver, reader)
}

async fn find<T>(
    lines: &watch::Receiver<Lines>,
    name: &str,
    what: &str,
    pick: impl Fn(&str) -> Option<T>,
) -> T {
    let mut lines = lines.clone();
    let found: Arc<Mutex<Option<T>>> = Arc::default();
    let look = lines.wait_for(|lines| {
        let hit = lines.lines.iter().find_map(|line| pick(line));
        let is_hit = hit.is_some();
        *found.lock().unwrap() = hit;
        is_hit || lines.ended
    });
    drop(within(&format!("{what:?} from {name}"), look).await);
    let found = found.lock().unwrap().take();
    found.unwrap_or_else(|| panic!("{name} ended without {what:?}"))
}
