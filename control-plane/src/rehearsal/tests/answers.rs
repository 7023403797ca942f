//! What a rule answers by itself.

use super::*;

#[test]
fn what_a_rule_answers_itself_is_told_with_its_location() {
    let text = SERVICES.to_owned()
        + &route(
            "cart",
            "[{matches: [{path: {value: /old}}], filters: [{type: RequestRedirect, requestRedirect: \
             {scheme: https, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]}, \
             {filters: [{type: CORS, cors: {allowOrigins: ['*']}}], backendRefs: [{name: v2, port: 8080}]}]",
        );
    let told = explained(&text, "GET", "http://cart/old/1?a=b", &[]);
    let Outcome::Answer {
        status,
        why,
        location,
        ..
    } = told.outcome
    else {
        panic!("an answer");
    };
    assert_eq!(
        (status, location.as_deref()),
        (302, Some("https://cart/new/1?a=b"))
    );
    assert_eq!(why, "redirect: 302, scheme https, path /new in place of /old");
    let asked = [
        ("origin", "https://a.org"),
        ("access-control-request-method", "GET"),
    ];
    assert_eq!(
        end(&explained(&text, "OPTIONS", "http://cart/", &asked).outcome),
        ["204 "]
    );
    assert_eq!(
        end(&explained(&text, "OPTIONS", "http://cart/", &[]).outcome),
        ["default/v2:8080 100"]
    );
}

#[test]
fn a_redirect_without_a_port_leads_to_the_one_that_is_called() {
    let text = SERVICES.to_owned()
        + "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: v2}\n\
           spec: {parentRefs: [{group: '', kind: Service, name: v2}], rules: [{filters: [{type: RequestRedirect, \
           requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /new}}}]}]}\n---\n"
        + &route(
            "cart",
            "[{filters: [{type: RequestRedirect, requestRedirect: {hostname: other.test}}]}]",
        );
    for (url, expected) in [
        // Its only port.
        ("http://v2/", "http://v2:8080/new"),
        ("http://v2:8080/", "http://v2:8080/new"),
        ("http://cart/", "http://other.test/"),
    ] {
        let Outcome::Answer { location, .. } = explained(&text, "GET", url, &[]).outcome else {
            panic!("an answer");
        };
        assert_eq!(location.as_deref(), Some(expected), "{url}");
    }
}
