//! The YAML door: what is read can be read again, document by document; what is not comes with its place.
#![no_main]

use control_plane::sources::parse_documents;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(documents) = parse_documents("fuzz.yaml", text) else { return };
    for document in documents {
        let again = parse_documents("again.yaml", &document.text).expect("a document that was read is read alone");
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].object, document.object);
    }
});
