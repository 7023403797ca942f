//! Calls other services by name: HTTP/1.1 with kept-alive connections, and gRPC, both through `http_proxy` as curl
//! does it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use crate::ShopError;
use crate::serve::BODY_LIMIT;

/// How long a call may take, its answer's body included.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a connection is kept for the next call.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Makes HTTP calls.
pub(crate) struct Caller(Client<Connector, Full<Bytes>>);

impl Caller {
    pub(crate) fn new() -> Self {
        let mut connect = HttpConnector::new();
        connect.set_nodelay(true);
        connect.set_connect_timeout(Some(CALL_TIMEOUT));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEEP_ALIVE)
            .build(Connector {
                connect,
                proxies: Arc::new(proxies()),
            });
        Self(client)
    }

    /// Calls, with `headers`, and reads the whole answer. An error is a sentence.
    pub(crate) async fn call(
        &self,
        method: Method,
        uri: &Uri,
        mut headers: HeaderMap,
        body: Option<Vec<u8>>,
    ) -> Result<Response<Bytes>, String> {
        if body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let mut request = Request::new(Full::from(body.unwrap_or_default()));
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri.clone(), headers);
        let exchange = async {
            let response = self
                .0
                .request(request)
                .await
                .map_err(|error| format!("{uri}: {}", chain(&error)))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, BODY_LIMIT)
                .collect()
                .await
                .map_err(|error| format!("{uri}: {error}"))?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        let answered = tokio::time::timeout(CALL_TIMEOUT, exchange).await;
        answered.unwrap_or_else(|_| Err(format!("{uri}: no answer within {CALL_TIMEOUT:?}")))
    }
}

/// A channel to a gRPC service, connected at first use. A proxy is asked for the service by `:authority`.
pub(crate) fn grpc_channel(address: &str) -> Result<Channel, ShopError> {
    let bad = |error: &dyn std::error::Error| ShopError::Address(address.to_owned(), chain(error));
    let uri: Uri = address
        .parse()
        .map_err(|error: http::uri::InvalidUri| bad(&error))?;
    let endpoint = match proxies().intercept(&uri) {
        Some(proxy) => Endpoint::from_shared(proxy.uri().to_string())
            .map_err(|error| bad(&error))?
            .origin(uri),
        None => Endpoint::from_shared(address.to_owned()).map_err(|error| bad(&error))?,
    };
    Ok(endpoint
        .connect_timeout(CALL_TIMEOUT)
        .timeout(CALL_TIMEOUT)
        .connect_lazy())
}

/// `http_proxy` in lower case only, as with curl: the upper-case one could be set by a request in CGI.
fn proxies() -> Matcher {
    let first = |names: &[&str]| {
        names
            .iter()
            .find_map(|name| std::env::var(name).ok())
            .unwrap_or_default()
    };
    Matcher::builder()
        .all(first(&["all_proxy", "ALL_PROXY"]))
        .http(first(&["http_proxy"]))
        .no(first(&["no_proxy", "NO_PROXY"]))
        .build()
}

/// Connects to the service, or to the proxy that answers for it.
#[derive(Clone)]
struct Connector {
    connect: HttpConnector,
    proxies: Arc<Matcher>,
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = <HttpConnector as tower::Service<Uri>>::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.connect.poll_ready(context)
    }

    fn call(&mut self, service: Uri) -> Self::Future {
        let proxy = self.proxies.intercept(&service).map(|proxy| proxy.uri().clone());
        let proxied = proxy.is_some();
        let connecting = self.connect.call(proxy.unwrap_or(service));
        Box::pin(async move {
            Ok(Stream {
                io: connecting.await?,
                proxied,
            })
        })
    }
}

/// A connection that knows whether a proxy is at its other end, which decides the form of the request's target.
struct Stream {
    io: TokioIo<TcpStream>,
    proxied: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.proxied)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, into)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
