//! What a gateway tells a backend of the client in front of it, and what it takes off before.

use std::fmt::Write;
use std::net::IpAddr;

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Said by proxies in front of each other, and believed: how long the caller waits, which attempt this is, what else Envoy
/// or a mesh wants done.
const OF_PROXIES: &str = "x-envoy-";
/// The same in single fields: who showed a certificate, and that an answer is final.
const OF_PROXIES_ALONE: [&str; 2] = ["x-forwarded-client-cert", "x-should-retry"];
const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Takes off what only proxies say, as Envoy does at an edge: whoever is outside has no say in deadlines, retries and
/// identities.
pub fn disbelieve(headers: &mut HeaderMap) {
    let is_of_proxies = |name: &&HeaderName| {
        let name = name.as_str();
        name.starts_with(OF_PROXIES) || OF_PROXIES_ALONE.contains(&name)
    };
    // Heads are limited to so few fields that looking again costs little.
    while let Some(name) = headers.keys().find(is_of_proxies).cloned() {
        headers.remove(&name);
    }
}

/// Writes the fields that proxies at an edge write: the client's address behind what `X-Forwarded-For` has already, which
/// whoever sent it vouches for; `X-Forwarded-Proto` and `X-Forwarded-Host` anew, whatever the client said, because only
/// the gateway knows. `host` is what the client wrote, with its port.
pub fn tell(headers: &mut HeaderMap, client: IpAddr, scheme: &'static str, host: Option<HeaderValue>) {
    let mut path = String::new();
    for before in headers.get_all(&FOR) {
        // What is no text is nobody's address.
        if let Ok(before) = before.to_str() {
            path.push_str(before);
            path.push_str(", ");
        }
    }
    // Writing to a string does not fail.
    let _ = write!(path, "{}", client.to_canonical());
    if let Ok(path) = HeaderValue::try_from(path) {
        headers.insert(FOR, path);
    }
    headers.insert(PROTO, HeaderValue::from_static(scheme));
    match host {
        Some(host) => headers.insert(HOST, host),
        None => headers.remove(HOST),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proxies_say_to_each_other_is_taken_off() {
        let mut headers = HeaderMap::new();
        for name in [
            "x-envoy-expected-rq-timeout-ms",
            "x-envoy-attempt-count",
            "x-envoy-attempt-count",
            "x-envoy-upstream-rq-timeout-ms",
            "x-envoy-retry-on",
            "x-forwarded-client-cert",
            "x-should-retry",
            "x-envoy",
            "grpc-timeout",
            "traceparent",
            "x-forwarded-for",
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        disbelieve(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            ["grpc-timeout", "traceparent", "x-envoy", "x-forwarded-for"]
        );
    }

    #[test]
    fn addresses_are_added_and_the_rest_is_said_anew() {
        let mut headers = HeaderMap::new();
        for before in ["203.0.113.7", "198.51.100.2, 10.0.0.1"] {
            headers.append(FOR, HeaderValue::from_static(before));
        }
        headers.append(PROTO, HeaderValue::from_static("gopher"));
        headers.append(HOST, HeaderValue::from_static("forged"));
        let client = "::ffff:192.0.2.9".parse().expect("an address");
        tell(
            &mut headers,
            client,
            "https",
            Some(HeaderValue::from_static("www.example.com:8443")),
        );
        let all = |name| {
            headers
                .get_all(name)
                .iter()
                .map(HeaderValue::as_bytes)
                .collect::<Vec<_>>()
        };
        assert_eq!(all(FOR), [b"203.0.113.7, 198.51.100.2, 10.0.0.1, 192.0.2.9"]);
        assert_eq!(
            (all(PROTO), all(HOST)),
            (vec![&b"https"[..]], vec![&b"www.example.com:8443"[..]])
        );
        let mut none = HeaderMap::new();
        tell(
            &mut none,
            "2001:db8::1".parse().expect("an address"),
            "http",
            None,
        );
        assert_eq!((none[FOR].as_bytes(), none.len()), (&b"2001:db8::1"[..], 2));
    }
}
