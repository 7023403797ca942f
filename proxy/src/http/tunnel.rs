//! CONNECT on a sidecar's outbound port, which is how `http_proxy` works for clients of gRPC, WebSockets and TLS.
//!
//! A tunnel to a service is served as if the service had a local port here: what is spoken inside is told by its first
//! bytes. A tunnel to a host outside the mesh is bytes both ways.

use std::net::SocketAddr;

use bytes::BytesMut;
use decision::Reason;
use http::request::Parts;
use http::{Response, StatusCode};
use model::ServicePort;
use tokio::net::TcpStream;

use super::answer;
use super::body::ResponseBody;
use crate::connection;
use crate::destinations::Found;
use crate::downstream::Downstream;
use crate::leg::Leg;
use crate::stats::Direction;
use crate::tcp;
use crate::telemetry::Record;

/// Of no use: an authority without a port was refused.
const NO_PORT: u16 = 0;

/// A tunnel that can be served once its client knows that it is open.
pub(crate) struct Tunnel {
    end: End,
    record: Record,
}

/// Whether CONNECT is served on a connection: on the outbound port of a sidecar, and on no other.
pub(crate) fn is_served(downstream: &Downstream) -> bool {
    downstream.direction == Direction::Outbound
        && downstream.front.port.is_none()
        && downstream.service.is_none()
}

/// Where a tunnel leads.
enum End {
    /// Or to the one of its endpoints that has this address.
    Service(ServicePort, Option<SocketAddr>),
    Outside(TcpStream),
}

/// Opens a tunnel to `authority`, as an accepted CONNECT names it; or answers why there is none.
pub(crate) async fn open(
    downstream: &Downstream,
    parts: &Parts,
    authority: Result<&str, Reason>,
) -> Result<Tunnel, Response<ResponseBody>> {
    let mut record = Record::open(downstream, Direction::Outbound, parts);
    let end = match authority {
        Ok(authority) => find(downstream, authority, &mut record).await,
        Err(reason) => Err(reason),
    };
    match end {
        Ok(end) => {
            record.opened(StatusCode::OK);
            Ok(Tunnel { end, record })
        }
        Err(reason) => Err(answer::refuse(reason, record)),
    }
}

async fn find(downstream: &Downstream, authority: &str, record: &mut Record) -> Result<End, Reason> {
    let worker = &downstream.worker;
    match worker.destinations.find(worker, None, None, authority).await {
        Ok(Found { known, .. }) => {
            record.generation = known.snapshot.generation;
            record.labels = Some(known.labels.clone());
            return Ok(End::Service(known.target.clone(), known.address()));
        }
        Err(Reason::UnknownService) => {}
        Err(reason) => return Err(reason),
    }
    let found = worker.outside.find(worker, authority, NO_PORT).await;
    if !matches!(found, Err(Reason::UnknownService)) {
        record.labels = Some(worker.recorder.outside());
    }
    let connected = worker.outside.connect(worker, &found?).await;
    record.attempted(connected.is_err(), false);
    let (stream, address) = connected?;
    tracing::debug!(authority, %address, "a tunnel leads outside the mesh");
    Ok(End::Outside(stream))
}

impl Tunnel {
    /// Serves what its client sends through it, to its end; `first` was already read.
    pub(crate) async fn serve(self, downstream: &Downstream, client: Leg, first: BytesMut) {
        let Self { end, mut record } = self;
        let worker = &downstream.worker;
        let passed = match end {
            End::Service(service, endpoint) => {
                let to = (service, endpoint);
                let inside = connection::inside(worker.clone(), client, first, downstream.client, to);
                Box::pin(inside).await
            }
            End::Outside(stream) => {
                let idle = worker.limits.idle_timeout;
                Ok(tcp::carry(client, first, Leg::Plain(stream), idle).await)
            }
        };
        record.tunnelled(passed);
    }
}
