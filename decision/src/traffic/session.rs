//! Requests of one client that keep going to one endpoint: whose they are, and what the client is told (GEP-1619).
//!
//! The client keeps the session's token, so that proxies keep nothing: any proxy of the mesh reads the token of any other,
//! and one that was started again, too. A token names the endpoint by a hash, and by nothing that could be called. Whoever
//! forges one chooses an endpoint of those that the rule chooses from, and nothing else.

use std::fmt;
use std::time::Duration;

use http::HeaderMap;
use http::header::{COOKIE, HeaderName, HeaderValue, SET_COOKIE};
use model::ServicePort;
use model::session::{SessionCarrier, SessionPersistence};
use sha2::{Digest as _, Sha256};

/// A token whose beginning is further in the future is none: clocks of proxies differ by less.
pub const MAX_SKEW: Duration = Duration::from_secs(120);
/// Longest token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 64;

/// Names one endpoint of one backend, the same in every proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndpointKey(u64);

impl EndpointKey {
    /// `endpoint` is its workload's id, or its address outside the mesh.
    pub fn new(backend: &ServicePort, endpoint: &str) -> Self {
        let hash = Sha256::digest(format!("{backend} {endpoint}"));
        let first: [u8; 8] = std::array::from_fn(|at| hash.get(at).copied().unwrap_or_default());
        Self(u64::from_be_bytes(first))
    }
}

/// What a client sends back. Times are milliseconds of the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub endpoint: EndpointKey,
    began: u64,
    used: u64,
}

impl Token {
    /// Of a session that begins now.
    pub fn new(endpoint: EndpointKey, now: Duration) -> Self {
        let now = millis(now);
        Self {
            endpoint,
            began: now,
            used: now,
        }
    }

    /// Reads what is displayed; `None` for anything else.
    pub fn read(text: &str) -> Option<Self> {
        if text.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let number = |text: &str| {
            let is_hex = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            u64::from_str_radix(text, 16).ok().filter(|_| is_hex)
        };
        let mut parts = text.split('.');
        let (endpoint, began, used) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        Some(Self {
            endpoint: EndpointKey(number(endpoint)?),
            began: number(began)?,
            used: number(used)?,
        })
    }

    /// Whether the session is not over.
    fn lives(&self, session: &SessionPersistence, now: Duration) -> bool {
        let now = millis(now);
        let within = |since: u64, limit: Option<Duration>| {
            limit.is_none_or(|limit| now.saturating_sub(since) < millis(limit))
        };
        let soon = now.saturating_add(millis(MAX_SKEW));
        self.began <= soon
            && self.used <= soon
            && within(self.began, session.absolute_timeout)
            && within(self.used, session.idle_timeout)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{:x}.{:x}", self.endpoint.0, self.began, self.used)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The session that a request belongs to, as long as it is not over. Of several tokens the first one that can be read
/// counts. `now` is the time since the Unix epoch.
pub fn presented(session: &SessionPersistence, headers: &HeaderMap, now: Duration) -> Option<Token> {
    let token = match session.carrier {
        SessionCarrier::Header => {
            let values = headers.get_all(session.name.as_str()).iter();
            values
                .filter_map(|value| value.to_str().ok())
                .find_map(|text| Token::read(text.trim()))
        }
        SessionCarrier::Cookie | SessionCarrier::PermanentCookie => {
            let values = headers.get_all(COOKIE).iter();
            values
                .filter_map(|value| value.to_str().ok())
                .flat_map(|cookies| cookies.split(';'))
                .filter_map(|cookie| cookie.split_once('='))
                .filter(|(name, _)| name.trim() == session.name)
                .find_map(|(_, value)| Token::read(value.trim().trim_matches('"')))
        }
    };
    token.filter(|token| token.lives(session, now))
}

/// The token that the client is to be told, where it has another or none: of a new session, or of the same one used again.
/// `served` is who answered.
pub fn renewed(
    session: &SessionPersistence,
    presented: Option<&Token>,
    served: EndpointKey,
    now: Duration,
) -> Option<Token> {
    match presented {
        Some(token) if token.endpoint != served => Some(Token::new(served, now)),
        Some(token) if session.idle_timeout.is_some() => Some(Token {
            used: millis(now).max(token.used),
            ..*token
        }),
        Some(_) => None,
        None => Some(Token::new(served, now)),
    }
}

/// The field of an answer that tells the client its token. `is_tls`: the client came by TLS.
pub fn field(
    session: &SessionPersistence,
    token: &Token,
    is_tls: bool,
    now: Duration,
) -> Option<(HeaderName, HeaderValue)> {
    if session.carrier == SessionCarrier::Header {
        let name = HeaderName::try_from(session.name.as_str()).ok()?;
        return Some((name, HeaderValue::try_from(token.to_string()).ok()?));
    }
    let mut cookie = format!("{}={token}; Path=/; HttpOnly; SameSite=Strict", session.name);
    if is_tls {
        cookie.push_str("; Secure");
    }
    if session.carrier == SessionCarrier::PermanentCookie
        && let Some(absolute) = session.absolute_timeout
    {
        let left = millis(absolute).saturating_sub(millis(now).saturating_sub(token.began));
        cookie.push_str(&format!("; Max-Age={}", left.div_ceil(1000)));
    }
    Some((SET_COOKIE, HeaderValue::try_from(cookie).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::option;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn session(carrier: SessionCarrier, absolute: Option<u64>, idle: Option<u64>) -> SessionPersistence {
        let [absolute, idle] = [absolute, idle].map(|seconds| seconds.map(Duration::from_secs));
        SessionPersistence::new(carrier, "cart", absolute, idle).expect("valid")
    }

    fn sent(name: &'static str, value: &str) -> HeaderMap {
        let value = HeaderValue::from_str(value).expect("visible");
        HeaderMap::from_iter([(HeaderName::from_static(name), value)])
    }

    fn key(endpoint: &str) -> EndpointKey {
        EndpointKey::new(&"shop/cart:80".parse().expect("valid"), endpoint)
    }

    #[test]
    fn an_endpoint_has_one_name_everywhere_and_each_its_own() {
        assert_eq!(
            Token::new(key("cart-1"), SECOND).to_string(),
            "c352ecdd0d23a76d.3e8.3e8"
        );
        let elsewhere = EndpointKey::new(&"shop/other:80".parse().expect("valid"), "cart-1");
        assert!(key("cart-1") != key("cart-2") && key("cart-1") != elsewhere);
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let session = session(SessionCarrier::Cookie, None, None);
        let token = Token::new(key("cart-1"), SECOND);
        for cookies in [
            format!("cart={token}"),
            format!("a=b; cart={token}; c"),
            format!("cart=nonsense; cart=\"{token}\""),
        ] {
            assert_eq!(
                presented(&session, &sent("cookie", &cookies), SECOND),
                Some(token),
                "{cookies}"
            );
        }
        for cookies in [
            "",
            "cart",
            "cart=",
            "Cart=1.2.3",
            "xcart=1.2.3",
            "cart=1.2",
            "cart=1.2.3.4",
            "cart=+1.2.3",
        ] {
            assert_eq!(
                presented(&session, &sent("cookie", cookies), SECOND),
                None,
                "{cookies}"
            );
        }
        let mut two = sent("cookie", "a=b");
        two.append(
            COOKIE,
            HeaderValue::try_from(format!("cart={token}")).expect("visible"),
        );
        assert_eq!(presented(&session, &two, SECOND), Some(token));
    }

    #[test]
    fn a_client_is_told_by_cookie_or_by_header() {
        let token = Token::new(key("cart-1"), SECOND);
        let told = |carrier, is_tls| {
            let session = session(carrier, Some(60), None);
            let (name, value) = field(&session, &token, is_tls, SECOND * 11).expect("a field");
            format!("{name}: {}", value.to_str().expect("text"))
        };
        let attributes = "; Path=/; HttpOnly; SameSite=Strict";
        assert_eq!(
            told(SessionCarrier::Cookie, false),
            format!("set-cookie: cart={token}{attributes}")
        );
        let permanent = format!("set-cookie: cart={token}{attributes}; Secure; Max-Age=50");
        assert_eq!(told(SessionCarrier::PermanentCookie, true), permanent);
        assert_eq!(told(SessionCarrier::Header, false), format!("cart: {token}"));
    }

    #[test]
    fn a_token_is_told_where_it_is_another() {
        let (plain, idle) = (
            session(SessionCarrier::Header, None, None),
            session(SessionCarrier::Header, None, Some(9)),
        );
        let (one, other) = (key("cart-1"), key("cart-2"));
        let token = Token::new(one, SECOND);
        assert_eq!(renewed(&plain, None, one, SECOND), Some(token));
        assert_eq!(renewed(&plain, Some(&token), one, SECOND * 2), None);
        assert_eq!(
            renewed(&plain, Some(&token), other, SECOND * 2),
            Some(Token::new(other, SECOND * 2))
        );
        let used = renewed(&idle, Some(&token), one, SECOND * 2).expect("told again");
        assert_eq!((used.began, used.used), (1000, 2000));
    }

    proptest! {
        /// Against the sentences of the specification.
        #[test]
        fn a_session_ends_by_either_timeout(
            began in 0u64..100, used in 0u64..100, now in 0u64..400,
            absolute in option::of(1u64..50), idle in option::of(1u64..50), later in 0u64..300,
        ) {
            let session = session(SessionCarrier::Header, absolute, idle);
            let (began, used) = (began + later, began + used + later);
            let token = Token { endpoint: key("cart-1"), began: began * 1000, used: used * 1000 };
            let found = presented(&session, &sent("cart", &token.to_string()), SECOND * u32::try_from(now).expect("small"));
            let too_old = absolute.is_some_and(|limit| now >= began + limit);
            let too_idle = idle.is_some_and(|limit| now >= used + limit);
            let forged = began > now + 120 || used > now + 120;
            prop_assert_eq!(found.is_some(), !too_old && !too_idle && !forged);
        }

        #[test]
        fn a_token_reads_as_it_is_written(endpoint in any::<u64>(), began in any::<u64>(), used in any::<u64>()) {
            let token = Token { endpoint: EndpointKey(endpoint), began, used };
            prop_assert_eq!(Token::read(&token.to_string()), Some(token));
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".{0,80}") {
            let _ = Token::read(&text);
            if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
                let headers = HeaderMap::from_iter([(COOKIE, value)]);
                let _ = presented(&session(SessionCarrier::Cookie, None, None), &headers, SECOND);
            }
        }
    }
}
