//! Workloads that meet again: when a session is resumed, and that whoever resumes is judged as whoever comes anew.

use proptest::collection::vec;
use proptest::prelude::*;
use rustls::{HandshakeKind, NamedGroup};

use super::*;
use crate::chain::{self, Usage};
use crate::verdicts::Verdicts;

const SESSIONS: usize = 16;

/// A caller and a callee that keep sessions.
struct Pair {
    authority: Authority,
    cart: IdentityCell,
    checkout: IdentityCell,
    client: ClientTls,
    server: ServerTls,
}

impl Pair {
    fn new() -> Self {
        Self::with_sessions(SESSIONS)
    }

    fn with_sessions(sessions: usize) -> Self {
        let authority = authority();
        let (cart, checkout) = (cell(&authority, "cart"), cell(&authority, "checkout"));
        Self {
            client: ClientTls::new(&cart, H2, id("checkout")),
            server: ServerTls::new(&checkout, H2, sessions),
            authority,
            cart,
            checkout,
        }
    }

    fn meet(&self) -> Handshake {
        Handshake::run(&self.client.config().unwrap(), &self.server.config().unwrap()).succeeded()
    }

    /// Meets twice, which leaves both sides with a session to resume.
    fn acquainted() -> Self {
        let pair = Self::new();
        assert_eq!(kind(&pair.meet()), HandshakeKind::Full);
        assert_eq!(kind(&pair.meet()), HandshakeKind::Resumed);
        pair
    }

    fn judge(&self, shake: &Handshake, now: SystemTime) -> [Result<VerifiedPeer, CertError>; 2] {
        [
            self.client.verified_peer(&shake.client, now),
            self.server.verified_peer(&shake.server, now),
        ]
    }
}

fn kind(shake: &Handshake) -> HandshakeKind {
    assert_eq!(shake.client.handshake_kind(), shake.server.handshake_kind());
    shake.client.handshake_kind().unwrap()
}

/// The leaf by which the server knows the client.
fn leaf_seen(shake: &Handshake) -> &CertificateDer<'static> {
    &shake.server.peer_certificates().unwrap()[0]
}

fn leaf_of(cell: &IdentityCell) -> CertificateDer<'static> {
    cell.current().unwrap().identity.chain()[0].clone()
}

#[test]
fn whoever_meets_again_resumes_and_is_judged_again() {
    let pair = Pair::new();
    for expected in [
        HandshakeKind::Full,
        HandshakeKind::Resumed,
        HandshakeKind::Resumed,
        HandshakeKind::Resumed,
    ] {
        let shake = pair.meet();
        assert_eq!(kind(&shake), expected);
        let [server, client] = pair.judge(&shake, SystemTime::now()).map(Result::unwrap);
        assert_eq!((server.id(), client.id()), (&id("checkout"), &id("cart")));
        let not_after = pair.cart.current().unwrap().identity.not_after();
        assert_eq!(client.not_after(), not_after);
        assert_eq!(shake.server.alpn_protocol(), Some(&b"h2"[..]));
        // A fresh key exchange keeps later traffic secret even from whoever learns the session's key.
        let group = shake.server.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, NamedGroup::X25519MLKEM768);
    }
}

#[test]
fn a_resumed_connection_proves_nothing_by_itself() {
    let pair = Pair::acquainted();
    let shake = pair.meet();
    assert_eq!(verified_peer(&shake.client), None);
    assert_eq!(verified_peer(&shake.server), None);
}

#[test]
fn nobody_is_judged_before_the_handshake_is_over() {
    let pair = Pair::acquainted();
    let name = "8080.checkout.shop.svc.cluster.local".try_into().unwrap();
    let mut client = ClientConnection::new(pair.client.config().unwrap(), name).unwrap();
    let mut server = ServerConnection::new(pair.server.config().unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    server.read_tls(&mut hello.as_slice()).unwrap();
    server.process_new_packets().unwrap();
    assert!(server.is_handshaking() && server.peer_certificates().is_some());
    let early = pair.server.verified_peer(&server, SystemTime::now());
    assert!(matches!(early, Err(CertError::NoPeer)), "{early:?}");
}

#[test]
fn a_ticket_is_taken_once() {
    let pair = Pair::acquainted();
    let name = "8080.checkout.shop.svc.cluster.local".try_into().unwrap();
    let mut client = ClientConnection::new(pair.client.config().unwrap(), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    for expected in [HandshakeKind::Resumed, HandshakeKind::Full] {
        let mut server = ServerConnection::new(pair.server.config().unwrap()).unwrap();
        server.read_tls(&mut hello.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        assert_eq!(server.handshake_kind(), Some(expected));
    }
}

#[test]
fn after_a_change_of_the_bundle_nothing_is_resumed() {
    let pair = Pair::acquainted();
    let other = authority();
    let roots = [pair.authority.bundle().roots(), other.bundle().roots()].concat();
    let both = TrustBundle::from_der(domain("cluster.local"), roots).unwrap();
    pair.checkout
        .set(identity(&pair.authority, &id("checkout")), both.clone());
    assert_eq!(kind(&pair.meet()), HandshakeKind::Full);
    assert_eq!(kind(&pair.meet()), HandshakeKind::Resumed);
    pair.cart.set(identity(&pair.authority, &id("cart")), both);
    assert_eq!(kind(&pair.meet()), HandshakeKind::Full);
    // The root that the caller's certificate leads to is withdrawn.
    pair.checkout
        .set(identity(&other, &id("checkout")), other.bundle());
    let config = pair.client.config().unwrap();
    Handshake::run(&config, &pair.server.config().unwrap()).client_refused(AlertDescription::UnknownCA);
}

#[test]
fn a_handshake_that_the_change_overtakes_is_judged_by_what_is_new() {
    let pair = Pair::acquainted();
    let (client, server) = (pair.client.config().unwrap(), pair.server.config().unwrap());
    let other = authority();
    pair.checkout
        .set(identity(&other, &id("checkout")), other.bundle());
    let shake = Handshake::run(&client, &server).succeeded();
    assert_eq!(kind(&shake), HandshakeKind::Resumed);
    let [_, verdict] = pair.judge(&shake, SystemTime::now());
    assert!(matches!(verdict, Err(CertError::Untrusted(_))), "{verdict:?}");
}

#[test]
fn a_caller_with_a_new_certificate_shows_it() {
    let pair = Pair::acquainted();
    // This handshake begins before the change; what it leaves behind belongs to the old certificate.
    let late = pair.client.config().unwrap();
    pair.cart
        .set(identity(&pair.authority, &id("cart")), pair.authority.bundle());
    let shake = Handshake::run(&late, &pair.server.config().unwrap()).succeeded();
    assert_ne!(leaf_seen(&shake), &leaf_of(&pair.cart));
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let shake = pair.meet();
        assert_eq!(kind(&shake), expected);
        assert_eq!(leaf_seen(&shake), &leaf_of(&pair.cart));
    }
}

#[test]
fn a_callee_that_has_become_somebody_else_is_not_mistaken_for_itself() {
    let pair = Pair::acquainted();
    pair.checkout.set(
        identity(&pair.authority, &id("payments")),
        pair.authority.bundle(),
    );
    let config = pair.client.config().unwrap();
    Handshake::run(&config, &pair.server.config().unwrap()).server_refused(AlertDescription::AccessDenied);
}

#[test]
fn an_expired_certificate_is_not_good_for_a_session() {
    let pair = Pair::acquainted();
    let second = Duration::from_secs(1);
    for (cell, side) in [(&pair.checkout, 0), (&pair.cart, 1)] {
        let shake = pair.meet();
        assert_eq!(kind(&shake), HandshakeKind::Resumed);
        let last = cell.current().unwrap().identity.not_after() + CLOCK_SKEW;
        assert!(pair.judge(&shake, last)[side].is_ok());
        assert_eq!(kind(&pair.meet()), HandshakeKind::Resumed);
        let verdict = &pair.judge(&shake, last + second)[side];
        assert!(matches!(verdict, Err(CertError::Expired)), "{verdict:?}");
        // The caller has let its sessions go.
        assert_eq!(kind(&pair.meet()), HandshakeKind::Full);
    }
}

#[test]
fn a_session_is_for_the_identity_that_it_began_with() {
    let pair = Pair::acquainted();
    let payments = ClientTls::new(&pair.cart, H2, id("payments"));
    let server = pair.server.config().unwrap();
    Handshake::run(&payments.config().unwrap(), &server).server_refused(AlertDescription::AccessDenied);
    // Not even with the other's sessions in hand.
    let mut borrowing = ClientConfig::clone(&payments.config().unwrap());
    borrowing.resumption = pair.client.config().unwrap().resumption.clone();
    Handshake::run(&Arc::new(borrowing), &server).server_refused(AlertDescription::AccessDenied);
    let shake = pair.meet();
    let wrong = payments.verified_peer(&shake.client, SystemTime::now());
    assert!(matches!(wrong, Err(CertError::WrongIdentity { .. })), "{wrong:?}");
}

#[test]
fn who_shows_no_certificate_gets_no_session() {
    let pair = Pair::new();
    let mut anonymous = ClientConfig::clone(&pair.client.config().unwrap());
    anonymous.client_auth_cert_resolver = Arc::new(IdentityCell::new());
    let anonymous = Arc::new(anonymous);
    for _ in 0..2 {
        let shake = Handshake::run(&anonymous, &pair.server.config().unwrap());
        shake.client_refused(AlertDescription::CertificateRequired);
        assert!(
            pair.server
                .verified_peer(&shake.server, SystemTime::now())
                .is_err()
        );
    }
}

#[test]
fn only_the_latest_sessions_are_kept_and_none_where_none_may_be() {
    let (pair, more) = (Pair::with_sessions(2), 3);
    assert_eq!(kind(&pair.meet()), HandshakeKind::Full);
    for _ in 0..more {
        let stranger = ClientTls::new(&pair.cart, H2, id("checkout"));
        Handshake::run(&stranger.config().unwrap(), &pair.server.config().unwrap()).succeeded();
    }
    assert_eq!(kind(&pair.meet()), HandshakeKind::Full);
    let without = Pair::with_sessions(0);
    for _ in 0..2 {
        let shake = without.meet();
        assert_eq!(kind(&shake), HandshakeKind::Full);
        assert_eq!(shake.client.tls13_tickets_received(), 0);
    }
}

#[test]
fn a_session_that_is_too_large_is_not_kept() {
    let pair = Pair::new();
    let key = PrivateKey::generate().unwrap();
    let chain = pair.authority.issue_altered(&key, &id("cart"), |leaf| {
        let ballast = vec![0; MAX_SESSION_BYTES];
        let extension = rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 32473, 1], ballast);
        leaf.custom_extensions.push(extension);
    });
    let large = presenting(&pair.client.config().unwrap(), &key, chain);
    for _ in 0..2 {
        let shake = Handshake::run(&large, &pair.server.config().unwrap()).succeeded();
        assert_eq!(kind(&shake), HandshakeKind::Full);
        assert!(
            pair.server
                .verified_peer(&shake.server, SystemTime::now())
                .is_ok()
        );
    }
}

#[test]
fn an_empty_cell_has_no_settings() {
    let empty = IdentityCell::new();
    let client = ClientTls::new(&empty, H2, id("checkout"));
    let server = ServerTls::new(&empty, H2, SESSIONS);
    assert!(matches!(client.config(), Err(CertError::NoIdentity)));
    assert!(matches!(server.config(), Err(CertError::NoIdentity)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// What is remembered never changes a verdict, also where an intermediate ends before the leaf does.
    #[test]
    fn memory_changes_no_verdict(
        leaf_hours in 1u64..4 * 365 * 24,
        questions in vec((any::<bool>(), -30_000_000i64..140_000_000), 1..40),
    ) {
        let (now, authority) = (SystemTime::now(), authority());
        let key = PrivateKey::generate().unwrap();
        let end = time::OffsetDateTime::now_utc() + Duration::from_secs(3600 * leaf_hours);
        let chain = authority.issue_altered(&key, &id("cart"), |leaf| leaf.not_after = end);
        let (bundle, verdicts) = (authority.bundle(), Verdicts::default());
        for (is_client, seconds) in questions {
            let usage = if is_client { Usage::Client } else { Usage::Server };
            let moment = match u64::try_from(seconds) {
                Ok(after) => now + Duration::from_secs(after),
                Err(_) => now - Duration::from_secs(seconds.unsigned_abs()),
            };
            let fresh = chain::verify(&chain[0], &chain[1..], &bundle, usage, moment);
            let remembered = verdicts.verify(&chain[0], &chain[1..], &bundle, usage, moment);
            prop_assert_eq!(format!("{fresh:?}"), format!("{remembered:?}"));
        }
    }
}

#[test]
fn a_verdict_is_for_one_chain_and_one_side() {
    use rcgen::ExtendedKeyUsagePurpose::ServerAuth;
    let (now, authority, other) = (SystemTime::now(), authority(), super::authority());
    let (bundle, verdicts) = (authority.bundle(), Verdicts::default());
    let key = PrivateKey::generate().unwrap();
    let chain = authority.issue_altered(&key, &id("cart"), |leaf| {
        leaf.extended_key_usages = vec![ServerAuth]
    });
    let is_good = |chain: &[CertificateDer<'_>], usage| {
        let (leaf, rest) = chain.split_first().unwrap();
        verdicts.verify(leaf, rest, &bundle, usage, now).is_ok()
    };
    for _ in 0..2 {
        assert!(is_good(&chain, Usage::Server) && !is_good(&chain, Usage::Client));
        let forged = other.issue_altered(&key, &id("cart"), |_| {});
        assert!(!is_good(&forged, Usage::Server));
        assert!(!is_good(&[chain[0].clone(), forged[1].clone()], Usage::Server));
        assert!(!is_good(&chain[..1], Usage::Server));
    }
}
