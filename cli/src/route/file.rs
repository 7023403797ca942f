//! The file of `weft route test`: every request of it can be made, and every expectation can be judged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use control_plane::rehearsal::{Call, Caller};
use model::FieldError;
use proto::v1::Diagnostic;
use serde::Deserialize;
use serde_saphyr::{DefaultMessageFormatter, Location, MessageFormatter, Spanned};

use crate::diagnostic;

/// Tests, and what they are tried on.
#[derive(Debug)]
pub(super) struct Suite {
    pub(super) config: Vec<PathBuf>,
    pub(super) tests: Vec<Test>,
}

/// A request and what must become of it.
#[derive(Debug)]
pub(super) struct Test {
    pub(super) name: String,
    /// Of the file, from 1.
    pub(super) line: u64,
    pub(super) call: Call,
    pub(super) expect: Expect,
}

/// What is judged is what is given; something is.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Expect {
    /// `Kind/namespace/name`.
    pub(super) route: Option<String>,
    /// `Kind/namespace/name#index`.
    pub(super) rule: Option<String>,
    /// Gets all requests.
    pub(super) backend: Option<BackendName>,
    /// In percent of requests; others get none.
    pub(super) backends: Vec<(BackendName, f64)>,
    /// Percentage points by which a share may be off.
    pub(super) tolerance: f64,
    pub(super) status: Option<u16>,
    pub(super) location: Option<String>,
    pub(super) headers: Option<Headers>,
    pub(super) response_headers: Option<Headers>,
}

/// A backend as a test names it: what is not given may be anything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BackendName {
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) port: Option<u16>,
}

/// Fields that the filters must set or remove; they may change others besides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Headers {
    #[serde(default)]
    pub(super) set: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) removed: BTreeSet<String>,
}

/// Percentage points by which a share may be off where a test does not say: weights are whole numbers.
const DEFAULT_TOLERANCE: f64 = 0.05;

impl Suite {
    /// Reads tests; the configuration that they name is beside them in `folder`.
    ///
    /// # Errors
    /// File, line, column, what is wrong, and the line itself.
    pub(super) fn read(path: &Path, text: &str, folder: &Path) -> Result<Self, String> {
        let shown = |location: Option<&Location>, message: String| shown(path, text, location, message);
        let written: Written = serde_saphyr::from_str(text).map_err(|error| {
            let message = DefaultMessageFormatter.format_message(error.without_snippet());
            shown(error.location().as_ref(), message.into_owned())
        })?;
        let default = written.from.unwrap_or(Spanned::new(
            "default/".to_owned(),
            Location::UNKNOWN,
            Location::UNKNOWN,
        ));
        let mut names = BTreeSet::new();
        let mut tests = Vec::with_capacity(written.tests.len());
        for test in written.tests {
            let place = test.name.referenced;
            if !names.insert(test.name.value.clone()) {
                let message = format!("another test is called {:?} already", test.name.value);
                return Err(shown(Some(&place), message));
            }
            let test = test
                .check(&default)
                .map_err(|(place, error)| shown(Some(&place), error.to_string()))?;
            tests.push(test);
        }
        Ok(Self {
            config: written.config.iter().map(|path| folder.join(path)).collect(),
            tests,
        })
    }
}

fn shown(path: &Path, text: &str, location: Option<&Location>, message: String) -> String {
    let place = |number: fn(&Location) -> u64| {
        location
            .and_then(|location| u32::try_from(number(location)).ok())
            .unwrap_or_default()
    };
    let diagnostic = Diagnostic {
        file: path.display().to_string(),
        line: place(Location::line),
        column: place(Location::column),
        field: String::new(),
        message,
    };
    diagnostic::render(&diagnostic, Some(text), false)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    #[serde(default)]
    config: Vec<PathBuf>,
    from: Option<Spanned<String>>,
    tests: Vec<WrittenTest>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WrittenTest {
    name: Spanned<String>,
    request: WrittenRequest,
    expect: Spanned<WrittenExpect>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WrittenRequest {
    method: Option<Spanned<String>>,
    url: Spanned<String>,
    #[serde(default)]
    headers: BTreeMap<String, Spanned<String>>,
    from: Option<Spanned<String>>,
    gateway: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WrittenExpect {
    route: Option<String>,
    rule: Option<String>,
    backend: Option<Spanned<String>>,
    #[serde(default)]
    backends: BTreeMap<String, Spanned<f64>>,
    tolerance: Option<f64>,
    status: Option<u16>,
    location: Option<String>,
    headers: Option<Headers>,
    response_headers: Option<Headers>,
}

/// What is wrong, and where.
type Fault = (Location, FieldError);

impl WrittenTest {
    fn check(self, default: &Spanned<String>) -> Result<Test, Fault> {
        let WrittenTest {
            name,
            request,
            expect,
        } = self;
        Ok(Test {
            line: name.referenced.line(),
            name: name.value,
            call: request.check(default)?,
            expect: {
                let place = expect.referenced;
                expect.value.check(place)?
            },
        })
    }
}

impl WrittenRequest {
    fn check(self, default: &Spanned<String>) -> Result<Call, Fault> {
        let from = self.from.as_ref().unwrap_or(default);
        let caller: Caller = from
            .value
            .parse()
            .map_err(|error: FieldError| (from.referenced, error.within("from")))?;
        let method = self.method.as_ref().map_or("GET", |method| &method.value);
        let mut call = Call::new(method, &self.url.value, caller).map_err(|error| {
            let of_method = self
                .method
                .as_ref()
                .filter(|_| error.path.to_string() == "method");
            (of_method.unwrap_or(&self.url).referenced, error)
        })?;
        if let Some(gateway) = &self.gateway {
            call.through(&gateway.value)
                .map_err(|error| (gateway.referenced, error.within("gateway")))?;
        }
        for (name, value) in &self.headers {
            call.add_header(name, &value.value)
                .map_err(|error| (value.referenced, error.within("headers")))?;
        }
        Ok(call)
    }
}

impl WrittenExpect {
    fn check(self, place: Location) -> Result<Expect, Fault> {
        let mut backends = Vec::with_capacity(self.backends.len());
        for (name, share) in self.backends {
            let name = name
                .parse()
                .map_err(|error: FieldError| (share.referenced, error.within("backends")))?;
            if !(0.0..=100.0).contains(&share.value) {
                let error = FieldError::at("backends", format!("{} is not 0-100 percent", share.value));
                return Err((share.referenced, error));
            }
            backends.push((name, share.value));
        }
        let backend = self.backend.map(|name| {
            let parsed = name.value.parse::<BackendName>();
            parsed.map_err(|error| (name.referenced, error.within("backend")))
        });
        let expect = Expect {
            route: self.route,
            rule: self.rule,
            backend: backend.transpose()?,
            backends,
            tolerance: self.tolerance.unwrap_or(DEFAULT_TOLERANCE),
            status: self.status,
            location: self.location,
            headers: self.headers,
            response_headers: self.response_headers,
        };
        let nothing = Expect {
            tolerance: expect.tolerance,
            ..Expect::default()
        };
        if expect == nothing {
            return Err((place, FieldError::at("expect", "expects nothing")));
        }
        Ok(expect)
    }
}

impl std::str::FromStr for BackendName {
    type Err = FieldError;

    /// Reads `name`, `name:port`, `namespace/name` and `namespace/name:port`.
    fn from_str(text: &str) -> Result<Self, FieldError> {
        let bad = || FieldError::new(format!("{text:?} is not name, name:port or namespace/name:port"));
        let (service, port) = match text.split_once(':') {
            Some((service, port)) => (service, Some(port.parse().map_err(|_| bad())?)),
            None => (text, None),
        };
        let (namespace, name) = match service.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, service),
        };
        let is_label = |text: &str| text.parse::<model::Label>().is_ok();
        if !is_label(name) || namespace.is_some_and(|namespace| !is_label(namespace)) {
            return Err(bad());
        }
        Ok(Self {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            port,
        })
    }
}

impl std::fmt::Display for BackendName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}
