//! What a client sees when the proxy answers by itself: one shape for every [`Reason`], and what a route says.

use bytes::Bytes;
use decision::Reason;
use decision::traffic::cors::Grant;
use decision::traffic::{auth, grpc};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, SET_COOKIE};
use http::{HeaderMap, Response, StatusCode};
use model::filter::AuthChanges;

use super::body::ResponseBody;
use crate::telemetry::Record;

/// RFC 9209.
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Why a request goes no further.
pub(crate) enum Stop {
    Refused(Reason),
    /// A route says so: this is no failure, and has no [`Reason`].
    Answered(Box<RouteAnswer>),
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}

/// An answer that follows from a route.
#[derive(Debug, Default)]
pub(crate) struct RouteAnswer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Where a caller of gRPC gets another status than the one that means the same as `status`.
    pub(crate) grpc_status: Option<u8>,
    /// Where the answer is to be told from one of the application.
    pub(crate) reason: Option<Reason>,
}

/// What filters still have to put into the request, and into the answer, whosever it is.
#[derive(Default)]
pub(crate) struct Marks(Option<Box<Marked>>);

#[derive(Default)]
struct Marked {
    grants: Vec<Grant>,
    allowed: Vec<AuthChanges>,
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Marks {
    pub(crate) fn grant(&mut self, grant: Grant) {
        self.0.get_or_insert_default().grants.push(grant);
    }

    /// What whoever let the request go on wants changed.
    pub(crate) fn allow(&mut self, changes: AuthChanges) {
        if changes != AuthChanges::default() {
            self.0.get_or_insert_default().allowed.push(changes);
        }
    }

    /// Changes a request that goes on.
    pub(crate) fn on_request(&self, headers: &mut HeaderMap) {
        let Some(marked) = &self.0 else { return };
        for changes in &marked.allowed {
            auth::on_request(changes, headers);
        }
    }

    /// A field in place of the application's of that name; a cookie beside others.
    pub(crate) fn field(&mut self, field: (HeaderName, HeaderValue)) {
        self.0.get_or_insert_default().fields.push(field);
    }

    pub(crate) fn apply(self, headers: &mut HeaderMap) {
        let Some(marked) = self.0 else { return };
        for grant in &marked.grants {
            grant.apply(headers);
        }
        for change in marked.allowed.iter().flat_map(|changes| &changes.response) {
            auth::apply(change, headers);
        }
        for (name, value) in marked.fields {
            // A map refuses its 32,769th field; heads are limited far below that.
            let _ = match name {
                SET_COOKIE => headers.try_append(name, value),
                name => headers.try_insert(name, value).map(|_| true),
            };
        }
    }
}

/// The answer to a request that was stopped.
pub(crate) fn stopped(stop: Stop, record: Record, marks: Marks) -> Response<ResponseBody> {
    let mut response = match stop {
        Stop::Refused(reason) => refuse(reason, record),
        Stop::Answered(answer) => by_route(*answer, record),
    };
    marks.apply(response.headers_mut());
    response
}

fn by_route(answer: RouteAnswer, mut record: Record) -> Response<ResponseBody> {
    let RouteAnswer {
        mut status,
        mut headers,
        mut body,
        grpc_status,
        reason,
    } = answer;
    if let Some(reason) = reason {
        record.refused(reason);
        if let Ok(value) = HeaderValue::try_from(reason.proxy_status()) {
            headers.insert(PROXY_STATUS, value);
        }
    }
    if record.is_grpc() {
        // A caller of gRPC understands nothing else: trailers-only.
        let code = grpc_status.unwrap_or_else(|| grpc::of_http_status(status));
        headers.insert(&grpc::STATUS, u16::from(code).into());
        headers.insert("grpc-message", grpc::message(&body));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        (status, body) = (StatusCode::OK, Bytes::new());
    }
    record.responded(status, &headers);
    let mut response = Response::new(ResponseBody::own(body, record));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// The answer for `reason`: its status and `Proxy-Status`; for a gRPC caller its gRPC status, trailers-only.
pub(crate) fn refuse(reason: Reason, mut record: Record) -> Response<ResponseBody> {
    record.refused(reason);
    let is_grpc = record.is_grpc();
    let text = if is_grpc {
        String::new()
    } else {
        format!("{}\n", reason.detail())
    };
    let mut response = Response::new(ResponseBody::own(text, record));
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::try_from(reason.proxy_status()) {
        headers.insert(PROXY_STATUS, value);
    }
    if is_grpc {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(u16::from(reason.grpc_status())));
        headers.insert("grpc-message", HeaderValue::from_static(reason.detail()));
    } else {
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        *response.status_mut() = reason.status();
    }
    response
}

/// Takes a member of ours off an application's response: only a sidecar may say what a sidecar found.
pub(crate) fn disown(headers: &mut HeaderMap) {
    let is_ours = |value: &HeaderValue| value.as_bytes().starts_with(b"weft;");
    if headers.get_all(PROXY_STATUS).iter().any(is_ours) {
        headers.remove(PROXY_STATUS);
    }
}

/// What another sidecar says went wrong between it and its application, where the response is its own answer.
/// [`Reason::ConnectFailed`] and [`Reason::ConnectTimeout`] mean that nothing of the request was processed.
pub(crate) fn peer_failure(status: StatusCode, headers: &HeaderMap) -> Option<Reason> {
    if status != StatusCode::OK && !status.is_server_error() {
        return None;
    }
    let value = headers.get(PROXY_STATUS)?;
    [
        Reason::ConnectFailed,
        Reason::ConnectTimeout,
        Reason::ConnectionReset,
    ]
    .into_iter()
    .find(|reason| value.as_bytes() == reason.proxy_status().as_bytes())
}
