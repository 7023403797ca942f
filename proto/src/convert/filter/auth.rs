//! Whom to ask whether a request may go on.

use model::FieldError;
use model::filter::{AuthProtocol, ExternalAuth, PathChange};

use super::super::read::parse;
use super::header_names;
use crate::v1;

pub(super) fn auth_to_wire(auth: &ExternalAuth) -> v1::ExternalAuth {
    use v1::external_auth::Protocol;
    let names = |names: &[http::HeaderName]| names.iter().map(ToString::to_string).collect();
    let protocol = match &auth.protocol {
        AuthProtocol::Grpc { headers } => Protocol::Grpc(v1::GrpcAuth {
            headers: names(headers),
        }),
        AuthProtocol::Http {
            path,
            headers,
            response_headers,
        } => Protocol::Http(v1::HttpAuth {
            path: path.clone(),
            headers: names(headers),
            response_headers: names(response_headers),
        }),
    };
    v1::ExternalAuth {
        target: auth.target.as_ref().map(ToString::to_string).unwrap_or_default(),
        reference: auth.reference.to_string(),
        protocol: Some(protocol),
        max_body_bytes: auth.max_body_bytes,
    }
}

pub(super) fn auth_from_wire(wire: &v1::ExternalAuth) -> Result<ExternalAuth, FieldError> {
    use v1::external_auth::Protocol;
    let target = match wire.target.as_str() {
        "" => None,
        target => Some(parse("target", target)?),
    };
    let protocol = match &wire.protocol {
        Some(Protocol::Grpc(grpc)) => AuthProtocol::Grpc {
            headers: header_names("headers", &grpc.headers).map_err(|error| error.within("grpc"))?,
        },
        Some(Protocol::Http(http)) => http_from_wire(http).map_err(|error| error.within("http"))?,
        None => {
            return Err(FieldError::new("has no protocol that this version knows"));
        }
    };
    // Its error is in the words of the configuration: here the field has another name.
    ExternalAuth::new(target, &wire.reference, protocol, wire.max_body_bytes)
        .map_err(|error| FieldError::at("max_body_bytes", error.why))
}

fn http_from_wire(wire: &v1::HttpAuth) -> Result<AuthProtocol, FieldError> {
    // What may replace a path may stand in front of one.
    PathChange::full(&wire.path).map_err(|error| error.within("path"))?;
    Ok(AuthProtocol::Http {
        path: wire.path.clone(),
        headers: header_names("headers", &wire.headers)?,
        response_headers: header_names("response_headers", &wire.response_headers)?,
    })
}
