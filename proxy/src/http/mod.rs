//! HTTP on every leg: both versions of it, the steps of a request in both directions, and its bodies.

pub(crate) mod answer;
pub(crate) mod aside;
mod auth;
pub(crate) mod body;
mod date;
pub(crate) mod fault;
pub(crate) mod gate;
pub(crate) mod head;
pub(crate) mod http1;
pub(crate) mod http2;
mod inbound;
pub(crate) mod mirror;
mod outbound;
mod outside;
pub(crate) mod replay;
pub(crate) mod session;
pub(crate) mod tunnel;

use std::rc::Rc;

use http::Response;

use crate::downstream::{Arrived, Downstream};
use crate::stats::Direction;
use body::ResponseBody;

/// Answers one request, of either version.
async fn handle(downstream: &Rc<Downstream>, arrived: Arrived) -> Response<ResponseBody> {
    match downstream.direction {
        Direction::Outbound => outbound::handle(downstream, arrived).await,
        Direction::Inbound => inbound::handle(downstream, arrived).await,
    }
}
