//! Filters of rules and of backends: each by its type, and whether they go together.

mod auth;
mod cors;
mod elsewhere;
mod headers;

use gateway_api::experimental::httproutes::{HttpRouteRulesFilters, HttpRouteRulesFiltersType as Type};
use model::filter::Filter;
use model::route::RequestMatch;
use model::{Label, ServicePort};
use serde::Serialize;

use super::check::At;
use super::object::BackendTarget;
use super::route::{backend_ref, same_shape};

const MAX_FILTERS: usize = 16;

/// `at` is what has the field `filters`, a rule or a backend; `matches` are those of the rule.
pub(super) fn filters(
    at: &At<'_>,
    own: &Label,
    matches: &[RequestMatch],
    list: Option<Vec<HttpRouteRulesFilters>>,
) -> Vec<Filter> {
    let at = at.field("filters");
    let items = at.items(list, MAX_FILTERS);
    let given = items.len();
    let filters: Vec<Filter> = items
        .into_iter()
        .filter_map(|(at, filter)| filter_of(&at, own, matches, filter))
        .collect();
    // Where one could not be read, the places of the others are not what they were.
    if filters.len() == given {
        at.keep(Filter::compatible(&filters));
    }
    filters
}

fn filter_of(
    at: &At<'_>,
    own: &Label,
    matches: &[RequestMatch],
    filter: HttpRouteRulesFilters,
) -> Option<Filter> {
    let given = [
        ("requestHeaderModifier", filter.request_header_modifier.is_some()),
        (
            "responseHeaderModifier",
            filter.response_header_modifier.is_some(),
        ),
        ("requestMirror", filter.request_mirror.is_some()),
        ("requestRedirect", filter.request_redirect.is_some()),
        ("urlRewrite", filter.url_rewrite.is_some()),
        ("extensionRef", filter.extension_ref.is_some()),
        ("cors", filter.cors.is_some()),
        ("externalAuth", filter.external_auth.is_some()),
    ];
    let field = match filter.r#type {
        Type::RequestHeaderModifier => "requestHeaderModifier",
        Type::ResponseHeaderModifier => "responseHeaderModifier",
        Type::RequestMirror => "requestMirror",
        Type::RequestRedirect => "requestRedirect",
        Type::UrlRewrite => "urlRewrite",
        Type::Cors => "cors",
        Type::ExternalAuth => "externalAuth",
        Type::ExtensionRef => {
            at.field("type")
                .refuse("\"ExtensionRef\" is not supported: there is no filter to refer to");
            return None;
        }
    };
    for (other, _) in given
        .into_iter()
        .filter(|(other, given)| *given && *other != field)
    {
        at.field(other).refuse("is not what the filter's type says");
    }
    if !given.contains(&(field, true)) {
        at.refuse(format!("{field} is missing, which the filter's type asks for"));
        return None;
    }
    let at = at.field(field);
    match filter.r#type {
        Type::RequestHeaderModifier => filter
            .request_header_modifier
            .map(|modifier| Filter::RequestHeaders(headers::modifier(&at, modifier))),
        Type::ResponseHeaderModifier => filter
            .response_header_modifier
            .and_then(|modifier| same_shape(&at, modifier))
            .map(|modifier| Filter::ResponseHeaders(headers::modifier(&at, modifier))),
        Type::RequestMirror => filter
            .request_mirror
            .and_then(|mirror| elsewhere::mirror(&at, own, mirror))
            .map(Filter::Mirror),
        Type::RequestRedirect => filter
            .request_redirect
            .and_then(|redirect| elsewhere::redirect(&at, matches, redirect))
            .map(Filter::Redirect),
        Type::UrlRewrite => filter
            .url_rewrite
            .and_then(|rewrite| elsewhere::rewrite(&at, matches, rewrite))
            .map(Filter::Rewrite),
        Type::Cors => filter.cors.map(|cors| Filter::Cors(cors::cors(&at, cors))),
        Type::ExternalAuth => filter
            .external_auth
            .and_then(|auth| auth::auth(&at, own, auth))
            .map(Filter::Auth),
        Type::ExtensionRef => None,
    }
}

/// A filter's own `backendRef`, which has neither weight nor filters. `at` is the filter's settings.
fn service_port(at: &At<'_>, own: &Label, reference: impl Serialize) -> Option<ServicePort> {
    let at = at.field("backendRef");
    let reference = same_shape(&at, reference)?;
    match backend_ref(&at, own, &[], reference)?.target {
        BackendTarget::Service(target) => Some(target),
        BackendTarget::Unknown(named) => {
            at.refuse(format!(
                "{named} is of a kind that nothing can be sent to (supported: Service)"
            ));
            None
        }
    }
}
