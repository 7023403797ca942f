//! The `OTEL_*` variables, read through a lookup so that tests need not change the process.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry_sdk::trace::Sampler;
use percent_encoding::percent_decode_str;

use crate::TelemetryError;

/// Most spans that may be asked to wait; at a few KiB each, more is not a queue but a leak.
const MAX_QUEUE: usize = 1 << 20;
/// Longest time that any of the settings may ask for: a day.
const MAX_MILLISECONDS: u64 = 24 * 60 * 60 * 1000;

/// What the environment asks for.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) disabled: bool,
    /// With a scheme.
    pub(crate) endpoint: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) tls: TlsFiles,
    /// For one export with its retries; default 10 s.
    pub(crate) timeout: Duration,
    pub(crate) sampler: Sampler,
    pub(crate) batch: Batching,
    pub(crate) resource: Vec<(String, String)>,
    pub(crate) service_name: Option<String>,
    /// What was set and could not be used.
    pub(crate) warnings: Vec<String>,
}

/// PEM files for an `https` endpoint, by path.
#[derive(Debug, Default)]
pub(crate) struct TlsFiles {
    /// Whom to trust; without it, whom the machine trusts.
    pub(crate) authority: Option<String>,
    /// Who we are: certificate chain and key, both or neither.
    pub(crate) client: Option<(String, String)>,
}

/// How spans are gathered into exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batching {
    /// How long spans may wait for company; default 5 s.
    pub(crate) delay: Duration,
    /// The longest one export may take, whatever happens; default 30 s.
    pub(crate) export_timeout: Duration,
    /// Spans that may wait; default 2048.
    pub(crate) queue: usize,
    /// Spans of one export; default 512, at most `queue`.
    pub(crate) size: usize,
}

impl Environment {
    /// Fails only where going on would lose every span without a word: another protocol than gRPC.
    pub(crate) fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, TelemetryError> {
        let mut reader = Reader {
            variable,
            warnings: Vec::new(),
        };
        let disabled = reader.disabled();
        if !disabled {
            reader.must_be_grpc()?;
        }
        Ok(Self {
            disabled,
            endpoint: reader.endpoint(),
            headers: reader.headers(),
            tls: reader.tls(),
            timeout: reader.timeout(),
            sampler: reader.sampler(),
            batch: reader.batching(),
            resource: reader.resource(),
            service_name: reader.get("OTEL_SERVICE_NAME"),
            warnings: reader.warnings,
        })
    }
}

struct Reader<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn get(&self, name: &str) -> Option<String> {
        (self.variable)(name)
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    }

    /// `OTEL_EXPORTER_OTLP_TRACES_<suffix>`, else `OTEL_EXPORTER_OTLP_<suffix>`, with the name that was set.
    fn otlp(&self, suffix: &str) -> Option<(String, String)> {
        ["OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"]
            .iter()
            .find_map(|prefix| {
                let name = format!("{prefix}{suffix}");
                self.get(&name).map(|value| (name, value))
            })
    }

    fn warn(&mut self, name: &str, why: impl std::fmt::Display) {
        self.warnings.push(format!("{name} is ignored: {why}"));
    }

    fn disabled(&mut self) -> bool {
        let off = self
            .get("OTEL_SDK_DISABLED")
            .is_some_and(|value| value.eq_ignore_ascii_case("true"));
        match self.get("OTEL_TRACES_EXPORTER").as_deref() {
            None | Some("otlp") => off,
            Some("none") => true,
            Some(other) => {
                self.warn(
                    "OTEL_TRACES_EXPORTER",
                    format!("{other:?} is not one of otlp, none"),
                );
                off
            }
        }
    }

    fn must_be_grpc(&self) -> Result<(), TelemetryError> {
        match self.otlp("PROTOCOL") {
            Some((variable, value)) if value != "grpc" => Err(TelemetryError::Protocol { variable, value }),
            _ => Ok(()),
        }
    }

    /// Without a scheme the endpoint is HTTPS unless `_INSECURE` is true (OTLP exporter specification).
    fn endpoint(&self) -> Option<String> {
        let (_, endpoint) = self.otlp("ENDPOINT")?;
        if endpoint.contains("://") {
            return Some(endpoint);
        }
        let insecure = self
            .otlp("INSECURE")
            .is_some_and(|(_, value)| value.eq_ignore_ascii_case("true"));
        Some(format!(
            "{}://{endpoint}",
            if insecure { "http" } else { "https" }
        ))
    }

    fn headers(&mut self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let Some((name, list)) = self.otlp("HEADERS") else {
            return headers;
        };
        for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let field = item.split_once('=').and_then(|(key, value)| {
                let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
                Some((
                    HeaderName::from_str(key.trim()).ok()?,
                    HeaderValue::from_str(&value).ok()?,
                ))
            });
            match field {
                Some((key, value)) => drop(headers.insert(key, value)),
                // The value may be a secret, so only the place is told.
                None => self.warn(&name, "one of its entries is not name=value"),
            }
        }
        headers
    }

    fn tls(&mut self) -> TlsFiles {
        let file = |reader: &Self, suffix| reader.otlp(suffix).map(|(_, path)| path);
        let client = match (file(self, "CLIENT_CERTIFICATE"), file(self, "CLIENT_KEY")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                self.warn(
                    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
                    "it needs _CLIENT_KEY, and the other way round",
                );
                None
            }
        };
        TlsFiles {
            authority: file(self, "CERTIFICATE"),
            client,
        }
    }

    fn timeout(&mut self) -> Duration {
        let name = self
            .otlp("TIMEOUT")
            .map_or("OTEL_EXPORTER_OTLP_TIMEOUT".to_owned(), |(name, _)| name);
        self.milliseconds(&name, 10_000)
    }

    fn batching(&mut self) -> Batching {
        let queue = self.number("OTEL_BSP_MAX_QUEUE_SIZE", 2048, 1..=MAX_QUEUE);
        let size = self.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512.min(queue), 1..=queue);
        Batching {
            delay: self.milliseconds("OTEL_BSP_SCHEDULE_DELAY", 5_000),
            export_timeout: self.milliseconds("OTEL_BSP_EXPORT_TIMEOUT", 30_000),
            queue,
            size,
        }
    }

    fn sampler(&mut self) -> Sampler {
        let parent_based = |root| Sampler::ParentBased(Box::new(root));
        match self.get("OTEL_TRACES_SAMPLER").as_deref() {
            None | Some("parentbased_always_on") => parent_based(Sampler::AlwaysOn),
            Some("always_on") => Sampler::AlwaysOn,
            Some("always_off") => Sampler::AlwaysOff,
            Some("parentbased_always_off") => parent_based(Sampler::AlwaysOff),
            Some("traceidratio") => Sampler::TraceIdRatioBased(self.ratio()),
            Some("parentbased_traceidratio") => parent_based(Sampler::TraceIdRatioBased(self.ratio())),
            Some(other) => {
                self.warn(
                    "OTEL_TRACES_SAMPLER",
                    format!("{other:?} is not a sampler known here"),
                );
                parent_based(Sampler::AlwaysOn)
            }
        }
    }

    fn ratio(&mut self) -> f64 {
        self.number("OTEL_TRACES_SAMPLER_ARG", 1.0, 0.0..=1.0)
    }

    /// All or nothing, as the resource specification asks: half a list would describe another resource.
    fn resource(&mut self) -> Vec<(String, String)> {
        let name = "OTEL_RESOURCE_ATTRIBUTES";
        let Some(list) = self.get(name) else {
            return Vec::new();
        };
        let pairs = list
            .split(',')
            .filter(|item| !item.trim().is_empty())
            .map(|item| {
                let (key, value) = item.split_once('=')?;
                let decoded =
                    |text: &str| Some(percent_decode_str(text.trim()).decode_utf8().ok()?.into_owned());
                Some((decoded(key).filter(|key| !key.is_empty())?, decoded(value)?))
            });
        pairs.collect::<Option<_>>().unwrap_or_else(|| {
            self.warn(name, format!("{list:?} is not a list of name=value"));
            Vec::new()
        })
    }

    fn milliseconds(&mut self, name: &str, default: u64) -> Duration {
        Duration::from_millis(self.number(name, default, 1..=MAX_MILLISECONDS))
    }

    fn number<T>(&mut self, name: &str, default: T, allowed: RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + Copy + std::fmt::Display,
    {
        let Some(text) = self.get(name) else {
            return default;
        };
        match text.parse() {
            Ok(number) if allowed.contains(&number) => number,
            _ => {
                let (least, most) = (allowed.start(), allowed.end());
                self.warn(
                    name,
                    format!("{text:?} is not a number from {least} to {most}; {default} is used"),
                );
                default
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Environment {
        let lookup = |name: &str| {
            variables
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| v.to_string())
        };
        Environment::read(&lookup).expect("readable")
    }

    #[test]
    fn nothing_set_gives_the_specified_defaults() {
        let environment = read(&[("OTEL_TRACES_SAMPLER", ""), ("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]);
        assert_eq!(environment.endpoint, None);
        assert_eq!(environment.timeout, Duration::from_secs(10));
        let (delay, export_timeout) = (Duration::from_secs(5), Duration::from_secs(30));
        assert_eq!(
            environment.batch,
            Batching {
                delay,
                export_timeout,
                queue: 2048,
                size: 512
            }
        );
        assert_eq!(format!("{:?}", environment.sampler), "ParentBased(AlwaysOn)");
        assert!(!environment.disabled && environment.warnings.is_empty());
    }

    #[test]
    fn the_variable_of_the_signal_wins() {
        let environment = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4317"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4317"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "1500"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
            (
                "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
                "authorization=Basic%20eDp5, x-team = shop",
            ),
        ]);
        assert_eq!(environment.endpoint.as_deref(), Some("http://traces:4317"));
        assert_eq!(environment.timeout, Duration::from_millis(1500));
        assert_eq!(environment.headers["authorization"], "Basic eDp5");
        assert_eq!(environment.headers["x-team"], "shop");
        assert_eq!(environment.headers.len(), 2);
    }

    #[test]
    fn an_endpoint_without_a_scheme_is_secure_unless_told_otherwise() {
        let bare = ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317");
        assert_eq!(read(&[bare]).endpoint.as_deref(), Some("https://collector:4317"));
        let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", "true");
        assert_eq!(
            read(&[bare, insecure]).endpoint.as_deref(),
            Some("http://collector:4317")
        );
    }

    #[test]
    fn samplers_are_read_with_their_ratio() {
        for (name, argument, expected) in [
            ("always_on", "", "AlwaysOn"),
            ("always_off", "", "AlwaysOff"),
            ("traceidratio", "0.25", "TraceIdRatioBased(0.25)"),
            ("parentbased_always_off", "", "ParentBased(AlwaysOff)"),
            (
                "parentbased_traceidratio",
                "0",
                "ParentBased(TraceIdRatioBased(0.0))",
            ),
        ] {
            let environment = read(&[
                ("OTEL_TRACES_SAMPLER", name),
                ("OTEL_TRACES_SAMPLER_ARG", argument),
            ]);
            assert_eq!(format!("{:?}", environment.sampler), expected);
            assert!(environment.warnings.is_empty());
        }
    }

    #[test]
    fn what_cannot_be_used_is_a_warning_and_the_default() {
        let environment = read(&[
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "NaN"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "101"),
            ("OTEL_BSP_SCHEDULE_DELAY", "-5"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=1,broken"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=1"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
        ]);
        assert_eq!(format!("{:?}", environment.sampler), "TraceIdRatioBased(1.0)");
        assert_eq!((environment.batch.queue, environment.batch.size), (100, 100));
        assert!(environment.resource.is_empty() && environment.headers.is_empty());
        assert_eq!(environment.warnings.len(), 6, "{:?}", environment.warnings);
    }

    #[test]
    fn another_protocol_is_an_error_that_names_its_variable() {
        let lookup = |name: &str| (name == "OTEL_EXPORTER_OTLP_PROTOCOL").then(|| "http/protobuf".to_owned());
        let error = Environment::read(&lookup).expect_err("not gRPC");
        assert!(
            error
                .to_string()
                .contains("OTEL_EXPORTER_OTLP_PROTOCOL asks for \"http/protobuf\"")
        );
    }

    #[test]
    fn resource_attributes_are_percent_decoded() {
        let environment = read(&[("OTEL_RESOURCE_ATTRIBUTES", "team=a%2Cb, zone = west")]);
        let expected = [("team", "a,b"), ("zone", "west")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(environment.resource, expected);
    }
}
