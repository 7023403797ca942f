//! `ExternalAuth`: whom to ask, and in which protocol.

use gateway_api::experimental::httproutes::{
    HttpRouteRulesFiltersExternalAuth, HttpRouteRulesFiltersExternalAuthHttp,
    HttpRouteRulesFiltersExternalAuthProtocol as Protocol,
};
use http::HeaderName;
use model::filter::{AuthProtocol, ExternalAuth, PathChange};
use model::{FieldError, Label};

use super::super::check::At;
use super::super::route::header_name;
use super::target;
use crate::sources::object::BackendTarget;

/// Longest list of names (Gateway API).
const MAX_NAMES: usize = 64;

pub(super) fn auth(
    at: &At<'_>,
    own: &Label,
    auth: HttpRouteRulesFiltersExternalAuth,
) -> Option<ExternalAuth> {
    let missing = |field: &str| at.refuse(format!("{field} is missing, which the protocol asks for"));
    let excess = |field: &str| at.field(field).refuse("is not what the protocol says");
    let protocol = match (auth.protocol, auth.grpc, auth.http) {
        (Protocol::Grpc, Some(grpc), http) => {
            http.is_some().then(|| excess("http"));
            Some(AuthProtocol::Grpc {
                headers: names(&at.field("grpc"), "allowedHeaders", grpc.allowed_headers),
            })
        }
        (Protocol::Http, grpc, Some(http)) => {
            grpc.is_some().then(|| excess("grpc"));
            over_http(&at.field("http"), http)
        }
        (Protocol::Grpc, None, _) => {
            missing("grpc");
            None
        }
        (Protocol::Http, _, None) => {
            missing("http");
            None
        }
    };
    let max_body = auth
        .forward_body
        .and_then(|body| body.max_size)
        .unwrap_or_default();
    let why = || {
        FieldError::at(
            "maxSize",
            format!("{max_body} is not 0-{}", ExternalAuth::MAX_BODY_BYTES),
        )
    };
    let max_body = at
        .field("forwardBody")
        .keep(u32::try_from(max_body).map_err(|_| why()));
    let target = target(at, own, auth.backend_ref)?;
    let reference = target.to_string();
    let target = match target {
        BackendTarget::Service(target) => Some(target),
        BackendTarget::Unknown(_) => None,
    };
    let read = ExternalAuth::new(target, &reference, protocol?, max_body?);
    at.field("forwardBody").usable(read)
}

fn over_http(at: &At<'_>, http: HttpRouteRulesFiltersExternalAuthHttp) -> Option<AuthProtocol> {
    let path = http.path.unwrap_or_default();
    // What may replace a path may stand in front of one.
    at.field("path").keep(PathChange::full(&path))?;
    Some(AuthProtocol::Http {
        path,
        headers: names(at, "allowedHeaders", http.allowed_headers),
        response_headers: names(at, "allowedResponseHeaders", http.allowed_response_headers),
    })
}

fn names(at: &At<'_>, field: &str, list: Option<Vec<String>>) -> Vec<HeaderName> {
    let items = at.field(field).items(list, MAX_NAMES);
    let read = items
        .into_iter()
        .filter_map(|(at, name)| at.usable(header_name(&name)));
    read.collect()
}
