//! Certificates that a root of ours signed and that are still no identity, stolen ones, and bytes that are
//! none.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, SanType,
};

use super::*;

/// What a server tells a client whose leaf was altered so.
fn meets(authority: &Authority, alter: impl FnOnce(&mut CertificateParams)) -> Handshake {
    let key = PrivateKey::generate().unwrap();
    let chain = authority.issue_altered(&key, &id("cart"), alter);
    let (cart, checkout) = (cell(authority, "cart"), cell(authority, "checkout"));
    Handshake::run(
        &presenting(&client(&cart, "checkout"), &key, chain),
        &server(&checkout),
    )
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

#[test]
fn an_unaltered_leaf_is_accepted() {
    let shake = meets(&authority(), |_| {}).succeeded();
    assert_eq!(shake.peers().1, id("cart"));
}

#[test]
fn other_names_beside_the_one_uri_say_nothing() {
    let dns = SanType::DnsName("checkout.shop".try_into().unwrap());
    let shake = meets(&authority(), |leaf| leaf.subject_alt_names.push(dns)).succeeded();
    assert_eq!(shake.peers().1, id("cart"));
}

#[test]
fn another_trust_domain_is_refused_even_under_the_same_root() {
    let other = uri("spiffe://other.example/ns/shop/sa/cart");
    meets(&authority(), |leaf| leaf.subject_alt_names = vec![other])
        .client_refused(AlertDescription::AccessDenied);
}

#[test]
fn a_leaf_that_is_no_svid_is_refused() {
    let authority = authority();
    let refused = |alter: &dyn Fn(&mut CertificateParams)| {
        meets(&authority, alter).client_refused(AlertDescription::CertificateUnknown);
    };
    refused(&|leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    refused(&|leaf| {
        leaf.subject_alt_names
            .push(uri("spiffe://cluster.local/ns/shop/sa/checkout"))
    });
    refused(&|leaf| leaf.subject_alt_names.push(uri("https://example.com")));
    refused(&|leaf| leaf.subject_alt_names.clear());
    refused(&|leaf| leaf.subject_alt_names = vec![uri("spiffe://cluster.local")]);
    refused(&|leaf| leaf.subject_alt_names = vec![uri("spiffe://cluster.local/ns/shop/sa/cart/x")]);
    refused(&|leaf| leaf.key_usages.clear());
    refused(&|leaf| leaf.key_usages = vec![KeyUsagePurpose::KeyEncipherment]);
    refused(&|leaf| leaf.key_usages.push(KeyUsagePurpose::KeyCertSign));
    refused(&|leaf| leaf.key_usages.push(KeyUsagePurpose::CrlSign));
}

#[test]
fn a_leaf_for_servers_only_is_no_client() {
    meets(&authority(), |leaf| {
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]
    })
    .client_refused(AlertDescription::UnsupportedCertificate);
}

#[test]
fn a_workload_cannot_issue_identities() {
    let authority = authority();
    let (key, minted) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let chain = authority.issue_altered(&key, &id("cart"), |_| {});
    let signer = PrivateKey::from_pkcs8(key.to_der().secret_der())
        .unwrap()
        .into_pair();
    let issuer = Issuer::from_ca_cert_der(&chain[0], signer).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri("spiffe://cluster.local/ns/weft-system/sa/operator")];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.is_ca = IsCa::ExplicitNoCa;
    params.not_after = time::OffsetDateTime::now_utc() + HOUR;
    let public_key = crate::request::public_key(&minted.csr().unwrap()).unwrap();
    let leaf = params.signed_by(&public_key, &issuer).unwrap();
    let chain = [vec![leaf.into()], chain].concat();
    let (cart, checkout) = (cell(&authority, "cart"), cell(&authority, "checkout"));
    let shake = Handshake::run(
        &presenting(&client(&cart, "checkout"), &minted, chain),
        &server(&checkout),
    );
    assert_eq!(verified_peer(&shake.server), None);
    assert!(shake.server_error.is_some() && shake.client_error.is_some());
}

#[test]
fn a_certificate_without_its_key_is_worth_nothing() {
    let authority = authority();
    let (cart, checkout) = (cell(&authority, "cart"), cell(&authority, "checkout"));
    let stolen = cart.current().unwrap().identity.chain().to_vec();
    let thief = presenting(
        &client(&cart, "checkout"),
        &PrivateKey::generate().unwrap(),
        stolen,
    );
    Handshake::run(&thief, &server(&checkout)).client_refused(AlertDescription::DecryptError);
}

#[test]
fn a_chain_of_endless_certificates_is_refused() {
    let authority = authority();
    let (cart, checkout) = (cell(&authority, "cart"), cell(&authority, "checkout"));
    let key = PrivateKey::generate().unwrap();
    let mut chain = authority.issue_altered(&key, &id("cart"), |_| {});
    chain.resize(2 + MAX_INTERMEDIATES, chain[1].clone());
    Handshake::run(
        &presenting(&client(&cart, "checkout"), &key, chain),
        &server(&checkout),
    )
    .client_refused(AlertDescription::CertificateUnknown);
}

fn read_as_everything(der: &[u8], bundle: &TrustBundle) {
    let certificate = CertificateDer::from(der.to_vec());
    let _ = crate::svid::Svid::read(der);
    let _ = crate::request::public_key(der);
    let _ = TrustBundle::from_der(domain("cluster.local"), vec![certificate.clone()]);
    let (now, chain) = (SystemTime::now(), std::slice::from_ref(&certificate));
    let _ = crate::chain::verify(&certificate, chain, bundle, crate::chain::Usage::Server, now);
}

proptest! {
    #[test]
    fn garbage_is_refused_without_panic(der in vec(any::<u8>(), 0..300), pem in ".{0,200}") {
        let bundle = authority().bundle();
        read_as_everything(&der, &bundle);
        prop_assert!(TrustBundle::from_pem(&pem).is_err());
        prop_assert!(Authority::from_pem(&pem).is_err());
        prop_assert!(Identity::from_pem(&pem, &bundle, SystemTime::now()).is_err());
    }

    #[test]
    fn damaged_der_is_not_believed(places in vec((any::<Index>(), any::<u8>()), 1..4)) {
        let authority = authority();
        let cart = identity(&authority, &id("cart"));
        let csr = PrivateKey::generate().unwrap().csr().unwrap();
        let bundle = authority.bundle();
        let certificates = [&cart.chain()[0], &cart.chain()[1], &bundle.roots()[0]];
        for original in certificates.map(|der| der.to_vec()).into_iter().chain([csr]) {
            let mut damaged = original.clone();
            for (place, byte) in &places {
                *place.get_mut(&mut damaged) = *byte;
            }
            read_as_everything(&damaged, &bundle);
            let chain = [&damaged[..], &cart.chain()[1]].map(|der| CertificateDer::from(der.to_vec()));
            let (usage, now) = (crate::chain::Usage::Client, SystemTime::now());
            let verdict = crate::chain::verify(&chain[0], &chain[1..], &bundle, usage, now);
            prop_assert!(damaged == original || verdict.is_err(), "a damaged certificate was believed");
        }
    }
}
