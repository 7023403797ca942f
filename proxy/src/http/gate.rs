//! What a rule does with a request before it is sent anywhere: questions of browsers are answered, and clients sent
//! elsewhere.

use std::rc::Rc;

use decision::traffic::cors::{self, Judged};
use decision::traffic::redirect::{self, Requested};
use http::header::LOCATION;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode};
use model::filter::{Cors, Filter, Redirect, Scheme};

use super::answer::{Marks, RouteAnswer, Stop};
use crate::downstream::Front;

/// The filters of one rule, or of one backend, that may answer a request.
pub(crate) struct Gate {
    cors: Option<Cors>,
    redirect: Option<Redirect>,
}

impl Gate {
    /// Whether this filter has something to do here.
    pub(crate) fn has(filter: &Filter) -> bool {
        matches!(filter, Filter::Cors(_) | Filter::Redirect(_))
    }

    /// `None` where the filters let every request through.
    pub(crate) fn of(filters: &[Filter]) -> Option<Rc<Self>> {
        if !filters.iter().any(Self::has) {
            return None;
        }
        let mut gate = Self {
            cors: None,
            redirect: None,
        };
        for filter in filters {
            match filter {
                Filter::Cors(cors) => gate.cors = Some(cors.clone()),
                Filter::Redirect(redirect) => gate.redirect = Some(redirect.clone()),
                _ => {}
            }
        }
        Some(Rc::new(gate))
    }

    /// Lets a request for `authority` through, or answers it.
    pub(crate) fn pass(
        &self,
        front: Front,
        parts: &Parts,
        authority: &str,
        marks: &mut Marks,
    ) -> Result<(), Stop> {
        if let Some(cors) = &self.cors {
            match cors::judge(cors, &parts.method, &parts.headers) {
                Judged::Actual(grant) => marks.grant(grant),
                Judged::Preflight(grant) => {
                    marks.grant(grant);
                    return Err(answer(StatusCode::NO_CONTENT, HeaderMap::new()));
                }
            }
        }
        match &self.redirect {
            Some(redirect) => Err(answer(
                redirect.status,
                location(redirect, front, parts, authority).into_iter().collect(),
            )),
            None => Ok(()),
        }
    }
}

fn answer(status: StatusCode, headers: HeaderMap) -> Stop {
    Stop::Answered(Box::new(RouteAnswer {
        status,
        headers,
        ..RouteAnswer::default()
    }))
}

fn location(
    redirect: &Redirect,
    front: Front,
    parts: &Parts,
    authority: &str,
) -> Option<(http::HeaderName, HeaderValue)> {
    let scheme = if front.is_tls { Scheme::Https } else { Scheme::Http };
    let authority = Authority::try_from(authority).ok();
    let requested = Requested {
        scheme,
        host: authority.as_ref().map_or("", Authority::host),
        // A sidecar's client means a port of the Service, which it may write behind the name.
        port: (front.port)
            .or_else(|| authority.as_ref().and_then(Authority::port_u16))
            .unwrap_or(scheme.well_known_port()),
        path: parts.uri.path(),
        query: parts.uri.query(),
    };
    let location = redirect::location(redirect, &requested);
    Some((LOCATION, HeaderValue::try_from(location).ok()?))
}
