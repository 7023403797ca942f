//! What a handshake between sidecars costs the callee: in full with a caller never met, in full with one whose chain
//! is remembered, and resumed.
//!
//! `cargo bench -p bench --bench handshake`. The callee is exactly a sidecar's; both ends run in memory on one thread
//! and only the callee's calls are measured. Printed are CPU microseconds per handshake, the median of batches.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use certs::{Authority, Identity, IdentityCell, PrivateKey, ServerTls, TrustBundle};
use rustix::time::{ClockId, clock_gettime};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, ServerConnection,
    SignatureScheme,
};

const BATCHES: usize = 31;
const PER_BATCH: u32 = 100;

fn main() {
    println!(
        "{:<16} {:>11} {:>11} {:>11} {:>11}   full : resumed",
        "key exchange", "full, new", "full, known", "no tickets", "resumed"
    );
    for (name, group) in [
        ("X25519MLKEM768", kx_group::X25519MLKEM768),
        ("X25519", kx_group::X25519),
    ] {
        let new = median(|| Callee::new(2048), Callee::forget, group, false);
        let known = median(|| Callee::new(2048), |_| {}, group, false);
        let without = median(|| Callee::new(0), |_| {}, group, false);
        let resumed = median(|| Callee::new(2048), |_| {}, group, true);
        println!(
            "{name:<16} {new:>11.1} {known:>11.1} {without:>11.1} {resumed:>11.1}   {:.2} / {:.2}",
            new / resumed,
            known / resumed
        );
    }
}

/// A sidecar's TLS settings, and the identity by which it is called.
struct Callee {
    cell: IdentityCell,
    pem: String,
    bundle: TrustBundle,
    tls: ServerTls,
    caller: IdentityCell,
}

impl Callee {
    fn new(sessions: usize) -> Self {
        let now = SystemTime::now();
        let authority = Authority::generate(&"cluster.local".parse().unwrap(), now).unwrap();
        let bundle = authority.bundle();
        let identity = |account: &str| {
            let id = format!("spiffe://cluster.local/ns/shop/sa/{account}")
                .parse()
                .unwrap();
            let key = PrivateKey::generate().unwrap();
            let day = Duration::from_secs(86_400);
            let issued = authority.issue(&key.csr().unwrap(), &id, day, now).unwrap();
            Identity::new(key, issued.chain, &bundle, now).unwrap()
        };
        let callee = identity("checkout");
        let pem = callee.to_pem();
        let cell = IdentityCell::with(callee, bundle.clone());
        Self {
            tls: ServerTls::new(&cell, &[b"h2"], sessions),
            caller: IdentityCell::with(identity("cart"), bundle.clone()),
            cell,
            pem,
            bundle,
        }
    }

    /// Knows nobody any more.
    fn forget(&self) {
        let identity = Identity::from_pem(&self.pem, &self.bundle, SystemTime::now()).unwrap();
        self.cell.set(identity, self.bundle.clone());
        self.tls.config().unwrap();
    }

    /// One handshake; the time that the callee's side took.
    fn shake(&self, config: &Arc<ClientConfig>, is_resumed: bool) -> Duration {
        let name = ServerName::try_from("80.checkout.shop.svc.cluster.local").unwrap();
        let mut client = ClientConnection::new(config.clone(), name).unwrap();
        let (mut took, mut buffer) = (Duration::ZERO, Vec::with_capacity(16 * 1024));
        let started = cpu_time();
        let mut server = ServerConnection::new(self.tls.config().unwrap()).unwrap();
        took += cpu_time() - started;
        while client.wants_write() {
            buffer.clear();
            while client.wants_write() {
                client.write_tls(&mut buffer).unwrap();
            }
            let started = cpu_time();
            let mut rest = buffer.as_slice();
            while !rest.is_empty() {
                server.read_tls(&mut rest).unwrap();
                server.process_new_packets().unwrap();
            }
            let mut answer = Vec::with_capacity(8 * 1024);
            while server.wants_write() {
                server.write_tls(&mut answer).unwrap();
            }
            took += cpu_time() - started;
            let mut rest = answer.as_slice();
            while !rest.is_empty() {
                client.read_tls(&mut rest).unwrap();
                client.process_new_packets().unwrap();
            }
        }
        let started = cpu_time();
        self.tls.verified_peer(&server, SystemTime::now()).unwrap();
        took += cpu_time() - started;
        assert_eq!(
            server.handshake_kind() == Some(HandshakeKind::Resumed),
            is_resumed
        );
        took
    }
}

/// What this thread has used so far.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

fn median(
    callee: impl Fn() -> Callee,
    before: impl Fn(&Callee),
    group: &'static dyn SupportedKxGroup,
    resumes: bool,
) -> f64 {
    let callee = callee();
    let config = caller(&callee, group, resumes);
    if resumes {
        callee.shake(&config, false);
    }
    let mut batches: Vec<f64> = (0..BATCHES)
        .map(|_| {
            let mut took = Duration::ZERO;
            for _ in 0..PER_BATCH {
                before(&callee);
                took += callee.shake(&config, resumes);
            }
            took.as_secs_f64() * 1e6 / f64::from(PER_BATCH)
        })
        .collect();
    batches.sort_by(f64::total_cmp);
    batches[BATCHES / 2]
}

/// A caller that offers one key exchange, and the cipher that sidecars prefer, and looks at nothing: its side is not measured.
fn caller(callee: &Callee, group: &'static dyn SupportedKxGroup, resumes: bool) -> Arc<ClientConfig> {
    let provider = CryptoProvider {
        kx_groups: vec![group],
        cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256],
        ..default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous))
        .with_client_cert_resolver(Arc::new(callee.caller.clone()));
    config.alpn_protocols = vec![b"h2".to_vec()];
    if !resumes {
        config.resumption = rustls::client::Resumption::disabled();
    }
    Arc::new(config)
}

#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
