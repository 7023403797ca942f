//! The HTTP/1.1 client and application: fixed bytes, and a look for the end of what comes.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::RunError;
use super::message::{BODY, HOST, PATH, REQUEST_FIELDS, RESPONSE_FIELDS};

/// More than any message here has.
const BUFFER_BYTES: usize = 16 * 1024;
const HEAD_END: &[u8] = b"\r\n\r\n";
const GOOD: &[u8] = b"HTTP/1.1 200 ";

pub(super) struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Client {
    pub(super) fn new(stream: TcpStream) -> Self {
        let start = format!("GET {PATH} HTTP/1.1\r\nhost: {HOST}\r\n");
        Self {
            stream,
            request: message(&start, &REQUEST_FIELDS, b""),
            buffer: vec![0; BUFFER_BYTES],
        }
    }

    /// One request and its whole answer.
    pub(super) async fn exchange(&mut self) -> Result<(), RunError> {
        self.stream.write_all(&self.request).await?;
        let answer = until(&mut self.stream, &mut self.buffer, BODY).await?;
        match answer {
            Some(answer) if answer.starts_with(GOOD) => Ok(()),
            Some(answer) => Err(RunError::Answer(status_line(answer))),
            None => Err(RunError::Ended),
        }
    }
}

/// Starts the application; where it listens.
pub(super) async fn app() -> Result<SocketAddr, RunError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A connection that fails is seen by the client.
            tokio::task::spawn_local(async move { drop(answer(stream).await) });
        }
    });
    Ok(address)
}

async fn answer(mut stream: TcpStream) -> Result<(), RunError> {
    stream.set_nodelay(true)?;
    let response = message("HTTP/1.1 200 OK\r\n", &RESPONSE_FIELDS, BODY);
    let mut buffer = vec![0; BUFFER_BYTES];
    while until(&mut stream, &mut buffer, HEAD_END).await?.is_some() {
        stream.write_all(&response).await?;
    }
    Ok(())
}

/// Reads one message, which ends so. `None`: there is none any more.
async fn until<'b>(
    stream: &mut TcpStream,
    buffer: &'b mut [u8],
    end: &[u8],
) -> Result<Option<&'b [u8]>, RunError> {
    let mut filled = 0;
    loop {
        let room = buffer.get_mut(filled..).unwrap_or_default();
        match stream.read(room).await? {
            0 if filled == 0 => return Ok(None),
            // An answer that has another body, or none, fills the buffer or ends early.
            0 => return Err(RunError::Answer(status_line(&buffer[..filled]))),
            count => filled += count,
        }
        if buffer[..filled].ends_with(end) {
            return Ok(Some(&buffer[..filled]));
        }
    }
}

fn message(start: &str, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = start.to_owned();
    for (name, value) in fields {
        text.extend([name, ": ", value, "\r\n"]);
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn status_line(answer: &[u8]) -> String {
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    String::from_utf8_lossy(line).into_owned()
}
