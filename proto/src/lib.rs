//! The wire contract: generated code in [`v1`], and the only conversion between wire and model in [`convert`].

pub mod convert;

/// Messages and services of `weft/v1/*.proto`.
#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs)]
pub mod v1 {
    tonic::include_proto!("weft.v1");
}
