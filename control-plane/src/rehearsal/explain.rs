//! What becomes of one request, and why: by the functions that a proxy decides with.

use std::cmp::Reverse;

use decision::Reason;
use decision::message::host;
use decision::traffic::route::{RequestView, Verdict as Weight, Weighed};
use decision::traffic::stream;
use model::gateway::{Listener, Serves, StreamRule};
use model::route::Rule;
use model::{Hostname, ServiceName};

use super::called::{Called, Edge};
use super::explanation::{
    Asked, Candidate, Chosen, Destination, Explanation, Listening, Outcome, Retry, Timeouts, Verdict,
};
use super::outcome::{of_rule, own_answer, refused, shares};
use super::{Call, Rehearsed, words};
use crate::sources::ObjectKey;
use crate::view::{MeshState, Traffic};

/// Tells the whole way of a request: from a workload to another service, or from outside through a gateway.
pub fn explain(mesh: &Rehearsed<'_>, call: &Call) -> Explanation {
    let mut told = Explanation {
        request: Asked {
            method: call.method.to_string(),
            url: call.url.to_string(),
            from: call.gateway.is_none().then(|| call.from.to_string()),
            gateway: call.gateway.as_ref().map(ToString::to_string),
        },
        destination: None,
        listener: None,
        matches: Vec::new(),
        rule: None,
        outcome: refused(Reason::Internal, String::new()),
    };
    let outcome = match &call.gateway {
        None => in_mesh(mesh, call, &mut told),
        Some(gateway) => at_edge(mesh, call, gateway, &mut told),
    };
    told.outcome = match outcome {
        Ok(outcome) | Err(outcome) => outcome,
    };
    told
}

fn in_mesh(mesh: &Rehearsed<'_>, call: &Call, told: &mut Explanation) -> Result<Outcome, Outcome> {
    // 1. One unambiguous message, and whom it is for.
    let authority = authority(call)?;
    let (service, explicit) = host::resolve(authority, &call.from.namespace, mesh.domain)
        .map_err(|reason| refused(reason, format!("{authority:?} is not a host")))?
        .ok_or_else(|| {
            let outside = "a sidecar calls it as a host outside the mesh, unless such hosts are denied or nobody has the name";
            let why = format!("{authority:?} cannot be the name of a service of this mesh; {outside}");
            refused(Reason::UnknownService, why)
        })?;
    let called = Called::new(mesh.state, &call.from.namespace, &service).ok_or_else(|| {
        refused(
            Reason::UnknownService,
            format!("Service {service} does not exist"),
        )
    })?;
    let port = host::choose_port(&called.destination, explicit).ok_or_else(|| {
        let ports: Vec<String> = called.destination.ports.keys().map(u16::to_string).collect();
        let ports = ports.join(", ");
        let why = match explicit {
            Some(port) => format!("Service {service} has no port {port} (it has {ports})"),
            None => {
                format!("the URL names no port, and Service {service} has several, none of them 80: {ports}")
            }
        };
        refused(Reason::UnknownPort, why)
    })?;
    let no_port = || refused(Reason::UnknownPort, String::new());
    let (at_port, table) = called.port(port).ok_or_else(no_port)?;
    told.destination = Some(Destination {
        service: service.to_string(),
        port,
        port_because: match explicit {
            Some(_) => "the URL names it",
            None if port == 80 => "the URL names none",
            None => "it is the only one",
        },
        protocol: words::of_protocol(at_port.protocol),
    });

    // 2. The rule, and its backends.
    let request = call.view();
    let weighed = table.explain(&at_port.rules, &request);
    told.matches = candidates(mesh.state, &at_port.rules, &[(None, weighed)], &request);
    let rule = called.rule(port, &request)?;
    told.rule = rule.map(chosen);
    if let Some(answer) = rule.and_then(|rule| own_answer(rule, call, port)) {
        return Ok(answer);
    }
    Ok(called.end(mesh, port, &request))
}

fn at_edge(
    mesh: &Rehearsed<'_>,
    call: &Call,
    gateway: &ServiceName,
    told: &mut Explanation,
) -> Result<Outcome, Outcome> {
    // 1. One unambiguous message, and the listener that is for its host.
    let host = host::normal(authority(call)?);
    let by_tls = call.url.scheme_str() == Some("https");
    let port = call.url.port_u16().unwrap_or(if by_tls { 443 } else { 80 });
    let edge = Edge::new(mesh.state, gateway).ok_or_else(|| Outcome::NoConnection {
        why: format!("Gateway {gateway} does not exist, or its class is another controller's"),
    })?;
    let (place, listener) = edge.listener(port, by_tls, &host)?;
    told.listener = Some(listening(listener));
    let Some((routes, table)) = edge.routes(place) else {
        return at_stream(mesh, listener, &host, told);
    };

    // 2. The rules of every host name that fits, the rule, and its backends.
    let mut names: Vec<&Hostname> = routes.hosts.keys().filter(|name| name.fits(&host)).collect();
    names.sort_by_key(|name| Reverse(*name));
    let request = call.view();
    let weighed = table.explain(&routes.rules, &host, &request);
    let groups: Vec<_> = names.into_iter().map(Some).zip(weighed).collect();
    told.matches = candidates(mesh.state, &routes.rules, &groups, &request);
    let rule = edge.rule(place, &host, &request)?;
    told.rule = Some(chosen(rule));
    if let Some(answer) = own_answer(rule, call, port) {
        return Ok(answer);
    }
    Ok(of_rule(mesh, Traffic::Gateway, rule, &request))
}

/// A listener that passes on bytes: only the name in SNI counts.
fn at_stream(
    mesh: &Rehearsed<'_>,
    listener: &Listener,
    host: &str,
    told: &mut Explanation,
) -> Result<Outcome, Outcome> {
    let (rules, sni): (&[StreamRule], _) = match &listener.serves {
        Serves::TlsTerminate(_, rules) | Serves::TlsPassthrough(rules) => (rules, Some(host)),
        Serves::Tcp(rules) | Serves::Udp(rules) => (rules, None),
        Serves::Http(_) | Serves::Https(..) => (&[], None),
    };
    let rule = stream::choose(rules, sni).ok_or_else(|| Outcome::NoConnection {
        why: "no route of the listener is for this connection".to_owned(),
    })?;
    told.rule = Some(Chosen {
        name: rule.name.to_string(),
        filters: Vec::new(),
        timeouts: None,
        retry: None,
        session: None,
    });
    Ok(Outcome::Backends(shares(
        mesh,
        Traffic::Gateway,
        &rule.name,
        &rule.backends,
    )))
}

fn authority(call: &Call) -> Result<&str, Outcome> {
    call.authority()
        .map_err(|reason| refused(reason, "the request is refused before it is looked at".to_owned()))
}

fn listening(listener: &Listener) -> Listening {
    Listening {
        name: listener.name.to_string(),
        port: listener.port,
        hostname: listener.hostname.to_string(),
        serves: match &listener.serves {
            Serves::Http(_) => "HTTP",
            Serves::Https(..) => "HTTPS",
            Serves::TlsTerminate(..) => "TLS, which ends here",
            Serves::TlsPassthrough(_) => "TLS, which is passed on",
            Serves::Tcp(_) => "TCP",
            Serves::Udp(_) => "UDP",
        },
    }
}

/// Matches that were weighed, by the host name that their rules are for.
type Group<'a> = (Option<&'a Hostname>, Vec<Weighed<'a>>);

fn candidates(
    state: &MeshState,
    rules: &[Rule],
    groups: &[Group<'_>],
    request: &RequestView<'_>,
) -> Vec<Candidate> {
    let all = || {
        groups
            .iter()
            .flat_map(|(name, weighed)| weighed.iter().map(move |weighed| (name, weighed)))
    };
    let chosen = all().find(|(_, weighed)| weighed.verdict == Weight::Chosen);
    let chosen = chosen.and_then(|(_, chosen)| rules.get(chosen.rule));
    let chosen = chosen.map_or("", |rule| &*rule.name);
    let candidate = |(name, weighed): (&Option<&Hostname>, &Weighed<'_>)| {
        let rule = rules.get(weighed.rule)?;
        let (verdict, why) = match &weighed.verdict {
            Weight::Chosen => (Verdict::Chosen, Vec::new()),
            Weight::Misses(misses) => {
                let why = misses
                    .iter()
                    .map(|miss| words::of_miss(miss, request.method, request.path));
                (Verdict::Misses, why.collect())
            }
            Weight::Hidden(precedence) => {
                let why = match words::of_precedence(*precedence) {
                    Some(ahead) if chosen == &*rule.name => {
                        format!("another match of this rule takes precedence: {ahead}")
                    }
                    Some(ahead) => format!("{chosen} takes precedence: {ahead}"),
                    None => by_order(state, chosen, &rule.name),
                };
                (Verdict::Hidden, vec![why])
            }
        };
        Some(Candidate {
            hostname: name.map(ToString::to_string),
            rule: rule.name.to_string(),
            wants: rule
                .matches
                .get(weighed.at)
                .map(words::of_match)
                .unwrap_or_default(),
            verdict,
            why,
        })
    };
    all().filter_map(candidate).collect()
}

/// Why of two equally specific rules the first one stands first.
fn by_order(state: &MeshState, first: &str, second: &str) -> String {
    let route = |rule: &str| rule.rsplit_once('#').map_or("", |(route, _)| route).to_owned();
    let (first_route, second_route) = (route(first), route(second));
    if first == second {
        return "another match of this rule is as specific and stands first".to_owned();
    }
    if first_route == second_route {
        return format!("{first} is as specific and stands first in the same route");
    }
    let created = |route: &str| {
        let key: ObjectKey = route.parse().ok()?;
        state.objects.get(&key).map(|stored| stored.created)
    };
    if created(&first_route) < created(&second_route) {
        format!("{first} is as specific and its route is older")
    } else {
        format!("{first} is as specific and its route, of the same age, is first by name")
    }
}

fn chosen(rule: &Rule) -> Chosen {
    let timeouts = Timeouts {
        request: rule.timeouts.request.map(words::of_duration),
        backend_request: rule.timeouts.backend_request.map(words::of_duration),
    };
    let has_timeouts = timeouts.request.is_some() || timeouts.backend_request.is_some();
    Chosen {
        name: rule.name.to_string(),
        filters: rule.filters.iter().map(words::of_filter).collect(),
        timeouts: has_timeouts.then_some(timeouts),
        retry: rule.retry.as_ref().map(|retry| Retry {
            codes: retry.codes.iter().copied().collect(),
            grpc_codes: retry.grpc_codes.iter().copied().collect(),
            attempts: retry.attempts,
            backoff: words::of_duration(retry.backoff),
        }),
        session: rule.session.as_ref().map(words::of_session),
    }
}
