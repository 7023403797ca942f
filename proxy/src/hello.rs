//! What a TLS client says first: read to its end, understood, and kept for whoever goes on with the handshake.

use std::io;

use bytes::BytesMut;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Largest ClientHello that is read, in bytes of TLS records. Post-quantum key shares take 2 KiB.
const MAX_HELLO_BYTES: usize = 16 * 1024;
/// The most that one read takes.
const READ_BYTES: usize = 4 * 1024;

/// Reads until the client has said whom it wants. `first` is what was read already, and then all that was. The name is
/// in lower case, and empty where the client names nobody (RFC 6066 section 3).
///
/// # Errors
/// Where it is no ClientHello, is over its bound, or ends.
pub(crate) async fn server_name<S: AsyncRead + Unpin>(
    stream: &mut S,
    first: &mut BytesMut,
) -> io::Result<Box<str>> {
    let mut acceptor = Acceptor::default();
    let mut fed = 0;
    loop {
        while let Some(mut rest) = first.get(fed..).filter(|rest| !rest.is_empty()) {
            fed += acceptor.read_tls(&mut rest)?;
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let hello = accepted.client_hello();
                    let name = hello.server_name().unwrap_or_default().to_ascii_lowercase();
                    return Ok(name.into());
                }
                Err((error, _)) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
        if first.len() > MAX_HELLO_BYTES {
            let why = format!("a ClientHello of over {MAX_HELLO_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        first.reserve(READ_BYTES);
        if stream.read_buf(first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
