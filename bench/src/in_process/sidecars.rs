//! The sidecars of a run: [`Standalone`] data planes with a configuration for one service.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use certs::{Authority, CertError, Identity, IdentityCell, PrivateKey};
use model::endpoint::OutsidePort;
use model::route::{Backend, PathMatch, RequestMatch, Rule};
use model::service::DestinationPort;
use model::snapshot::{Inbound, ServedPort};
use model::{
    AppProtocol, Destination, Endpoint, EndpointSet, Endpoints, FieldError, Generation, Labels, MeshDomain,
    Resource, ServiceName, Snapshot, SpiffeId,
};
use proxy::Limits;
use proxy::standalone::{Spans, Standalone, StandaloneSettings};
use tokio::net::TcpListener;

use super::RunError;

const SERVICE: &str = "shop/catalogue";
const PORT: u16 = 80;
const CALLER: &str = "spiffe://cluster.local/ns/web/sa/frontend";
const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/catalogue";
/// Of a certificate. No run lasts so long.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Where the application connects, and the sidecars from there on.
type Way = (SocketAddr, Vec<Rc<Standalone>>);

/// One sidecar; the service is an address outside the mesh.
pub(super) async fn plain(app: SocketAddr, spans: Spans) -> Result<Way, RunError> {
    let port = OutsidePort {
        protocol: AppProtocol::Http,
        addresses: [app].into(),
        tls: None,
    };
    let endpoints = Endpoints::Outside([(PORT, port)].into());
    let snapshot = callers_snapshot(AppProtocol::Http, endpoints)?;
    let identity = Certificates::new()?.identity(CALLER)?;
    let sidecar = Rc::new(Standalone::new(
        settings("frontend", "web", spans)?,
        snapshot,
        identity,
    )?);
    let door = open(&sidecar, Door::Outbound).await?;
    Ok((door, vec![sidecar]))
}

/// Two sidecars with mTLS between them.
pub(super) async fn mesh(app: SocketAddr, protocol: AppProtocol) -> Result<Way, RunError> {
    let certificates = Certificates::new()?;
    let service: ServiceName = SERVICE.parse()?;
    let served = [(service.port(PORT), ServedPort { app, protocol })]
        .into_iter()
        .collect();
    let server = Rc::new(Standalone::new(
        settings("catalogue", "shop", Spans::Off)?,
        snapshot(vec![Resource::Inbound(Inbound {
            served,
            ..Inbound::default()
        })]),
        certificates.identity(SERVER)?,
    )?);
    let endpoint = Endpoint {
        workload: "catalogue".parse()?,
        address: open(&server, Door::Inbound).await?,
        identity: SERVER.parse()?,
        labels: Labels::default(),
    };
    let caller = Rc::new(Standalone::new(
        settings("frontend", "web", Spans::Off)?,
        callers_snapshot(protocol, Endpoints::Mesh(vec![Arc::new(endpoint)]))?,
        certificates.identity(CALLER)?,
    )?);
    let door = open(&caller, Door::Outbound).await?;
    Ok((door, vec![caller, server]))
}

fn settings(workload: &str, namespace: &str, spans: Spans) -> Result<StandaloneSettings, FieldError> {
    Ok(StandaloneSettings {
        workload_id: workload.parse()?,
        namespace: namespace.parse()?,
        domain: MeshDomain::default(),
        spans,
        limits: Limits::default(),
    })
}

fn snapshot(resources: Vec<Resource>) -> Snapshot {
    Snapshot::default().with(Generation(1), resources, &[])
}

/// What the calling sidecar knows: the service, with a route of one rule, and its endpoints.
fn callers_snapshot(protocol: AppProtocol, endpoints: Endpoints) -> Result<Snapshot, FieldError> {
    let service: ServiceName = SERVICE.parse()?;
    let rule = Rule {
        name: format!("HTTPRoute/{SERVICE}#0").into(),
        matches: vec![RequestMatch {
            path: PathMatch::prefix("/catalogue")?,
            ..RequestMatch::default()
        }],
        backends: vec![Backend::new(
            Some(service.port(PORT)),
            "catalogue:80",
            1,
            Vec::new(),
        )?],
        ..Rule::default()
    };
    let port = DestinationPort {
        protocol,
        rules: vec![rule],
        streams: Vec::new(),
        shadow: None,
    };
    let destination = Destination {
        service: service.clone(),
        ports: BTreeMap::from([(PORT, port)]),
    };
    Ok(snapshot(vec![
        Resource::Destination(destination),
        Resource::Endpoints(EndpointSet {
            service,
            endpoints,
            policies: BTreeMap::new(),
            faults: BTreeMap::new(),
            shadow: BTreeMap::new(),
        }),
    ]))
}

#[derive(Clone, Copy)]
enum Door {
    Outbound,
    Inbound,
}

/// Accepts for a sidecar until the run's runtime ends; where.
async fn open(sidecar: &Rc<Standalone>, door: Door) -> Result<SocketAddr, RunError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let sidecar = sidecar.clone();
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let sidecar = sidecar.clone();
            tokio::task::spawn_local(async move {
                let served = match door {
                    Door::Outbound => sidecar.serve_outbound(stream).await,
                    Door::Inbound => sidecar.serve_inbound(stream).await,
                };
                // A socket that is dead already is seen by whoever opened it.
                drop(served);
            });
        }
    });
    Ok(address)
}

/// The authority of the run's mesh.
struct Certificates(Authority);

impl Certificates {
    fn new() -> Result<Self, RunError> {
        let caller: SpiffeId = CALLER.parse()?;
        Ok(Self(Authority::generate(
            &caller.trust_domain,
            SystemTime::now(),
        )?))
    }

    fn identity(&self, id: &str) -> Result<IdentityCell, RunError> {
        let id: SpiffeId = id.parse()?;
        let identity = self.issue(&id, SystemTime::now())?;
        Ok(IdentityCell::with(identity, self.0.bundle()))
    }

    fn issue(&self, id: &SpiffeId, now: SystemTime) -> Result<Identity, CertError> {
        let key = PrivateKey::generate()?;
        let issued = self.0.issue(&key.csr()?, id, LIFETIME, now)?;
        Identity::new(key, issued.chain, &self.0.bundle(), now)
    }
}
