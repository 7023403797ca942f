//! `weft traces`: the newest traces of the running `weft up`, as a list or as one tree.

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::pointer::{self, Pointer};
use crate::table::{millis, table, text};
use crate::trace::{Summary, Trace};

/// An answer takes at most this long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Traces {
    /// The trace to show as a tree; the beginning of its id is enough.
    trace_id: Option<String>,
    /// How many of the newest to list; 1 shows the newest whose spans have all come, as a tree.
    #[arg(long, value_name = "N", default_value_t = 20, conflicts_with = "trace_id",
          value_parser = clap::value_parser!(u16).range(1..))]
    last: u16,
}

/// What the running `weft up` answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Answer {
    /// Newest first.
    List(Vec<Summary>),
    Tree(Trace),
    /// No trace, or several, whose ids begin so.
    NotOne {
        matching: usize,
    },
    /// Spans go to this OTLP endpoint instead.
    Elsewhere(String),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum TracesError {
    #[error(
        "no `weft up` is running here; the traces of another mesh are in its OTLP backend, such as Jaeger"
    )]
    NothingRuns,
    #[error("`weft up` does not answer at {0}")]
    Silent(
        std::net::SocketAddr,
        #[source] Box<dyn std::error::Error + Send + Sync>,
    ),
    #[error("`weft up` at {0} did not answer within {within:?}", within = ANSWER_TIMEOUT)]
    Slow(std::net::SocketAddr),
    #[error("`weft up` answered {0}")]
    Refused(StatusCode),
    #[error("`weft up` answered in a way this weft does not understand")]
    Strange(#[source] serde_json::Error),
}

impl Traces {
    pub(crate) async fn run(self) -> Outcome {
        let up = pointer::find(|name| std::env::var_os(name)).ok_or(TracesError::NothingRuns)?;
        let question = match &self.trace_id {
            Some(id) if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                eprintln!("weft: {id:?} is not a trace id (hexadecimal digits, at most 32)");
                return Ok(ExitCode::from(2));
            }
            Some(id) => format!("/traces/{}", id.to_ascii_lowercase()),
            None => format!("/traces?last={}", self.last),
        };
        match ask(&up, &question).await? {
            Answer::List(traces) if traces.is_empty() => println!("no traces yet"),
            Answer::List(traces) => print_list(&traces),
            Answer::Tree(trace) => print!("{}", trace.tree()),
            Answer::NotOne { matching: 0 } if self.trace_id.is_none() => println!("no traces yet"),
            Answer::NotOne { matching } => {
                let id = self.trace_id.unwrap_or_default();
                eprintln!("weft: {matching} of the kept traces begin with {id}");
                return Ok(ExitCode::FAILURE);
            }
            Answer::Elsewhere(endpoint) => {
                eprintln!("weft: the spans go to {endpoint}; look for the traces there");
                return Ok(ExitCode::FAILURE);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn ask(up: &Pointer, question: &str) -> Result<Answer, TracesError> {
    let silent = |error: Box<dyn std::error::Error + Send + Sync>| TracesError::Silent(up.traces, error);
    let request = Request::get(format!("http://{}{question}", up.traces))
        .header(header::AUTHORIZATION, format!("Bearer {}", up.key))
        .body(Empty::<Bytes>::new())
        .map_err(|error| silent(error.into()))?;
    let answer = async {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response = client
            .request(request)
            .await
            .map_err(|error| silent(error.into()))?;
        if response.status() != StatusCode::OK {
            return Err(TracesError::Refused(response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(silent)?;
        serde_json::from_slice(&body.to_bytes()).map_err(TracesError::Strange)
    };
    tokio::time::timeout(ANSWER_TIMEOUT, answer)
        .await
        .map_err(|_| TracesError::Slow(up.traces))?
}

fn print_list(traces: &[Summary]) {
    let mut table = table(&["TRACE", "ROOT", "DURATION", "SPANS", "STATUS"]);
    for trace in traces {
        let mut status = match (trace.failed, trace.failed_spans) {
            (true, _) => "failed".to_owned(),
            (false, 0) => "ok".to_owned(),
            (false, spans) => format!("ok, {spans} failed beneath"),
        };
        if !trace.whole {
            status += ", spans are still to come";
        }
        let root = format!("{} {}", trace.service, trace.name);
        table.add_row([
            trace.id.clone(),
            root,
            millis(trace.duration),
            trace.spans.to_string(),
            status,
        ]);
    }
    println!("{}", text(table));
}
