//! `GRPCRoute` of `gateway.networking.k8s.io/v1`: the same rules as HTTPRoute's, told by service and method.
//! The standard has neither timeouts nor retries for it yet.

use gateway_api::experimental::grpcroutes::{
    GrpcRoute, GrpcRouteRules, GrpcRouteRulesMatches, GrpcRouteRulesMatchesMethod,
    GrpcRouteRulesMatchesMethodType, GrpcRouteUseDefaultGateways,
};
use http::Method;
use model::FieldError;
use model::pattern::Regex;
use model::resilience::Timeouts;
use model::route::{PathMatch, RequestMatch};

use super::check::{At, key};
use super::filter::{Filters, filters};
use super::kind::{Kind, ObjectKey};
use super::object::{RouteObject, RouteRule};
use super::route::{
    MAX_HOSTNAMES, MAX_MATCHES, MAX_MATCHES_OF_ROUTE, MAX_RULES, backends, header_matches, hostnames,
    parents, rule_names, same_shape, same_shapes,
};
use super::session::session;
use super::shadow;

pub(super) fn route(at: &At<'_>, route: GrpcRoute) -> Option<RouteObject> {
    let key = key(at, Kind::GrpcRoute, &route.metadata)?;
    let shadow = shadow::marker(at, &route.metadata);
    let (at, spec) = (at.field("spec"), route.spec);
    let uses_default_gateways = matches!(spec.use_default_gateways, Some(GrpcRouteUseDefaultGateways::All));
    let parents = parents(
        &at,
        &key.namespace,
        same_shapes(&at.field("parentRefs"), spec.parent_refs),
    );
    let hostnames = hostnames(&at, spec.hostnames, MAX_HOSTNAMES);
    let rules = at.field("rules").items(spec.rules, MAX_RULES);
    let rules: Vec<RouteRule> = rules
        .into_iter()
        .map(|(at, rule)| route_rule(&at, &key, rule))
        .collect();
    rule_names(&at, &rules);
    if rules.iter().map(|rule| rule.matches.len()).sum::<usize>() > MAX_MATCHES_OF_ROUTE {
        at.field("rules")
            .refuse(format!("has over {MAX_MATCHES_OF_ROUTE} matches"));
    }
    Some(RouteObject {
        key,
        parents,
        uses_default_gateways,
        hostnames,
        rules,
        shadow,
    })
}

fn route_rule(at: &At<'_>, key: &ObjectKey, rule: GrpcRouteRules) -> RouteRule {
    let own = &key.namespace;
    let matches = at.field("matches").items(rule.matches, MAX_MATCHES);
    let mut matches: Vec<RequestMatch> = matches
        .into_iter()
        .map(|(at, call)| call_match(&at, call))
        .collect();
    if matches.is_empty() {
        matches.push(any_call());
    }
    let listed = same_shapes(&at.field("filters"), rule.filters);
    let Filters {
        filters,
        lost_mirrors,
    } = filters(at, own, &matches, listed);
    let listed = same_shapes(&at.field("backendRefs"), rule.backend_refs);
    let backends = backends(at, own, &matches, listed);
    let persistence = rule
        .session_persistence
        .and_then(|session| same_shape(&at.field("sessionPersistence"), session));
    let read = RouteRule {
        name: rule.name,
        matches,
        filters,
        lost_mirrors,
        backends,
        session: session(at, key, persistence),
        timeouts: Timeouts::default(),
        retry: None,
        unusable: Vec::new(),
    };
    RouteRule {
        unusable: at.take_unusable(),
        ..read
    }
}

/// gRPC is POST by its own specification.
fn any_call() -> RequestMatch {
    RequestMatch {
        method: Some(Method::POST),
        grpc_only: true,
        ..RequestMatch::default()
    }
}

fn call_match(at: &At<'_>, call: GrpcRouteRulesMatches) -> RequestMatch {
    let any = any_call();
    let path = call
        .method
        .and_then(|method| path_match(&at.field("method"), &method));
    RequestMatch {
        path: path.unwrap_or(any.path),
        headers: header_matches(at, same_shapes(&at.field("headers"), call.headers)),
        ..any
    }
}

/// A gRPC call's path is `/<service>/<method>`.
fn path_match(at: &At<'_>, method: &GrpcRouteRulesMatchesMethod) -> Option<PathMatch> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (service, name) = (given(&method.service), given(&method.method));
    if service.is_none() && name.is_none() {
        at.refuse("service or method is given, or both");
        return None;
    }
    if method.r#type == Some(GrpcRouteRulesMatchesMethodType::RegularExpression) {
        return regex(at, service.as_deref(), name.as_deref());
    }
    let service = service.map(|service| at.field("service").keep(service_name(service)));
    let name = name.map(|name| at.field("method").keep(method_name(name)));
    at.keep(match (service, name) {
        (Some(service), Some(name)) => PathMatch::exact(&format!("/{}/{}", service?, name?)),
        (Some(service), None) => PathMatch::prefix(&format!("/{}", service?)),
        (None, name) => PathMatch::regex(&format!("/[^/]+/{}", name??)),
    })
}

/// Each expression must be one by itself, so that neither can borrow the other's parentheses.
fn regex(at: &At<'_>, service: Option<&str>, name: Option<&str>) -> Option<PathMatch> {
    let alone = |field: &str, source: Option<&str>| match source {
        Some(source) => at
            .field(field)
            .usable(Regex::new(source))
            .map(|regex| format!("(?:{})", regex.source())),
        None => Some("[^/]+".to_owned()),
    };
    let (service, name) = (alone("service", service), alone("method", name));
    at.usable(PathMatch::regex(&format!("/{}/{}", service?, name?)))
}

/// `^\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*$`, in either case (Gateway API).
fn service_name(name: String) -> Result<String, FieldError> {
    let parts = name.strip_prefix('.').unwrap_or(&name).split('.');
    if { parts }.all(is_identifier) {
        return Ok(name);
    }
    Err(FieldError::new(format!(
        "{name:?} is not a gRPC service's name, such as shop.v1.Checkout"
    )))
}

fn method_name(name: String) -> Result<String, FieldError> {
    if is_identifier(&name) {
        return Ok(name);
    }
    Err(FieldError::new(format!(
        "{name:?} is not a gRPC method's name, such as Pay"
    )))
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
