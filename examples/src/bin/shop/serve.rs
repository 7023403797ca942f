//! Serves HTTP/1.1 or gRPC until SIGTERM or SIGINT, then finishes what is under way, for a bounded time.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ShopError;

/// How long requests under way may take after the signal.
const GRACE: Duration = Duration::from_secs(1);
/// How long to wait after a failed accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Largest request or response body that is read.
pub(crate) const BODY_LIMIT: usize = 64 * 1024;

/// An HTTP service with small bodies.
pub(crate) trait Handler: Send + Sync + 'static {
    fn handle(&self, request: Request<Bytes>) -> impl Future<Output = Response<Full<Bytes>>> + Send;
}

/// Cancelled by the first SIGTERM or SIGINT.
pub(crate) fn stop_on_signals() -> Result<CancellationToken, ShopError> {
    let failed = |error: std::io::Error| ShopError::Serve(error.to_string());
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        told.cancel();
    });
    Ok(stop)
}

/// Serves `handler` over HTTP/1.1.
pub(crate) async fn http<H: Handler>(listener: TcpListener, stop: CancellationToken, handler: H) {
    let handler = Arc::new(handler);
    let connections = TaskTracker::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(stream, stop.clone(), handler.clone()))),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    drop(listener);
    connections.close();
    let _ = tokio::time::timeout(GRACE, connections.wait()).await;
}

/// Serves a gRPC service over HTTP/2 with prior knowledge.
pub(crate) async fn grpc<S>(
    listener: TcpListener,
    stop: CancellationToken,
    service: S,
) -> Result<(), ShopError>
where
    S: tower::Service<Request<tonic::body::Body>, Response = Response<tonic::body::Body>, Error = Infallible>
        + tonic::server::NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    let serving = tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.clone().cancelled_owned());
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = serving => served.map_err(|error| ShopError::Serve(error.to_string())),
        () = overdue => Ok(()),
    }
}

async fn connection<H: Handler>(stream: TcpStream, stop: CancellationToken, handler: Arc<H>) {
    // Answers are small; waiting to fill a packet would only delay them.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(request, handler.clone()));
    let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    // A connection that breaks is the caller's affair.
    tokio::select! {
        _ = serving.as_mut() => {}
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}

async fn answer<H: Handler>(
    request: Request<Incoming>,
    handler: Arc<H>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    Ok(match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => handler.handle(Request::from_parts(head, body.to_bytes())).await,
        Err(_) => problem(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long or broke off"),
    })
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(text) => typed(status, "application/json", text),
        Err(_) => typed(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", Vec::new()),
    }
}

/// An answer that says what went wrong.
pub(crate) fn problem(status: StatusCode, why: impl Into<String>) -> Response<Full<Bytes>> {
    json(status, &serde_json::json!({ "error": why.into() }))
}

/// An answer of any media type.
pub(crate) fn typed(
    status: StatusCode,
    media_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, http::HeaderValue::from_static(media_type));
    response
}
