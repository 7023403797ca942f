//! A gRPC server over HTTP/2 without TLS, on a thread of its own: every call is answered with 100 bytes.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};

/// Bytes of every answer, after the five of gRPC's length prefix.
const ANSWER_BYTES: u8 = 100;
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Starts it; where it listens.
pub(crate) fn serve() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    thread::Builder::new()
        .name("grpc-app".to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => {
                    if let Err(error) = runtime.block_on(accept(listener)) {
                        eprintln!("bench: the gRPC application: {error}");
                    }
                }
                Err(error) => eprintln!("bench: the gRPC application: {error}"),
            }
        })?;
    Ok(address)
}

/// One message as it is on the wire, for a load generator to send.
pub(crate) fn message() -> Vec<u8> {
    let mut message = vec![0, 0, 0, 0, ANSWER_BYTES];
    message.resize(5 + usize::from(ANSWER_BYTES), b'x');
    message
}

async fn accept(listener: TcpListener) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let answer = Bytes::from(message());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answer = answer.clone();
        let service = service_fn(move |request| call(request, answer.clone()));
        let connection = http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(1024)
            .serve_connection(TokioIo::new(stream), service);
        // A client that goes away is none of its business.
        tokio::spawn(async move { drop(connection.await) });
    }
}

async fn call(
    request: Request<Incoming>,
    answer: Bytes,
) -> Result<Response<impl Body<Data = Bytes, Error = Infallible>>, hyper::Error> {
    request.into_body().collect().await?;
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    let frames = [Ok(Frame::data(answer)), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(StreamBody::new(tokio_stream::iter(frames)));
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    Ok(response)
}
