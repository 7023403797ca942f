//! A workload that knows nothing but the hash of a root meets the control plane, and others who would like to
//! be it.

use super::*;

/// A control plane of this authority, presenting this identity with its root.
fn control_plane(authority: &Authority, id: &SpiffeId) -> Arc<ServerConfig> {
    let identity = identity(authority, id)
        .presenting_root(&authority.bundle())
        .unwrap();
    let cell = IdentityCell::with(identity, authority.bundle());
    server_config(&cell, H2, ClientAuth::Optional).unwrap()
}

fn control_plane_id() -> SpiffeId {
    well_known::control_plane(&domain("cluster.local"))
}

#[test]
fn the_control_plane_under_the_root_of_the_token_is_believed() {
    let authority = authority();
    let joiner = first_contact_config(authority.root_hash()).unwrap();
    let shake = Handshake::run(&joiner, &control_plane(&authority, &control_plane_id())).succeeded();
    assert_eq!(verified_peer(&shake.client).unwrap().id(), &control_plane_id());
    assert_eq!(verified_peer(&shake.server), None);
    assert!(authority.bundle().contains_root(&authority.root_hash()));
    assert!(!authority.bundle().contains_root(&super::authority().root_hash()));
}

#[test]
fn another_root_is_refused() {
    let joiner = first_contact_config(authority().root_hash()).unwrap();
    Handshake::run(&joiner, &control_plane(&authority(), &control_plane_id()))
        .server_refused(AlertDescription::UnknownCA);
}

#[test]
fn a_root_that_is_only_shown_but_did_not_sign_is_refused() {
    let (ours, theirs) = (authority(), authority());
    let key = PrivateKey::generate().unwrap();
    let mut chain = theirs.issue_altered(&key, &control_plane_id(), |_| {});
    chain.push(ours.bundle().roots()[0].clone());
    let impostor = CertifiedKey::from_der(chain, key.to_der(), crate::provider::provider()).unwrap();
    let mut server = ServerConfig::clone(&control_plane(&theirs, &control_plane_id()));
    server.cert_resolver = Arc::new(SingleCertAndKey::from(impostor));
    let joiner = first_contact_config(ours.root_hash()).unwrap();
    Handshake::run(&joiner, &Arc::new(server)).server_refused(AlertDescription::UnknownCA);
}

#[test]
fn a_control_plane_that_does_not_show_its_root_is_refused() {
    let authority = authority();
    let cell = IdentityCell::with(identity(&authority, &control_plane_id()), authority.bundle());
    let joiner = first_contact_config(authority.root_hash()).unwrap();
    Handshake::run(&joiner, &server_config(&cell, H2, ClientAuth::Optional).unwrap())
        .server_refused(AlertDescription::UnknownCA);
}

#[test]
fn a_workload_of_the_mesh_is_not_taken_for_the_control_plane() {
    let authority = authority();
    let joiner = first_contact_config(authority.root_hash()).unwrap();
    for impostor in [id("cart"), well_known::operator(&domain("cluster.local"))] {
        Handshake::run(&joiner, &control_plane(&authority, &impostor))
            .server_refused(AlertDescription::AccessDenied);
    }
}
