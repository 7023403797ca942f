//! `TLSRoute`, `TCPRoute` and `UDPRoute`: where connections, or datagrams, go as a whole.

use gateway_api::experimental::{tcproutes, tlsroutes, udproutes};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

use super::check::{At, key};
use super::kind::Kind;
use super::object::StreamRoute;
use super::route::{backends, hostnames, parents, same_shapes};

/// Gateway API's own limit of a TLSRoute's `hostnames`.
const MAX_HOSTNAMES: usize = 1024;
/// Rules of one route: one in `v1`, as there is nothing that would choose between them.
const MAX_RULES: usize = 1;
/// Of versions before `v1`; the first rule takes everything.
const MAX_RULES_OF_ALPHA: usize = 16;

/// What the three have in common.
struct Spec<P, R> {
    hostnames: Option<Vec<String>>,
    parents: Option<Vec<P>>,
    rules: Vec<Vec<R>>,
    uses_default_gateways: bool,
}

pub(super) fn tls(at: &At<'_>, is_v1: bool, route: tlsroutes::TlsRoute) -> Option<StreamRoute> {
    let spec = route.spec;
    if spec.hostnames.is_empty() && is_v1 {
        at.field("spec")
            .field("hostnames")
            .refuse("has at least one entry");
    }
    let spec = Spec {
        hostnames: Some(spec.hostnames),
        parents: spec.parent_refs,
        rules: spec.rules.into_iter().map(|rule| rule.backend_refs).collect(),
        uses_default_gateways: matches!(
            spec.use_default_gateways,
            Some(tlsroutes::TlsRouteUseDefaultGateways::All)
        ),
    };
    read(at, Kind::TlsRoute, &route.metadata, is_v1, spec)
}

pub(super) fn tcp(at: &At<'_>, is_v1: bool, route: tcproutes::TcpRoute) -> Option<StreamRoute> {
    let spec = route.spec;
    let spec = Spec {
        hostnames: None,
        parents: spec.parent_refs,
        rules: spec.rules.into_iter().map(|rule| rule.backend_refs).collect(),
        uses_default_gateways: matches!(
            spec.use_default_gateways,
            Some(tcproutes::TcpRouteUseDefaultGateways::All)
        ),
    };
    read(at, Kind::TcpRoute, &route.metadata, is_v1, spec)
}

pub(super) fn udp(at: &At<'_>, is_v1: bool, route: udproutes::UdpRoute) -> Option<StreamRoute> {
    let spec = route.spec;
    let spec = Spec {
        hostnames: None,
        parents: spec.parent_refs,
        rules: spec.rules.into_iter().map(|rule| rule.backend_refs).collect(),
        uses_default_gateways: matches!(
            spec.use_default_gateways,
            Some(udproutes::UdpRouteUseDefaultGateways::All)
        ),
    };
    read(at, Kind::UdpRoute, &route.metadata, is_v1, spec)
}

fn read<P: Serialize, R: Serialize>(
    at: &At<'_>,
    kind: Kind,
    metadata: &ObjectMeta,
    is_v1: bool,
    spec: Spec<P, R>,
) -> Option<StreamRoute> {
    let key = key(at, kind, metadata)?;
    let at = at.field("spec");
    let parents = parents(
        &at,
        &key.namespace,
        same_shapes(&at.field("parentRefs"), spec.parents),
    );
    let hostnames = hostnames(&at, spec.hostnames, MAX_HOSTNAMES);
    let most = if is_v1 { MAX_RULES } else { MAX_RULES_OF_ALPHA };
    if spec.rules.is_empty() {
        at.field("rules").refuse("has at least one entry");
    }
    let rules = at.field("rules").items(Some(spec.rules), most);
    let rules = rules.into_iter().map(|(at, given)| {
        if given.is_empty() {
            at.field("backendRefs").refuse("has at least one entry");
        }
        let given = same_shapes(&at.field("backendRefs"), Some(given));
        backends(&at, &key.namespace, &[], given)
    });
    let rules = rules.collect();
    Some(StreamRoute {
        key,
        parents,
        uses_default_gateways: spec.uses_default_gateways,
        hostnames,
        rules,
    })
}
