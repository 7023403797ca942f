//! A small HTTP server for health, metrics and admin pages.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// Connections served at once. A further one takes the place of the oldest that has not asked yet, else of the oldest.
const CONNECTIONS: usize = 64;
/// For a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// For a whole connection, also where its client does not read.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long accepting pauses when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An answer.
pub type Page = Response<Full<Bytes>>;

/// Makes the answer to a method and path.
pub type Pages = dyn Fn(&Method, &str) -> Page + Send + Sync;

/// Serves until the future is dropped. One request per connection: pages are looked at now and then.
pub async fn serve(listener: TcpListener, pages: Arc<Pages>) {
    let mut tasks = JoinSet::new();
    let mut open: VecDeque<Open> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        while tasks.try_join_next().is_some() {}
        open.retain(|connection| !connection.task.is_finished());
        if open.len() >= CONNECTIONS {
            let silent = open.iter().position(|connection| !connection.has_asked());
            if let Some(connection) = open.remove(silent.unwrap_or(0)) {
                connection.task.abort();
            }
        }
        let asked = Arc::new(AtomicBool::new(false));
        let task = tasks.spawn(show(stream, pages.clone(), asked.clone()));
        open.push_back(Open { task, asked });
    }
}

/// A connection that is being served.
struct Open {
    task: AbortHandle,
    asked: Arc<AtomicBool>,
}

impl Open {
    /// Whether its request's head has arrived.
    fn has_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn show(stream: TcpStream, pages: Arc<Pages>, asked: Arc<AtomicBool>) {
    let service = service_fn(|request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        let page = pages(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(page) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIMEOUT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a page's connection ended"),
        Err(_) => tracing::debug!("a page's connection was closed: its client did not read"),
    }
}

/// A page of plain text.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Page {
    page(status, "text/plain; charset=utf-8", text.into())
}

/// A page of JSON, already written.
pub fn json(text: impl Into<Bytes>) -> Page {
    page(StatusCode::OK, "application/json", text.into())
}

/// A page of OpenMetrics.
pub fn metrics(registry: &Registry) -> Page {
    let mut written = String::new();
    match prometheus_client::encoding::text::encode(&mut written, registry) {
        Ok(()) => page(
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            written.into(),
        ),
        Err(_) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the metrics could not be written\n",
        ),
    }
}

fn page(status: StatusCode, kind: &'static str, content: Bytes) -> Page {
    let mut response = Response::new(Full::new(content));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
