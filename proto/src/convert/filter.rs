//! What rules and backends do to requests and answers on their way.

mod auth;
mod cors;
mod path;

use std::str::FromStr;

use http::{HeaderName, HeaderValue};
use model::FieldError;
use model::filter::{Filter, Fraction, HeaderModifier, Mirror};

use self::auth::{auth_from_wire, auth_to_wire};
use self::cors::{cors_from_wire, cors_to_wire};
use self::path::{redirect_from_wire, redirect_to_wire, rewrite_from_wire, rewrite_to_wire};
use super::read::{items, parse};
use crate::v1;

/// Those of a rule or of a backend: each is valid, and they go together.
pub(super) fn filters_from_wire(wire: &[v1::Filter]) -> Result<Vec<Filter>, FieldError> {
    let filters = items("filters", wire, filter_from_wire)?;
    Filter::compatible(&filters).map_err(|error| error.within("filters"))?;
    Ok(filters)
}

pub(super) fn filter_to_wire(filter: &Filter) -> v1::Filter {
    use v1::filter::Filter as Wire;
    let filter = match filter {
        Filter::RequestHeaders(modifier) => Wire::RequestHeaders(modifier_to_wire(modifier)),
        Filter::ResponseHeaders(modifier) => Wire::ResponseHeaders(modifier_to_wire(modifier)),
        Filter::Redirect(redirect) => Wire::Redirect(redirect_to_wire(redirect)),
        Filter::Rewrite(rewrite) => Wire::Rewrite(rewrite_to_wire(rewrite)),
        Filter::Mirror(mirror) => Wire::Mirror(mirror_to_wire(mirror)),
        Filter::Cors(cors) => Wire::Cors(cors_to_wire(cors)),
        Filter::Auth(auth) => Wire::Auth(auth_to_wire(auth)),
        Filter::Unresolved(named) => Wire::Unresolved(named.to_string()),
    };
    v1::Filter { filter: Some(filter) }
}

fn filter_from_wire(wire: &v1::Filter) -> Result<Filter, FieldError> {
    use v1::filter::Filter as Wire;
    let within = |field: &'static str| move |error: FieldError| error.within(field);
    match &wire.filter {
        Some(Wire::RequestHeaders(modifier)) => modifier_from_wire(modifier)
            .map(Filter::RequestHeaders)
            .map_err(within("request_headers")),
        Some(Wire::ResponseHeaders(modifier)) => modifier_from_wire(modifier)
            .map(Filter::ResponseHeaders)
            .map_err(within("response_headers")),
        Some(Wire::Redirect(redirect)) => redirect_from_wire(redirect)
            .map(Filter::Redirect)
            .map_err(within("redirect")),
        Some(Wire::Rewrite(rewrite)) => rewrite_from_wire(rewrite)
            .map(Filter::Rewrite)
            .map_err(within("rewrite")),
        Some(Wire::Mirror(mirror)) => mirror_from_wire(mirror)
            .map(Filter::Mirror)
            .map_err(within("mirror")),
        Some(Wire::Cors(cors)) => cors_from_wire(cors).map(Filter::Cors).map_err(within("cors")),
        Some(Wire::Auth(auth)) => auth_from_wire(auth).map(Filter::Auth).map_err(within("auth")),
        Some(Wire::Unresolved(named)) => Ok(Filter::Unresolved(named.as_str().into())),
        None => Err(FieldError::new("is no kind of filter that this version knows")),
    }
}

fn modifier_to_wire(modifier: &HeaderModifier) -> v1::HeaderModifier {
    let field = |(name, value): &(HeaderName, HeaderValue)| v1::HeaderField {
        name: name.to_string(),
        value: value.as_bytes().to_vec(),
    };
    v1::HeaderModifier {
        remove: modifier.remove.iter().map(ToString::to_string).collect(),
        set: modifier.set.iter().map(field).collect(),
        add: modifier.add.iter().map(field).collect(),
    }
}

fn modifier_from_wire(wire: &v1::HeaderModifier) -> Result<HeaderModifier, FieldError> {
    let field = |field: &v1::HeaderField| {
        let value = HeaderValue::from_bytes(&field.value);
        let value = value.map_err(|_| FieldError::at("value", "is not a field value"))?;
        Ok((parse::<HeaderName>("name", &field.name)?, value))
    };
    HeaderModifier::new(
        header_names("remove", &wire.remove)?,
        items("set", &wire.set, field)?,
        items("add", &wire.add, field)?,
    )
}

fn mirror_to_wire(mirror: &Mirror) -> v1::Mirror {
    v1::Mirror {
        target: mirror.target.to_string(),
        numerator: mirror.share.numerator(),
        denominator: mirror.share.denominator(),
    }
}

fn mirror_from_wire(wire: &v1::Mirror) -> Result<Mirror, FieldError> {
    Ok(Mirror {
        target: parse("target", &wire.target)?,
        share: Fraction::new(wire.numerator, wire.denominator)?,
    })
}

/// Names of fields, in their order.
fn header_names(field: &str, wire: &[String]) -> Result<Vec<HeaderName>, FieldError> {
    items(field, wire, |name| {
        HeaderName::from_str(name).map_err(|_| FieldError::new(format!("{name:?} is not a field name")))
    })
}
