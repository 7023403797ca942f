//! What is different in how the endpoints of a Service are used: by the policies that are for its ports.

use std::collections::{BTreeMap, BTreeSet};

use model::{EndpointSet, ServiceName};

use super::super::policies;
use super::rules::{Parts, altered, described, in_shadow};
use super::{Change, Difference, UseChange};
use crate::view::{self, MeshState};

/// Notes what is different in the policies of a Service.
pub(super) fn of_service(
    service: &ServiceName,
    before: &MeshState,
    after: &MeshState,
    difference: &mut Difference,
) {
    let uses = |state| by_port(&view::endpoints(state, service));
    let (old, new) = (uses(before), uses(after));
    let ports: BTreeSet<&u16> = old.keys().chain(new.keys()).collect();
    for port in ports {
        let (change, what) = match (old.get(port), new.get(port)) {
            (None, Some(parts)) => (Change::Added, described(parts)),
            (Some(parts), None) => (Change::Removed, described(parts)),
            (Some(old), Some(new)) if old != new => (Change::Changed, altered(old, new)),
            _ => continue,
        };
        difference.uses.push(UseChange {
            service: service.port(*port).to_string(),
            change,
            what,
        });
    }
}

/// Everything that policies say, by port; ports of which they say nothing are left out.
fn by_port(set: &EndpointSet) -> BTreeMap<u16, Parts> {
    let mut uses: BTreeMap<u16, Parts> = BTreeMap::new();
    for (port, policy) in &set.policies {
        uses.entry(*port).or_default().extend(policies::fields(policy));
    }
    for (port, faults) in &set.faults {
        let said = faults
            .iter()
            .map(|fault| (fault.policy.to_string(), policies::of_fault(fault)));
        uses.entry(*port).or_default().extend(said);
    }
    if let model::Endpoints::Outside(ports) = &set.endpoints {
        for (port, tls) in ports
            .iter()
            .filter_map(|(port, outside)| Some((port, outside.tls.as_ref()?)))
        {
            let said = ("tls".to_owned(), policies::of_tls(tls));
            uses.entry(*port).or_default().push(said);
        }
    }
    for (port, shadow) in &set.shadow {
        uses.entry(*port).or_default().push(in_shadow(shadow));
    }
    uses
}
