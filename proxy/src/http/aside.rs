//! Requests of the proxy's own beside those of its clients: copies, and questions whether a request may go on.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use decision::Reason;
use decision::traffic::grpc;
use decision::traffic::hop::HopVersion;
use decision::traffic::retry::Outcome;
use http::Version;
use http::request::Parts;
use model::{EndpointSet, ServicePort, Snapshot};
use smallvec::SmallVec;

use super::answer;
use super::head;
use super::replay::ReplaySource;
use crate::upstream::{Cluster, Forwarded, Place, SendFailure, Spoken, Wanted};
use crate::worker::Worker;

/// A service that they are sent to, as one snapshot has it.
pub(crate) struct Aside {
    pub(crate) target: ServicePort,
    cluster: Rc<Cluster>,
    /// `None` where nothing is known of its endpoints.
    endpoints: Option<Arc<EndpointSet>>,
}

impl Aside {
    pub(crate) fn new(worker: &Worker, snapshot: &Snapshot, target: &ServicePort) -> Self {
        Self {
            cluster: worker.cluster(&(target.clone(), None)),
            endpoints: snapshot.endpoints.get(&target.service).cloned(),
            target: target.clone(),
        }
    }

    /// Sends a request, and once more to another endpoint for each of `attempts` after the first, as long as nobody has
    /// processed any of it.
    pub(crate) async fn send(
        &self,
        worker: &Worker,
        parts: &Parts,
        body: &ReplaySource,
        attempts: usize,
    ) -> Result<Forwarded, Reason> {
        let endpoints = self.endpoints.as_ref().ok_or(Reason::NoEndpoint)?;
        let policy = endpoints.governing(self.target.port);
        let _permit = policy.map(|policy| self.cluster.admit(policy)).transpose()?;
        let is_grpc = grpc::is_grpc(&parts.headers);
        let outside = endpoints.endpoints.outside(self.target.port);
        let spoken = match outside {
            Some(outside) => Spoken::to_app(outside.protocol, false, is_grpc),
            None => match self
                .cluster
                .hop_version(is_grpc || parts.version == Version::HTTP_2)
            {
                HopVersion::Http1 => Spoken::Http1,
                HopVersion::Http2 => Spoken::Http2,
            },
        };
        let mut parts = head::respoken(parts, spoken)?;
        if outside.is_some_and(|outside| outside.tls.is_some()) {
            head::sent_by_tls(&mut parts)?;
        }
        let mut tried: SmallVec<[Place; 4]> = SmallVec::new();
        loop {
            let wanted = Wanted {
                tried: &tried,
                ..Wanted::any(endpoints, policy, worker.dice(), Instant::now())
            };
            let picked = self.cluster.pick(&wanted).ok_or(Reason::NoEndpoint)?;
            let sent = picked.member.upstream.send(&parts, body, spoken).await;
            let peer = sent.as_ref().ok().and_then(|forwarded| {
                let head = &forwarded.parts;
                answer::peer_failure(head.status, &head.headers)
            });
            let failure = match (sent, peer) {
                (Ok(forwarded), None) => {
                    picked.responded(Instant::now());
                    let outcome = Outcome::Status(forwarded.parts.status.as_u16());
                    self.cluster.judged(&picked, &outcome, Instant::now());
                    return Ok(forwarded);
                }
                (Err(failure), _) => failure,
                (Ok(_), Some(Reason::ConnectionReset)) => SendFailure::Broken(Reason::ConnectionReset),
                (Ok(_), Some(reason)) => SendFailure::NotSent(reason),
            };
            picked.failed(Instant::now());
            let outcome = match failure {
                SendFailure::NotSent(reason) => Outcome::NotSent(reason),
                SendFailure::Broken(reason) => Outcome::Broken(reason),
            };
            self.cluster.judged(&picked, &outcome, Instant::now());
            match failure {
                SendFailure::NotSent(_) if tried.len() + 1 < attempts && body.is_replayable() => {
                    tried.push(picked.member.place.clone());
                }
                SendFailure::NotSent(reason) | SendFailure::Broken(reason) => return Err(reason),
            }
        }
    }
}
