//! What an authorization service is told of a request, and what becomes of the request by its answer (GEP-1494).

use http::header::{AUTHORIZATION, DATE, SERVER, SET_COOKIE};
use http::{HeaderMap, HeaderName, StatusCode};
use model::filter::{
    AuthChanges, AuthDenial, AuthProtocol, AuthVerdict, FieldChange, FieldMode, is_reserved,
};

use super::filter;
use crate::message::fields;

/// The fields of a request that are told: over gRPC those that are listed, or all; over HTTP those that are listed and
/// `Authorization`. Never what is meant for one hop, or frames the body that is not sent along.
pub fn told(protocol: &AuthProtocol, request: &HeaderMap) -> HeaderMap {
    let is_told = |name: &HeaderName| match protocol {
        AuthProtocol::Grpc { headers } => headers.is_empty() || headers.contains(name),
        AuthProtocol::Http { headers, .. } => headers.contains(name) || name == AUTHORIZATION,
    };
    let mut told = request.clone();
    fields::remove_hop_by_hop(&mut told);
    let others: Vec<HeaderName> = told
        .keys()
        .filter(|name| is_reserved(name) || !is_told(name))
        .cloned()
        .collect();
    for name in others {
        told.remove(name);
    }
    told
}

/// What an answer over HTTP means: 200 is a yes, everything else an answer for the client.
///
/// Of a yes, the fields in `wanted` go to the backend; all where it is empty, but for those that describe the answer itself
/// rather than the caller: its content (RFC 9110 section 8), its date, its server.
pub fn verdict(
    status: StatusCode,
    mut answer: HeaderMap,
    wanted: &[HeaderName],
    body: Vec<u8>,
) -> AuthVerdict {
    fields::remove_hop_by_hop(&mut answer);
    let changes = |is_wanted: &dyn Fn(&HeaderName) -> bool| -> Vec<FieldChange> {
        let mut seen: Vec<&HeaderName> = Vec::new();
        let wanted = answer
            .iter()
            .filter(|(name, _)| is_wanted(name) && !is_reserved(name));
        let changes = wanted.map(|(name, value)| {
            let is_first = !seen.contains(&name);
            seen.push(name);
            FieldChange {
                name: name.clone(),
                value: value.clone(),
                mode: if is_first {
                    FieldMode::Set
                } else {
                    FieldMode::Append
                },
            }
        });
        changes.collect()
    };
    if status != StatusCode::OK {
        return AuthVerdict::Denied(AuthDenial {
            status,
            headers: changes(&|_| true),
            body,
        });
    }
    let request = changes(&|name| match wanted {
        [] => !describes_an_answer(name),
        wanted => wanted.contains(name),
    });
    AuthVerdict::Allowed(AuthChanges {
        request,
        ..AuthChanges::default()
    })
}

fn describes_an_answer(name: &HeaderName) -> bool {
    let of_content = name.as_str().starts_with("content-");
    of_content || matches!(name.as_str(), "etag" | "last-modified") || name == DATE || name == SERVER
}

/// Changes the fields of a request that may go on.
pub fn on_request(changes: &AuthChanges, headers: &mut HeaderMap) {
    for name in changes.remove.iter().filter(|name| !is_reserved(name)) {
        headers.remove(name);
    }
    for change in &changes.request {
        apply(change, headers);
    }
}

/// Makes one change; fields that carry framing or routing stay as they are.
pub fn apply(change: &FieldChange, headers: &mut HeaderMap) {
    let FieldChange { name, value, mode } = change;
    if is_reserved(name) {
        return;
    }
    match mode {
        FieldMode::Append => filter::add(name, value, headers),
        FieldMode::AddIfAbsent if headers.contains_key(name) => {}
        FieldMode::SetIfPresent if !headers.contains_key(name) => {}
        // Of a cookie and another there are two.
        FieldMode::Set | FieldMode::AddIfAbsent | FieldMode::SetIfPresent if name == SET_COOKIE => {
            filter::add(name, value, headers);
        }
        FieldMode::Set | FieldMode::AddIfAbsent | FieldMode::SetIfPresent => {
            // A map refuses its 32,769th field; heads are limited far below that.
            let _ = headers.try_insert(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(field).collect()
    }

    fn names(names: &[&'static str]) -> Vec<HeaderName> {
        names.iter().map(|name| HeaderName::from_static(name)).collect()
    }

    fn http(headers: &[&'static str]) -> AuthProtocol {
        AuthProtocol::Http {
            path: String::new(),
            headers: names(headers),
            response_headers: Vec::new(),
        }
    }

    #[test]
    fn only_what_may_be_told_is_told() {
        let request = map(&[
            ("host", "shop"),
            ("authorization", "x"),
            ("x-a", "1"),
            ("x-b", "2"),
            ("x-hop", "3"),
            ("connection", "x-hop"),
            ("content-length", "5"),
        ]);
        let grpc = |headers: &[&'static str]| AuthProtocol::Grpc {
            headers: names(headers),
        };
        for (protocol, expected) in [
            (
                grpc(&[]),
                &[("authorization", "x"), ("x-a", "1"), ("x-b", "2")][..],
            ),
            (grpc(&["x-a", "x-hop"]), &[("x-a", "1")]),
            (http(&[]), &[("authorization", "x")]),
            (
                http(&["x-b", "content-length", "host"]),
                &[("authorization", "x"), ("x-b", "2")],
            ),
        ] {
            assert_eq!(told(&protocol, &request), map(expected), "{protocol:?}");
        }
    }

    #[test]
    fn a_yes_over_http_tells_about_the_caller_and_a_no_is_an_answer() {
        let answer = [
            ("x-user", "42"),
            ("x-role", "a"),
            ("x-role", "b"),
            ("content-type", "text/plain"),
            ("content-length", "2"),
            ("date", "now"),
            ("host", "evil"),
        ];
        let after = |wanted: &[&'static str]| {
            let verdict = verdict(StatusCode::OK, map(&answer), &names(wanted), b"ok".to_vec());
            let AuthVerdict::Allowed(changes) = verdict else {
                panic!("a yes");
            };
            let mut headers = map(&[("host", "shop"), ("x-role", "forged"), ("x-user", "forged")]);
            on_request(&changes, &mut headers);
            headers
        };
        assert_eq!(
            after(&[]),
            map(&[("host", "shop"), ("x-user", "42"), ("x-role", "a,b")])
        );
        assert_eq!(
            after(&["x-user"]),
            map(&[("host", "shop"), ("x-user", "42"), ("x-role", "forged")])
        );
        for status in [StatusCode::CREATED, StatusCode::FOUND, StatusCode::UNAUTHORIZED] {
            let denied = verdict(status, map(&answer), &[], b"no".to_vec());
            let AuthVerdict::Denied(denial) = denied else {
                panic!("a no");
            };
            assert_eq!((denial.status, denial.body.as_slice()), (status, &b"no"[..]));
            let told: Vec<_> = denial.headers.iter().map(|change| change.name.as_str()).collect();
            assert_eq!(told, ["x-user", "x-role", "x-role", "content-type", "date"]);
        }
    }

    const NAMES: [&str; 3] = ["x-a", "x-b", "host"];

    proptest! {
        /// The same on a list of lines.
        #[test]
        fn changes_are_made_in_their_order(
            mut lines in vec((select(&NAMES[..]), select(vec!["1", "2"])), 0..4),
            remove in vec(select(&NAMES[..]), 0..2),
            changes in vec((
                select(&NAMES[..]),
                select(vec!["3", "4"]),
                select(vec![FieldMode::Set, FieldMode::Append, FieldMode::AddIfAbsent, FieldMode::SetIfPresent]),
            ), 0..5),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in &lines {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let change = |(name, value, mode): &(&'static str, &'static str, FieldMode)| FieldChange {
                name: HeaderName::from_static(name), value: HeaderValue::from_static(value), mode: *mode,
            };
            let made = AuthChanges {
                remove: names(&remove),
                request: changes.iter().map(change).collect(),
                response: Vec::new(),
            };
            on_request(&made, &mut headers);

            lines.retain(|(name, _)| *name == "host" || !remove.contains(name));
            let mut lines: Vec<(&str, String)> = lines.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
            for (name, value, mode) in changes.iter().filter(|(name, ..)| *name != "host") {
                let present: Vec<String> = lines.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect();
                let next = match (mode, present.is_empty()) {
                    (FieldMode::Set, _) | (FieldMode::AddIfAbsent, true) | (FieldMode::SetIfPresent, false) => (*value).to_owned(),
                    (FieldMode::Append, _) => [&present[..], &[(*value).to_owned()]].concat().join(","),
                    (FieldMode::AddIfAbsent, false) | (FieldMode::SetIfPresent, true) => continue,
                };
                lines.retain(|(n, _)| n != name);
                lines.push((name, next));
            }
            for name in NAMES {
                let left: Vec<_> = headers.get_all(name).iter().map(|v| v.to_str().expect("text").to_owned()).collect();
                let right: Vec<_> = lines.iter().filter(|(n, _)| *n == name).map(|(_, v)| v.clone()).collect();
                prop_assert_eq!(left, right);
            }
        }
    }
}
