//! Which rule a request follows: Gateway API's precedence, as a comparison of match summaries.
//!
//! Among all matches that fit, the most specific one wins, and among equally specific ones the earliest rule,
//! since rules stand in the order of their routes' age. Choices that Gateway API leaves to the
//! implementation:
//!
//! - **Regular expressions of a path** stand below `Exact` and above `PathPrefix`, the longer expression
//!   first, as in Envoy Gateway, Contour and NGINX: a prefix is what people catch the rest with, and would
//!   hide them otherwise.
//! - **GRPCRoutes before HTTPRoutes** for a gRPC request to a service that has both (the more specific kind
//!   first).
//! - **Repeated header fields** are compared as one value, joined with `,` (RFC 9110 section 5.2). A value
//!   that is not UTF-8 fits no pattern.
//! - **Query parameters** are read as `application/x-www-form-urlencoded`: percent-decoded, `+` a space; of a
//!   repeated parameter the first value counts.
//! - **Paths** are compared as sent: case-sensitive, without decoding.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, Method};
use model::route::{PathMatch, RequestMatch};

use super::first_of_each_name;

mod explain;
mod hidden;
mod hosts;
mod place;
mod sample;
mod table;

pub use explain::{Miss, Precedence, Verdict, Weighed};
pub use hidden::{Hidden, hidden};
pub use hosts::{HostRoutes, HostTable};
pub use sample::Sample;
pub use table::RouteTable;

/// What rules look at in a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    pub method: &'a Method,
    /// The path as sent, without the query.
    pub path: &'a str,
    /// What follows `?`, as sent.
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
}

/// How specific a match is; the greater one takes precedence. The order of kinds and fields is the order in
/// which they count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Summary {
    /// HTTPRoute: path, then whether there is a method, then how many headers, then how many query
    /// parameters.
    Http {
        path: PathSummary,
        method: bool,
        headers: usize,
        query: usize,
    },
    /// GRPCRoute: characters of the service, of the method, then how many headers.
    Grpc {
        service: usize,
        method: usize,
        headers: usize,
    },
}

/// How specific the path of an HTTPRoute's match is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum PathSummary {
    Prefix { length: usize },
    Regex { length: usize },
    Exact,
}

impl Summary {
    fn of(wanted: &RequestMatch) -> Self {
        let headers = first_of_each_name(&wanted.headers).count();
        if wanted.grpc_only {
            let (service, method) = grpc_path_lengths(&wanted.path);
            return Self::Grpc {
                service,
                method,
                headers,
            };
        }
        let path = match &wanted.path {
            PathMatch::Exact(_) => PathSummary::Exact,
            PathMatch::Prefix(prefix) => PathSummary::Prefix { length: prefix.len() },
            PathMatch::Regex(regex) => PathSummary::Regex {
                length: regex.source().len(),
            },
        };
        let query = first_of_each_name(&wanted.query).count();
        Self::Http {
            path,
            method: wanted.method.is_some(),
            headers,
            query,
        }
    }
}

/// The lengths of the service and the method in a GRPCRoute's path: `/service/method`, `/service`, or `/`. A
/// regular expression (a method of any service) counts as one that names no service.
fn grpc_path_lengths(path: &PathMatch) -> (usize, usize) {
    match path {
        PathMatch::Exact(path) => {
            let (service, method) = path.rsplit_once('/').unwrap_or(("", path));
            (service.trim_start_matches('/').len(), method.len())
        }
        PathMatch::Prefix(prefix) => (prefix.trim_start_matches('/').len(), 0),
        PathMatch::Regex(regex) => (0, regex.source().len()),
    }
}

/// Whether a request is one of those that are wanted.
pub fn fits(wanted: &RequestMatch, request: &RequestView<'_>, is_grpc: bool) -> bool {
    fits_beside_path(wanted, request, is_grpc) && path_fits(&wanted.path, request.path)
}

/// Whether everything fits but perhaps the path.
fn fits_beside_path(wanted: &RequestMatch, request: &RequestView<'_>, is_grpc: bool) -> bool {
    (is_grpc || !wanted.grpc_only)
        && wanted
            .method
            .as_ref()
            .is_none_or(|method| method == request.method)
        && first_of_each_name(&wanted.headers).all(|(name, pattern)| {
            field_value(request.headers, name).is_some_and(|value| pattern.is_match(&value))
        })
        && first_of_each_name(&wanted.query).all(|(name, pattern)| {
            query_value(request.query, name).is_some_and(|value| pattern.is_match(&value))
        })
}

fn path_fits(wanted: &PathMatch, path: &str) -> bool {
    match wanted {
        PathMatch::Exact(exact) => exact == path,
        // Also what is no path, as in `OPTIONS *`.
        PathMatch::Prefix(prefix) if prefix == "/" => true,
        PathMatch::Prefix(prefix) => path
            .strip_prefix(prefix.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        PathMatch::Regex(regex) => regex.is_match(path),
    }
}

/// The value of a field; allocates only where the field is repeated.
fn field_value<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<Cow<'h, str>> {
    let mut values = headers
        .get_all(name)
        .iter()
        .map(|value| std::str::from_utf8(value.as_bytes()).ok());
    let mut joined = Cow::Borrowed(values.next()??);
    for value in values {
        let whole = joined.to_mut();
        whole.push(',');
        whole.push_str(value?);
    }
    Some(joined)
}

/// The first value of a query parameter, decoded; allocates only where something is encoded.
fn query_value<'q>(query: Option<&'q str>, name: &str) -> Option<Cow<'q, str>> {
    form_urlencoded::parse(query?.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests;
