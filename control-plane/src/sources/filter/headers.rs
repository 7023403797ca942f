//! `RequestHeaderModifier` and `ResponseHeaderModifier`, which have one shape.

use gateway_api::experimental::httproutes::HttpRouteRulesFiltersRequestHeaderModifier;
use http::{HeaderName, HeaderValue};
use model::FieldError;
use model::filter::HeaderModifier;

use super::super::check::At;
use super::super::route::header_name;

const MAX_HEADER_CHANGES: usize = 16;

pub(super) fn modifier(at: &At<'_>, modifier: HttpRouteRulesFiltersRequestHeaderModifier) -> HeaderModifier {
    let removed = at.field("remove").items(modifier.remove, MAX_HEADER_CHANGES);
    let remove: Vec<HeaderName> = removed
        .into_iter()
        .filter_map(|(at, name)| at.usable(header_name(&name)))
        .collect();
    let set = at.field("set").items(modifier.set, MAX_HEADER_CHANGES);
    let set = set
        .into_iter()
        .filter_map(|(at, header)| header_field(&at, &header.name, &header.value))
        .collect();
    let add = at.field("add").items(modifier.add, MAX_HEADER_CHANGES);
    let add = add
        .into_iter()
        .filter_map(|(at, header)| header_field(&at, &header.name, &header.value))
        .collect();
    at.usable(HeaderModifier::new(remove, set, add))
        .unwrap_or_default()
}

fn header_field(at: &At<'_>, name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let name = at.field("name").keep(header_name(name));
    let at = at.field("value");
    if value.is_empty() || value.trim() != value {
        at.refuse(format!("{value:?} is empty or has spaces at an end"));
    }
    let why = |_| FieldError::new(format!("{value:?} is not a header's value (visible ASCII)"));
    let value = at.keep(HeaderValue::from_str(value).map_err(why));
    Some((name?, value?))
}
