//! Which BackendTrafficPolicy counts for a Service's port and for a route, and why another does not.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::service::{Port, Service};
use model::{Label, ServicePort, TrafficPolicy};

use super::MeshState;
use super::attach::Objection;
use super::shadow::{in_force, would_be};
use crate::sources::{Kind, Object, ObjectKey, TrafficPolicyObject, TrafficTarget};

/// The policy of each port of a Service that is in force.
pub(super) fn of_ports(state: &MeshState, service: &Service) -> BTreeMap<u16, Arc<TrafficPolicy>> {
    let policies = in_force(state.traffic_policies_in(&service.name.namespace));
    let of_port = |(number, port): (&u16, &Port)| {
        let policy = of_port(&policies, service, port)?;
        Some((*number, policy.policy.clone()))
    };
    service.ports.iter().filter_map(of_port).collect()
}

/// The policy of a port of a Service: one that names the port before one of the whole Service; of two that say the same
/// target the first of these, which are the older, then the first by name.
pub(super) fn of_port<'s>(
    policies: &[&'s TrafficPolicyObject],
    service: &Service,
    port: &Port,
) -> Option<&'s TrafficPolicyObject> {
    let target = |section| TrafficTarget {
        kind: Kind::Service,
        name: (&service.name.name).into(),
        section,
    };
    let named = port.name.clone();
    let named = named.and_then(|named| winner(policies, &target(Some(named))));
    named.or_else(|| winner(policies, &target(None)))
}

/// The policy of a route's rule, which may have a name: one that names the rule before one of the whole route.
pub(super) fn of_rule<'a>(
    policies: &[&'a TrafficPolicyObject],
    route: &ObjectKey,
    rule: Option<&String>,
) -> Option<&'a TrafficPolicyObject> {
    let target = |section| TrafficTarget {
        kind: route.kind,
        name: route.name.clone(),
        section,
    };
    let named = rule.and_then(|rule| winner(policies, &target(Some(rule.clone()))));
    named.or_else(|| winner(policies, &target(None)))
}

/// The policies that govern requests of a route's rule, known by its place, to a port of a Service, that of the route
/// first: each with the names of the sections that count, which of the other one are those that the first leaves out.
pub fn governing(
    state: &MeshState,
    rule: Option<(&ObjectKey, usize)>,
    target: &ServicePort,
) -> Vec<(ObjectKey, Vec<&'static str>)> {
    let in_namespace = |namespace| in_force(state.traffic_policies_in(namespace));
    let of_route = rule.and_then(|(key, place)| {
        let name = match &state.objects.get(key)?.object {
            Object::Route(route) => route.rules.get(place)?.name.as_ref(),
            _ => None,
        };
        of_rule(&in_namespace(&key.namespace), key, name)
    });
    let of_port = state.service(&target.service).and_then(|service| {
        let port = service.ports.get(&target.port)?;
        of_port(&in_namespace(&service.name.namespace), service, port)
    });
    let mut said: Vec<&'static str> = Vec::new();
    let mut governing = Vec::new();
    for policy in [of_route, of_port].into_iter().flatten() {
        let sections = policy.policy.sections().into_iter().map(|(name, _)| name);
        let counting: Vec<&'static str> = sections.filter(|name| !said.contains(name)).collect();
        said.extend(&counting);
        if !counting.is_empty() {
            governing.push((policy.key.clone(), counting));
        }
    }
    governing
}

/// What keeps a policy from each of its targets.
pub(super) fn objections(state: &MeshState, policy: &TrafficPolicyObject) -> Vec<Objection> {
    let all = state.traffic_policies_in(&policy.key.namespace);
    // One in shadow stands among those that would be in force.
    let policies = match policy.shadow {
        Some(_) => would_be(all).unwrap_or_default(),
        None => in_force(all),
    };
    let of_target = |target: &TrafficTarget| {
        exists(state, &policy.key.namespace, target)?;
        match winner(&policies, target) {
            Some(winner) if winner.key != policy.key => Err(Objection {
                reason: "Conflicted",
                message: format!("{} counts for {}, because it is older", winner.key, said(target)),
            }),
            _ => Ok(()),
        }
    };
    policy
        .targets
        .iter()
        .filter_map(|target| of_target(target).err())
        .collect()
}

pub(super) fn exists(state: &MeshState, namespace: &Label, target: &TrafficTarget) -> Result<(), Objection> {
    let not_found = |message| Objection {
        reason: "TargetNotFound",
        message,
    };
    let key = ObjectKey {
        kind: target.kind,
        namespace: namespace.clone(),
        name: target.name.clone(),
    };
    let Some(stored) = state.objects.get(&key) else {
        return Err(not_found(format!("{key} does not exist")));
    };
    let Some(section) = &target.section else {
        return Ok(());
    };
    match &stored.object {
        Object::Service(service)
            if service
                .ports
                .values()
                .any(|port| port.name.as_ref() == Some(section)) =>
        {
            Ok(())
        }
        Object::Route(route) => {
            let mut rules = route.rules.iter();
            match rules.any(|rule| rule.name.as_ref() == Some(section)) {
                true => Ok(()),
                false => Err(not_found(format!("{key} has no rule named {section:?}"))),
            }
        }
        _ => Err(not_found(format!("{key} has no port named {section:?}"))),
    }
}

fn said(target: &TrafficTarget) -> String {
    let part = if target.kind == Kind::Service {
        "port"
    } else {
        "rule"
    };
    match &target.section {
        Some(section) => format!("{part} {section:?} of {} {}", target.kind, target.name),
        None => format!("{} {}", target.kind, target.name),
    }
}

fn winner<'a>(
    policies: &[&'a TrafficPolicyObject],
    target: &TrafficTarget,
) -> Option<&'a TrafficPolicyObject> {
    let mut naming = policies.iter().filter(|policy| policy.targets.contains(target));
    naming.next().copied()
}

#[cfg(test)]
mod tests {
    use model::traffic_policy::Algorithm;

    use super::*;
    use crate::sources::parse_documents;
    use crate::view::{StoredObject, conditions, destination, endpoints};

    /// A Service with two ports and a route, and these policies, each younger than the one before it.
    fn state(policies: &[String]) -> MeshState {
        let mut state = MeshState::default();
        let fixed = "{apiVersion: v1, kind: Service, metadata: {name: pay}, spec: {selector: {app: pay}, ports: \
                     [{name: http, port: 80}, {name: admin, port: 81}]}}\n---\n\
                     {apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: pay}, spec: \
                     {parentRefs: [{group: '', kind: Service, name: pay}]}}\n";
        for text in std::iter::once(fixed).chain(policies.iter().map(String::as_str)) {
            state.generation.0 += 1;
            for document in parse_documents("mesh.yaml", text).expect("valid") {
                let (created, object) = (state.generation.0, document.object);
                state
                    .objects
                    .insert(object.key(), StoredObject { object, created });
            }
        }
        state
    }

    fn policy(name: &str, target: &str, algorithm: &str) -> String {
        format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: BackendTrafficPolicy, metadata: {{name: {name}}}, \
             spec: {{targetRefs: [{target}], loadBalancer: {{type: {algorithm}}}}}}}"
        )
    }

    const PAY: &str = "{kind: Service, name: pay}";

    fn algorithms(state: &MeshState) -> Vec<(u16, Algorithm)> {
        let set = endpoints(state, &"default/pay".parse().expect("a name"));
        let of = |policy: &TrafficPolicy| policy.balance.clone().expect("a balancer").algorithm;
        set.policies
            .iter()
            .map(|(port, policy)| (*port, of(policy)))
            .collect()
    }

    fn verdict(state: &MeshState, name: &str) -> (bool, &'static str, String) {
        let key = format!("BackendTrafficPolicy/default/{name}");
        let [accepted] = &conditions(state, &key.parse().expect("a key"))[..] else {
            panic!("one condition");
        };
        (accepted.status, accepted.reason, accepted.message.clone())
    }

    #[test]
    fn the_older_of_two_counts_and_the_other_is_told() {
        let state = state(&[policy("z", PAY, "Random"), policy("a", PAY, "RoundRobin")]);
        assert_eq!(
            algorithms(&state),
            [(80, Algorithm::Random), (81, Algorithm::Random)]
        );
        assert_eq!(verdict(&state, "z"), (true, "Accepted", String::new()));
        let told = "BackendTrafficPolicy/default/z counts for Service pay, because it is older";
        assert_eq!(verdict(&state, "a"), (false, "Conflicted", told.to_owned()));
    }

    #[test]
    fn one_of_a_port_counts_before_one_of_the_whole_service() {
        let port = "{kind: Service, name: pay, sectionName: admin}";
        let state = state(&[policy("a", PAY, "Random"), policy("b", port, "RoundRobin")]);
        assert_eq!(
            algorithms(&state),
            [(80, Algorithm::Random), (81, Algorithm::RoundRobin)]
        );
        assert!(verdict(&state, "a").0 && verdict(&state, "b").0);
    }

    #[test]
    fn what_does_not_exist_is_no_target() {
        let state = state(&[
            policy("a", "{kind: Service, name: gone}", "Random"),
            policy("b", "{kind: Service, name: pay, sectionName: gone}", "Random"),
        ]);
        assert_eq!(algorithms(&state), []);
        assert_eq!(verdict(&state, "a").1, "TargetNotFound");
        assert_eq!(
            verdict(&state, "b").2,
            "Service/default/pay has no port named \"gone\""
        );
    }

    #[test]
    fn that_of_a_route_goes_with_its_rules() {
        let route = "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: pay}";
        let state = state(&[policy("a", route, "Random")]);
        assert_eq!(algorithms(&state), []);
        let pay = destination(&state, &"default/pay".parse().expect("a name")).expect("exists");
        assert!(pay.ports[&80].rules.iter().all(|rule| rule.policy.is_some()));
    }

    #[test]
    fn one_that_names_a_rule_counts_before_one_of_the_whole_route() {
        let route = |section: &str| {
            format!("{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: pay{section}}}")
        };
        let mut state = state(&[
            policy("whole", &route(""), "Random"),
            policy("slow", &route(", sectionName: slow"), "RoundRobin"),
            policy("later", &route(", sectionName: slow"), "LeastRequest"),
            policy("gone", &route(", sectionName: gone"), "LeastRequest"),
        ]);
        let rules = "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: pay}, spec: \
                     {parentRefs: [{group: '', kind: Service, name: pay}], rules: \
                     [{name: slow, matches: [{path: {value: /slow}}]}, {name: other}]}}";
        for document in parse_documents("mesh.yaml", rules).expect("valid") {
            let object = document.object;
            let created = 1;
            state
                .objects
                .insert(object.key(), StoredObject { object, created });
        }
        let pay = destination(&state, &"default/pay".parse().expect("a name")).expect("exists");
        let of = |policy: &Arc<TrafficPolicy>| policy.balance.clone().expect("a balancer").algorithm;
        let rules = pay.ports[&80].rules.iter();
        let algorithms: Vec<Algorithm> = rules.filter_map(|rule| rule.policy.as_ref().map(of)).collect();
        assert_eq!(algorithms, [Algorithm::RoundRobin, Algorithm::Random]);
        assert!(verdict(&state, "whole").0 && verdict(&state, "slow").0);
        assert_eq!(
            verdict(&state, "later").2,
            "BackendTrafficPolicy/default/slow counts for rule \"slow\" of HTTPRoute pay, because it is older"
        );
        assert_eq!(
            verdict(&state, "gone").2,
            "HTTPRoute/default/pay has no rule named \"gone\""
        );
    }
}
