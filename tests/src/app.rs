//! Applications beside sidecars, inside the test: well-behaved ones over hyper, and raw ones for the others.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::BoxError;
use crate::wait::within;

/// The body of an application's answer.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// An application on a loopback port. It ends when it is dropped.
pub struct App {
    pub address: SocketAddr,
    seen: watch::Receiver<Seen>,
    task: JoinSet<()>,
}

/// What an application has seen.
#[derive(Debug, Clone, Default)]
struct Seen {
    requests: Vec<Recorded>,
    connections: usize,
    ended: usize,
}

/// A request as it arrived at an application.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub method: Method,
    pub uri: Uri,
    pub version: Version,
    pub headers: HeaderMap,
    /// Empty where the application reads it itself ([`App::http`]).
    pub body: Bytes,
    /// Which of the application's connections it came on.
    pub connection: usize,
}

/// Counts connections.
#[derive(Debug, Clone, Copy)]
struct Number(usize);

impl Recorded {
    /// A header's value as text; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("text"))
    }
}

impl App {
    /// HTTP/1.1 and HTTP/2 with prior knowledge; the whole request is read, recorded, and then answered.
    pub async fn answering(
        answer: impl Fn(&Recorded) -> Response<Bytes> + Clone + Send + Sync + 'static,
    ) -> Self {
        let (note, seen) = watch::channel(Seen::default());
        let note = Arc::new(note);
        let recorder = note.clone();
        let handler = move |request: Request<Incoming>| {
            let (answer, note) = (answer.clone(), recorder.clone());
            async move {
                let (parts, body) = request.into_parts();
                // A caller that went away is no request.
                let Ok(body) = body.collect().await else {
                    return text(400, "broken off");
                };
                let recorded = record(&parts, body.to_bytes());
                let response = answer(&recorded);
                note.send_modify(|seen| seen.requests.push(recorded));
                response.map(whole)
            }
        };
        Self::serve(seen, note, handler).await
    }

    /// Answers 200 with the request's body, and with `name` in the header `x-app`.
    pub async fn echo(name: &str) -> Self {
        let name = name.to_owned();
        Self::answering(move |request| {
            let response = Response::builder().header("x-app", &name);
            response.body(request.body.clone()).expect("a response")
        })
        .await
    }

    /// Answers 200 to as many requests as there are permits, each when it gets one.
    pub async fn holding() -> (Self, Arc<Semaphore>) {
        let permits = Arc::new(Semaphore::new(0));
        let given = permits.clone();
        let app = Self::http(move |_| {
            let given = given.clone();
            async move {
                given.acquire().await.expect("it is never closed").forget();
                text(200, "done")
            }
        });
        (app.await, permits)
    }

    /// HTTP/1.1 (with upgrades) and HTTP/2, all in the handler's hands; heads are recorded as they arrive.
    pub async fn http<H, F>(handler: H) -> Self
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let (note, seen) = watch::channel(Seen::default());
        let note = Arc::new(note);
        let recorder = note.clone();
        let recording = move |request: Request<Incoming>| {
            let (handler, note) = (handler.clone(), recorder.clone());
            async move {
                let (parts, body) = request.into_parts();
                let recorded = record(&parts, Bytes::new());
                note.send_modify(|seen| seen.requests.push(recorded));
                handler(Request::from_parts(parts, body)).await
            }
        };
        Self::serve(seen, note, recording).await
    }

    async fn serve<H, F>(seen: watch::Receiver<Seen>, note: Arc<watch::Sender<Seen>>, handler: H) -> Self
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let numbers = Arc::new(AtomicUsize::new(0));
        let connection = move |stream: TcpStream| {
            let handler = handler.clone();
            let number = Number(numbers.fetch_add(1, Ordering::Relaxed));
            async move {
                let service = service_fn(move |mut request: Request<Incoming>| {
                    request.extensions_mut().insert(number);
                    let answer = handler(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let builder = auto::Builder::new(TokioExecutor::new());
                // How a connection ends is for the caller to judge.
                let _ = builder
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
            }
        };
        Self::listen(seen, note, connection).await
    }

    /// Every connection is handed to `connection`: for opaque protocols and for answers that no library makes.
    pub async fn raw<C, F>(connection: C) -> Self
    where
        C: Fn(TcpStream) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (note, seen) = watch::channel(Seen::default());
        Self::listen(seen, Arc::new(note), connection).await
    }

    /// Sends every byte back, and closes after the other side did.
    pub async fn tcp_echo() -> Self {
        Self::raw(|stream| async move {
            let (mut read, mut write) = stream.into_split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        })
        .await
    }

    async fn listen<C, F>(seen: watch::Receiver<Seen>, note: Arc<watch::Sender<Seen>>, connection: C) -> Self
    where
        C: Fn(TcpStream) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    return;
                };
                let _ = stream.set_nodelay(true);
                note.send_modify(|seen| seen.connections += 1);
                while connections.try_join_next().is_some() {}
                let (connection, note) = (connection(stream), note.clone());
                connections.spawn(async move {
                    connection.await;
                    note.send_modify(|seen| seen.ended += 1);
                });
            }
        });
        Self { address, seen, task }
    }

    /// Every request so far, in the order of arrival.
    pub fn requests(&self) -> Vec<Recorded> {
        self.seen.borrow().requests.clone()
    }

    /// Connections so far; the sidecar's looks at whether the application accepts count too.
    pub fn connections(&self) -> usize {
        self.seen.borrow().connections
    }

    /// Connections that have not ended.
    pub fn open(&self) -> usize {
        let seen = self.seen.borrow();
        seen.connections - seen.ended
    }

    /// Waits until `count` requests have arrived, and returns all.
    pub async fn arrived(&self, count: usize) -> Vec<Recorded> {
        let mut seen = self.seen.clone();
        let wait = seen.wait_for(|seen| seen.requests.len() >= count);
        within(&format!("{count} requests at the application"), wait)
            .await
            .expect("the app")
            .requests
            .clone()
    }

    /// Waits until `count` connections have ended.
    pub async fn ended(&self, count: usize) {
        let mut seen = self.seen.clone();
        let wait = seen.wait_for(|seen| seen.ended >= count);
        drop(
            within(
                &format!("the end of {count} connections to the application"),
                wait,
            )
            .await,
        );
    }

    /// Stops listening and breaks every connection. What was recorded can still be read.
    pub async fn stop(&mut self) {
        self.task.shutdown().await;
    }
}

/// A whole body.
pub fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A response of text.
pub fn text(status: u16, body: &str) -> Response<Body> {
    let body = whole(Bytes::copy_from_slice(body.as_bytes()));
    Response::builder().status(status).body(body).expect("a response")
}

fn record(parts: &http::request::Parts, body: Bytes) -> Recorded {
    Recorded {
        method: parts.method.clone(),
        uri: parts.uri.clone(),
        version: parts.version,
        headers: parts.headers.clone(),
        body,
        connection: parts.extensions.get().map_or(0, |Number(number)| *number),
    }
}
