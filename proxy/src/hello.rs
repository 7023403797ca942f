//! What a TLS client says first: read to its end, understood, and kept for whoever goes on with the handshake.

use std::io;

use bytes::BytesMut;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Largest ClientHello that is read, in bytes of TLS records. Post-quantum key shares take 2 KiB.
const MAX_HELLO_BYTES: usize = 16 * 1024;
/// The most that one read takes.
const READ_BYTES: u16 = 4 * 1024;

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
        first.reserve(READ_BYTES.into());
        if (&mut *stream).take(READ_BYTES.into()).read_buf(first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn hello(name: &str) -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("written");
        bytes
    }

    #[tokio::test]
    async fn a_name_is_read_however_the_bytes_come_and_all_of_them_are_kept() {
        for (name, expected) in [("WWW.Example.com", "www.example.com"), ("192.0.2.1", "")] {
            let bytes = hello(name);
            for piece in [1, 7, bytes.len()] {
                let (mut client, mut server) = tokio::io::duplex(piece);
                let sent = bytes.clone();
                tokio::spawn(async move { client.write_all(&sent).await });
                let mut first = BytesMut::from(bytes.get(..0).unwrap_or_default());
                let read = server_name(&mut server, &mut first).await.expect("a name");
                assert_eq!((&*read, &first[..]), (expected, &bytes[..]));
            }
            // Read before by somebody else.
            let mut first = BytesMut::from(&bytes[..]);
            let read = server_name(&mut tokio::io::empty(), &mut first).await;
            assert_eq!(&*read.expect("a name"), expected);
        }
    }

    #[tokio::test]
    async fn what_is_no_hello_ends_soon() {
        let mut bytes = hello("www.example.com");
        bytes.truncate(100);
        for (sent, kind) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], io::ErrorKind::InvalidData),
            (&bytes, io::ErrorKind::UnexpectedEof),
            (b"", io::ErrorKind::UnexpectedEof),
        ] {
            let read = server_name(&mut { sent }, &mut BytesMut::new()).await;
            assert_eq!(read.expect_err("no name").kind(), kind);
        }
        // A handshake message of 64 KiB that never ends, in records as long as they may be.
        let record = [&[0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff][..], &[0; 0x4000 - 4]].concat();
        let endless = record.repeat(8);
        let mut rest = &endless[..];
        let mut first = BytesMut::new();
        assert!(server_name(&mut rest, &mut first).await.is_err());
        assert!(
            first.len() <= MAX_HELLO_BYTES + usize::from(READ_BYTES),
            "{}",
            first.len()
        );
    }
}
