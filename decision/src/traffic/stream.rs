//! Which rule a connection, or a datagram, follows: by the name in SNI where there is TLS (Gateway API TLSRoute,
//! TCPRoute, UDPRoute).

use model::Hostname;
use model::gateway::StreamRule;

/// The rule with the most specific host name that means `sni`; of equals the first, which is the oldest route's. Without
/// SNI only a rule for any host fits. One per connection, so that looking at all of them is cheap enough.
pub fn choose<'r>(rules: &'r [StreamRule], sni: Option<&str>) -> Option<&'r StreamRule> {
    let mut best: Option<(&Hostname, &StreamRule)> = None;
    for rule in rules {
        for name in rule.hostnames.iter().filter(|name| means(name, sni)) {
            if best.is_none_or(|(most_specific, _)| name > most_specific) {
                best = Some((name, rule));
            }
        }
    }
    best.map(|(_, rule)| rule)
}

/// Whether the choice may hang on SNI, so that a client has to be heard first.
pub fn asks_for_sni(rules: &[StreamRule]) -> bool {
    let is_name = |name: &Hostname| *name != Hostname::Any;
    rules.iter().any(|rule| rule.hostnames.iter().any(is_name))
}

fn means(name: &Hostname, sni: Option<&str>) -> bool {
    match sni {
        Some(sni) => name.fits(sni),
        None => *name == Hostname::Any,
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;

    use super::*;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    fn some_rules() -> impl Strategy<Value = Vec<StreamRule>> {
        let name = (vec("[ab]", 1..3), 0..3).prop_map(|(labels, kind)| {
            let labels = labels.join(".").into();
            match kind {
                0 => Hostname::Any,
                1 => Hostname::Under(labels),
                _ => Hostname::Exact(labels),
            }
        });
        vec(vec(name, 1..3), 0..6).prop_map(|rules| {
            let rule = |(at, hostnames): (usize, Vec<Hostname>)| StreamRule {
                name: at.to_string().into(),
                hostnames,
                backends: Vec::new(),
            };
            rules.into_iter().enumerate().map(rule).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn the_most_specific_and_then_the_oldest(
            rules in some_rules(), sni in option::of(vec("[ab]", 1..4).prop_map(|labels| labels.join("."))),
        ) {
            let mut all: Vec<_> = rules
                .iter()
                .enumerate()
                .flat_map(|(at, rule)| rule.hostnames.iter().map(move |name| (Reverse(name), at)))
                .filter(|(Reverse(name), _)| sni.as_ref().map_or(**name == Hostname::Any, |sni| name.fits(sni)))
                .collect();
            all.sort();
            let expected = all.first().map(|(_, at)| at.to_string());
            prop_assert_eq!(choose(&rules, sni.as_deref()).map(|rule| rule.name.to_string()), expected);
        }
    }
}
