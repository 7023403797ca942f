//! Callers: HTTP/1.1 and HTTP/2 over hyper, and raw bytes for what no library would send.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::BoxError;
use crate::app::Body as AnyBody;
use crate::wait::within;

/// One HTTP connection.
pub struct Http {
    sender: Sender,
}

enum Sender {
    One(http1::SendRequest<AnyBody>),
    Two(http2::SendRequest<AnyBody>),
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl Http {
    pub async fn http1(address: SocketAddr) -> Self {
        Self::http1_over(connect(address).await).await
    }

    /// HTTP/1.1 on a connection that is open, which may be a tunnel.
    pub async fn http1_over(stream: TcpStream) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        tokio::spawn(connection.with_upgrades());
        Self {
            sender: Sender::One(sender),
        }
    }

    pub async fn h2c(address: SocketAddr) -> Self {
        Self::h2c_over(connect(address).await).await
    }

    /// HTTP/2 with prior knowledge on a connection that is open.
    pub async fn h2c_over(stream: TcpStream) -> Self {
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.expect("HTTP/2");
        tokio::spawn(connection);
        Self {
            sender: Sender::Two(sender),
        }
    }

    /// Over a TLS connection, in whichever version its handshake agreed on.
    pub async fn tls(stream: TlsStream<TcpStream>) -> Self {
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(stream);
        if is_http2 {
            let handshake = http2::handshake(TokioExecutor::new(), io).await;
            let (sender, connection) = handshake.expect("HTTP/2");
            tokio::spawn(connection);
            return Self {
                sender: Sender::Two(sender),
            };
        }
        let (sender, connection) = http1::handshake(io).await.expect("HTTP/1.1");
        tokio::spawn(connection.with_upgrades());
        Self {
            sender: Sender::One(sender),
        }
    }

    /// GET of a path from the host of a gateway, as a browser sends it.
    pub async fn ask(&mut self, host: &str, path: &str) -> Answer {
        self.try_ask(host, path)
            .await
            .unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    /// As [`Http::ask`]; an error where the connection was closed.
    pub async fn try_ask(&mut self, host: &str, path: &str) -> Result<Answer, BoxError> {
        let request = match &self.sender {
            Sender::One(_) => request("GET", path).header(HOST, host),
            Sender::Two(_) => request("GET", &format!("https://{host}{path}")),
        };
        self.try_send(request.body(nothing()).expect("a request")).await
    }

    /// GET. Over HTTP/1.1 the whole URL is the target, as to a proxy.
    pub async fn get(&mut self, url: &str) -> Answer {
        self.send(request("GET", url).body(Empty::new()).expect("a request"))
            .await
    }

    pub async fn post(&mut self, url: &str, body: impl Into<Bytes>) -> Answer {
        self.send(
            request("POST", url)
                .body(Full::new(body.into()))
                .expect("a request"),
        )
        .await
    }

    /// Sends a request and reads the whole answer.
    pub async fn send<B>(&mut self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.try_send(request)
            .await
            .unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    /// As [`Http::send`]; an error where the connection broke or the answer was cut short.
    pub async fn try_send<B>(&mut self, request: Request<B>) -> Result<Answer, BoxError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let response = self.open(request).await?;
        within("the whole answer", Answer::read(response)).await
    }

    /// Sends a request and waits for the answer's head.
    pub async fn open<B>(&mut self, request: Request<B>) -> Result<Response<Incoming>, BoxError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let response = async {
            match &mut self.sender {
                Sender::One(sender) => {
                    sender.ready().await?;
                    if !request.headers().contains_key(HOST)
                        && let Some(authority) = request.uri().authority()
                    {
                        let host = authority.as_str().parse().expect("a host");
                        request.headers_mut().insert(HOST, host);
                    }
                    sender.send_request(request).await
                }
                Sender::Two(sender) => {
                    sender.ready().await?;
                    *request.version_mut() = Version::HTTP_2;
                    sender.send_request(request).await
                }
            }
        };
        Ok(within("an answer", response).await?)
    }
}

impl Answer {
    /// Reads a response to its end.
    pub async fn read(response: Response<Incoming>) -> Result<Self, BoxError> {
        let (parts, body) = response.into_parts();
        let collected = body.collect().await?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        Ok(Self {
            status: parts.status,
            version: parts.version,
            headers: parts.headers,
            body: collected.to_bytes(),
            trailers,
        })
    }

    /// A header's value as text; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("text"))
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The status, and the reason that the proxy gave in `Proxy-Status`; empty where it gave none.
    pub fn verdict(&self) -> (u16, &str) {
        let details = self.header("proxy-status").split("details=\"").nth(1);
        (
            self.status.as_u16(),
            details
                .and_then(|text| text.split('"').next())
                .unwrap_or_default(),
        )
    }
}

/// A request to be built on.
pub fn request(method: &str, url: &str) -> http::request::Builder {
    Request::builder().method(method).uri(url)
}

/// A body that comes byte by byte, but for every hundredth piece, which is larger.
pub fn trickling(bytes: &Bytes) -> impl Body<Data = Bytes, Error = BoxError> + Send + 'static {
    let (mut rest, mut pieces) = (bytes.clone(), Vec::new());
    while !rest.is_empty() {
        let size = if pieces.len() % 100 == 99 { 1_500 } else { 1 };
        pieces.push(rest.split_to(size.min(rest.len())));
    }
    let frames = pieces.into_iter().map(|piece| Ok(Frame::data(piece)));
    StreamBody::new(futures_util::stream::iter(frames))
}

/// No body.
pub fn nothing() -> Empty<Bytes> {
    Empty::new()
}

/// A connection on which tests write what they like.
pub struct Raw {
    pub stream: TcpStream,
    /// What was read and not yet asked for.
    pending: Vec<u8>,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        Self {
            stream: connect(address).await,
            pending: Vec::new(),
        }
    }

    /// Writes everything; a peer that has closed meanwhile is not an error, for its answer is still to be read.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = within("a write", self.stream.write_all(bytes.as_ref())).await;
    }

    /// Says that nothing more comes.
    pub async fn half_close(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Reads until `end` has come, and returns everything up to and with it. Fails where the peer closes before.
    pub async fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        let what = format!("{:?}", String::from_utf8_lossy(end));
        within(&what, async {
            loop {
                let found = self.pending.windows(end.len()).position(|window| window == end);
                if let Some(at) = found {
                    return self.pending.drain(..at + end.len()).collect();
                }
                let read = self.stream.read_buf(&mut self.pending).await.unwrap_or(0);
                let got = String::from_utf8_lossy(&self.pending);
                assert!(read > 0, "closed before {what}; got {got:?}");
            }
        })
        .await
    }

    /// Reads exactly so many bytes.
    pub async fn read_exact(&mut self, count: usize) -> Vec<u8> {
        within(&format!("{count} bytes"), async {
            while self.pending.len() < count {
                let read = self.stream.read_buf(&mut self.pending).await.unwrap_or(0);
                assert!(read > 0, "closed after {} of {count} bytes", self.pending.len());
            }
            self.pending.drain(..count).collect()
        })
        .await
    }

    /// Reads until the peer closes, whether properly or not.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        within("the end of the connection", async {
            while matches!(self.stream.read_buf(&mut self.pending).await, Ok(1..)) {}
        })
        .await;
        std::mem::take(&mut self.pending)
    }

    /// Reads until the peer closes or has been silent for `silence`; the second value says whether it closed.
    pub async fn read_for(&mut self, silence: Duration) -> (Vec<u8>, bool) {
        loop {
            match timeout(silence, self.stream.read_buf(&mut self.pending)).await {
                Ok(Ok(1..)) => {}
                Ok(_) => return (std::mem::take(&mut self.pending), true),
                Err(_) => return (std::mem::take(&mut self.pending), false),
            }
        }
    }

    /// Reads one HTTP/1.1 response with a `Content-Length` or none: its head as text, and its body.
    pub async fn read_response(&mut self) -> (String, Vec<u8>) {
        let head = String::from_utf8(self.read_until(b"\r\n\r\n").await).expect("text");
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse().expect("a length"))
        });
        let body = self.read_exact(length.unwrap_or(0)).await;
        (head, body)
    }
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = within("a connection", TcpStream::connect(address)).await;
    let stream = stream.unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
    stream.set_nodelay(true).expect("nodelay");
    stream
}
