//! What Weft alone is held to: cost flat in scale, and a tail that does not feel changes of configuration.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::contender::ContenderError;
use super::load::{LoadError, probe};
use super::measure::{Bench, MeasureError, Sample};
use super::mesh::{MeshError, Watched};
use super::peers::{Door, Peer as _, PeerError, Plain, Setting, Weft};
use super::plan::Case;

/// Services that a sidecar knows, and routes of the one that is called.
const MANY: usize = 1_000;
/// Objects that are applied at once.
const BATCH: usize = 250;
/// Between two changes of configuration.
const CHANGE_EVERY: Duration = Duration::from_millis(100);

/// A sidecar that knows one service with one route, and one that knows many.
pub(crate) struct Scale {
    one: Plain,
    many: Plain,
}

/// What came of the two rows of a table.
type Rows<E> = [(&'static str, Result<Sample, E>); 2];

impl Scale {
    pub(crate) fn start(weft: &Weft, setting: &Setting) -> Result<Self, ContenderError> {
        Ok(Self {
            one: sidecar(weft, setting, 1)?,
            many: sidecar(weft, setting, MANY)?,
        })
    }

    /// Rows of the table.
    pub(crate) fn measure(&self, bench: &Bench<'_>) -> Rows<MeasureError> {
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

/// The open loop over two hops without and with changes of the callee's route.
pub(crate) fn churn(
    weft: &Weft,
    setting: &Setting,
    bench: &Bench<'_>,
) -> Result<Rows<ContenderError>, ContenderError> {
    let pair = weft.pair(setting)?;
    let quiet = bench.pair(Case::Churn, &pair, &pair.http);
    let (stop, file) = (AtomicBool::new(false), weft.mesh.watched("churn.yaml"));
    let before = weft.mesh.generation().map_err(PeerError::from)?;
    let (changed, changes) = thread::scope(|scope| {
        let changes = scope.spawn(|| change(&file, &pair.http.host, &stop));
        let changed = bench.pair(Case::Churn, &pair, &pair.http);
        stop.store(true, Ordering::Relaxed);
        (changed, changes.join())
    });
    let changes = match changes {
        Ok(result) => result.map_err(PeerError::from)?,
        Err(_) => {
            return Err(ContenderError::Before(
                "the thread that changes has ended".to_owned(),
            ));
        }
    };
    let made = weft.mesh.generation().map_err(PeerError::from)? - before;
    let changed = match changed {
        // Files that change at the same time are one change.
        Ok(_) if made < changes / 2 => Err(ContenderError::Before(format!(
            "only {made} of {changes} changes were made"
        ))),
        other => other.map_err(ContenderError::from),
    };
    Ok([
        ("weft, 10 changes a second", changed),
        ("no changes", quiet.map_err(ContenderError::from)),
    ])
}

/// Changes a header that the callee's route sets, until it shall stop; how often.
fn change(file: &Watched, service: &str, stop: &AtomicBool) -> Result<u64, MeshError> {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        count += 1;
        let yaml = format!(
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
        );
        file.write(&yaml)?;
        thread::sleep(CHANGE_EVERY);
    }
    Ok(count)
}

impl From<LoadError> for ContenderError {
    fn from(error: LoadError) -> Self {
        Self::Measure(error.into())
    }
}
