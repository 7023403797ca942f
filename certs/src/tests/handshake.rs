//! Two workloads meet: who is let in, under which cryptography, and what a change in the cell does.

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::version::TLS12;
use rustls::{CipherSuite, HandshakeKind, NamedGroup, ProtocolVersion};

use super::*;

#[test]
fn both_sides_learn_who_the_other_is() {
    let authority = authority();
    let (cart, checkout) = (cell(&authority, "cart"), cell(&authority, "checkout"));
    let shake = Handshake::run(&client(&cart, "checkout"), &server(&checkout)).succeeded();
    assert_eq!(shake.peers(), (id("checkout"), id("cart")));
    let presented = cart.current().unwrap();
    assert_eq!(
        verified_peer(&shake.server).unwrap().not_after(),
        presented.identity.not_after()
    );
    assert_eq!(shake.server.alpn_protocol(), Some(&b"h2"[..]));
}

#[test]
fn the_cryptography_is_tls_13_and_post_quantum() {
    let authority = authority();
    let (cart, checkout) = (cell(&authority, "cart"), cell(&authority, "checkout"));
    let shake = Handshake::run(&client(&cart, "checkout"), &server(&checkout)).succeeded();
    assert_eq!(shake.client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let group = shake.client.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    let suite = shake.client.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, CipherSuite::TLS13_AES_128_GCM_SHA256);
}

#[test]
fn no_session_is_resumed_even_if_the_other_side_would() {
    let authority = authority();
    let (cart, checkout) = (cell(&authority, "cart"), cell(&authority, "checkout"));
    let (client, server) = (client(&cart, "checkout"), server(&checkout));
    let mut eager_client = ClientConfig::clone(&client);
    eager_client.resumption = Resumption::in_memory_sessions(8);
    let mut eager_server = ServerConfig::clone(&server);
    eager_server.send_tls13_tickets = 2;
    for (client, server) in [(Arc::new(eager_client), server), (client, Arc::new(eager_server))] {
        for _ in 0..2 {
            let shake = Handshake::run(&client, &server).succeeded();
            assert_eq!(shake.client.handshake_kind(), Some(HandshakeKind::Full));
        }
    }
}

#[test]
fn nobody_is_verified_before_the_handshake_is_over() {
    let authority = authority();
    let (cart, checkout) = (cell(&authority, "cart"), cell(&authority, "checkout"));
    let mut slow = ClientConfig::clone(&client(&cart, "checkout"));
    slow.max_fragment_size = Some(32);
    let name = "8080.checkout.shop.svc.cluster.local".try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(slow), name).unwrap();
    let mut server = ServerConnection::new(server(&checkout)).unwrap();
    let (mut presented_early, mut to_server, mut to_client) = (false, Vec::new(), Vec::new());
    while client.wants_write() {
        to_server.clear();
        while client.wants_write() {
            client.write_tls(&mut to_server).unwrap();
        }
        for byte in &to_server {
            server.read_tls(&mut std::slice::from_ref(byte)).unwrap();
            server.process_new_packets().unwrap();
            presented_early |= server.is_handshaking() && server.peer_certificates().is_some();
            assert_eq!(verified_peer(&server).is_some(), !server.is_handshaking());
        }
        to_client.clear();
        while server.wants_write() {
            server.write_tls(&mut to_client).unwrap();
        }
        let mut rest = to_client.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    assert!(presented_early, "the moment that this test is about never came");
    assert!(verified_peer(&server).is_some());
}

#[test]
fn a_tls_12_client_is_refused() {
    let authority = authority();
    let (cart, checkout) = (cell(&authority, "cart"), cell(&authority, "checkout"));
    let old = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(crate::verify::ExpectedServer {
            cell: cart.clone(),
            expected: id("checkout"),
        }))
        .with_client_cert_resolver(Arc::new(cart));
    Handshake::run(&Arc::new(old), &server(&checkout)).client_refused(AlertDescription::ProtocolVersion);
}

#[test]
fn a_protocol_that_the_server_lacks_is_refused() {
    let authority = authority();
    let (cart, checkout) = (cell(&authority, "cart"), cell(&authority, "checkout"));
    let other = client_config(&cart, &[b"weft-tcp"], &id("checkout")).unwrap();
    Handshake::run(&other, &server(&checkout)).client_refused(AlertDescription::NoApplicationProtocol);
}

#[test]
fn another_authority_is_refused_in_both_directions() {
    let (ours, theirs) = (authority(), authority());
    let foreign = IdentityCell::with(identity(&theirs, &id("cart")), ours.bundle());
    Handshake::run(&client(&foreign, "checkout"), &server(&cell(&ours, "checkout")))
        .client_refused(AlertDescription::UnknownCA);
    Handshake::run(&client(&cell(&ours, "cart"), "cart"), &server(&foreign))
        .server_refused(AlertDescription::UnknownCA);
}

#[test]
fn somebody_else_than_expected_is_refused() {
    let authority = authority();
    let (cart, checkout) = (cell(&authority, "cart"), cell(&authority, "checkout"));
    Handshake::run(&client(&cart, "payments"), &server(&checkout))
        .server_refused(AlertDescription::AccessDenied);
}

#[test]
fn before_and_after_its_time_a_certificate_is_refused() {
    let now = SystemTime::now();
    let authority = Authority::generate(&domain("cluster.local"), now - 48 * HOUR).unwrap();
    let checkout = cell(&authority, "checkout");
    for issued in [now - 2 * HOUR, now + HOUR] {
        let cart = IdentityCell::with(identity_at(&authority, &id("cart"), issued), authority.bundle());
        Handshake::run(&client(&cart, "checkout"), &server(&checkout))
            .client_refused(AlertDescription::CertificateExpired);
        Handshake::run(&client(&checkout, "cart"), &server(&cart))
            .server_refused(AlertDescription::CertificateExpired);
    }
}

#[test]
fn clocks_may_differ_by_the_clock_skew() {
    let authority = authority();
    let (key, now) = (PrivateKey::generate().unwrap(), SystemTime::now());
    let issued = authority
        .issue(&key.csr().unwrap(), &id("cart"), HOUR, now)
        .unwrap();
    let second = Duration::from_secs(1);
    let valid_at = |moment| {
        let (leaf, rest) = issued.chain.split_first().unwrap();
        crate::chain::verify(
            leaf,
            rest,
            &authority.bundle(),
            crate::chain::Usage::Client,
            moment,
        )
        .is_ok()
    };
    assert!(valid_at(issued.not_before - CLOCK_SKEW) && valid_at(issued.not_after + CLOCK_SKEW));
    assert!(!valid_at(issued.not_before - CLOCK_SKEW - second));
    assert!(!valid_at(issued.not_after + CLOCK_SKEW + second));
}

#[test]
fn without_a_certificate_only_an_optional_server_lets_in() {
    let authority = authority();
    let (cart, checkout) = (cell(&authority, "cart"), cell(&authority, "checkout"));
    let mut anonymous = ClientConfig::clone(&client(&cart, "checkout"));
    anonymous.client_auth_cert_resolver = Arc::new(IdentityCell::new());
    let anonymous = Arc::new(anonymous);
    Handshake::run(&anonymous, &server(&checkout)).client_refused(AlertDescription::CertificateRequired);

    let optional = server_config(&checkout, H2, ClientAuth::Optional).unwrap();
    let shake = Handshake::run(&anonymous, &optional).succeeded();
    assert_eq!(verified_peer(&shake.server), None);
    let shake = Handshake::run(&client(&cart, "checkout"), &optional).succeeded();
    assert_eq!(shake.peers().1, id("cart"));
    let foreign = IdentityCell::with(identity(&super::authority(), &id("cart")), authority.bundle());
    Handshake::run(&client(&foreign, "checkout"), &optional).client_refused(AlertDescription::UnknownCA);
}

#[test]
fn the_next_handshake_uses_the_identity_that_was_set_last() {
    let authority = authority();
    let (cart, checkout) = (cell(&authority, "cart"), cell(&authority, "checkout"));
    let (client, server) = (client(&cart, "checkout"), server(&checkout));
    let before = Handshake::run(&client, &server).succeeded();
    cart.set(identity(&authority, &id("frontend")), authority.bundle());
    assert_eq!(
        Handshake::run(&client, &server).succeeded().peers().1,
        id("frontend")
    );
    assert_eq!(
        before.peers().1,
        id("cart"),
        "a connection keeps the identity it was made with"
    );
    checkout.set(identity(&authority, &id("payments")), authority.bundle());
    Handshake::run(&client, &server).server_refused(AlertDescription::AccessDenied);
}

#[test]
fn a_root_can_be_replaced_while_connections_are_made() {
    let (old, new) = (authority(), authority());
    let roots = [old.bundle().roots(), new.bundle().roots()].concat();
    let both = TrustBundle::from_der(domain("cluster.local"), roots).unwrap();
    let (cart, checkout) = (cell(&old, "cart"), cell(&old, "checkout"));
    let (client, server) = (client(&cart, "checkout"), server(&checkout));
    cart.set(identity(&old, &id("cart")), both.clone());
    checkout.set(identity(&new, &id("checkout")), both);
    Handshake::run(&client, &server).succeeded();
    checkout.set(identity(&new, &id("checkout")), new.bundle());
    Handshake::run(&client, &server).client_refused(AlertDescription::UnknownCA);
}

#[test]
fn an_empty_cell_meets_nobody() {
    let authority = authority();
    let (cart, empty) = (cell(&authority, "cart"), IdentityCell::new());
    assert!(
        Handshake::run(&client(&cart, "cart"), &server(&empty))
            .server_error
            .is_some()
    );
    assert!(
        Handshake::run(&client(&empty, "cart"), &server(&cart))
            .client_error
            .is_some()
    );
}
