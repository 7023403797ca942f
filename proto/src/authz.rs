//! Questions to an authorization service and its answers: Envoy's `envoy.service.auth.v3.Authorization`, as messages of gRPC.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use model::filter::{AuthChanges, AuthDenial, AuthVerdict, FieldChange, FieldMode};
use prost::Message as _;

use self::envoy::config::core::v3::address::Address as AddressKind;
use self::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use self::envoy::config::core::v3::socket_address::PortSpecifier;
use self::envoy::config::core::v3::{Address, HeaderValueOption, SocketAddress};
use self::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use self::envoy::service::auth::v3::check_response::HttpResponse;
use self::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};

/// The path of the method that is called.
pub const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// What stands before a message of gRPC: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Generated code.
#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs)]
pub mod envoy {
    pub mod config {
        pub mod core {
            pub mod v3 {
                tonic::include_proto!("envoy.config.core.v3");
            }
        }
    }
    pub mod service {
        pub mod auth {
            pub mod v3 {
                tonic::include_proto!("envoy.service.auth.v3");
            }
        }
    }
    pub mod r#type {
        pub mod v3 {
            tonic::include_proto!("envoy.r#type.v3");
        }
    }
}

/// Generated code.
#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs)]
pub mod google {
    pub mod rpc {
        tonic::include_proto!("google.rpc");
    }
}

/// What is told about a request.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    pub client: SocketAddr,
    /// When the request came.
    pub time: SystemTime,
    /// The identity of whoever calls, where it is known.
    pub principal: Option<String>,
    pub method: &'a str,
    /// With the query.
    pub path: &'a str,
    pub host: &'a str,
    pub scheme: &'a str,
    pub protocol: &'a str,
    pub headers: &'a HeaderMap,
    /// As much as may be told.
    pub body: &'a [u8],
    /// Of the whole body; `None` where it is not known.
    pub size: Option<u64>,
}

impl Question<'_> {
    /// As a message of gRPC.
    pub fn to_message(&self) -> Bytes {
        let since = self.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let text = std::str::from_utf8(self.body).ok();
        let http = HttpRequest {
            id: self.field("x-request-id"),
            method: self.method.to_owned(),
            headers: (self.headers.keys())
                .map(|name| (name.to_string(), self.field(name.as_str())))
                .collect(),
            path: self.path.to_owned(),
            host: self.host.to_owned(),
            scheme: self.scheme.to_owned(),
            size: self.size.and_then(|size| i64::try_from(size).ok()).unwrap_or(-1),
            protocol: self.protocol.to_owned(),
            body: text.unwrap_or_default().to_owned(),
            // What is no text can only stand here.
            raw_body: text.map_or_else(|| self.body.to_vec(), |_| Vec::new()),
        };
        let address = SocketAddress {
            address: self.client.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(self.client.port().into())),
        };
        let source = Peer {
            address: Some(Address {
                address: Some(AddressKind::SocketAddress(address)),
            }),
            principal: self.principal.clone().unwrap_or_default(),
            ..Peer::default()
        };
        let request = Request {
            time: Some(prost_types::Timestamp {
                seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                nanos: since.subsec_nanos().cast_signed(),
            }),
            http: Some(http),
        };
        let asked = CheckRequest {
            attributes: Some(AttributeContext {
                source: Some(source),
                request: Some(request),
                ..AttributeContext::default()
            }),
        };
        framed(&asked)
    }

    /// All lines of a field as one; bytes that are no UTF-8 are replaced.
    fn field(&self, name: &str) -> String {
        let lines = self.headers.get_all(name).iter();
        let lines: Vec<_> = lines
            .map(|line| String::from_utf8_lossy(line.as_bytes()))
            .collect();
        lines.join(",")
    }
}

fn framed(message: &impl prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // A buffer that grows takes every message.
    let _ = message.encode(&mut bytes);
    bytes.freeze()
}

/// Reads the answer, one message of gRPC. `None` where it is none.
pub fn verdict(mut message: Bytes) -> Option<AuthVerdict> {
    if message.len() < PREFIX_BYTES || message.get_u8() != 0 {
        return None;
    }
    let length = usize::try_from(message.get_u32()).ok()?;
    if message.len() != length {
        return None;
    }
    let answer = CheckResponse::decode(message).ok()?;
    // No status is OK, as in every message of protobuf.
    let is_allowed = answer.status.is_none_or(|status| status.code == 0);
    Some(match (is_allowed, answer.http_response) {
        (true, Some(HttpResponse::OkResponse(ok))) => AuthVerdict::Allowed(AuthChanges {
            remove: ok
                .headers_to_remove
                .iter()
                .filter_map(|name| name.parse().ok())
                .collect(),
            request: changes(&ok.headers),
            response: changes(&ok.response_headers_to_add),
        }),
        (true, _) => AuthVerdict::Allowed(AuthChanges::default()),
        (false, Some(HttpResponse::DeniedResponse(denied))) => {
            let code = denied.status.map_or(0, |status| status.code);
            let status = u16::try_from(code)
                .ok()
                .and_then(|code| StatusCode::from_u16(code).ok());
            let status = status.filter(|status| !status.is_informational());
            AuthVerdict::Denied(AuthDenial {
                status: status.unwrap_or(StatusCode::FORBIDDEN),
                headers: changes(&denied.headers),
                body: denied.body.into_bytes(),
            })
        }
        (false, _) => AuthVerdict::Denied(AuthDenial::default()),
    })
}

/// Those that are fields of HTTP: pseudo-headers and what is malformed is left out.
fn changes(options: &[HeaderValueOption]) -> Vec<FieldChange> {
    let change = |option: &HeaderValueOption| {
        let header = option.header.as_ref()?;
        let value = if header.raw_value.is_empty() {
            header.value.as_bytes()
        } else {
            &header.raw_value
        };
        // The older field comes first; where neither is set, a value is replaced.
        let mode = match (option.append, option.append_action()) {
            (Some(true), _) => FieldMode::Append,
            (Some(false), _) => FieldMode::Set,
            (None, HeaderAppendAction::AddIfAbsent) => FieldMode::AddIfAbsent,
            (None, HeaderAppendAction::OverwriteIfExists) => FieldMode::SetIfPresent,
            (None, HeaderAppendAction::AppendIfExistsOrAdd | HeaderAppendAction::OverwriteIfExistsOrAdd) => {
                FieldMode::Set
            }
        };
        Some(FieldChange {
            name: header.key.parse::<HeaderName>().ok()?,
            value: HeaderValue::from_bytes(value).ok()?,
            mode,
        })
    };
    options.iter().filter_map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::envoy::config::core::v3::HeaderValue as WireValue;
    use super::envoy::service::auth::v3::{DeniedHttpResponse, OkHttpResponse};
    use super::envoy::r#type::v3::HttpStatus;
    use super::google::rpc::Status;
    use super::*;
    use proptest::prelude::*;

    fn option(key: &str, value: &str, append: Option<bool>) -> HeaderValueOption {
        HeaderValueOption {
            header: Some(WireValue {
                key: key.to_owned(),
                value: value.to_owned(),
                raw_value: Vec::new(),
            }),
            append,
            append_action: 0,
        }
    }

    fn status(code: i32) -> Option<Status> {
        Some(Status {
            code,
            message: String::new(),
        })
    }

    #[test]
    fn an_answer_is_read() {
        let ok = OkHttpResponse {
            headers: vec![
                option("x-user", "42", None),
                option(":path", "/x", None),
                option("x-more", "1", Some(true)),
            ],
            headers_to_remove: vec!["authorization".to_owned(), "not a name".to_owned()],
            response_headers_to_add: vec![option("x-told", "yes", Some(false))],
        };
        let answer = CheckResponse {
            status: status(0),
            http_response: Some(HttpResponse::OkResponse(ok)),
        };
        let Some(AuthVerdict::Allowed(changes)) = verdict(framed(&answer)) else {
            panic!("it is allowed");
        };
        let told: Vec<_> = changes
            .request
            .iter()
            .map(|change| (change.name.as_str(), change.mode))
            .collect();
        assert_eq!(told, [("x-user", FieldMode::Set), ("x-more", FieldMode::Append)]);
        assert_eq!(changes.remove, ["authorization"]);
        assert_eq!(changes.response.len(), 1);
        for (code, expected) in [(0, 403), (401, 401), (99, 403), (100, 403), (70_000, 403)] {
            let denied = DeniedHttpResponse {
                status: Some(HttpStatus { code }),
                headers: vec![option("x-why", "because", None)],
                body: "no".to_owned(),
            };
            let answer = CheckResponse {
                status: status(7),
                http_response: Some(HttpResponse::DeniedResponse(denied)),
            };
            let Some(AuthVerdict::Denied(denial)) = verdict(framed(&answer)) else {
                panic!("it is denied");
            };
            assert_eq!(
                (denial.status.as_u16(), denial.body.as_slice()),
                (expected, &b"no"[..])
            );
        }
        let plain = CheckResponse {
            status: status(16),
            http_response: None,
        };
        assert_eq!(
            verdict(framed(&plain)),
            Some(AuthVerdict::Denied(AuthDenial::default()))
        );
    }

    #[test]
    fn a_question_says_what_was_asked() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-a", "1"), ("x-a", "2"), ("x-request-id", "abc")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let question = Question {
            client: SocketAddr::from(([10, 0, 0, 1], 1234)),
            time: UNIX_EPOCH,
            principal: Some("spiffe://a/b".to_owned()),
            method: "POST",
            path: "/x?y",
            host: "shop",
            scheme: "http",
            protocol: "HTTP/1.1",
            headers: &headers,
            body: &[0xff, 0],
            size: None,
        };
        let message = question.to_message();
        let asked = CheckRequest::decode(message.slice(PREFIX_BYTES..)).expect("a question");
        let attributes = asked.attributes.expect("attributes");
        let http = attributes
            .request
            .and_then(|request| request.http)
            .expect("a request");
        assert_eq!(
            (http.id.as_str(), http.path.as_str(), http.size),
            ("abc", "/x?y", -1)
        );
        assert_eq!(http.headers.get("x-a").map(String::as_str), Some("1,2"));
        assert_eq!((http.body.as_str(), http.raw_body.len()), ("", 2));
        assert_eq!(attributes.source.expect("a source").principal, "spiffe://a/b");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = verdict(bytes.into());
        }
    }
}
