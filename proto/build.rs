//! Compiles `weft/v1/*.proto`, and the service that others answer, in Rust: nothing but cargo is needed.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

const FILES: [&str; 6] = [
    "weft/v1/identity.proto",
    "weft/v1/configuration.proto",
    "weft/v1/resource.proto",
    "weft/v1/traffic_policy.proto",
    "weft/v1/operator.proto",
    "envoy/service/auth/v3/external_auth.proto",
];
/// `google.protobuf.FieldDescriptorProto.Type.TYPE_BYTES`.
const TYPE_BYTES: i32 = 12;

fn main() -> Result<(), Box<dyn Error>> {
    for folder in ["weft", "envoy", "google"] {
        println!("cargo:rerun-if-changed={folder}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let mut configuration = descriptors.clone();
    // Maps with an order: equal content is encoded to equal bytes.
    tonic_prost_build::configure()
        .btree_map(".")
        .compile_fds(descriptors)?;

    // The server's side of the config stream once more, with resources that are encoded already. A message inside
    // a message and its bytes are the same on the wire (protobuf encoding, "Length-Delimited Records").
    configuration
        .file
        .retain(|file| file.name() == "weft/v1/configuration.proto");
    for file in &mut configuration.file {
        file.dependency.clear();
        file.source_code_info = None;
        file.message_type
            .retain(|message| matches!(message.name(), "Update" | "VersionedResource"));
        let resource = file
            .message_type
            .iter_mut()
            .flat_map(|message| &mut message.field)
            .find(|field| field.name() == "resource")
            .ok_or("VersionedResource has no field resource")?;
        resource.r#type = Some(TYPE_BYTES);
        resource.type_name = None;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?).join("encoded");
    fs::create_dir_all(&out)?;
    tonic_prost_build::configure()
        .out_dir(out)
        .build_client(false)
        .bytes(".")
        .extern_path(".weft.v1.ProxyMessage", "crate::v1::ProxyMessage")
        .compile_fds(configuration)?;
    Ok(())
}
