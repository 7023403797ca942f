//! The process's log on stderr, and the tracing layer that turns weft's own operations into spans.

use std::io::IsTerminal as _;
use std::str::FromStr;

use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::Telemetry;

/// Which log lines are printed, in `tracing`'s filter language: `info`, `warn,proxy=debug`.
const WEFT_LOG: &str = "WEFT_LOG";

/// The crates whose spans are operations of the mesh itself. Others' spans (h2, tonic) are their own affair.
const OWN_CRATES: &[&str] = &[
    "certs",
    "cli",
    "control_plane",
    "proto",
    "proxy",
    "weft",
    "weft_control_plane",
    "weft_proxy",
];

/// How a log line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; coloured where stderr is a terminal and `NO_COLOR` is not set.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is neither text nor json")),
        }
    }
}

/// Prints the process's log on stderr from now on: what `WEFT_LOG` lets through, else `filter_default`.
/// The first call in a process counts.
pub fn logs_to_stderr(filter_default: &str, format: LogFormat) {
    install(
        filter_default,
        format,
        None::<Box<dyn Layer<Registry> + Send + Sync>>,
    );
}

/// [`logs_to_stderr`], and the operations of weft's own crates become spans of `telemetry` (see [`tracing_layer`]).
pub fn logs_and_spans(filter_default: &str, format: LogFormat, telemetry: &Telemetry) {
    install(filter_default, format, Some(tracing_layer(telemetry)));
    // They came up before there was a log.
    telemetry
        .warnings()
        .iter()
        .for_each(|warning| tracing::warn!("{warning}"));
}

/// Makes OpenTelemetry spans of `tracing` spans that weft's own crates open at level info or above. Does nothing
/// while the telemetry is not enabled.
pub fn tracing_layer<S>(telemetry: &Telemetry) -> impl Layer<S> + Send + Sync + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    telemetry.enabled().then(|| {
        tracing_opentelemetry::layer()
            .with_tracer(telemetry.tracer())
            .with_threads(false)
            .with_filter(filter_fn(is_own_operation).with_max_level_hint(LevelFilter::INFO))
    })
}

fn is_own_operation(metadata: &Metadata<'_>) -> bool {
    let own = metadata
        .target()
        .split("::")
        .next()
        .is_some_and(|name| OWN_CRATES.contains(&name));
    own && metadata.is_span() && *metadata.level() <= tracing::Level::INFO
}

fn install<L>(filter_default: &str, format: LogFormat, spans: Option<L>)
where
    L: Layer<Registry> + Send + Sync,
{
    let asked = std::env::var(WEFT_LOG)
        .ok()
        .filter(|filter| !filter.trim().is_empty());
    let parsed = asked.as_deref().map(EnvFilter::try_new);
    let (filter, refused) = match parsed {
        Some(Ok(filter)) => (filter, None),
        Some(Err(why)) => (EnvFilter::new(filter_default), Some(why)),
        None => (EnvFilter::new(filter_default), None),
    };
    // Reporting a failed write would be another write to stderr, and panic.
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => {
            let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            lines.with_ansi(!plain && std::io::stderr().is_terminal()).boxed()
        }
    };
    // A second subscriber in one process is refused, and the first goes on.
    let _ = Registry::default()
        .with(spans)
        .with(lines.with_filter(filter))
        .try_init();
    if let Some(why) = refused {
        tracing::warn!("{WEFT_LOG} is ignored: {why}");
    }
}
