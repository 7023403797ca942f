//! The HTTP/2 client and application, with prior knowledge: streams in lockstep, headers by reference.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpStream};

use super::frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, HeaderBlocks, PREFACE, put};
use super::message::{BODY, HOST, PATH, REQUEST_FIELDS, RESPONSE_FIELDS};
use super::{RunError, STREAMS};

/// `:method: GET` and `:scheme: http`, from HPACK's static table (RFC 7541 appendix A).
const GET_HTTP: [u8; 2] = [0x82, 0x86];
/// `:status: 200`.
const GOOD: u8 = 0x88;

pub(super) struct Client {
    frames: Frames,
    request: HeaderBlocks,
    next_stream: u32,
}

impl Client {
    pub(super) async fn start(stream: TcpStream) -> Result<Self, RunError> {
        let fields = [(":path", PATH), (":authority", HOST)];
        Ok(Self {
            frames: Frames::new(stream, PREFACE),
            request: HeaderBlocks::new(&GET_HTTP, &[&fields[..], &REQUEST_FIELDS].concat()),
            next_stream: 1,
        })
    }

    /// [`STREAMS`] requests in one write, and all their answers.
    pub(super) async fn round(&mut self) -> Result<(), RunError> {
        for _ in 0..STREAMS {
            let (flags, stream) = (END_HEADERS | END_STREAM, self.next_stream);
            put(&mut self.frames.out, HEADERS, flags, stream, self.request.next());
            self.next_stream += 2;
        }
        let mut unanswered = STREAMS;
        while unanswered > 0 {
            let frame = self.frames.next().await?;
            if frame.kind == HEADERS && self.frames.payload(&frame).first() != Some(&GOOD) {
                return Err(RunError::Answer(format!("{:02x?}", self.frames.payload(&frame))));
            }
            unanswered -= u64::from(frame.ends_message());
        }
        Ok(())
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

async fn answer(stream: TcpStream) -> Result<(), RunError> {
    stream.set_nodelay(true)?;
    let mut frames = Frames::new(stream, b"");
    let mut response = HeaderBlocks::new(&[GOOD], &RESPONSE_FIELDS);
    frames.skip(PREFACE.len()).await?;
    loop {
        let frame = frames.next().await?;
        if frame.ends_message() {
            put(
                &mut frames.out,
                HEADERS,
                END_HEADERS,
                frame.stream,
                response.next(),
            );
            put(&mut frames.out, DATA, END_STREAM, frame.stream, BODY);
        }
    }
}
