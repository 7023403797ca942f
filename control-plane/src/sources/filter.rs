//! Filters of rules and of backends: each by its type, and whether they go together.

mod auth;
mod cors;
mod elsewhere;
mod headers;

use gateway_api::experimental::httproutes::{HttpRouteRulesFilters, HttpRouteRulesFiltersType as Type};
use model::Label;
use model::filter::Filter;
use model::route::RequestMatch;
use serde::Serialize;

use super::check::At;
use super::object::BackendTarget;
use super::reference::reference;
use super::route::{backend_ref, same_shape};

const MAX_FILTERS: usize = 16;

/// The filters of a rule, or of a backend.
#[derive(Default)]
pub(super) struct Filters {
    pub(super) filters: Vec<Filter>,
    /// Mirrors to something of a kind that nothing can be sent to, by its name.
    pub(super) lost_mirrors: Vec<String>,
}

/// One filter as it is written.
enum Written {
    Filter(Filter),
    /// A mirror to something of a kind that nothing can be sent to.
    LostMirror(String),
}

/// `at` is what has the field `filters`, a rule or a backend; `matches` are those of the rule.
pub(super) fn filters(
    at: &At<'_>,
    own: &Label,
    matches: &[RequestMatch],
    list: Option<Vec<HttpRouteRulesFilters>>,
) -> Filters {
    let at = at.field("filters");
    let items = at.items(list, MAX_FILTERS);
    let given = items.len();
    let written: Vec<Written> = items
        .into_iter()
        .filter_map(|(at, filter)| filter_of(&at, own, matches, filter))
        .collect();
    let in_place = |written: &Written| match written {
        Written::Filter(filter) => filter.clone(),
        Written::LostMirror(named) => Filter::Unresolved(named.as_str().into()),
    };
    // Where one could not be read, the places of the others are not what they were.
    if written.len() == given {
        at.keep(Filter::compatible(
            &written.iter().map(in_place).collect::<Vec<_>>(),
        ));
    }
    let mut read = Filters::default();
    for written in written {
        match written {
            Written::Filter(filter) => read.filters.push(filter),
            Written::LostMirror(named) => read.lost_mirrors.push(named),
        }
    }
    read
}

fn filter_of(
    at: &At<'_>,
    own: &Label,
    matches: &[RequestMatch],
    filter: HttpRouteRulesFilters,
) -> Option<Written> {
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
        Type::ExtensionRef => "extensionRef",
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
    let read = match filter.r#type {
        Type::RequestHeaderModifier => filter
            .request_header_modifier
            .map(|modifier| Filter::RequestHeaders(headers::modifier(&at, modifier))),
        Type::ResponseHeaderModifier => filter
            .response_header_modifier
            .and_then(|modifier| same_shape(&at, modifier))
            .map(|modifier| Filter::ResponseHeaders(headers::modifier(&at, modifier))),
        Type::RequestMirror => return elsewhere::mirror(&at, own, filter.request_mirror?),
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
        Type::ExtensionRef => filter.extension_ref.and_then(|named| {
            let (group, kind) = (Some(named.group.as_str()), Some(named.kind.as_str()));
            let named = reference(&at, own, group, kind, None, &named.name)?;
            Some(Filter::Unresolved(named.to_string().into()))
        }),
    };
    read.map(Written::Filter)
}

/// A filter's own `backendRef`, which has neither weight nor filters. `at` is the filter's settings.
fn target(at: &At<'_>, own: &Label, reference: impl Serialize) -> Option<BackendTarget> {
    let at = at.field("backendRef");
    let reference = same_shape(&at, reference)?;
    backend_ref(&at, own, &[], reference).map(|backend| backend.target)
}
