//! Looks after the connections out of use of one upstream: they are closed when the other side ends them, and in time
//! where a policy says how long they are kept.

use std::rc::Weak;
use std::sync::Arc;
use std::task::Wake;
use std::time::Instant;

use tokio::sync::Notify;

use super::pool::Upstream;

/// Told when something comes on an idle connection, which is its end or nothing that was asked for; and when there is
/// another one to look after.
#[derive(Default)]
pub(super) struct Watch(Notify);

impl Watch {
    pub(super) fn look(&self) {
        self.0.notify_one();
    }
}

impl Wake for Watch {
    fn wake(self: Arc<Self>) {
        self.look();
    }
}

/// Closes what is over, until the upstream is gone. There is a timer only where a policy limits the time of a connection
/// that is out of use now.
pub(super) async fn look_after(watch: Arc<Watch>, watched: Weak<Upstream>) {
    let mut next = None;
    loop {
        match next {
            None => watch.0.notified().await,
            Some(at) => {
                let timer = tokio::time::sleep_until(Instant::into(at));
                tokio::select! {
                    () = watch.0.notified() => {}
                    () = timer => {}
                }
            }
        }
        let Some(upstream) = watched.upgrade() else {
            return;
        };
        upstream.close_idle(Instant::now());
        next = upstream.plan_next_look();
    }
}
