//! A mesh of real processes: one control plane, and sidecars beside it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use crate::binaries::binary;
use crate::operator::Operator;
use crate::process::Process;
use crate::relay::Relay;
use crate::sidecar::Workload;
use crate::wait::within;

/// A control plane and what is needed to start sidecars. Everything ends when it is dropped.
pub struct Mesh {
    folder: TempDir,
    control_plane: Option<Process>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    operator: Option<Operator>,
    /// The same, for sidecars, which outlive a control plane.
    shared: Arc<Mutex<Option<Operator>>>,
    /// What sidecars know as the control plane: it keeps its port while the control plane restarts.
    door: Relay,
    numbers: AtomicU32,
}

/// Settings of a [`Mesh`].
#[derive(Default)]
pub struct Builder {
    args: Vec<String>,
    env: Vec<(String, String)>,
    files: Vec<(String, String)>,
    reached_at: Option<IpAddr>,
}

impl Mesh {
    /// A control plane with an empty configuration folder.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// A control plane that has `yaml` applied.
    pub async fn with(yaml: &str) -> Self {
        let mesh = Self::start().await;
        mesh.apply(yaml).await;
        mesh
    }

    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The operator's client of the running control plane.
    pub fn operator(&self) -> &Operator {
        self.operator.as_ref().expect("the control plane runs")
    }

    /// Applies YAML and waits until every sidecar uses it.
    pub async fn apply(&self, yaml: &str) -> u64 {
        let generation = self.operator().apply(yaml).await;
        self.operator().in_use(generation).await;
        generation
    }

    /// A workload to be started: a sidecar, and perhaps an application.
    pub fn workload(&self, service: &str) -> Workload<'_> {
        Workload::new(self, service)
    }

    /// The proxy of a Gateway, to be started.
    pub fn gateway(&self, name: &str) -> Workload<'_> {
        Workload::gateway(self, name)
    }

    /// A sidecar without an application, from which tests call.
    pub async fn visitor(&self) -> crate::Sidecar {
        self.workload("visitor").start().await
    }

    /// The folder that the control plane watches for YAML.
    pub fn config_dir(&self) -> PathBuf {
        self.folder.path().join("mesh")
    }

    /// The control plane's data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where sidecars reach the control plane.
    pub fn control_plane_address(&self) -> SocketAddr {
        self.door.address
    }

    /// Where the control plane's gRPC itself listens.
    pub fn grpc_address(&self) -> SocketAddr {
        address_in(&self.data_dir()).expect("the control plane runs")
    }

    /// Where the control plane shows its pages.
    pub fn admin_address(&self) -> SocketAddr {
        let lines = self
            .control_plane
            .as_ref()
            .expect("the control plane runs")
            .stdout();
        let admin = lines.iter().find_map(|line| line.strip_prefix("admin "));
        admin
            .and_then(|address| address.parse().ok())
            .expect("an address")
    }

    pub fn control_plane(&mut self) -> &mut Process {
        self.control_plane.as_mut().expect("the control plane runs")
    }

    /// kill -9, and nothing answers for it any more.
    pub async fn kill_control_plane(&mut self) {
        self.control_plane().kill().await;
        self.control_plane = None;
        self.operator = None;
        *self.shared.lock().unwrap() = None;
        self.door.cut();
    }

    /// Starts a control plane on the same data and configuration.
    pub async fn start_control_plane(&mut self) {
        let data = self.data_dir();
        let process = Process::start(
            "control plane",
            &binary("weft-control-plane"),
            &self.args,
            &self.env,
        );
        process.line("ready").await;
        let address = process.line("grpc ").await.parse().expect("an address");
        let operator = within("the operator's connection", Operator::connect(&data)).await;
        self.operator = Some(operator.expect("the operator is let in"));
        self.shared.lock().unwrap().clone_from(&self.operator);
        self.control_plane = Some(process);
        self.door.set_target(address);
    }

    /// Another value of a flag of `weft-control-plane`, for its next start.
    pub fn set_arg(&mut self, flag: &str, value: &str) {
        self.args.extend([flag.to_owned(), value.to_owned()]);
    }

    /// Runs the `weft` command on this mesh's data folder, to its end.
    pub async fn weft(&self, args: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(binary("weft"));
        command
            .args(args)
            .env("WEFT_DATA", self.data_dir())
            .current_dir(self.path())
            .kill_on_drop(true);
        within(&format!("weft {args:?}"), command.output())
            .await
            .expect("weft runs")
    }

    pub(crate) fn shared_operator(&self) -> Arc<Mutex<Option<Operator>>> {
        self.shared.clone()
    }

    pub(crate) fn next_number(&self) -> u32 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}

impl Builder {
    /// A further flag of `weft-control-plane`.
    pub fn arg(mut self, flag: &str, value: &str) -> Self {
        self.args.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A file of the configuration folder.
    pub fn file(mut self, name: &str, yaml: &str) -> Self {
        self.files.push((name.to_owned(), yaml.to_owned()));
        self
    }

    /// Sidecars on other hosts reach the control plane at this address of the test.
    pub fn reached_at(self, address: IpAddr) -> Self {
        Self {
            reached_at: Some(address),
            ..self
        }
    }

    pub async fn start(self) -> Mesh {
        let folder = tempfile::Builder::new()
            .prefix("weft-test-")
            .tempdir()
            .expect("a folder");
        let (config, data) = (folder.path().join("mesh"), folder.path().join("data"));
        std::fs::create_dir(&config).expect("a folder");
        for (name, yaml) in &self.files {
            std::fs::write(config.join(name), yaml).expect("a file");
        }
        let flags = [
            ("--listen", "127.0.0.1:0".to_owned()),
            ("--admin", "127.0.0.1:0".to_owned()),
            ("--data", data.display().to_string()),
            ("--config", config.display().to_string()),
        ];
        let mut args: Vec<String> = flags
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value])
            .collect();
        args.extend(self.args);
        let mut mesh = Mesh {
            folder,
            control_plane: None,
            args,
            env: self.env,
            operator: None,
            shared: Arc::default(),
            door: Relay::forgetful_at(self.reached_at.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))).await,
            numbers: AtomicU32::new(0),
        };
        mesh.start_control_plane().await;
        mesh
    }
}

fn address_in(data: &Path) -> Option<SocketAddr> {
    std::fs::read_to_string(data.join("address"))
        .ok()?
        .trim()
        .parse()
        .ok()
}
