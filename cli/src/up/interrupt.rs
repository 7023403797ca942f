//! Ctrl-C and SIGTERM: the first asks for an orderly end, the second for an immediate one.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Watches for the signals for as long as it lives.
#[derive(Debug)]
pub(crate) struct Interrupts {
    /// Cancelled by the first signal.
    pub stop: CancellationToken,
    /// Cancelled by the second.
    pub abort: CancellationToken,
    watcher: JoinHandle<()>,
}

impl Interrupts {
    pub(crate) fn watch() -> io::Result<Self> {
        let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let tokens = [stop.clone(), abort.clone()];
        let watcher = tokio::spawn(async move {
            for token in tokens {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                token.cancel();
            }
        });
        Ok(Self { stop, abort, watcher })
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}
