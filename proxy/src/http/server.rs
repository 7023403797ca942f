//! Speaks HTTP to whoever called: HTTP/1.1 behind the guard, HTTP/2 behind the flood meter, both by hyper.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::activity::Activity;
use super::body::ResponseBody;
use super::flood::Metered;
use super::guard::{Guard, is_placeholder};
use super::{inbound, outbound};
use crate::downstream::{Arrived, Downstream};
use crate::executor::LocalExecutor;
use crate::stats::Direction;

/// Serves HTTP/1.1; `first` was already read from `stream`.
pub(crate) async fn http1<S>(downstream: Rc<Downstream>, stream: S, first: BytesMut)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = downstream.worker.limits.clone();
    let (guarded, guard) = Guard::requests(stream, first, &limits.message, limits.header_timeout);
    let activity = Rc::new(Activity::default());
    let service = {
        let (downstream, activity) = (downstream.clone(), activity.clone());
        service_fn(move |request: Request<Incoming>| {
            let refused = if is_placeholder(&request) {
                guard.refused()
            } else {
                None
            };
            let arrived = Arrived {
                request,
                refused,
                guard: Some(guard.clone()),
            };
            handle(downstream.clone(), arrived, activity.clone())
        })
    };
    let connection = http1::Builder::new()
        .half_close(true)
        .header_read_timeout(None) // the guard's, which answers 408 and does not run while idle
        .max_buf_size(limits.message.head_bytes.max(8192) + 64 * 1024)
        .max_header_size(limits.message.head_bytes + 2)
        .serve_connection(TokioIo::new(guarded), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    run(&downstream, &activity, connection.as_mut(), |connection| {
        connection.graceful_shutdown()
    })
    .await;
}

/// Serves HTTP/2; `first` was already read from `stream`.
pub(crate) async fn http2<S>(downstream: Rc<Downstream>, stream: S, first: BytesMut)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = downstream.worker.limits.clone();
    let metered = Metered::of_client(stream, downstream.client, first, &limits);
    let activity = Rc::new(Activity::default());
    let service = {
        let (downstream, activity) = (downstream.clone(), activity.clone());
        service_fn(move |request: Request<Incoming>| {
            let arrived = Arrived {
                request,
                refused: None,
                guard: None,
            };
            handle(downstream.clone(), arrived, activity.clone())
        })
    };
    let connection = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection)
        .max_header_list_size(u32::try_from(limits.message.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.pending_resets)
        .max_local_error_reset_streams(limits.error_resets)
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_frame_size(limits.frame_bytes)
        .serve_connection(TokioIo::new(metered), service);
    let mut connection = pin!(connection);
    run(&downstream, &activity, connection.as_mut(), |connection| {
        connection.graceful_shutdown()
    })
    .await;
}

async fn handle(
    downstream: Rc<Downstream>,
    arrived: Arrived,
    activity: Rc<Activity>,
) -> Result<Response<ResponseBody>, Infallible> {
    let busy = activity.begin();
    let is_last = arrived.refused.is_some();
    let mut response = match downstream.direction {
        Direction::Outbound => outbound::handle(downstream, arrived).await,
        Direction::Inbound => inbound::handle(downstream, arrived).await,
    };
    response.body_mut().keep(busy);
    if is_last {
        response
            .headers_mut()
            .insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Drives a connection until it ends by itself, was idle for too long, or the proxy stops.
async fn run<C>(
    downstream: &Downstream,
    activity: &Activity,
    mut connection: Pin<&mut C>,
    shut_down: impl Fn(Pin<&mut C>),
) where
    C: Future<Output = hyper::Result<()>>,
{
    let idle = downstream.worker.limits.idle_timeout;
    let draining = &downstream.worker.shared.draining;
    let mut shutting_down = false;
    let mut idle_check = pin!(tokio::time::sleep(idle));
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(client = %downstream.client, %error, "connection ended");
                }
                return;
            }
            () = draining.cancelled(), if !shutting_down => {
                shutting_down = true;
                shut_down(connection.as_mut());
            }
            () = idle_check.as_mut() => {
                match activity.idle_for() {
                    Some(quiet) if quiet >= idle && shutting_down => return,
                    Some(quiet) if quiet >= idle => {
                        shutting_down = true;
                        shut_down(connection.as_mut());
                        idle_check.as_mut().reset(tokio::time::Instant::now() + Duration::from_secs(5));
                    }
                    quiet => {
                        let left = idle.saturating_sub(quiet.unwrap_or_default());
                        idle_check.as_mut().reset(tokio::time::Instant::now() + left);
                    }
                }
            }
        }
    }
}
