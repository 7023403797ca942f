//! SPIFFE ids and SNI: what is read is written the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::{MeshDomain, ServicePort, SpiffeId};

fuzz_target!(|text: &str| {
    if let Ok(id) = text.parse::<SpiffeId>() {
        assert_eq!(id.to_string(), text);
    }
    let domain = MeshDomain::default();
    if let Some(service_port) = ServicePort::from_sni(text, &domain) {
        assert_eq!(service_port.sni(&domain), text);
    }
});
