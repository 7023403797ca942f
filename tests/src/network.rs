//! Hosts with cables between them: network namespaces on one bridge, so that a test can cut, blackhole and disturb links.
//!
//! A test moves itself into the namespace of the bridge ([`Network::start`]), and starts processes and applications on
//! its hosts ([`Host::inside`]). Nothing of it touches the machine's own network.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::FutureExt;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Namespaces of one test. They are removed when it is dropped; those of a test that was killed, by the next one.
pub struct Network {
    prefix: String,
    hosts: std::cell::Cell<u8>,
    /// Where the test's thread was before.
    outside: OwnedFd,
    bridge: OwnedFd,
}

/// A machine of its own, as far as the network is concerned.
pub struct Host {
    /// Of its only interface, `eth0`.
    pub address: IpAddr,
    /// The namespace of the bridge, and the port of the bridge that its cable is plugged into.
    bridge: String,
    port: String,
    space: String,
    handle: OwnedFd,
    back: OwnedFd,
}

const PREFIX: &str = "weft-test-";

impl Network {
    /// Moves the test's thread into a network without hosts. `None`: this machine does not allow it.
    ///
    /// Only the thread that calls this is moved: use it in tests with a `current_thread` runtime.
    pub fn start() -> Option<Self> {
        static NUMBERS: AtomicU32 = AtomicU32::new(0);
        remove_orphans();
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{number}", std::process::id());
        let bridge = format!("{prefix}-bridge");
        let made = try_ip(&["netns", "add", &bridge])?;
        if !made.status.success() || !can_filter(&bridge) {
            try_ip(&["netns", "del", &bridge]);
            return None;
        }
        for command in [
            "link set lo up",
            "link add br0 type bridge",
            "addr add 10.77.0.1/24 dev br0",
            "link set br0 up",
        ] {
            ip_in(&bridge, command);
        }
        let network = Self {
            outside: current(),
            bridge: handle_of(&bridge),
            hosts: std::cell::Cell::new(1),
            prefix,
        };
        enter(&network.bridge);
        Some(network)
    }

    /// The address of the test itself, and of what it starts without naming a host.
    pub fn address(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1))
    }

    /// One more host, with its cable plugged in.
    pub fn host(&self, name: &str) -> Arc<Host> {
        let number = self.hosts.get() + 1;
        self.hosts.set(number);
        let bridge = format!("{}-bridge", self.prefix);
        let space = format!("{}-{name}", self.prefix);
        let port = format!("port{number}");
        let address = Ipv4Addr::new(10, 77, 0, number);
        ip(&["netns", "add", &space]);
        ip_in(
            &bridge,
            &format!("link add {port} type veth peer name eth0 netns {space}"),
        );
        ip_in(&bridge, &format!("link set {port} master br0 up"));
        ip_in(&space, "link set lo up");
        ip_in(&space, &format!("addr add {address}/24 dev eth0"));
        ip_in(&space, "link set eth0 up");
        Arc::new(Host {
            address: IpAddr::V4(address),
            handle: handle_of(&space),
            back: current(),
            bridge,
            port,
            space,
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        enter(&self.outside);
        remove(|space| space.starts_with(&format!("{}-", self.prefix)));
    }
}

impl Host {
    /// Runs `begin` on this host: sockets that it opens and processes that it starts are there for good.
    pub fn inside<T>(&self, begin: impl FnOnce() -> T) -> T {
        let _back = Inside::enter(self);
        begin()
    }

    /// As [`inside`](Self::inside), for an application whose start has nothing to wait for.
    pub fn start<T>(&self, begin: impl Future<Output = T>) -> T {
        self.inside(|| begin.now_or_never().expect("a start without waiting"))
    }

    /// Pulls the cable.
    pub fn cut(&self) {
        ip_in(&self.bridge, &format!("link set {} down", self.port));
    }

    /// Plugs the cable in again.
    pub fn mend(&self) {
        ip_in(&self.bridge, &format!("link set {} up", self.port));
    }

    /// Whatever comes from the network is dropped without a word, this share of 100 of it.
    pub fn lose(&self, percent: u8) {
        let rule = match percent {
            100.. => "drop".to_owned(),
            _ => format!("numgen random mod 100 < {percent} drop"),
        };
        self.filter(&format!("iifname eth0 {rule}"));
    }

    /// Whatever comes from `other` is dropped without a word.
    pub fn drop_from(&self, other: IpAddr) {
        self.filter(&format!("ip saddr {other} drop"));
    }

    /// What this one port answers is dropped without a word.
    pub fn drop_answers_of(&self, server: SocketAddr) {
        self.filter(&format!(
            "ip saddr {} tcp sport {} drop",
            server.ip(),
            server.port()
        ));
    }

    /// Nothing is dropped any more.
    pub fn lose_nothing(&self) {
        nft(&self.space, "flush ruleset");
    }

    fn filter(&self, rule: &str) {
        nft(
            &self.space,
            &format!(
                "table ip faults {{ chain arriving {{ type filter hook input priority 0; {rule}; }}\n}}"
            ),
        );
    }
}

/// The thread is on a host until this is dropped.
struct Inside<'h>(&'h Host);

impl<'h> Inside<'h> {
    fn enter(host: &'h Host) -> Self {
        enter(&host.handle);
        Self(host)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        enter(&self.0.back);
    }
}

fn current() -> OwnedFd {
    std::fs::File::open("/proc/thread-self/ns/net")
        .expect("this thread's namespace")
        .into()
}

fn handle_of(space: &str) -> OwnedFd {
    let path = Path::new("/run/netns").join(space);
    std::fs::File::open(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .into()
}

fn enter(space: &OwnedFd) {
    move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("a namespace to move into");
}

fn can_filter(space: &str) -> bool {
    let listed = try_ip(&["netns", "exec", space, "nft", "list", "ruleset"]);
    listed.is_some_and(|output| output.status.success())
}

fn nft(space: &str, text: &str) {
    ip(&["netns", "exec", space, "nft", text]);
}

fn ip_in(space: &str, command: &str) {
    let words: Vec<&str> = ["-n", space].into_iter().chain(command.split(' ')).collect();
    ip(&words);
}

fn ip(args: &[&str]) {
    let output = try_ip(args).expect("ip runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {args:?}: {errors}");
}

fn try_ip(args: &[&str]) -> Option<Output> {
    Command::new("ip").args(args).output().ok()
}

/// Removes the namespaces of tests that do not run any more.
fn remove_orphans() {
    remove(|space| {
        let pid = space.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
    });
}

fn remove(is_meant: impl Fn(&str) -> bool) {
    let Ok(spaces) = std::fs::read_dir("/run/netns") else {
        return;
    };
    for space in spaces.filter_map(Result::ok) {
        if let Some(name) = space.file_name().to_str().filter(|name| is_meant(name)) {
            // Another test may have been faster.
            try_ip(&["netns", "del", name]);
        }
    }
}
