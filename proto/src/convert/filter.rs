//! What rules and backends do to requests and answers on their way.

use std::str::FromStr;

use http::{HeaderName, HeaderValue};
use model::FieldError;
use model::filter::{Filter, HeaderModifier};

use super::read::{items, parse};
use crate::v1;

pub(super) fn filter_to_wire(filter: &Filter) -> v1::Filter {
    use v1::filter::Filter as Wire;
    let filter = match filter {
        Filter::RequestHeaders(modifier) => Wire::RequestHeaders(modifier_to_wire(modifier)),
        Filter::ResponseHeaders(modifier) => Wire::ResponseHeaders(modifier_to_wire(modifier)),
    };
    v1::Filter { filter: Some(filter) }
}

pub(super) fn filter_from_wire(wire: &v1::Filter) -> Result<Filter, FieldError> {
    use v1::filter::Filter as Wire;
    let within = |field: &'static str| move |error: FieldError| error.within(field);
    match &wire.filter {
        Some(Wire::RequestHeaders(modifier)) => modifier_from_wire(modifier)
            .map(Filter::RequestHeaders)
            .map_err(within("request_headers")),
        Some(Wire::ResponseHeaders(modifier)) => modifier_from_wire(modifier)
            .map(Filter::ResponseHeaders)
            .map_err(within("response_headers")),
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
    let remove = |name: &String| {
        HeaderName::from_str(name).map_err(|_| FieldError::new(format!("{name:?} is not a field name")))
    };
    HeaderModifier::new(
        items("remove", &wire.remove, remove)?,
        items("set", &wire.set, field)?,
        items("add", &wire.add, field)?,
    )
}
