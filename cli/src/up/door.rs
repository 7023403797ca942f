//! Where a running `weft up` answers `weft traces`: JSON over HTTP on loopback, for those who can read the pointer file.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use super::receiver::Traces;
use super::ring::Found;
use crate::traces::Answer;

/// Connections served at the same time; others wait.
const MAX_CONNECTIONS: usize = 16;
/// A request's head must be there by then, or the connection is closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// What there is to tell.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Kept(Traces),
    /// Spans go to this OTLP endpoint.
    Elsewhere(String),
}

/// A running door; it closes when this is dropped.
#[derive(Debug)]
pub(crate) struct Door {
    pub address: SocketAddr,
    /// Without it nothing is answered: other users of the machine can reach the port, too.
    pub key: String,
    server: JoinHandle<()>,
}

impl Door {
    /// Listens on a free loopback port.
    pub(crate) async fn open(source: Source) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let key = hex::encode(rand::random::<[u8; 16]>());
        let judge = Arc::new(Judge {
            source,
            expected: format!("Bearer {key}"),
        });
        Ok(Self {
            address,
            key,
            server: tokio::spawn(serve(listener, judge)),
        })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, judge: Arc<Judge>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let judge = judge.clone();
                connections.spawn(async move {
                    serve_one(stream, judge).await;
                    drop(place);
                });
            }
            // Out of file descriptors, or the peer went away: neither ends the door.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn serve_one(stream: TcpStream, judge: Arc<Judge>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let judge = judge.clone();
        async move { Ok::<_, Infallible>(judge.answer(&request)) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false);
    // What a caller breaks off is the caller's business.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

struct Judge {
    source: Source,
    expected: String,
}

impl Judge {
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let shown = request
            .headers()
            .get(header::AUTHORIZATION)
            .map(header::HeaderValue::as_bytes);
        if shown != Some(self.expected.as_bytes()) {
            return plain(StatusCode::UNAUTHORIZED);
        }
        if request.method() != Method::GET {
            return plain(StatusCode::METHOD_NOT_ALLOWED);
        }
        let answer = match (request.uri().path(), request.uri().query()) {
            ("/traces", query) => match last(query) {
                Some(last) => self.newest(last),
                None => return plain(StatusCode::BAD_REQUEST),
            },
            (path, _) => match path.strip_prefix("/traces/") {
                Some(id) => self.tree(id),
                None => return plain(StatusCode::NOT_FOUND),
            },
        };
        match serde_json::to_vec(&answer) {
            Ok(json) => Response::new(Full::from(json)),
            Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    fn newest(&self, last: usize) -> Answer {
        match &self.source {
            Source::Elsewhere(endpoint) => Answer::Elsewhere(endpoint.clone()),
            Source::Kept(traces) => {
                let ring = traces.lock().unwrap_or_else(PoisonError::into_inner);
                match (last, ring.newest_whole()) {
                    (1, Some(trace)) => Answer::Tree(trace.clone()),
                    (1, None) => Answer::NotOne { matching: 0 },
                    (last, _) => Answer::List(ring.newest(last)),
                }
            }
        }
    }

    fn tree(&self, id: &str) -> Answer {
        match &self.source {
            Source::Elsewhere(endpoint) => Answer::Elsewhere(endpoint.clone()),
            Source::Kept(traces) => tree_of(traces.lock().unwrap_or_else(PoisonError::into_inner).find(id)),
        }
    }
}

fn tree_of(found: Found) -> Answer {
    match found {
        Found::One(trace) => Answer::Tree(trace),
        Found::NotOne(matching) => Answer::NotOne { matching },
    }
}

/// `last=20`; 20 without a query.
fn last(query: Option<&str>) -> Option<usize> {
    match query {
        None => Some(20),
        Some(query) => query.strip_prefix("last=")?.parse().ok(),
    }
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Span;

    fn judge() -> Judge {
        let traces = Traces::default();
        for (id, start) in [("aa", 1), ("ab", 2)] {
            let span = Span {
                id: "1".to_owned(),
                start,
                end: start,
                ..Default::default()
            };
            traces.lock().expect("not poisoned").add(id.to_owned(), span);
        }
        Judge {
            source: Source::Kept(traces),
            expected: "Bearer k".to_owned(),
        }
    }

    fn ask(target: &str, key: &str) -> StatusCode {
        let request = Request::get(target)
            .header(header::AUTHORIZATION, key)
            .body(())
            .expect("a request");
        judge().answer(&request).status()
    }

    #[test]
    fn without_the_key_nothing_is_told() {
        assert_eq!(ask("/traces", "Bearer k"), StatusCode::OK);
        assert_eq!(ask("/traces", "Bearer x"), StatusCode::UNAUTHORIZED);
        assert_eq!(ask("/traces", ""), StatusCode::UNAUTHORIZED);
        assert_eq!(ask("/other", "Bearer k"), StatusCode::NOT_FOUND);
        assert_eq!(ask("/traces?last=x", "Bearer k"), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn one_trace_is_a_tree_and_several_are_a_list() {
        let judge = judge();
        assert!(matches!(judge.newest(1), Answer::Tree(trace) if trace.id == "ab"));
        assert!(matches!(judge.newest(5), Answer::List(list) if list.len() == 2));
        assert!(matches!(judge.tree("aa"), Answer::Tree(_)));
        assert!(matches!(judge.tree("a"), Answer::NotOne { matching: 2 }));
    }
}
