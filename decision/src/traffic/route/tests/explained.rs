//! What is explained is what is chosen, and what is sampled fits.

use super::*;

/// The rule that is explained as the chosen one; the rest of the explanation must not contradict it.
pub(super) fn chosen(table: &RouteTable, rules: &[Rule], request: &RequestView<'_>) -> Option<usize> {
    let weighed = table.explain(rules, request);
    assert_eq!(
        weighed.len(),
        rules.iter().map(|rule| rule.matches.len()).sum::<usize>()
    );
    let is_grpc = grpc::is_grpc(request.headers);
    let mut chosen = None;
    for Weighed { rule, at, verdict } in weighed {
        let wanted = &rules[rule].matches[at];
        let fits = path_fits(&wanted.path, request.path) && fits_beside_path(wanted, request, is_grpc);
        match verdict {
            Verdict::Misses(misses) => assert!(!fits && !misses.is_empty(), "{misses:?}"),
            Verdict::Hidden(_) => assert!(fits && chosen.is_some()),
            Verdict::Chosen => {
                assert!(fits && chosen.is_none());
                chosen = Some(rule);
            }
        }
    }
    chosen
}

proptest! {
    #[test]
    fn a_sample_of_a_match_fits_it(wanted in a_match()) {
        let sample = Sample::of(&wanted).expect("every match of these has one");
        prop_assert!(path_fits(&wanted.path, &sample.path));
        prop_assert!(fits_beside_path(&wanted, &sample.view(), wanted.grpc_only), "{:?}", sample);
    }
}

#[test]
fn it_is_said_in_what_the_chosen_match_is_ahead_and_what_others_miss() {
    let with = |name: &'static str, path| RequestMatch {
        headers: vec![(HeaderName::from_static(name), ValuePattern::Exact("1".to_owned()))],
        ..on(path)
    };
    let rules = [
        rule(0, vec![on(PathMatch::prefix("/"))]),
        rule(1, vec![with("x-a", PathMatch::prefix("/cart"))]),
        rule(2, vec![with("x-a", PathMatch::prefix("/cart"))]),
        rule(3, vec![on(PathMatch::prefix("/cart"))]),
        rule(
            4,
            vec![
                with("x-b", PathMatch::exact("/cart/1")),
                on(PathMatch::exact("/cart/2")),
            ],
        ),
    ];
    let mut headers = HeaderMap::new();
    headers.insert("x-a", HeaderValue::from_static("1"));
    headers.insert("x-b", HeaderValue::from_static("2"));
    let request = RequestView {
        method: &Method::GET,
        path: "/cart/1",
        query: None,
        headers: &headers,
    };
    let weighed = RouteTable::compile(&rules).explain(&rules, &request);
    let said: Vec<_> = weighed.into_iter().map(|w| (w.rule, w.at, w.verdict)).collect();
    let x_b = HeaderName::from_static("x-b");
    let expected = [
        (4, 0, Verdict::Misses(vec![Miss::Header(&x_b, Some("2".into()))])),
        (4, 1, Verdict::Misses(vec![Miss::Path])),
        (1, 0, Verdict::Chosen),
        (2, 0, Verdict::Hidden(Precedence::Order)),
        (3, 0, Verdict::Hidden(Precedence::Headers)),
        (0, 0, Verdict::Hidden(Precedence::PathLength)),
    ];
    assert_eq!(said, expected);
}

#[test]
fn expressions_are_sampled_by_their_shortest_plain_text() {
    for (source, text) in [
        ("/users/[0-9]+", Some("/users/0")),
        ("/(a|b)?/x{2}", Some("//xx")),
        ("(?i)/V[12]", Some("/v1")),
        ("/\\w+\\.(js|css)$", Some("/a.js")),
        ("/a\\b", Some("/a")),
        ("/a\\Bx$y", None),
    ] {
        let sample = Sample::of(&on(PathMatch::regex(source)));
        assert_eq!(sample.map(|sample| sample.path).as_deref(), text, "{source}");
    }
}
