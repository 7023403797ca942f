//! A TCP relay that records what passes, and whose target can change or be away.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Relays every connection to its target.
pub struct Relay {
    pub address: SocketAddr,
    target: watch::Sender<Option<SocketAddr>>,
    taken: Arc<Mutex<Vec<Taken>>>,
    _task: JoinSet<()>,
}

/// What passed over one connection.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// From whoever connected.
    pub forth: Vec<u8>,
    /// From the target.
    pub back: Vec<u8>,
}

impl Relay {
    /// A relay without a target: until it has one, connections are closed at once.
    pub async fn start() -> Self {
        Self::start_with(LOOPBACK, true).await
    }

    /// The same, but it keeps nothing of what passes.
    pub async fn start_forgetful() -> Self {
        Self::forgetful_at(LOOPBACK).await
    }

    /// As [`start_forgetful`](Self::start_forgetful), at an address that other hosts can reach.
    pub async fn forgetful_at(address: IpAddr) -> Self {
        Self::start_with(address, false).await
    }

    async fn start_with(address: IpAddr, record: bool) -> Self {
        let listener = TcpListener::bind((address, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (target, targets) = watch::channel(None);
        let taken: Arc<Mutex<Vec<Taken>>> = Arc::default();
        let mut task = JoinSet::new();
        task.spawn(accept(listener, targets, taken.clone(), record));
        Self {
            address,
            target,
            taken,
            _task: task,
        }
    }

    /// From now on connections go there. Connections to another target are cut.
    pub fn set_target(&self, target: SocketAddr) {
        self.target.send_replace(Some(target));
    }

    /// Cuts every connection, and closes new ones at once.
    pub fn cut(&self) {
        self.target.send_replace(None);
    }

    /// What passed so far, per connection.
    pub fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }
}

async fn accept(
    listener: TcpListener,
    targets: watch::Receiver<Option<SocketAddr>>,
    taken: Arc<Mutex<Vec<Taken>>>,
    record: bool,
) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        let (taken, mut targets) = (taken.clone(), targets.clone());
        let target = *targets.borrow_and_update();
        let Some(target) = target else { continue };
        connections.spawn(async move {
            let Ok(upstream) = TcpStream::connect(target).await else {
                return;
            };
            let (_, _) = (stream.set_nodelay(true), upstream.set_nodelay(true));
            let slot = record.then(|| {
                let mut all = taken.lock().unwrap();
                all.push(Taken::default());
                all.len() - 1
            });
            let (down_read, down_write) = stream.into_split();
            let (up_read, up_write) = upstream.into_split();
            let note = |forth: bool| {
                let taken = taken.clone();
                move |bytes: &[u8]| {
                    let Some(slot) = slot else { return };
                    let mut all = taken.lock().unwrap();
                    let side = if forth {
                        &mut all[slot].forth
                    } else {
                        &mut all[slot].back
                    };
                    side.extend_from_slice(bytes);
                }
            };
            let forth = pump(down_read, up_write, note(true));
            let back = pump(up_read, down_write, note(false));
            tokio::select! {
                _ = async { tokio::join!(forth, back) } => {}
                _ = targets.wait_for(|now| *now != Some(target)) => {}
            }
        });
    }
}

async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, note: impl Fn(&[u8])) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        note(&buffer[..read]);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
