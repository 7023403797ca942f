//! What the authority issues, what it refuses to issue, and what survives being written down.

use rcgen::{CertificateParams, KeyPair};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;

fn issue(authority: &Authority, csr: &[u8]) -> Result<IssuedChain, CertError> {
    authority.issue(csr, &id("cart"), HOUR, SystemTime::now())
}

#[test]
fn a_leaf_has_the_form_of_an_svid() {
    let authority = authority();
    let now = SystemTime::now();
    let issued = issue(&authority, &PrivateKey::generate().unwrap().csr().unwrap()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical && leaf.subject().iter().count() == 0);
    assert_eq!(names.value.general_names.len(), 1);
    assert!(
        names.value.general_names[0]
            .to_string()
            .contains("spiffe://cluster.local/ns/shop/sa/cart")
    );
    assert!(!leaf.basic_constraints().unwrap().unwrap().value.ca);
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth && !usage.any);
    assert_eq!(
        leaf.key_usage().unwrap().unwrap().value.flags,
        1,
        "digitalSignature alone"
    );
    assert!(issued.not_before <= now - CLOCK_SKEW + Duration::from_secs(1));
    assert!(issued.not_after <= now + HOUR + Duration::from_secs(1));
    assert_eq!(leaf.validity().not_after.timestamp(), seconds(issued.not_after));
    assert_eq!(leaf.validity().not_before.timestamp(), seconds(issued.not_before));
}

#[test]
fn the_same_key_gets_another_serial_every_time() {
    let authority = authority();
    let csr = PrivateKey::generate().unwrap().csr().unwrap();
    let serial = || {
        let issued = issue(&authority, &csr).unwrap();
        X509Certificate::from_der(&issued.chain[0])
            .unwrap()
            .1
            .raw_serial()
            .to_vec()
    };
    let (first, second) = (serial(), serial());
    assert_ne!(first, second);
    assert_eq!((first.len(), first[0] & 0x80), (16, 0));
}

#[test]
fn authorities_last_as_long_as_they_say() {
    let now = SystemTime::now();
    let mut authority = authority();
    let root = |authority: &Authority| {
        let bundle = authority.bundle();
        X509Certificate::from_der(&bundle.roots()[0])
            .unwrap()
            .1
            .validity()
            .not_after
            .timestamp()
    };
    assert!((root(&authority) - seconds(now + ROOT_LIFETIME)).abs() < 60);
    assert!((seconds(authority.not_after()) - seconds(now + INTERMEDIATE_LIFETIME)).abs() < 60);

    let before = identity(&authority, &id("cart"));
    authority
        .renew_intermediate(now + INTERMEDIATE_LIFETIME / 2)
        .unwrap();
    assert!(authority.not_after() > now + INTERMEDIATE_LIFETIME);
    let later = now + HOUR / 2;
    Identity::from_pem(&before.to_pem(), &authority.bundle(), later).expect("what was issued stays valid");
    authority.renew_intermediate(now + ROOT_LIFETIME - HOUR).unwrap();
    assert!(
        seconds(authority.not_after()) <= root(&authority),
        "not beyond the root"
    );
    assert!(authority.renew_intermediate(now + ROOT_LIFETIME + HOUR).is_err());
}

#[test]
fn a_leaf_does_not_start_before_the_intermediate() {
    let authority = authority();
    let csr = PrivateKey::generate().unwrap().csr().unwrap();
    let clock_was_set_back = SystemTime::now() - CLOCK_SKEW / 2;
    let issued = authority
        .issue(&csr, &id("cart"), HOUR, clock_was_set_back)
        .unwrap();
    assert_eq!(issued.not_before, authority.not_before());
}

#[test]
fn no_lifetime_reaches_beyond_the_intermediate() {
    let authority = authority();
    let csr = PrivateKey::generate().unwrap().csr().unwrap();
    let forever = authority
        .issue(&csr, &id("cart"), Duration::MAX, SystemTime::now())
        .unwrap();
    assert_eq!(forever.not_after, authority.not_after());
    let over = authority.issue(&csr, &id("cart"), HOUR, authority.not_after());
    assert!(matches!(over, Err(CertError::AuthorityNotValid)));
    let none = authority.issue(&csr, &id("cart"), Duration::ZERO, SystemTime::now());
    assert!(matches!(none, Err(CertError::NoLifetime)));
}

#[test]
fn only_a_request_signed_by_its_own_p256_key_is_answered() {
    let authority = authority();
    let csr = PrivateKey::generate().unwrap().csr().unwrap();
    issue(&authority, &csr).expect("a good one is answered");

    let mut forged = csr.clone();
    *forged.last_mut().unwrap() ^= 1;
    let trailing = [&csr[..], &[0]].concat();
    let other_kind = |algorithm| {
        let key = KeyPair::generate_for(algorithm).unwrap();
        CertificateParams::default()
            .serialize_request(&key)
            .unwrap()
            .der()
            .to_vec()
    };
    let p384 = other_kind(&rcgen::PKCS_ECDSA_P384_SHA384);
    let ed25519 = other_kind(&rcgen::PKCS_ED25519);
    for bad in [
        forged,
        trailing,
        p384,
        ed25519,
        vec![],
        csr[1..].to_vec(),
        vec![0x30; MAX_REQUEST_BYTES + 1],
    ] {
        assert!(matches!(issue(&authority, &bad), Err(CertError::Request(_))));
    }
}

#[test]
fn what_a_request_asks_for_is_not_heeded() {
    let mut params = CertificateParams::new(["evil.example".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let issued = issue(&authority(), params.serialize_request(&key).unwrap().der()).unwrap();
    let svid = crate::svid::Svid::read(&issued.chain[0]).unwrap();
    assert_eq!(svid.id, id("cart"));
    assert!(!issued.chain[0].windows(12).any(|bytes| bytes == b"evil.example"));
}

#[test]
fn identities_of_another_trust_domain_are_not_issued() {
    let csr = PrivateKey::generate().unwrap().csr().unwrap();
    let other = "spiffe://other.example/ns/shop/sa/cart".parse().unwrap();
    let refused = authority().issue(&csr, &other, HOUR, SystemTime::now());
    assert!(matches!(refused, Err(CertError::WrongTrustDomain { .. })));
}

#[test]
fn an_authority_survives_being_written_down() {
    let before = authority();
    let after = Authority::from_pem(&before.to_pem()).unwrap();
    assert_eq!(
        (after.root_hash(), after.not_after()),
        (before.root_hash(), before.not_after())
    );
    assert_eq!(after.trust_domain(), before.trust_domain());
    let cart = IdentityCell::with(identity(&after, &id("cart")), before.bundle());
    Handshake::run(&client(&cart, "checkout"), &server(&cell(&before, "checkout"))).succeeded();
}

#[test]
fn an_authority_whose_parts_do_not_fit_is_refused() {
    let (one, two) = (authority().to_pem(), authority().to_pem());
    let blocks = |text: &str| pem::parse_many(text).unwrap();
    let (one, two) = (blocks(&one), blocks(&two));
    let refused = |parts: [&pem::Pem; 4]| {
        let text = pem::encode_many(&parts.map(Clone::clone));
        assert!(Authority::from_pem(&text).is_err());
    };
    refused([&one[0], &two[1], &one[2], &one[3]]);
    refused([&one[0], &one[1], &one[2], &two[3]]);
    refused([&one[0], &one[1], &two[2], &two[3]]);
    refused([&one[1], &one[0], &one[2], &one[3]]);
}

#[test]
fn an_identity_survives_being_written_down() {
    let authority = authority();
    let before = identity(&authority, &id("cart"))
        .presenting_root(&authority.bundle())
        .unwrap();
    let bundle = TrustBundle::from_pem(&authority.bundle().to_pem()).unwrap();
    assert_eq!(bundle, authority.bundle());
    let after = Identity::from_pem(&before.to_pem(), &bundle, SystemTime::now()).unwrap();
    assert_eq!((after.id(), after.chain()), (before.id(), before.chain()));
    let cart = IdentityCell::with(after, bundle.clone());
    Handshake::run(&client(&cart, "checkout"), &server(&cell(&authority, "checkout"))).succeeded();
    let expired = Identity::from_pem(&before.to_pem(), &bundle, SystemTime::now() + 2 * HOUR);
    assert!(matches!(expired, Err(CertError::Expired)));
}

#[test]
fn a_chain_for_another_key_makes_no_identity() {
    let authority = authority();
    let chain = identity(&authority, &id("cart")).chain().to_vec();
    let key = PrivateKey::generate().unwrap();
    let mixed = Identity::new(key, chain, &authority.bundle(), SystemTime::now());
    assert!(matches!(mixed, Err(CertError::KeyMismatch)));
}

#[test]
fn a_bundle_holds_authorities_of_its_trust_domain_only() {
    let authority = authority();
    let root = authority.bundle().roots()[0].clone();
    let leaf = identity(&authority, &id("cart")).chain()[0].clone();
    let make = |roots| TrustBundle::from_der(domain("cluster.local"), roots);
    assert!(make(vec![root.clone()]).is_ok());
    assert!(make(vec![]).is_err());
    assert!(make(vec![leaf]).is_err());
    assert!(make(vec![root.clone(); MAX_ROOTS + 1]).is_err());
    assert!(TrustBundle::from_der(domain("other.example"), vec![root]).is_err());
}

#[test]
fn no_key_is_printed() {
    let authority = authority();
    let (key, cart) = (PrivateKey::generate().unwrap(), cell(&authority, "cart"));
    let printed = format!("{authority:?} {key:?} {:?} {:?}", cart, cart.current());
    assert!(
        !printed.contains("PRIVATE") && !printed.contains("pair"),
        "{printed}"
    );
    assert!(printed.contains("PrivateKey(not shown)"));
}

fn seconds(moment: SystemTime) -> i64 {
    let seconds = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    seconds.try_into().unwrap()
}
