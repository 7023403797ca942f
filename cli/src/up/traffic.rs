//! Steady traffic: requests leave on schedule, however slow the answers are, through a sidecar as an HTTP proxy.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rand::RngExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::measure::Recorder;
use super::plan::{Traffic, TrafficRequest};

/// Nobody waits longer for an answer; then the request has failed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests under way at the same time; one that is due above that has failed.
const MAX_UNDER_WAY: usize = 1024;
/// How much of a failing answer's reason is kept, in characters.
const REASON_CHARACTERS: usize = 200;

/// Sends requests until `stop`, then waits for the answers of those under way.
pub(crate) async fn run(
    traffic: Traffic,
    proxy: SocketAddr,
    recorder: Arc<Recorder>,
    stop: CancellationToken,
) {
    let connector = tower::service_fn(move |_: Uri| {
        Box::pin(async move {
            let stream = TcpStream::connect(proxy).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(ToProxy(TokioIo::new(stream)))
        })
    });
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let places = Arc::new(Semaphore::new(MAX_UNDER_WAY));
    let under_way = TaskTracker::new();
    let mut schedule = tokio::time::interval(Duration::from_secs_f64(1.0 / traffic.requests_per_second));
    // A request that is late is still sent, or the rate would follow the answers.
    schedule.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        let due = tokio::select! {
            () = stop.cancelled() => break,
            due = schedule.tick() => due,
        };
        let Some(chosen) = choose(&traffic.requests, rand::rng().random()) else {
            break;
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            recorder.failed(
                due.elapsed(),
                format!("{MAX_UNDER_WAY} requests are under way already"),
            );
            continue;
        };
        let request = Request::builder()
            .method(chosen.method.clone())
            .uri(chosen.url.clone())
            .body(Empty::new());
        let (client, recorder) = (client.clone(), recorder.clone());
        under_way.spawn(async move {
            let _place = place;
            let answer = async { send(&client, request?).await };
            let outcome = tokio::time::timeout_at(due + ANSWER_TIMEOUT, answer).await;
            record(
                &recorder,
                due,
                outcome.unwrap_or_else(|_| Err("no answer in 10 s".into())),
            );
        });
    }
    under_way.close();
    under_way.wait().await;
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// `None`: answered well. Otherwise why not.
async fn send<C>(
    client: &Client<C, Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
) -> Result<Option<String>, BoxError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let named = format!("{} {}", request.method(), request.uri());
    let mut response = client.request(request).await?;
    while let Some(frame) = response.frame().await {
        frame?;
    }
    let status = response.status();
    if status.is_success() || status.is_redirection() {
        return Ok(None);
    }
    let why = response
        .headers()
        .get("proxy-status")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    Ok(Some(format!("{named}: {status} {why}")))
}

fn record(recorder: &Recorder, due: Instant, outcome: Result<Option<String>, BoxError>) {
    // Counted from when it was due, so that a stall is seen by all requests that it delayed.
    let took = due.elapsed();
    match outcome {
        Ok(None) => recorder.succeeded(took),
        Ok(Some(why)) => recorder.failed(took, why.chars().take(REASON_CHARACTERS).collect()),
        Err(error) => recorder.failed(
            took,
            crate::sentence(error.as_ref())
                .chars()
                .take(REASON_CHARACTERS)
                .collect(),
        ),
    }
}

/// One of the requests, by weight.
fn choose(requests: &[TrafficRequest], dice: u64) -> Option<&TrafficRequest> {
    let total: u64 = requests.iter().map(|request| u64::from(request.weight)).sum();
    let mut point = dice.checked_rem(total)?;
    requests
        .iter()
        .find(|request| match point.checked_sub(u64::from(request.weight)) {
            Some(rest) => {
                point = rest;
                false
            }
            None => true,
        })
}

/// A connection to a proxy: hyper then writes whole URIs (RFC 9112 section 3.2.2).
struct ToProxy(TokioIo<TcpStream>);

impl Connection for ToProxy {
    fn connected(&self) -> Connected {
        Connected::new().proxy(true)
    }
}

impl Read for ToProxy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for ToProxy {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn request(url: &str, weight: u32) -> TrafficRequest {
        TrafficRequest {
            method: http::Method::GET,
            url: url.parse().expect("a URI"),
            weight,
        }
    }

    #[test]
    fn weights_are_kept_exactly_over_all_dice() {
        let requests = [
            request("http://a/", 1),
            request("http://b/", 0),
            request("http://c/", 3),
        ];
        let count = |url: &str| {
            (0..8)
                .filter(|dice| choose(&requests, *dice).expect("one").url == url)
                .count()
        };
        assert_eq!(
            (count("http://a/"), count("http://b/"), count("http://c/")),
            (2, 0, 6)
        );
        assert!(choose(&[], 5).is_none());
    }

    #[tokio::test]
    async fn the_proxy_gets_whole_uris_and_failures_are_counted_with_their_reason() {
        let proxy = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address = proxy.local_addr().expect("an address");
        let traffic = Traffic {
            from: "visitor".parse().expect("an id"),
            requests_per_second: 1.0,
            requests: vec![request("http://shop/x", 1)],
            split_of: None,
        };
        let (recorder, stop) = (Arc::new(Recorder::default()), CancellationToken::new());
        let sending = tokio::spawn(run(traffic, address, recorder.clone(), stop.clone()));
        let (mut stream, _) = proxy.accept().await.expect("a connection");
        let mut head = vec![0; 27];
        stream.read_exact(&mut head).await.expect("a head");
        assert!(head.starts_with(b"GET http://shop/x HTTP/1.1"));
        stop.cancel();
        let answer = b"HTTP/1.1 503 No\r\nproxy-status: weft; error=x\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.expect("written");
        sending.await.expect("ends");
        let totals = recorder.totals();
        assert_eq!((totals.requests, totals.successes), (1, 0));
        assert!(
            totals
                .last_failure
                .is_some_and(|why| why.contains("503") && why.contains("error=x"))
        );
    }
}
