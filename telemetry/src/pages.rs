//! A small HTTP server for health, metrics and admin pages.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections served at once; more wait.
const CONNECTIONS: usize = 64;
/// For a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long accepting pauses when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An answer.
pub type Page = Response<Full<Bytes>>;

/// Makes the answer to a method and path.
pub type Pages = dyn Fn(&Method, &str) -> Page + Send + Sync;

/// Serves until the future is dropped. One request per connection: pages are looked at now and then.
pub async fn serve(listener: TcpListener, pages: Arc<Pages>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let pages = pages.clone();
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let page = pages(request.method(), request.uri().path());
                async move { Ok::<_, Infallible>(page) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = served.await {
                tracing::debug!(%error, "a page's connection ended");
            }
            drop(place);
        });
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
