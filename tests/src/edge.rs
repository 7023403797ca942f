//! What is outside the mesh and speaks TLS: an authority of its own, clients of a gateway, and servers behind one.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SanType,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, server};

use crate::app::App;
use crate::wait::within;

/// A port on 127.0.0.1, for TCP and UDP, that was free a moment ago. It is none of those that the kernel gives to whoever
/// asks for any, so that nobody else comes to have it meanwhile.
pub async fn free_port() -> u16 {
    loop {
        let dice = RandomState::new().build_hasher().finish();
        let port = 10_000 + u16::try_from(dice % 20_000).expect("small");
        if TcpListener::bind(at(port)).await.is_ok() && UdpSocket::bind(at(port)).await.is_ok() {
            return port;
        }
    }
}

/// That port as an address.
pub fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// An authority that nobody trusts unless told to.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Shown {
    pub chain: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        Self { issuer }
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.pem().as_bytes()).expect("PEM");
        roots.add(root).expect("an authority");
        roots
    }

    /// A certificate with an ECDSA key for these names; one with `://` is a URI.
    pub fn certificate(&self, names: &[&str]) -> Shown {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        self.issue(names, &key)
    }

    /// The same with an RSA key.
    pub fn rsa_certificate(&self, names: &[&str]) -> Shown {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("a key");
        self.issue(names, &key)
    }

    fn issue(&self, names: &[&str], key: &KeyPair) -> Shown {
        let mut params = CertificateParams::default();
        let name = |name: &&str| {
            let text = (*name).try_into().expect("ASCII");
            if name.contains("://") {
                SanType::URI(text)
            } else {
                SanType::DnsName(text)
            }
        };
        params.subject_alt_names = names.iter().map(name).collect();
        params.distinguished_name.push(DnType::CommonName, names.concat());
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = params.signed_by(key, &self.issuer).expect("a certificate");
        Shown {
            chain: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Shown {
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.chain.as_bytes()).expect("a certificate")
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a key")
    }
}

/// A TLS client at a gateway.
#[derive(Clone)]
pub struct Client {
    roots: RootCertStore,
    alpn: Vec<Vec<u8>>,
    versions: Vec<&'static SupportedProtocolVersion>,
    shows: Option<Shown>,
}

impl Client {
    /// One that trusts this authority, speaks TLS 1.2 and 1.3, and offers no protocol.
    pub fn trusting(authority: &Authority) -> Self {
        Self {
            roots: authority.roots(),
            alpn: Vec::new(),
            versions: rustls::ALL_VERSIONS.to_vec(),
            shows: None,
        }
    }

    pub fn offering(self, alpn: &[&str]) -> Self {
        let alpn = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Self { alpn, ..self }
    }

    pub fn speaking(self, version: &'static SupportedProtocolVersion) -> Self {
        Self {
            versions: vec![version],
            ..self
        }
    }

    /// With a certificate of its own.
    pub fn showing(self, shown: &Shown) -> Self {
        Self {
            shows: Some(shown.clone()),
            ..self
        }
    }

    /// A handshake for `name`; with an IP address as name there is no SNI. With TLS 1.3 a server's refusal of a client's
    /// certificate may come only with the first read.
    pub async fn connect(&self, address: SocketAddr, name: &str) -> io::Result<TlsStream<TcpStream>> {
        let stream = within("a connection", TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connector = TlsConnector::from(self.config());
        within("a handshake", connector.connect(name, stream)).await
    }

    /// The first bytes of a handshake for `name`.
    pub fn hello(&self, name: &str) -> Vec<u8> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut connection = ClientConnection::new(self.config(), name).expect("a client");
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).expect("written");
        bytes
    }

    fn config(&self) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&self.versions)
            .expect("versions")
            .with_root_certificates(self.roots.clone());
        let mut config = match &self.shows {
            Some(shown) => builder
                .with_client_auth_cert(vec![shown.der()], shown.key())
                .expect("a certificate"),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.alpn);
        Arc::new(config)
    }
}

/// An application that is reached by TLS: `app` behind a certificate, with `h2` and `http/1.1` offered. Every SNI that
/// came is sent to `names`.
pub async fn behind_tls(
    app: &App,
    shown: &Shown,
    alpn: &[&str],
) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    behind(app, shown, alpn, None).await
}

/// The same, only for clients with a certificate of this authority.
pub async fn behind_mutual_tls(
    app: &App,
    shown: &Shown,
    alpn: &[&str],
    clients: &Authority,
) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    behind(app, shown, alpn, Some(clients)).await
}

async fn behind(
    app: &App,
    shown: &Shown,
    alpn: &[&str],
    clients: Option<&Authority>,
) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let roots = Arc::new(authority.roots());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        }
    };
    let mut config = builder
        .with_single_cert(vec![shown.der()], shown.key())
        .expect("a certificate");
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let (acceptor, target) = (TlsAcceptor::from(Arc::new(config)), app.address);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (say, names) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, say) = (acceptor.clone(), say.clone());
            tokio::spawn(async move {
                // Who is not let in is for the client to tell.
                let Ok(mut client) = acceptor.accept(stream).await else {
                    return;
                };
                let _ = say.send(name_of(&client));
                if let Ok(mut app) = TcpStream::connect(target).await {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut app).await;
                }
            });
        }
    });
    (address, names)
}

fn name_of(stream: &server::TlsStream<TcpStream>) -> String {
    let connection = stream.get_ref().1;
    connection.server_name().unwrap_or_default().to_owned()
}
