//! The wire contract: generated code in [`v1`], and the only conversion between wire and model in [`convert`]; and the
//! questions to authorization services, whose contract is Envoy's, in [`authz`].

pub mod authz;
pub mod convert;

/// Messages and services of `weft/v1/*.proto`.
#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs)]
pub mod v1 {
    tonic::include_proto!("weft.v1");
}

/// The server of `weft.v1.Configuration` for resources that are encoded already, so that one encoding serves every
/// proxy that must know it. On the wire it is the same as [`v1::configuration_server`].
#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs)]
pub mod encoded {
    include!(concat!(env!("OUT_DIR"), "/encoded/weft.v1.rs"));
}
