//! What browsers are told about other origins.

use http::Method;
use model::FieldError;
use model::filter::{Allowed, Cors, OriginPattern};

use super::super::read::items;
use super::header_names;
use crate::v1;

pub(super) fn cors_to_wire(cors: &Cors) -> v1::Cors {
    v1::Cors {
        allow_origins: cors.allow_origins.iter().map(ToString::to_string).collect(),
        allow_credentials: cors.allow_credentials,
        allow_methods: allowed_to_wire(&cors.allow_methods),
        allow_headers: allowed_to_wire(&cors.allow_headers),
        expose_headers: allowed_to_wire(&cors.expose_headers),
        max_age_seconds: cors.max_age,
    }
}

pub(super) fn cors_from_wire(wire: &v1::Cors) -> Result<Cors, FieldError> {
    let method = |name: &String| {
        let known = Cors::METHODS.iter().find(|method| method.as_str() == name);
        let unknown = || FieldError::new(format!("{name:?} is not a method that can be allowed"));
        known.cloned().ok_or_else(unknown)
    };
    let methods = |field: &str, wire: &[String]| items::<_, Method>(field, wire, method);
    Ok(Cors {
        allow_origins: items("allow_origins", &wire.allow_origins, |text| {
            text.parse::<OriginPattern>()
        })?,
        allow_credentials: wire.allow_credentials,
        allow_methods: allowed_from_wire("allow_methods", &wire.allow_methods, methods)?,
        allow_headers: allowed_from_wire("allow_headers", &wire.allow_headers, header_names)?,
        expose_headers: allowed_from_wire("expose_headers", &wire.expose_headers, header_names)?,
        max_age: wire.max_age_seconds,
    })
}

fn allowed_to_wire<T: ToString>(allowed: &Allowed<T>) -> Vec<String> {
    match allowed {
        Allowed::Any => vec!["*".to_owned()],
        Allowed::These(names) => names.iter().map(ToString::to_string).collect(),
    }
}

fn allowed_from_wire<T>(
    field: &str,
    wire: &[String],
    read: impl Fn(&str, &[String]) -> Result<Vec<T>, FieldError>,
) -> Result<Allowed<T>, FieldError> {
    if wire.len() > Cors::MAX_ITEMS {
        return Err(FieldError::at(
            field,
            format!("has over {} items", Cors::MAX_ITEMS),
        ));
    }
    match wire {
        [any] if any == "*" => Ok(Allowed::Any),
        names => read(field, names).map(Allowed::These),
    }
}
