//! Weft as its users run it: the release binaries of the control plane, the sidecars and the command.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::operator::Operator;
use super::ports;
use super::process::{self, Process, ProcessError};

/// What a sidecar and a control plane print when they serve.
const READY: &str = "ready";
/// The folder that the control plane watches.
const WATCHED: &str = "watched";

/// Why there is no mesh.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeshError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("`weft status` names no generation:\n{0}")]
    Status(String),
    #[error("the operator's connection: {0}")]
    Operator(String),
    #[error("no port: {0}")]
    Port(#[source] io::Error),
    #[error("{path}: {source}")]
    Write { path: PathBuf, source: io::Error },
}

/// A control plane, and what is needed to start sidecars.
#[derive(Debug)]
pub(crate) struct Mesh {
    binaries: PathBuf,
    folder: PathBuf,
    address: SocketAddr,
    numbers: AtomicU32,
    _control_plane: Process,
}

/// A file that the control plane watches, and where its next version is written.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    new: PathBuf,
    path: PathBuf,
}

/// A sidecar to be started.
#[derive(Debug, Default)]
pub(crate) struct Workload {
    pub(crate) service: String,
    /// `NAME=IP:PORT`, as `--app` takes it.
    pub(crate) apps: Vec<String>,
    /// `SERVICE:PORT=IP:PORT`, as `--local` takes it.
    pub(crate) locals: Vec<String>,
}

/// A running sidecar.
#[derive(Debug)]
pub(crate) struct Sidecar {
    pub(crate) process: Process,
    pub(crate) outbound: SocketAddr,
    pub(crate) inbound: SocketAddr,
    /// Keeps its identity.
    pub(crate) data: PathBuf,
}

impl Watched {
    /// Replaces the file; nothing waits for it to be in use.
    pub(crate) fn write(&self, yaml: &str) -> Result<(), MeshError> {
        write(&self.new, yaml)?;
        fs::rename(&self.new, &self.path).map_err(|source| MeshError::Write {
            path: self.path.clone(),
            source,
        })
    }
}

impl Mesh {
    /// Starts a control plane from the binaries of a folder.
    pub(crate) fn start(binaries: &Path, folder: &Path) -> Result<Self, MeshError> {
        let address = ports::free().map_err(MeshError::Port)?;
        let admin = ports::free().map_err(MeshError::Port)?;
        let folder = folder.join("weft");
        let watched = folder.join(WATCHED);
        fs::create_dir_all(&watched).map_err(|source| MeshError::Write {
            path: watched.clone(),
            source,
        })?;
        let mut command = Command::new(binaries.join("weft-control-plane"));
        command
            .arg(format!("--listen={address}"))
            .arg(format!("--admin={admin}"))
            .arg("--data")
            .arg(folder.join("data"))
            .arg("--config")
            .arg(&watched);
        let mut control_plane = Process::start_talking("control-plane", command, &folder)?;
        control_plane.lines_until(READY)?;
        Ok(Self {
            binaries: binaries.to_owned(),
            folder,
            address,
            numbers: AtomicU32::new(0),
            _control_plane: control_plane,
        })
    }

    /// Applies YAML, and waits until every sidecar that it concerns uses it.
    pub(crate) fn apply(&self, yaml: &str) -> Result<(), MeshError> {
        let path = self.folder.join(format!("apply-{}.yaml", self.number()));
        write(&path, yaml)?;
        let mut command = self.weft();
        command.arg("apply").arg("--wait").arg("-f").arg(&path);
        self.with_data(&mut command);
        process::output(command)?;
        Ok(())
    }

    /// An operator with one kept connection.
    pub(crate) fn operator(&self) -> Result<Operator, MeshError> {
        Operator::connect(&self.folder.join("data"))
    }

    /// A file of the folder that the control plane watches.
    pub(crate) fn watched(&self, name: &str) -> Watched {
        Watched {
            new: self.folder.join(name),
            path: self.folder.join(WATCHED).join(name),
        }
    }

    /// Starts a sidecar and waits until it serves.
    pub(crate) fn sidecar(&self, workload: &Workload) -> Result<Sidecar, MeshError> {
        let port = || ports::free().map_err(MeshError::Port);
        let (outbound, inbound, admin, metrics) = (port()?, port()?, port()?, port()?);
        let name = format!("{}-{}", workload.service, self.number());
        let data = self.folder.join(&name);
        let token = self.token(&workload.service)?;
        let mut command = Command::new(self.binaries.join("weft-proxy"));
        command
            .arg(format!("--service={}", workload.service))
            .arg(format!("--workload-id={name}"))
            .arg(format!("--control-plane={}", self.address))
            .arg("--data")
            .arg(&data)
            .arg("--token-file")
            .arg(&token)
            .arg(format!("--outbound={outbound}"))
            .arg(format!("--inbound={inbound}"))
            .arg(format!("--admin={admin}"))
            .arg(format!("--metrics={metrics}"));
        command.args(workload.apps.iter().map(|app| format!("--app={app}")));
        command.args(workload.locals.iter().map(|local| format!("--local={local}")));
        let mut process = Process::start_talking(&name, command, &self.folder)?;
        process.lines_until(READY)?;
        Ok(Sidecar {
            process,
            outbound,
            inbound,
            data,
        })
    }

    /// How often the configuration has changed.
    pub(crate) fn generation(&self) -> Result<u64, MeshError> {
        let mut command = self.weft();
        command.arg("status");
        self.with_data(&mut command);
        let text = process::output(command)?;
        // `trust domain cluster.local, generation 7, authority expires in 364d`
        let after = text.split_once("generation ").map(|(_, after)| after);
        let number = after.and_then(|after| after.split(',').next()?.trim().parse().ok());
        number.ok_or(MeshError::Status(text))
    }

    /// A file with a join token.
    fn token(&self, account: &str) -> Result<PathBuf, MeshError> {
        let mut command = self.weft();
        command.args(["token", "create", "--service-account", account]);
        self.with_data(&mut command);
        let path = self.folder.join(format!("token-{}", self.number()));
        write(&path, &process::output(command)?)?;
        Ok(path)
    }

    fn weft(&self) -> Command {
        Command::new(self.binaries.join("weft"))
    }

    fn with_data(&self, command: &mut Command) {
        command.arg("--data").arg(self.folder.join("data"));
    }

    fn number(&self) -> u32 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}

fn write(path: &Path, text: &str) -> Result<(), MeshError> {
    fs::write(path, text).map_err(|source| MeshError::Write {
        path: path.to_owned(),
        source,
    })
}
