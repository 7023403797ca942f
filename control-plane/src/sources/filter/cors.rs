//! `CORS`: lists of names, of which each may be `*` alone.

use gateway_api::experimental::httproutes::HttpRouteRulesFiltersCors;
use http::{HeaderName, Method};
use model::FieldError;
use model::filter::{Allowed, Cors, OriginPattern};

use super::super::check::{At, Distinct};
use super::super::route::header_name;

pub(super) fn cors(at: &At<'_>, cors: HttpRouteRulesFiltersCors) -> Cors {
    let names = |field: &str, list| allowed::<HeaderName>(&at.field(field), list, header_name);
    let max_age = cors.max_age.unwrap_or(Cors::DEFAULT_MAX_AGE.cast_signed());
    let max_age_is = u32::try_from(max_age).ok().filter(|age| *age > 0);
    Cors {
        allow_origins: origins(&at.field("allowOrigins"), cors.allow_origins),
        allow_credentials: cors.allow_credentials.unwrap_or_default(),
        allow_methods: allowed(&at.field("allowMethods"), cors.allow_methods, method),
        allow_headers: names("allowHeaders", cors.allow_headers),
        expose_headers: names("exposeHeaders", cors.expose_headers),
        max_age: at
            .field("maxAge")
            .keep(max_age_is.ok_or_else(|| FieldError::new(format!("{max_age} is under 1"))))
            .unwrap_or_default(),
    }
}

fn origins(at: &At<'_>, list: Option<Vec<String>>) -> Vec<OriginPattern> {
    let items = at.items(list, Cors::MAX_ITEMS);
    let read = items
        .into_iter()
        .filter_map(|(at, text)| at.keep(text.parse::<OriginPattern>()));
    let origins: Vec<_> = read.collect();
    if origins.len() > 1 && origins.contains(&OriginPattern::Any) {
        at.refuse("\"*\" stands alone");
    }
    origins
}

fn method(name: &str) -> Result<Method, FieldError> {
    let known = Cors::METHODS.iter().find(|method| method.as_str() == name);
    known.cloned().ok_or_else(|| {
        let names = Cors::METHODS.iter().map(Method::as_str).collect::<Vec<_>>();
        FieldError::new(format!("{name:?} is none of {}, *", names.join(", ")))
    })
}

/// Each name once.
fn allowed<T>(
    at: &At<'_>,
    list: Option<Vec<String>>,
    read: impl Fn(&str) -> Result<T, FieldError>,
) -> Allowed<T> {
    let mut distinct = Distinct::new();
    let mut names = Vec::new();
    let items = at.items(list, Cors::MAX_ITEMS);
    let count = items.len();
    for (index, (item, name)) in items.into_iter().enumerate() {
        distinct.check(&item, index, name.clone());
        if name != "*" {
            names.extend(item.keep(read(&name)));
        } else if count == 1 {
            return Allowed::Any;
        } else {
            at.refuse("\"*\" stands alone");
        }
    }
    Allowed::These(names)
}
