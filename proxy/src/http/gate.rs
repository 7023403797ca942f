//! What a rule does with a request before it is sent anywhere: questions of browsers are answered, leave is asked, and
//! clients are sent elsewhere.

use std::rc::Rc;
use std::time::Instant;

use decision::Reason;
use decision::traffic::cors::{self, Judged};
use decision::traffic::redirect::{self, Requested};
use http::header::LOCATION;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode};
use model::Snapshot;
use model::filter::{Cors, Filter, Redirect, Scheme};

use super::answer::{Marks, RouteAnswer, Stop};
use super::auth::Asked;
use super::replay::ReplaySource;
use crate::downstream::Downstream;
use crate::telemetry::Record;
use crate::worker::Worker;

/// The filters of one rule, or of one backend, that may answer a request.
pub(crate) struct Gate {
    /// Nobody knows what one of them would do.
    is_unresolved: bool,
    cors: Option<Cors>,
    asked: Vec<Asked>,
    redirect: Option<Redirect>,
}

/// A request on its way through.
pub(crate) struct Arriving<'a> {
    pub(crate) downstream: &'a Downstream,
    pub(crate) parts: &'a Parts,
    /// Whom it is for, as the client wrote it.
    pub(crate) authority: &'a str,
    /// The port of the service that is called, or of the gateway's listener.
    pub(crate) port: u16,
    pub(crate) body: &'a ReplaySource,
    /// When its time is up.
    pub(crate) until: Option<Instant>,
    pub(crate) record: &'a Record,
    pub(crate) marks: &'a mut Marks,
}

impl Gate {
    /// Whether this filter has something to do here.
    pub(crate) fn has(filter: &Filter) -> bool {
        matches!(
            filter,
            Filter::Cors(_) | Filter::Auth(_) | Filter::Redirect(_) | Filter::Unresolved(_)
        )
    }

    /// `None` where the filters let every request through.
    pub(crate) fn of(worker: &Worker, snapshot: &Snapshot, filters: &[Filter]) -> Option<Rc<Self>> {
        if !filters.iter().any(Self::has) {
            return None;
        }
        let mut gate = Self {
            is_unresolved: false,
            cors: None,
            asked: Vec::new(),
            redirect: None,
        };
        for filter in filters {
            match filter {
                Filter::Cors(cors) => gate.cors = Some(cors.clone()),
                Filter::Auth(auth) => gate.asked.push(Asked::new(worker, snapshot, auth)),
                Filter::Redirect(redirect) => gate.redirect = Some(redirect.clone()),
                Filter::Unresolved(_) => gate.is_unresolved = true,
                _ => {}
            }
        }
        Some(Rc::new(gate))
    }

    /// Lets a request through, or answers it. A browser's question has no credentials that anybody could be asked about, and
    /// where a redirect leads is told to those only who may know.
    pub(crate) async fn pass(&self, arriving: Arriving<'_>) -> Result<(), Stop> {
        if self.is_unresolved {
            return Err(Reason::FilterNotFound.into());
        }
        if let Some(cors) = &self.cors {
            match cors::judge(cors, &arriving.parts.method, &arriving.parts.headers) {
                Judged::Actual(grant) => arriving.marks.grant(grant),
                Judged::Preflight(grant) => {
                    arriving.marks.grant(grant);
                    return Err(answer(StatusCode::NO_CONTENT, HeaderMap::new()));
                }
            }
        }
        for asked in &self.asked {
            let changes = asked.ask(&arriving).await?;
            arriving.marks.allow(changes);
        }
        match &self.redirect {
            Some(redirect) => {
                let location = location(redirect, &arriving);
                Err(answer(redirect.status, location.into_iter().collect()))
            }
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

fn location(redirect: &Redirect, arriving: &Arriving<'_>) -> Option<(http::HeaderName, HeaderValue)> {
    let Arriving {
        downstream: Downstream { front, .. },
        parts,
        authority,
        port,
        ..
    } = arriving;
    let scheme = if front.is_tls { Scheme::Https } else { Scheme::Http };
    let authority = Authority::try_from(*authority).ok();
    let requested = Requested {
        scheme,
        host: authority.as_ref().map_or("", Authority::host),
        // What a sidecar's client writes behind the name is a port of the Service, or a local one that stands for it.
        port: (front.port)
            .or_else(|| authority.as_ref().and_then(Authority::port_u16))
            .unwrap_or(*port),
        path: parts.uri.path(),
        query: parts.uri.query(),
    };
    let location = redirect::location(redirect, &requested);
    Some((LOCATION, HeaderValue::try_from(location).ok()?))
}
