//! Connections to the control plane: TCP, TLS with the given trust, and gRPC on top. Used by the config room
//! too.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

/// The only protocol that the control plane speaks.
pub const ALPN: &[&[u8]] = &[b"h2"];
/// How much of a text that came from elsewhere is repeated in logs and errors, in characters.
const FOREIGN_TEXT_CHARS: usize = 300;

/// Where the control plane listens: `host:port`, `1.2.3.4:port` or `[v6]:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlaneAddress {
    text: String,
    name: ServerName<'static>,
}

/// A text that is no `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not host:port")]
pub struct AddressError(String);

impl FromStr for ControlPlaneAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bad = || AddressError(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        if !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(bad());
        }
        let host = match host.strip_prefix('[') {
            Some(v6) => v6.strip_suffix(']').ok_or_else(bad)?,
            None if host.contains(':') => return Err(bad()),
            None => host,
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|_| bad())?;
        Ok(Self {
            text: text.to_owned(),
            name,
        })
    }
}

impl fmt::Display for ControlPlaneAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Times of a connection to the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelSettings {
    /// For name resolution, TCP, TLS and the HTTP/2 preface together; default 5 s.
    pub connect_timeout: Duration,
    /// For one call that is not a stream, and for a stream's opening; default 10 s.
    pub call_timeout: Duration,
    /// Between HTTP/2 PINGs that find out whether the other side is still there; default 10 s.
    pub keepalive_interval: Duration,
    /// For the answer to such a PING; default 10 s. The connection is then given up.
    pub keepalive_timeout: Duration,
}

impl Default for ChannelSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(10),
        }
    }
}

/// Why there is no connection to the control plane.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("cannot reach the control plane at {address}: {source}")]
    Tcp {
        address: ControlPlaneAddress,
        source: io::Error,
    },
    #[error("TLS with the control plane at {address} failed: {source}")]
    Tls {
        address: ControlPlaneAddress,
        source: io::Error,
    },
    #[error("HTTP/2 with the control plane at {address} failed: {source}")]
    Http2 {
        address: ControlPlaneAddress,
        source: tonic::transport::Error,
    },
    #[error("the control plane at {address} did not answer within {within:?}")]
    Timeout {
        address: ControlPlaneAddress,
        within: Duration,
    },
}

impl ChannelError {
    /// Whether the other side showed a certificate that is not the control plane's. Waiting does not help
    /// then, as it may where a certificate has only expired.
    pub fn is_untrusted(&self) -> bool {
        use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
        let Self::Tls { source, .. } = self else {
            return false;
        };
        match source.get_ref().and_then(|cause| cause.downcast_ref()) {
            Some(rustls::Error::InvalidCertificate(
                Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
            )) => false,
            Some(rustls::Error::InvalidCertificate(_)) => true,
            _ => false,
        }
    }
}

/// Opens one connection, verified as `tls` says. It does not reconnect by itself: what was said on a
/// connection is forgotten with it, so its user must begin again anyway.
pub async fn connect(
    address: &ControlPlaneAddress,
    tls: Arc<ClientConfig>,
    settings: &ChannelSettings,
) -> Result<Channel, ChannelError> {
    let within = settings.connect_timeout;
    // Boxed, so that the many futures that contain this rare one stay small.
    timeout(within, Box::pin(connect_and_verify(address, tls, settings)))
        .await
        .map_err(|_| ChannelError::Timeout {
            address: address.clone(),
            within,
        })?
}

async fn connect_and_verify(
    address: &ControlPlaneAddress,
    tls: Arc<ClientConfig>,
    settings: &ChannelSettings,
) -> Result<Channel, ChannelError> {
    let stream = handshake(address, tls).await?;
    let http2 = |source| ChannelError::Http2 {
        address: address.clone(),
        source,
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(http2)?
        .http2_keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout)
        .keep_alive_while_idle(true);
    // tonic asks again when the connection is lost: there is no second one.
    let mut only = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        let stream = only
            .take()
            .ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted));
        async move { stream }
    });
    endpoint.connect_with_connector(connector).await.map_err(http2)
}

async fn handshake(
    address: &ControlPlaneAddress,
    tls: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, ChannelError> {
    let tcp = |source| ChannelError::Tcp {
        address: address.clone(),
        source,
    };
    let stream = TcpStream::connect(&address.text).await.map_err(tcp)?;
    stream.set_nodelay(true).map_err(tcp)?;
    TlsConnector::from(tls)
        .connect(address.name.clone(), stream)
        .await
        .map_err(|source| ChannelError::Tls {
            address: address.clone(),
            source,
        })
}

/// A gRPC status on one line, with its deepest cause and whatever the other side wrote made harmless.
pub fn describe(status: &tonic::Status) -> String {
    let mut text = format!("{:?}", status.code());
    if !status.message().is_empty() {
        text = format!("{text}: {}", printable(status.message()));
    }
    let mut cause = std::error::Error::source(status);
    while let Some(deeper) = cause.and_then(std::error::Error::source) {
        cause = Some(deeper);
    }
    match cause {
        Some(cause) => format!("{text}: {}", printable(&cause.to_string())),
        None => text,
    }
}

/// A foreign text without control characters and line ends, and not too long.
pub fn printable(text: &str) -> String {
    let mut line = String::new();
    for character in text.chars().take(FOREIGN_TEXT_CHARS) {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for text in ["127.0.0.1:15012", "[::1]:15012", "control.example:1"] {
            assert_eq!(text.parse::<ControlPlaneAddress>().expect(text).to_string(), text);
        }
        for text in [
            "",
            "host",
            ":1",
            "host:",
            "host:0",
            "host:70000",
            "::1:5",
            "[::1:5",
            "a b:1",
            "http://a:1",
        ] {
            assert!(text.parse::<ControlPlaneAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn foreign_text_stays_on_one_line() {
        assert_eq!(printable("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        assert_eq!(printable(&"x".repeat(10_000)).len(), FOREIGN_TEXT_CHARS);
    }
}
