//! What pages of other origins may see: preflights answered, answers marked (Fetch, "CORS protocol"; `HTTPCORSFilter`
//! of Gateway API).

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use model::filter::{Allowed, Cors, OriginPattern};

const ANY: HeaderValue = HeaderValue::from_static("*");

/// What a request is, as far as origins go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// A question of the browser's own, never passed on: an empty answer with this grant, which may grant nothing.
    Preflight(Grant),
    /// Any other request; the grant goes with its answer.
    Actual(Grant),
}

/// Fields for an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    fields: Vec<(HeaderName, HeaderValue)>,
    /// Another origin may get another answer, which caches have to know.
    varies: bool,
}

impl Grant {
    /// Puts the fields into an answer, in place of what an application says about the same.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.fields {
            let _ = headers.try_insert(name.clone(), value.clone());
        }
        let is_told = |value: &HeaderValue| {
            let text = value.to_str().unwrap_or_default();
            text.split(',').any(|name| {
                let name = name.trim();
                name == "*" || name.eq_ignore_ascii_case("origin")
            })
        };
        if self.varies && !headers.get_all(VARY).iter().any(is_told) {
            let _ = headers.try_append(VARY, HeaderValue::from_static("Origin"));
        }
    }
}

/// Judges one request.
///
/// Where credentials are allowed nothing is answered with `*`: a browser would refuse it. Where they are not, the answer
/// says so by having no `Access-Control-Allow-Credentials`, whatever the request came with: the browser, which knows
/// whether a page asked for credentials, draws the conclusion.
pub fn judge(cors: &Cors, method: &Method, headers: &HeaderMap) -> Judged {
    let is_preflight = method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut grant = Grant {
        fields: Vec::new(),
        varies: cors.allow_credentials || !cors.allow_origins.contains(&OriginPattern::Any),
    };
    if let Some(origin) = allowed_origin(cors, headers) {
        let answered = if grant.varies { origin.clone() } else { ANY };
        grant.fields.push((ACCESS_CONTROL_ALLOW_ORIGIN, answered));
        if cors.allow_credentials {
            let yes = HeaderValue::from_static("true");
            grant.fields.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, yes));
        }
        let exposed = listed(&cors.expose_headers, HeaderName::as_str);
        // There is no way to say "all" to a request with credentials.
        let exposed = exposed.filter(|exposed| !(cors.allow_credentials && exposed == ANY));
        grant
            .fields
            .extend(exposed.map(|value| (ACCESS_CONTROL_EXPOSE_HEADERS, value)));
        if is_preflight {
            answer_preflight(cors, headers, &mut grant);
        }
    }
    match is_preflight {
        true => Judged::Preflight(grant),
        false => Judged::Actual(grant),
    }
}

fn answer_preflight(cors: &Cors, headers: &HeaderMap, grant: &mut Grant) {
    let answer = |listed: Option<HeaderValue>, asked: HeaderName| match listed {
        Some(any) if any == ANY && cors.allow_credentials => headers.get(asked).cloned(),
        other => other,
    };
    let methods = answer(
        listed(&cors.allow_methods, Method::as_str),
        ACCESS_CONTROL_REQUEST_METHOD,
    );
    let names = answer(
        listed(&cors.allow_headers, HeaderName::as_str),
        ACCESS_CONTROL_REQUEST_HEADERS,
    );
    let age = HeaderValue::from(cors.max_age);
    let fields = [
        (ACCESS_CONTROL_ALLOW_METHODS, methods),
        (ACCESS_CONTROL_ALLOW_HEADERS, names),
        (ACCESS_CONTROL_MAX_AGE, Some(age)),
    ];
    let given = fields
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name, value)));
    grant.fields.extend(given);
}

/// The request's origin, where it is allowed. Two origins are none.
fn allowed_origin<'h>(cors: &Cors, headers: &'h HeaderMap) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(ORIGIN).iter();
    let origin = values.next().filter(|_| values.next().is_none())?;
    let text = origin.to_str().ok()?;
    let is_allowed = cors.allow_origins.iter().any(|pattern| pattern.is_match(text));
    is_allowed.then_some(origin)
}

/// The list as a field has it; `None` where it is empty.
fn listed<T>(allowed: &Allowed<T>, text: impl Fn(&T) -> &str) -> Option<HeaderValue> {
    match allowed {
        Allowed::Any => Some(ANY),
        Allowed::These(names) if names.is_empty() => None,
        Allowed::These(names) => {
            let names: Vec<&str> = names.iter().map(text).collect();
            HeaderValue::try_from(names.join(", ")).ok()
        }
    }
}

#[cfg(test)]
mod tests;
