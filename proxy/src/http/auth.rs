//! Asks another service whether a request may go on. Where it cannot be asked, the request may not.

use std::time::{Instant, SystemTime};

use bytes::Bytes;
use decision::Reason;
use decision::traffic::{auth, grpc};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, TE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, StatusCode, Uri, Version};
use model::Snapshot;
use model::filter::{AuthChanges, AuthDenial, AuthProtocol, AuthVerdict, ExternalAuth};
use proto::authz::{self, Question};

use super::answer::{RouteAnswer, Stop};
use super::aside::Aside;
use super::gate::Arriving;
use super::replay::{ReplaySource, Whole};
use crate::worker::Worker;

/// Largest answer of an authorization service, in bytes; a larger one is none.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// How often it is asked, as long as nobody has heard the question.
const ATTEMPTS: usize = 3;

/// Whom a rule asks, made ready.
pub(crate) struct Asked {
    /// `None` where the reference does not resolve.
    to: Option<Aside>,
    auth: ExternalAuth,
}

impl Asked {
    pub(crate) fn new(worker: &Worker, snapshot: &Snapshot, auth: &ExternalAuth) -> Self {
        let aside = |target| Aside::new(worker, snapshot, target);
        Self {
            to: auth.target.as_ref().map(aside),
            auth: auth.clone(),
        }
    }

    /// What is to be changed in a request that may go on.
    pub(crate) async fn ask(&self, arriving: &Arriving<'_>) -> Result<AuthChanges, Stop> {
        let to = self.to.as_ref().ok_or(Reason::BackendNotFound)?;
        let body = self.shown_body(arriving).await?;
        let worker = &arriving.downstream.worker;
        let asking = async {
            match &self.auth.protocol {
                AuthProtocol::Grpc { .. } => self.over_grpc(to, arriving, body).await,
                AuthProtocol::Http {
                    path,
                    response_headers,
                    ..
                } => self.over_http(to, arriving, body, path, response_headers).await,
            }
        };
        let own = Instant::now() + worker.limits.auth_timeout;
        let end = arriving.until.map_or(own, |until| until.min(own));
        let verdict = match tokio::time::timeout_at(end.into(), asking).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(reason)) => {
                tracing::debug!(target = %to.target, reason = reason.detail(), "authorization failed");
                return Err(Reason::AuthUnavailable.into());
            }
            Err(_) if end < own => return Err(Reason::RequestTimeout.into()),
            Err(_) => return Err(Reason::AuthUnavailable.into()),
        };
        match verdict {
            AuthVerdict::Allowed(changes) => Ok(changes),
            AuthVerdict::Denied(denial) if denial == AuthDenial::default() => Err(Reason::AuthDenied.into()),
            AuthVerdict::Denied(denial) => Err(denied(denial)),
        }
    }

    /// What of the body is shown: all of it, or nothing.
    async fn shown_body(&self, arriving: &Arriving<'_>) -> Result<Bytes, Reason> {
        let most = self.auth.max_body_bytes as usize;
        if most == 0 {
            return Ok(Bytes::new());
        }
        let reading = arriving.body.read_whole(most);
        let read = match arriving.until {
            None => reading.await,
            Some(until) => tokio::time::timeout_at(until.into(), reading)
                .await
                .unwrap_or(Err(Reason::RequestTimeout)),
        };
        read?.ok_or(Reason::AuthBodyTooLarge)
    }

    async fn over_grpc(
        &self,
        to: &Aside,
        arriving: &Arriving<'_>,
        body: Bytes,
    ) -> Result<AuthVerdict, Reason> {
        let Arriving {
            downstream,
            parts,
            authority,
            record,
            ..
        } = arriving;
        let identity = downstream.worker.shared.identity.current();
        // At a gateway it is somebody else who calls.
        let own = identity.filter(|_| downstream.front.port.is_none());
        let message = Question {
            client: downstream.client,
            time: SystemTime::now(),
            principal: own.map(|current| current.identity.id().to_string()),
            method: parts.method.as_str(),
            path: parts.uri.path_and_query().map_or("/", PathAndQuery::as_str),
            host: authority,
            scheme: downstream.front.scheme(),
            protocol: if parts.version == Version::HTTP_2 {
                "HTTP/2"
            } else {
                "HTTP/1.1"
            },
            headers: &auth::told(&self.auth.protocol, &parts.headers),
            body: &body,
            size: arriving.body.exact(),
        }
        .to_message();
        let mut question = head(Method::POST, Uri::from_static(authz::CHECK));
        let service = &to.target.service;
        question
            .headers
            .insert(HOST, host(&format!("{}.{}", service.name, service.namespace))?);
        for (name, value) in [(CONTENT_TYPE, "application/grpc"), (TE, "trailers")] {
            question.headers.insert(name, HeaderValue::from_static(value));
        }
        record.propagate(&mut question.headers);
        let message = ReplaySource::of(Whole::data(message));
        let forwarded = to.send(&downstream.worker, &question, &message, ATTEMPTS).await?;
        let of_head = grpc::status(&forwarded.parts.headers);
        let answer = forwarded.answer.collect(MAX_ANSWER_BYTES).await?;
        let answer = answer.ok_or(Reason::ResponseHeadTooLarge)?;
        let status = answer.trailers.as_ref().and_then(grpc::status).or(of_head);
        if status != Some(0) {
            return Err(Reason::AuthUnavailable);
        }
        authz::verdict(answer.body).ok_or(Reason::MalformedResponse)
    }

    async fn over_http(
        &self,
        to: &Aside,
        arriving: &Arriving<'_>,
        body: Bytes,
        path: &str,
        wanted: &[http::HeaderName],
    ) -> Result<AuthVerdict, Reason> {
        let Arriving {
            downstream,
            parts,
            authority,
            record,
            ..
        } = arriving;
        let target = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let target = [path.trim_end_matches('/'), target].concat();
        let target = PathAndQuery::try_from(target).map_err(|_| Reason::BadTarget)?;
        let mut question = head(parts.method.clone(), Uri::from(target));
        question.headers = auth::told(&self.auth.protocol, &parts.headers);
        question.headers.insert(HOST, host(authority)?);
        question.headers.insert(CONTENT_LENGTH, body.len().into());
        record.propagate(&mut question.headers);
        let body = ReplaySource::of(Whole::data(body));
        let forwarded = to.send(&downstream.worker, &question, &body, ATTEMPTS).await?;
        let head = forwarded.parts;
        let answer = forwarded.answer.collect(MAX_ANSWER_BYTES).await?;
        let answer = answer.ok_or(Reason::ResponseHeadTooLarge)?;
        Ok(auth::verdict(
            head.status,
            head.headers,
            wanted,
            answer.body.into(),
        ))
    }
}

fn head(method: Method, target: Uri) -> Parts {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = method;
    parts.uri = target;
    parts
}

fn host(authority: &str) -> Result<HeaderValue, Reason> {
    HeaderValue::from_str(authority).map_err(|_| Reason::BadHost)
}

fn denied(denial: AuthDenial) -> Stop {
    let mut answer = RouteAnswer {
        status: denial.status,
        body: denial.body.into(),
        ..RouteAnswer::default()
    };
    for change in &denial.headers {
        auth::apply(change, &mut answer.headers);
    }
    // A switch of protocols is none here.
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        answer.status = StatusCode::FORBIDDEN;
    }
    Stop::Answered(Box::new(answer))
}
