//! Compiles `weft/v1/*.proto` in Rust: nothing but cargo is needed.

use std::error::Error;

const FILES: [&str; 4] = [
    "weft/v1/identity.proto",
    "weft/v1/configuration.proto",
    "weft/v1/resource.proto",
    "weft/v1/operator.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=weft");
    let descriptors = protox::compile(FILES, ["."])?;
    // Maps with an order: equal content is encoded to equal bytes.
    tonic_prost_build::configure()
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
