//! What HTTPRoute and GRPCRoute have in common: parents, backends, header matches and durations.
//!
//! `gateway-api` has a type of its own for every place a shape stands in; those of HTTPRoute's rules are read
//! here, and the others, which are parts of them or the same, are read as those.

use std::collections::BTreeSet;
use std::time::Duration;

use gateway_api::experimental::httproutes::{
    HttpRouteParentRefs, HttpRouteRulesBackendRefs, HttpRouteRulesMatchesHeaders,
    HttpRouteRulesMatchesHeadersType,
};
use http::HeaderName;
use model::pattern::{Regex, ValuePattern};
use model::route::{Backend, RequestMatch};
use model::{FieldError, Hostname, Label, ServiceName};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::check::{At, Distinct};
use super::filter::{Filters, filters};
use super::kind::ObjectName;
use super::object::{BackendRef, BackendTarget, Parent, ParentRef, RouteRule};
use super::reference::{GATEWAY_GROUP, core_is_empty, reference};

// Gateway API's own limits of list lengths.
pub(super) const MAX_PARENTS: usize = 32;
pub(super) const MAX_HOSTNAMES: usize = 16;
pub(super) const MAX_RULES: usize = 16;
pub(super) const MAX_MATCHES: usize = 64;
/// Over all rules of a route.
pub(super) const MAX_MATCHES_OF_ROUTE: usize = 128;
pub(super) const MAX_VALUE_MATCHES: usize = 16;
const MAX_BACKENDS: usize = 16;
/// Longest value that a header or query parameter is compared with, in bytes.
const MAX_VALUE_BYTES: usize = 4096;

/// Reads one of `gateway-api`'s types as another of the same shape.
pub(super) fn same_shape<T: DeserializeOwned>(at: &At<'_>, value: impl Serialize) -> Option<T> {
    let read = serde_json::to_value(value).and_then(serde_json::from_value);
    at.keep(read.map_err(|error| FieldError::new(error.to_string())))
}

/// As [`same_shape`], for a list.
pub(super) fn same_shapes<T: DeserializeOwned>(
    at: &At<'_>,
    list: Option<Vec<impl Serialize>>,
) -> Option<Vec<T>> {
    list.and_then(|list| same_shape(at, list))
}

pub(super) fn parents(at: &At<'_>, own: &Label, list: Option<Vec<HttpRouteParentRefs>>) -> Vec<ParentRef> {
    let mut parents: Vec<ParentRef> = Vec::new();
    let mut distinct = Distinct::new();
    for (index, (at, parent)) in at
        .field("parentRefs")
        .items(list, MAX_PARENTS)
        .into_iter()
        .enumerate()
    {
        let Some(parent) = parent_ref(&at, own, index, parent) else {
            continue;
        };
        let said = (parent.to.clone(), parent.port, parent.section.clone());
        distinct.check(&at, index, said);
        // Gateway API: references to one parent all give the same of the two, so that none hides in another.
        let given = |parent: &ParentRef| (parent.port.is_some(), parent.section.is_some());
        let other = parents.iter().find(|other| other.to == parent.to);
        if other.is_some_and(|other| given(other) != given(&parent)) {
            at.refuse("sectionName and port are given in all references to one parent, or in none");
        }
        parents.push(parent);
    }
    parents
}

fn parent_ref(at: &At<'_>, own: &Label, index: usize, parent: HttpRouteParentRefs) -> Option<ParentRef> {
    let group = core_is_empty(parent.group.as_deref().unwrap_or(GATEWAY_GROUP));
    let kind = parent.kind.as_deref().unwrap_or("Gateway");
    let namespace = match &parent.namespace {
        Some(namespace) => at.field("namespace").keep(namespace.parse()),
        None => Some(own.clone()),
    };
    let service_name = || {
        let name = at.field("name").keep(parent.name.parse());
        Some(ServiceName {
            namespace: namespace.clone()?,
            name: name?,
        })
    };
    let to = match (group, kind) {
        (GATEWAY_GROUP, "Gateway") => service_name().map(Parent::Gateway),
        (GATEWAY_GROUP, "ListenerSet") => {
            let name = at.field("name").keep(parent.name.parse());
            namespace
                .clone()
                .zip(name)
                .map(|(namespace, name)| Parent::ListenerSet(namespace, name))
        }
        ("", "Service") => service_name().map(Parent::Service),
        (_, "Service") if parent.group.is_none() => {
            at.refuse("group is missing, which means gateway.networking.k8s.io; a Service has group: \"\"");
            return None;
        }
        (_, "Service") => {
            at.field("group")
                .refuse(format!("{group:?} has no Service; its group is \"\""));
            return None;
        }
        (_, "Gateway" | "ListenerSet") => {
            at.field("group").refuse(format!(
                "{kind} of group {group:?} is not supported (supported: {GATEWAY_GROUP})"
            ));
            return None;
        }
        (_, kind) => {
            let namespace = parent.namespace.as_deref();
            reference(at, own, Some(group), Some(kind), namespace, &parent.name).map(Parent::Other)
        }
    };
    let port = match parent.port {
        Some(port) => Some(at.field("port").port(port)?),
        None => None,
    };
    // Gateway API: an empty section name is none.
    let section = parent.section_name.filter(|section| !section.is_empty());
    Some(ParentRef {
        to: to?,
        port,
        section,
        index,
    })
}

/// `at` is what has the field `hostnames`.
pub(super) fn hostnames(at: &At<'_>, list: Option<Vec<String>>, most: usize) -> Vec<Hostname> {
    let items = at.field("hostnames").items(list, most);
    items
        .into_iter()
        .filter_map(|(at, name)| at.keep(name.parse()))
        .collect()
}

fn service_name(at: &At<'_>, own: &Label, namespace: Option<&str>, name: &str) -> Option<ServiceName> {
    let name = at.field("name").keep(name.parse());
    let namespace = namespace.map_or_else(|| Some(own.clone()), |ns| at.field("namespace").keep(ns.parse()));
    Some(ServiceName {
        namespace: namespace?,
        name: name?,
    })
}

/// `at` is the rule, and `matches` are its own.
pub(super) fn backends(
    at: &At<'_>,
    own: &Label,
    matches: &[RequestMatch],
    list: Option<Vec<HttpRouteRulesBackendRefs>>,
) -> Vec<BackendRef> {
    let items = at.field("backendRefs").items(list, MAX_BACKENDS);
    items
        .into_iter()
        .filter_map(|(at, backend)| backend_ref(&at, own, matches, backend))
        .collect()
}

pub(super) fn backend_ref(
    at: &At<'_>,
    own: &Label,
    matches: &[RequestMatch],
    backend: HttpRouteRulesBackendRefs,
) -> Option<BackendRef> {
    let listed = same_shapes(&at.field("filters"), backend.filters);
    let Filters {
        filters,
        lost_mirrors,
    } = filters(at, own, matches, listed);
    let weight = weight(&at.field("weight"), backend.weight);
    let group = core_is_empty(backend.group.as_deref().unwrap_or_default());
    let kind = backend.kind.as_deref().unwrap_or("Service");
    let target = match (group, kind) {
        ("", "Service") => {
            let service = service_name(at, own, backend.namespace.as_deref(), &backend.name);
            let Some(port) = backend.port else {
                at.refuse("port is missing, which a Service needs");
                return None;
            };
            let port = at.field("port").port(port)?;
            BackendTarget::Service(service?.port(port))
        }
        // Gateway API: its share is answered with 500, and the route's status says InvalidKind.
        _ => {
            let namespace = backend.namespace.as_deref();
            let named = reference(at, own, Some(group), Some(kind), namespace, &backend.name)?;
            BackendTarget::Unknown(named.to_string())
        }
    };
    Some(BackendRef {
        target,
        weight,
        filters,
        lost_mirrors,
    })
}

fn weight(at: &At<'_>, weight: Option<i32>) -> u32 {
    let weight = weight.unwrap_or(1);
    match u32::try_from(weight) {
        Ok(weight) if weight <= Backend::MAX_WEIGHT => return weight,
        Ok(_) => at.refuse(format!("{weight} is over {}", Backend::MAX_WEIGHT)),
        Err(_) => at.refuse(format!("{weight} is negative")),
    }
    0
}

pub(super) fn header_name(name: &str) -> Result<HeaderName, FieldError> {
    HeaderName::try_from(name).map_err(|_| FieldError::new(format!("{name:?} is not a header's name")))
}

/// `at` is the match. Of several entries with one name only the first counts (Gateway API).
pub(super) fn header_matches(
    at: &At<'_>,
    list: Option<Vec<HttpRouteRulesMatchesHeaders>>,
) -> Vec<(HeaderName, ValuePattern)> {
    let mut seen = BTreeSet::new();
    let mut matches = Vec::new();
    for (at, header) in at.field("headers").items(list, MAX_VALUE_MATCHES) {
        let regex = header.r#type == Some(HttpRouteRulesMatchesHeadersType::RegularExpression);
        let name = at.field("name").keep(header_name(&header.name));
        let pattern = value_pattern(&at.field("value"), regex, header.value);
        if let (Some(name), Some(pattern)) = (name, pattern)
            && seen.insert(name.as_str().to_owned())
        {
            matches.push((name, pattern));
        }
    }
    matches
}

/// `at` is the field `value`.
pub(super) fn value_pattern(at: &At<'_>, regex: bool, value: String) -> Option<ValuePattern> {
    if value.is_empty() || value.len() > MAX_VALUE_BYTES {
        at.refuse(format!("a value to compare with has 1-{MAX_VALUE_BYTES} bytes"));
        return None;
    }
    if regex {
        at.usable(Regex::new(&value)).map(ValuePattern::Regex)
    } else {
        Some(ValuePattern::Exact(value))
    }
}

/// Gateway API's durations (GEP-2257), `1h30m`, `250ms`.
pub(super) fn duration(at: &At<'_>, text: &str) -> Option<Duration> {
    let Ok(duration) = text.parse::<gateway_api::Duration>() else {
        at.refuse(format!(
            "{text:?} is not a duration (GEP-2257: up to four of h, m, s, ms, such as 1m30s or 250ms)"
        ));
        return None;
    };
    // At most 99999h by GEP-2257, far below the limit of u64.
    Some(Duration::from_millis(
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
    ))
}

/// No two rules of a route have one name. `at` is the spec of a route with these rules.
pub(super) fn rule_names(at: &At<'_>, rules: &[RouteRule]) {
    let mut names = Distinct::new();
    for (index, rule) in rules.iter().enumerate() {
        if let Some(name) = &rule.name {
            let at = at.field("rules").item(index).field("name");
            at.keep(name.parse::<ObjectName>());
            names.check(&at, index, name.clone());
        }
    }
}
