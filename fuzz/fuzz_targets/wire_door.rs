//! The only door from wire to model: whatever is decoded is refused with a field, or valid and sent back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use proto::{convert, v1};

fuzz_target!(|input: &[u8]| {
    match input {
        [b'R', wire @ ..] => resource(wire),
        [b'H', wire @ ..] => hello(wire),
        _ => {}
    }
});

fn resource(wire: &[u8]) {
    let Ok(wire) = v1::Resource::decode(wire) else { return };
    let Ok(resource) = convert::resource_from_wire(wire) else { return };
    let again = convert::resource_from_wire(convert::resource_to_wire(&resource));
    assert_eq!(again.as_ref(), Ok(&resource));
}

fn hello(wire: &[u8]) {
    let Ok(hello) = v1::Hello::decode(wire) else { return };
    let identity = "spiffe://cluster.local/ns/shop/sa/checkout".parse().expect("an id");
    let _ = convert::workload_from_wire(&hello, &identity);
}
