//! Redirects and rewrites.

use http::uri::Authority;
use model::FieldError;
use model::filter::{PathChange, Redirect, Rewrite, Scheme, precise_hostname};
use model::route::PathMatch;

use super::super::read::port_number;
use crate::v1;

pub(super) fn redirect_to_wire(redirect: &Redirect) -> v1::Redirect {
    let scheme = match redirect.scheme {
        None => v1::UrlScheme::Unspecified,
        Some(Scheme::Http) => v1::UrlScheme::Http,
        Some(Scheme::Https) => v1::UrlScheme::Https,
    };
    v1::Redirect {
        scheme: scheme.into(),
        hostname: hostname_to_wire(redirect.hostname.as_ref()),
        path: redirect.path.as_ref().map(path_to_wire),
        port: redirect.port.map_or(0, u32::from),
        status: redirect.status.as_u16().into(),
    }
}

pub(super) fn redirect_from_wire(wire: &v1::Redirect) -> Result<Redirect, FieldError> {
    let scheme = match v1::UrlScheme::try_from(wire.scheme) {
        Ok(v1::UrlScheme::Unspecified) => None,
        Ok(v1::UrlScheme::Http) => Some(Scheme::Http),
        Ok(v1::UrlScheme::Https) => Some(Scheme::Https),
        Err(_) => {
            let why = format!("{} is no scheme that this version knows", wire.scheme);
            return Err(FieldError::at("scheme", why));
        }
    };
    let status = u16::try_from(wire.status).unwrap_or_default();
    Ok(Redirect {
        scheme,
        hostname: hostname_from_wire(&wire.hostname)?,
        path: path_from_wire(wire.path.as_ref())?,
        port: match wire.port {
            0 => None,
            port => Some(port_number(port)?),
        },
        status: Redirect::status(status).map_err(|error| error.within("status"))?,
    })
}

pub(super) fn rewrite_to_wire(rewrite: &Rewrite) -> v1::Rewrite {
    v1::Rewrite {
        hostname: hostname_to_wire(rewrite.hostname.as_ref()),
        path: rewrite.path.as_ref().map(path_to_wire),
    }
}

pub(super) fn rewrite_from_wire(wire: &v1::Rewrite) -> Result<Rewrite, FieldError> {
    Ok(Rewrite {
        hostname: hostname_from_wire(&wire.hostname)?,
        path: path_from_wire(wire.path.as_ref())?,
    })
}

fn hostname_to_wire(hostname: Option<&Authority>) -> String {
    hostname.map(ToString::to_string).unwrap_or_default()
}

fn hostname_from_wire(wire: &str) -> Result<Option<Authority>, FieldError> {
    match wire {
        "" => Ok(None),
        name => precise_hostname(name)
            .map(Some)
            .map_err(|error| error.within("hostname")),
    }
}

fn path_to_wire(path: &PathChange) -> v1::PathChange {
    use v1::path_change::Change;
    let change = match path {
        PathChange::Full(path) => Change::Full(path.clone()),
        PathChange::Prefix { matched, replacement } => Change::Prefix(v1::PrefixChange {
            matched: matched.clone(),
            replacement: replacement.clone(),
        }),
    };
    v1::PathChange { change: Some(change) }
}

fn path_from_wire(wire: Option<&v1::PathChange>) -> Result<Option<PathChange>, FieldError> {
    use v1::path_change::Change;
    let Some(wire) = wire else { return Ok(None) };
    let read = match &wire.change {
        Some(Change::Full(path)) => PathChange::full(path).map_err(|error| error.within("full")),
        Some(Change::Prefix(change)) => PathMatch::prefix(&change.matched)
            .map_err(|error| error.within("matched"))
            .and_then(|matched| {
                PathChange::prefix(&matched, &change.replacement).map_err(|error| error.within("replacement"))
            })
            .map_err(|error| error.within("prefix")),
        None => Err(FieldError::new("is no change of a path that this version knows")),
    };
    read.map(Some).map_err(|error| error.within("path"))
}
