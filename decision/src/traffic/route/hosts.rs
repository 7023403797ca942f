//! Host names made ready to be found: which listener of a gateway serves a host, and which rules it has there.
//!
//! A request meets the one listener of its port whose host name is the most specific that fits, and of that listener the
//! rules of every host name that fits: those of a more specific name take precedence over all of a less specific one,
//! which are met only where none of the former fits. Gateway API leaves the latter open; Envoy Gateway answers 404 there.

use std::collections::HashMap;

use model::Hostname;
use model::gateway::HttpRoutes;
use model::route::Rule;

use super::{RequestView, RouteTable};
use crate::Reason;

/// An index of host names, each with its place in a list that whoever made it keeps.
#[derive(Debug, Clone, Default)]
pub struct HostTable {
    exact: ByName,
    /// By what stands behind `*.`.
    under: ByName,
    any: Option<usize>,
}

/// Only configuration puts names in, so that no request can make them collide.
type ByName = HashMap<Box<str>, usize, foldhash::fast::RandomState>;

impl HostTable {
    /// Of equal names the first counts.
    pub fn compile<'n>(names: impl IntoIterator<Item = (&'n Hostname, usize)>) -> Self {
        let mut table = Self::default();
        for (name, place) in names {
            match name {
                Hostname::Any => _ = table.any.get_or_insert(place),
                Hostname::Under(suffix) => _ = table.under.entry(suffix.clone()).or_insert(place),
                Hostname::Exact(name) => _ = table.exact.entry(name.clone()).or_insert(place),
            }
        }
        table
    }

    /// The places of all names that mean `host`, the most specific first. `host` is as
    /// [`normal`](crate::message::host::normal) gives it.
    pub fn fitting<'t>(&'t self, host: &'t str) -> impl Iterator<Item = usize> + 't {
        let suffixes = if self.under.is_empty() { "" } else { host };
        let under = memchr::memchr_iter(b'.', suffixes.as_bytes())
            .filter(|dot| *dot > 0)
            .filter_map(move |dot| self.under.get(suffixes.get(dot + 1..)?).copied());
        let exact = self.exact.get(host).copied();
        exact.into_iter().chain(under).chain(self.any)
    }

    /// The place of the most specific name that means `host`.
    pub fn best(&self, host: &str) -> Option<usize> {
        self.fitting(host).next()
    }

    /// Of the listeners of one port, by their names, the one that serves a request for `host`. `sni` is what the client
    /// named in its handshake: empty where it named nothing, `None` where there is no TLS.
    ///
    /// # Errors
    /// [`Reason::NoListener`] where none means the host; [`Reason::Misdirected`] where another one does than the one that
    /// the handshake was for (Gateway API `Listener.hostname`, RFC 9110 section 15.5.20).
    pub fn listener(&self, sni: Option<&str>, host: &str) -> Result<usize, Reason> {
        let listener = self.best(host).ok_or(Reason::NoListener)?;
        match sni {
            Some(sni) if sni != host && self.best(sni) != Some(listener) => Err(Reason::Misdirected),
            _ => Ok(listener),
        }
    }
}

/// The rules of one listener by host name. It holds no rule itself, as [`RouteTable`] does not.
#[derive(Debug, Clone, Default)]
pub struct HostRoutes {
    hosts: HostTable,
    /// One for all host names that have the same rules.
    tables: Vec<RouteTable>,
}

impl HostRoutes {
    pub fn compile(routes: &HttpRoutes) -> Self {
        let mut known: HashMap<&[usize], usize> = HashMap::new();
        let mut tables = Vec::new();
        let names = routes.hosts.iter().map(|(name, places)| {
            let table = *known.entry(places).or_insert_with(|| {
                tables.push(RouteTable::of(&routes.rules, places.iter().copied()));
                tables.len() - 1
            });
            (name, table)
        });
        Self {
            hosts: HostTable::compile(names),
            tables,
        }
    }

    /// The place in `rules` of the rule that governs a request for `host`; `None` where none does. `rules` are those that
    /// this was compiled from, and `host` is as for [`HostTable::fitting`].
    pub fn choose(&self, rules: &[Rule], host: &str, request: &RequestView<'_>) -> Option<usize> {
        self.fitting(host).find_map(|table| table.choose(rules, request))
    }

    /// The rules of each host name that means `host`, the most specific first.
    pub(super) fn fitting<'t>(&'t self, host: &'t str) -> impl Iterator<Item = &'t RouteTable> + 't {
        self.hosts
            .fitting(host)
            .filter_map(|table| self.tables.get(table))
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;

    use super::super::Verdict;
    use super::*;
    use http::{HeaderMap, Method};
    use model::route::{PathMatch, RequestMatch};
    use proptest::collection::{btree_map, btree_set, vec};
    use proptest::prelude::*;
    use proptest::sample::select;

    fn some_name() -> impl Strategy<Value = Hostname> {
        let labels = vec("[ab]", 1..4).prop_map(|labels| labels.join("."));
        (labels, 0..5).prop_map(|(labels, kind)| match kind {
            0 => Hostname::Any,
            1 | 2 => Hostname::Under(labels.into()),
            _ => Hostname::Exact(labels.into()),
        })
    }

    /// Mostly a name that something can mean.
    fn some_host() -> impl Strategy<Value = String> {
        prop_oneof![
            9 => vec("[ab]", 1..5).prop_map(|labels| labels.join(".")),
            1 => "[ab.]{0,6}",
        ]
    }

    /// The places of the names that fit, found by looking at all of them.
    fn all_that_fit(names: &[Hostname], host: &str) -> Vec<usize> {
        let fit = |(place, name): (usize, &Hostname)| name.fits(host).then(|| (name.clone(), place));
        let mut fitting: Vec<_> = names.iter().enumerate().filter_map(fit).collect();
        fitting.sort_by_key(|(name, place)| (Reverse(name.clone()), *place));
        fitting.dedup_by_key(|(name, _)| name.clone());
        fitting.into_iter().map(|(_, place)| place).collect()
    }

    fn compiled(names: &[Hostname]) -> HostTable {
        HostTable::compile(names.iter().enumerate().map(|(place, name)| (name, place)))
    }

    fn a_rule() -> impl Strategy<Value = Rule> {
        let path = select(vec!["/", "/a", "/a/b", "/b"]);
        let wanted = (path, any::<bool>(), any::<bool>()).prop_map(|(path, exact, post)| RequestMatch {
            path: if exact {
                PathMatch::Exact(path.to_owned())
            } else {
                PathMatch::Prefix(path.to_owned())
            },
            method: post.then_some(Method::POST),
            ..RequestMatch::default()
        });
        vec(wanted, 1..3).prop_map(|matches| Rule {
            matches,
            ..Rule::default()
        })
    }

    fn some_routes() -> impl Strategy<Value = HttpRoutes> {
        vec(a_rule(), 1..8).prop_flat_map(|rules| {
            let places = btree_set(0..rules.len(), 0..4).prop_map(|places| places.into_iter().collect());
            btree_map(some_name(), places, 0..6).prop_map(move |hosts| HttpRoutes {
                rules: rules.clone(),
                hosts,
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn the_table_finds_what_looking_at_every_name_finds(names in vec(some_name(), 0..12), host in some_host()) {
            let fitting = all_that_fit(&names, &host);
            prop_assert_eq!(compiled(&names).fitting(&host).collect::<Vec<_>>(), fitting);
        }

        #[test]
        fn a_host_that_another_listener_serves_is_misdirected(
            names in vec(some_name(), 0..6), sni in proptest::option::of(some_host()), host in some_host(),
        ) {
            let best = |host| all_that_fit(&names, host).first().copied();
            let expected = match (best(&host), &sni) {
                (None, _) => Err(Reason::NoListener),
                (Some(listener), Some(sni)) if best(sni) != Some(listener) => Err(Reason::Misdirected),
                (Some(listener), _) => Ok(listener),
            };
            prop_assert_eq!(compiled(&names).listener(sni.as_deref(), &host), expected);
        }

        #[test]
        fn a_more_specific_host_name_has_the_first_word(
            routes in some_routes(), host in some_host(), path in select(vec!["/", "/a", "/a/b/c", "/b"]), post in any::<bool>(),
        ) {
            let headers = HeaderMap::new();
            let request = RequestView {
                method: if post { &Method::POST } else { &Method::GET },
                path,
                query: None,
                headers: &headers,
            };
            // Name by name, with the rules of each alone.
            let mut names: Vec<_> = routes.hosts.iter().filter(|(name, _)| name.fits(&host)).collect();
            names.sort_by_key(|(name, _)| Reverse(*name));
            let expected = names.into_iter().find_map(|(_, places)| {
                let rules: Vec<Rule> = places.iter().map(|place| routes.rules[*place].clone()).collect();
                RouteTable::compile(&rules).choose(&rules, &request).map(|at| places[at])
            });
            let compiled = HostRoutes::compile(&routes);
            prop_assert_eq!(compiled.choose(&routes.rules, &host, &request), expected);
            let explained = compiled.explain(&routes.rules, &host, &request).into_iter().flatten();
            let chosen: Vec<_> = explained.filter(|weighed| weighed.verdict == Verdict::Chosen).collect();
            prop_assert!(chosen.len() <= 1);
            prop_assert_eq!(chosen.first().map(|weighed| weighed.rule), expected);
        }
    }
}
