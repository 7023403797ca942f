//! What Weft alone is held to: cost flat in scale, and a tail that does not feel changes of configuration.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::contender::ContenderError;
use super::load::{LoadError, probe};
use super::measure::{Bench, MeasureError, Sample};
use super::memory;
use super::mesh::{MeshError, Watched};
use super::operator::Operator;
use super::peers::{Door, Peer as _, PeerError, Plain, Setting, Weft};
use super::plan::{Case, Metric};

/// Services that a sidecar knows, and routes of the one that is called.
const MANY: usize = 1_000;
/// Objects that are applied at once.
const BATCH: usize = 250;
/// Between two changes of a watched file.
const CHANGE_EVERY: Duration = Duration::from_millis(100);
/// Changes per second that an operator applies.
const FAST: u32 = 200;
/// A change that is not in effect by then has not arrived at all.
const IN_EFFECT_AT_MOST: Duration = Duration::from_secs(10);
/// Services of a large mesh, routes of each, and those that a sidecar calls.
const CROWD: usize = 2_000;
const ROUTES_OF_EACH: usize = 3;
const CALLED: usize = 5;

/// A sidecar that knows one service with one route, and one that knows many.
pub(crate) struct Scale {
    one: Plain,
    many: Plain,
}

/// What came of the rows of a table.
type Rows<E, const N: usize> = [(&'static str, Result<Sample, E>); N];

impl Scale {
    pub(crate) fn start(weft: &Weft, setting: &Setting) -> Result<Self, ContenderError> {
        Ok(Self {
            one: sidecar(weft, setting, 1)?,
            many: sidecar(weft, setting, MANY)?,
        })
    }

    /// Rows of the table.
    pub(crate) fn measure(&self, bench: &Bench<'_>) -> Rows<MeasureError, 2> {
        [
            ("weft, 1 route and service", bench.plain(Case::Scale, &self.one)),
            ("1,000 routes and services", bench.plain(Case::Scale, &self.many)),
        ]
    }
}

/// A sidecar that has called `count` services, and calls one that has as many routes; the last one fits.
fn sidecar(weft: &Weft, setting: &Setting, count: usize) -> Result<Plain, ContenderError> {
    let app = setting.apps.http;
    let (host, mut yaml) = weft.outside_later(app);
    for at in 1..count {
        route(
            &mut yaml,
            &host,
            at,
            &format!("{{path: {{type: Exact, value: /other/{at}}}}}"),
        );
    }
    route(&mut yaml, &host, 0, "{path: {type: PathPrefix, value: /}}");
    weft.mesh.apply(&yaml).map_err(PeerError::from)?;
    let edge = weft.edge()?;
    let services: Vec<(String, String)> = (1..count).map(|_| weft.outside_later(app)).collect();
    for batch in services.chunks(BATCH) {
        let yaml: String = batch.iter().map(|(_, yaml)| yaml.as_str()).collect();
        weft.mesh.apply(&yaml).map_err(PeerError::from)?;
    }
    let hosts = services.into_iter().map(|(host, _)| host);
    for host in hosts.chain([host.clone()]) {
        let door = Door {
            address: edge.outbound,
            host,
        };
        match probe::get(&door, "/100") {
            Ok(200) => {}
            answer => {
                return Err(ContenderError::Before(format!(
                    "{} answers {answer:?}",
                    door.host
                )));
            }
        }
    }
    Ok(Plain {
        door: Door {
            address: edge.outbound,
            host,
        },
        hop: edge.process,
    })
}

fn route(yaml: &mut String, service: &str, number: usize, matches: &str) {
    let _ = write!(
        yaml,
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {service}-{number}, namespace: default}}
spec:
  parentRefs: [{{group: \"\", kind: Service, name: {service}}}]
  rules:
    - matches: [{matches}]
      backendRefs: [{{name: {service}, port: 80}}]
---
"
    );
}

/// A sidecar in an empty mesh, and one that calls a few services of a large one.
pub(crate) fn crowd(weft: &Weft, setting: &Setting) -> Result<[(&'static str, Sample); 2], ContenderError> {
    // What nobody has called is not known to a sidecar, so whatever else is in the mesh already is as nothing.
    let alone = memory::ready(&weft.edge()?);
    let services: Vec<(String, String)> = (0..CROWD).map(|_| weft.spread_later(setting.apps.http)).collect();
    for batch in services.chunks(BATCH / 5) {
        let mut yaml = String::new();
        for (host, service) in batch {
            yaml.push_str(service);
            for at in 0..ROUTES_OF_EACH {
                let matches = match at {
                    0 => "{path: {type: PathPrefix, value: /}}".to_owned(),
                    at => format!("{{path: {{type: Exact, value: /other/{at}}}}}"),
                };
                route(&mut yaml, host, at, &matches);
            }
        }
        weft.mesh.apply(&yaml).map_err(PeerError::from)?;
    }
    let edge = weft.edge()?;
    for (host, _) in services.into_iter().take(CALLED) {
        let door = Door {
            address: edge.outbound,
            host,
        };
        // Often enough for each of its endpoints.
        for _ in 0..100 {
            match probe::get(&door, "/100") {
                Ok(200) => {}
                answer => {
                    return Err(ContenderError::Before(format!(
                        "{} answers {answer:?}",
                        door.host
                    )));
                }
            }
        }
    }
    Ok([
        ("weft, in a mesh of 2,000", memory::ready(&edge)),
        ("in an empty mesh", alone),
    ])
}

/// The open loop over two hops without and with changes of the callee's route.
pub(crate) fn churn(
    weft: &Weft,
    setting: &Setting,
    bench: &Bench<'_>,
) -> Result<Rows<ContenderError, 3>, ContenderError> {
    let pair = weft.pair(setting)?;
    let measure = || {
        bench
            .pair(Case::Churn, &pair, &pair.http)
            .map_err(ContenderError::from)
    };
    let quiet = measure();
    let host = &pair.http.host;
    let file = weft.mesh.watched("churn.yaml");
    let slow = while_changing(weft, measure, |stop| change(&file, host, stop));
    let operator = weft.mesh.operator().map_err(PeerError::from)?;
    let fast = while_changing(weft, measure, |stop| {
        let made = operator.keep_changing(
            FAST,
            || stop.load(Ordering::Relaxed),
            |count| numbered(host, count),
        )?;
        // Those that are answered together are made together.
        Ok(made / 64)
    });
    let fast = match (fast, in_effect(&operator, &pair.http)) {
        (Ok(mut sample), Ok(took)) => {
            sample.insert(Metric::InEffectMs, took.as_secs_f64() * 1e3);
            Ok(sample)
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    };
    Ok([
        ("weft, 200 changes a second", fast),
        ("10 changes a second", slow),
        ("no changes", quiet),
    ])
}

/// Measures while something changes the configuration, and returns how often it was told to do so at least.
fn while_changing(
    weft: &Weft,
    measure: impl FnOnce() -> Result<Sample, ContenderError>,
    change: impl FnOnce(&AtomicBool) -> Result<u64, MeshError> + Send,
) -> Result<Sample, ContenderError> {
    let stop = AtomicBool::new(false);
    let before = weft.mesh.generation().map_err(PeerError::from)?;
    let (sample, changes) = thread::scope(|scope| {
        let changes = scope.spawn(|| change(&stop));
        let sample = measure();
        stop.store(true, Ordering::Relaxed);
        (sample, changes.join())
    });
    let ended = |_| ContenderError::Before("the thread that changes has ended".to_owned());
    let changes = changes.map_err(ended)?.map_err(PeerError::from)?;
    let made = weft.mesh.generation().map_err(PeerError::from)? - before;
    // Files that change at the same time are one change.
    if made < changes / 2 {
        let why = format!("only {made} of {changes} changes were made");
        return Err(ContenderError::Before(why));
    }
    sample
}

/// How long after a change an answer shows it: the route is taken back, and what it served is not found.
fn in_effect(operator: &Operator, door: &Door) -> Result<Duration, ContenderError> {
    let mut yaml = String::new();
    route(&mut yaml, &door.host, 0, "{path: {type: Exact, value: /nowhere}}");
    // The name that `numbered` gives its route, so that this one replaces it.
    let yaml = yaml.replace(&format!("name: {}-0", door.host), &format!("name: {}", door.host));
    operator.apply(yaml).map_err(PeerError::from)?;
    let applied = Instant::now();
    while !matches!(probe::get(door, "/100"), Ok(404)) {
        if applied.elapsed() > IN_EFFECT_AT_MOST {
            let why = format!("the last change is not in effect after {IN_EFFECT_AT_MOST:?}");
            return Err(ContenderError::Before(why));
        }
    }
    Ok(applied.elapsed())
}

/// Changes a header that the callee's route sets, until it shall stop; how often.
fn change(file: &Watched, service: &str, stop: &AtomicBool) -> Result<u64, MeshError> {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        count += 1;
        file.write(&numbered(service, count))?;
        thread::sleep(CHANGE_EVERY);
    }
    Ok(count)
}

/// The callee's route at its change of this number.
fn numbered(service: &str, count: u64) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {service}, namespace: default}}
spec:
  parentRefs: [{{group: \"\", kind: Service, name: {service}}}]
  rules:
    - filters:
        - type: RequestHeaderModifier
          requestHeaderModifier: {{set: [{{name: x-change, value: \"{count}\"}}]}}
      backendRefs: [{{name: {service}, port: 80}}]
"
    )
}

impl From<LoadError> for ContenderError {
    fn from(error: LoadError) -> Self {
        Self::Measure(error.into())
    }
}
