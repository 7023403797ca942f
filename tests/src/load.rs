//! Steady traffic beside what a test does: one call after the other, and what became of each.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::{Answer, Http};
use crate::wait::within;

/// Callers that call until they are stopped, half of them on connections that they keep.
pub struct Load {
    counts: watch::Receiver<Counts>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// What became of the calls.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub calls: usize,
    /// Answers by their header `x-app`.
    pub by_app: BTreeMap<String, usize>,
    /// Whatever was not 200, in words; at most a hundred are kept.
    pub failures: Vec<String>,
}

impl Load {
    /// Begins to call `url` through the outbound port of a sidecar.
    pub fn start(outbound: SocketAddr, url: &str) -> Self {
        let (note, counts) = watch::channel(Counts::default());
        let (stop, stopped) = watch::channel(false);
        let (note, mut tasks) = (Arc::new(note), JoinSet::new());
        for keeps in [true, false] {
            tasks.spawn(call(
                outbound,
                url.to_owned(),
                keeps,
                note.clone(),
                stopped.clone(),
            ));
        }
        Self { counts, stop, tasks }
    }

    /// What became of the calls so far.
    pub fn counts(&self) -> Counts {
        self.counts.borrow().clone()
    }

    /// Waits for `count` more calls to end.
    pub async fn more(&self, count: usize) {
        self.until(&format!("{count} more calls"), {
            let wanted = self.counts().calls + count;
            move |counts| counts.calls >= wanted
        })
        .await;
    }

    /// Waits until the counts are as `wanted`.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Counts) -> bool) {
        let mut counts = self.counts.clone();
        within(what, counts.wait_for(|counts| wanted(counts)))
            .await
            .expect("callers call");
    }

    /// Lets the calls that are out finish, and returns what became of all.
    pub async fn stop(mut self) -> Counts {
        self.stop.send_replace(true);
        while let Some(ended) = within("the last calls", self.tasks.join_next()).await {
            ended.expect("a caller");
        }
        self.counts()
    }
}

impl Counts {
    /// Fails where a call failed.
    pub fn assert_no_failure(&self) {
        assert!(
            self.failures.is_empty(),
            "{} calls: {:#?}",
            self.calls,
            self.failures
        );
        assert!(self.calls > 0);
    }
}

async fn call(
    outbound: SocketAddr,
    url: String,
    keeps: bool,
    note: Arc<watch::Sender<Counts>>,
    stopped: watch::Receiver<bool>,
) {
    let mut client = Http::http1(outbound).await;
    while !*stopped.borrow() {
        if !keeps {
            client = Http::http1(outbound).await;
        }
        let call = crate::client::request("GET", &url)
            .body(crate::client::nothing())
            .expect("a request");
        let answer = client.try_send(call).await;
        let is_broken = answer.is_err();
        note.send_modify(|counts| counts.note(answer.map_err(|error| error.to_string())));
        if is_broken {
            client = Http::http1(outbound).await;
        }
    }
}

impl Counts {
    fn note(&mut self, answer: Result<Answer, String>) {
        self.calls += 1;
        let failure = match answer {
            Ok(answer) if answer.status == 200 => {
                *self.by_app.entry(answer.header("x-app").to_owned()).or_default() += 1;
                return;
            }
            Ok(answer) => format!("call {}: {:?} {}", self.calls, answer.verdict(), answer.text()),
            Err(error) => format!("call {}: {error}", self.calls),
        };
        if self.failures.len() < 100 {
            self.failures.push(failure);
        }
    }
}
