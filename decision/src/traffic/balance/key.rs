//! What of a request is hashed, so that equal ones go to one endpoint.

use std::net::IpAddr;
use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use model::traffic_policy::{HashCookie, HashKey};

use super::hash::hash;

/// A request's key; `None` where it has nothing of what is hashed, and where a cookie is still to be given to it.
pub fn of_request(key: &HashKey, headers: &HeaderMap, source: IpAddr) -> Option<u64> {
    match key {
        HashKey::SourceIp => Some(match source.to_canonical() {
            IpAddr::V4(ip) => hash(&ip.octets()),
            IpAddr::V6(ip) => hash(&ip.octets()),
        }),
        HashKey::Headers(names) => names
            .iter()
            .flat_map(|name| headers.get_all(name))
            .map(|value| hash(value.as_bytes()))
            .reduce(|all, one| all.rotate_left(1) ^ one),
        HashKey::Cookie(wanted) => cookie(headers, &wanted.name).map(hash),
    }
}

/// The value of the first cookie of this name (RFC 6265 section 4.2.1).
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let pairs = headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| {
        let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(
            value
                .strip_prefix(b"\"")
                .and_then(|value| value.strip_suffix(b"\""))
                .unwrap_or(value),
        )
    })
}

/// The cookie for a client that has none: its `Set-Cookie`, and the key of every request that then carries it. `None`
/// where the policy gives none. `dice` is any uniformly distributed number.
pub fn given(cookie: &HashCookie, dice: u64) -> Option<(HeaderValue, u64)> {
    let ttl = cookie.ttl?;
    let value = format!("{dice:016x}");
    let mut text = format!("{}={value}; Path=/; HttpOnly", cookie.name);
    if ttl > Duration::ZERO {
        text += &format!("; Max-Age={}", ttl.as_secs().max(1));
    }
    for (name, value) in &cookie.attributes {
        text += &match value.as_str() {
            "" => format!("; {name}"),
            value => format!("; {name}={value}"),
        };
    }
    Some((HeaderValue::try_from(text).ok()?, hash(value.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value)))
            .fold(
                HeaderMap::new(),
                |mut all, (name, value): (http::HeaderName, _)| {
                    all.append(name, value);
                    all
                },
            )
    }

    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn a_cookie_is_found_wherever_it_stands() {
        for (sent, expected) in [
            ("id=1", Some("1")),
            ("a=2; id=1", Some("1")),
            ("xid=2;id=\"1\" ; b=3", Some("1")),
            ("idx=1", None),
            ("id", None),
        ] {
            let found = headers(&[("cookie", sent)]);
            assert_eq!(cookie(&found, "id"), expected.map(str::as_bytes), "{sent}");
        }
        let two = headers(&[("cookie", "a=1"), ("cookie", "id=2")]);
        assert_eq!(cookie(&two, "id"), Some(&b"2"[..]));
    }

    #[test]
    fn a_given_cookie_leads_where_it_leads_when_it_comes_back() {
        let wanted = HashCookie {
            name: "id".to_owned(),
            ttl: Some(Duration::from_secs(60)),
            attributes: vec![
                ("SameSite".to_owned(), "Strict".to_owned()),
                ("Secure".to_owned(), String::new()),
            ],
        };
        let (set, key) = given(&wanted, 7).expect("a cookie");
        assert_eq!(
            set,
            "id=0000000000000007; Path=/; HttpOnly; Max-Age=60; SameSite=Strict; Secure"
        );
        let back = headers(&[("cookie", "id=0000000000000007")]);
        assert_eq!(
            of_request(&HashKey::Cookie(wanted.clone()), &back, SOURCE),
            Some(key)
        );
        assert_eq!(
            of_request(&HashKey::Cookie(wanted.clone()), &headers(&[]), SOURCE),
            None
        );
        assert_eq!(given(&HashCookie { ttl: None, ..wanted }, 7), None);
    }

    #[test]
    fn several_headers_are_one_key_in_which_each_counts() {
        let key = HashKey::Headers(vec![
            "x-a".parse().expect("a name"),
            "x-b".parse().expect("a name"),
        ]);
        let of = |pairs: &[(&'static str, &'static str)]| of_request(&key, &headers(pairs), SOURCE);
        assert_eq!(
            of(&[("x-a", "1"), ("x-b", "2")]),
            of(&[("x-b", "2"), ("x-a", "1")])
        );
        assert_ne!(
            of(&[("x-a", "1"), ("x-b", "2")]),
            of(&[("x-a", "2"), ("x-b", "1")])
        );
        assert_ne!(of(&[("x-a", "1")]), of(&[("x-a", "2")]));
        assert_eq!(of(&[("x-c", "1")]), None);
        let mapped = "::ffff:10.0.0.1".parse().expect("an address");
        assert_eq!(
            of_request(&HashKey::SourceIp, &headers(&[]), SOURCE),
            of_request(&HashKey::SourceIp, &headers(&[]), mapped)
        );
    }
}
