//! A peer of the mesh that is no sidecar: it has a certificate, valid or not, and speaks mTLS as it likes.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use certs::{Authority, Identity, IdentityCell, PrivateKey, TrustBundle};
use model::SpiffeId;
use proto::v1::JoinRequest;
use proto::v1::identity_client::IdentityClient;
use proto::v1::operator_client::OperatorClient;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Channel;

use crate::mesh::Mesh;
use crate::operator::channel;
use crate::wait::within;

/// Who connects.
#[derive(Clone)]
pub struct Peer {
    pub cell: IdentityCell,
}

impl Peer {
    /// Joins the mesh with a token, as a sidecar does.
    pub async fn join(mesh: &Mesh, service_account: &str) -> Self {
        let token = mesh.operator().token("default", service_account).await;
        let bundle = mesh.operator().bundle.clone();
        let root = root_hash(&bundle);
        let tls = certs::first_contact_config(root).expect("TLS settings");
        let address = mesh.grpc_address().to_string();
        let channel = within("first contact", channel(&address, tls))
            .await
            .expect("a connection");
        let key = PrivateKey::generate().expect("a key");
        let request = JoinRequest {
            token,
            csr: key.csr().expect("a signing request"),
        };
        let issued = IdentityClient::new(channel)
            .join(request)
            .await
            .expect("a certificate")
            .into_inner();
        let chain = issued.chain.into_iter().map(CertificateDer::from).collect();
        let identity = Identity::new(key, chain, &bundle, SystemTime::now()).expect("an identity");
        Self {
            cell: IdentityCell::with(identity, bundle),
        }
    }

    /// A peer of an authority of its own, in this trust domain, that trusts `bundle` for the other side.
    pub fn of_another_authority(trust_domain: &str, bundle: &TrustBundle) -> Self {
        let now = SystemTime::now();
        let domain = trust_domain.parse().expect("a trust domain");
        let authority = Authority::generate(&domain, now).expect("an authority");
        let id: SpiffeId = format!("spiffe://{trust_domain}/ns/default/sa/visitor")
            .parse()
            .expect("an identity");
        let key = PrivateKey::generate().expect("a key");
        let csr = key.csr().expect("a signing request");
        let issued = authority
            .issue(&csr, &id, Duration::from_secs(3600), now)
            .expect("a certificate");
        let identity = Identity::new(key, issued.chain, &authority.bundle(), now).expect("an identity");
        Self {
            cell: IdentityCell::with(identity, bundle.clone()),
        }
    }

    /// The operator's calls, made with this peer's certificate.
    pub async fn operator(&self, mesh: &Mesh) -> OperatorClient<Channel> {
        let expected = SpiffeId::control_plane(mesh.operator().bundle.trust_domain());
        let tls = certs::client_config(&self.cell, &[b"h2"], &expected).expect("TLS settings");
        let address = mesh.grpc_address().to_string();
        OperatorClient::new(channel(&address, tls).await.expect("a connection"))
    }

    /// An mTLS connection to `expected`; an error as soon as either side refuses the other's certificate and
    /// says so. In TLS 1.3 the server's refusal may come only with the first read.
    pub async fn connect(
        &self,
        address: SocketAddr,
        expected: &SpiffeId,
        sni: &str,
        alpn: &[u8],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let tls = certs::client_config(&self.cell, &[alpn], expected).expect("TLS settings");
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(sni.to_owned()).expect("a server name");
        within("a handshake", TlsConnector::from(tls).connect(name, stream)).await
    }
}

fn root_hash(bundle: &TrustBundle) -> [u8; 32] {
    let root = bundle.roots().first().expect("a root");
    let digest = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()
        .expect("a TLS 1.3 suite")
        .common
        .hash_provider
        .hash(root);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}
