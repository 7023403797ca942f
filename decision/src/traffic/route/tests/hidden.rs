//! Rules that are told to be hidden are never chosen, and plain cases are told.

use super::*;
use crate::traffic::route::hidden;

fn told(rules: &[Rule]) -> Vec<(usize, usize)> {
    let rules: Vec<&Rule> = rules.iter().collect();
    let all = hidden(&rules, |_| true);
    all.iter().map(|hidden| (hidden.rule, hidden.by)).collect()
}

proptest! {
    #[test]
    fn no_request_follows_what_is_hidden(
        matches in vec(vec(a_match(), 1..3), 1..6),
        requests in vec(a_request(), 1..8),
    ) {
        let rules: Vec<Rule> = matches.into_iter().enumerate().map(|(name, matches)| rule(name, matches)).collect();
        let hidden = told(&rules);
        for sent in requests {
            let followed = chosen(&rules, &sent);
            for (rule, _) in &hidden {
                prop_assert_ne!(followed, Some(*rule));
            }
        }
    }
}

#[test]
fn a_rule_that_says_the_same_again_is_hidden() {
    let prefix = |path: &str| RequestMatch {
        path: PathMatch::prefix(path).expect("valid"),
        ..RequestMatch::default()
    };
    let with_method = |path: &str| RequestMatch {
        method: Some(Method::GET),
        ..prefix(path)
    };
    let table = [
        (vec![vec![prefix("/a")], vec![prefix("/a")]], vec![(1, 0)]),
        (vec![vec![prefix("/a")], vec![prefix("/a/b")]], vec![]),
        (vec![vec![prefix("/a/b")], vec![prefix("/a")]], vec![]),
        (vec![vec![prefix("/a")], vec![with_method("/a")]], vec![]),
        (vec![vec![with_method("/a")], vec![prefix("/a")]], vec![]),
        (
            vec![vec![prefix("/a"), prefix("/b")], vec![prefix("/b"), prefix("/a")]],
            vec![(1, 0)],
        ),
        (vec![vec![prefix("/a")], vec![prefix("/a"), prefix("/c")]], vec![]),
    ];
    for (matches, expected) in table {
        let rules = matches.iter().cloned().enumerate();
        let rules: Vec<Rule> = rules.map(|(name, matches)| rule(name, matches)).collect();
        assert_eq!(told(&rules), expected, "{matches:?}");
    }
}
