//! The closed list of reasons for which a proxy answers by itself, and the one table of what a client then sees.

use http::StatusCode;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $status:literal, $grpc:literal, $error:literal, $detail:literal;)*) => {
        /// Why a proxy answered a request itself instead of passing on an upstream's answer.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// All of them, for documentation and tests.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The HTTP status of the answer.
            pub fn status(self) -> StatusCode {
                let code = match self { $(Self::$name => $status,)* };
                StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }

            /// The `grpc-status` of the answer, where the request was gRPC.
            pub fn grpc_status(self) -> u8 {
                match self { $(Self::$name => $grpc,)* }
            }

            /// The `error` parameter of `Proxy-Status` (RFC 9209 section 2.3).
            pub fn error(self) -> &'static str {
                match self { $(Self::$name => $error,)* }
            }

            /// The `details` parameter of `Proxy-Status`, one word that tells reasons with the same `error` apart.
            pub fn detail(self) -> &'static str {
                match self { $(Self::$name => $detail,)* }
            }

            /// The value of `Proxy-Status` (RFC 9209): this proxy, and both of the above.
            pub fn proxy_status(self) -> String {
                format!("weft; error={}; details=\"{}\"", self.error(), self.detail())
            }

            /// Reads [`Reason::detail`] back.
            pub fn from_detail(detail: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.detail() == detail)
            }
        }
    };
}

// name = HTTP status, gRPC status, RFC 9209 error, detail
reasons! {
    // What a request may not be.
    /// The head does not parse: bad request line, field name, field value, line end or fold.
    MalformedRequest = 400, 13, "http_request_error", "malformed_request";
    /// `Content-Length` with `Transfer-Encoding`, several lengths, or a length that is no number.
    AmbiguousLength = 400, 13, "http_request_error", "ambiguous_length";
    /// `Transfer-Encoding: chunked` twice, stacked or not last.
    BadTransferEncoding = 400, 13, "http_request_error", "bad_transfer_encoding";
    /// A transfer coding other than `chunked`.
    UnknownTransferCoding = 501, 12, "http_request_error", "unknown_transfer_coding";
    /// No Host, several, a malformed one, or one that differs from the authority.
    BadHost = 400, 13, "http_request_error", "bad_host";
    /// A target that is neither a path nor an absolute URI of the scheme `http`.
    BadTarget = 400, 13, "http_request_error", "bad_target";
    /// A method that this proxy does not forward: CONNECT, but on the outbound port of a sidecar.
    BadMethod = 400, 13, "http_request_error", "bad_method";
    /// A chunk that is not framed as RFC 9112 section 7.1 says.
    BadChunk = 400, 13, "http_request_error", "bad_chunk";
    /// A trailer that carries framing or routing fields.
    BadTrailer = 400, 13, "http_request_error", "bad_trailer";
    /// `Upgrade` that the proxy cannot pass on.
    BadUpgrade = 400, 13, "http_request_error", "bad_upgrade";
    /// The target is over `target_bytes`.
    TargetTooLong = 414, 8, "http_request_error", "target_too_long";
    /// The head is over `head_bytes`.
    HeadTooLarge = 431, 8, "http_request_error", "head_too_large";
    /// The head has more than `head_fields` fields.
    TooManyFields = 431, 8, "http_request_error", "too_many_fields";
    /// The head did not arrive within `header_timeout`.
    HeaderTimeout = 408, 4, "http_request_error", "header_timeout";
    /// The request's body broke off.
    RequestAborted = 400, 1, "http_request_error", "request_aborted";
    /// An `Expect` other than `100-continue`.
    BadExpectation = 417, 13, "http_request_error", "bad_expectation";
    /// Whoever was asked whether the request may go on said no, and no more than that.
    AuthDenied = 403, 7, "http_request_denied", "auth_denied";
    /// The body is larger than what may be shown to whoever is asked whether the request may go on.
    AuthBodyTooLarge = 413, 8, "http_request_denied", "auth_body_too_large";

    // Where it could not go.
    /// Whoever is to be asked whether the request may go on does not answer, or not in a way that can be understood.
    AuthUnavailable = 503, 14, "destination_unavailable", "auth_unavailable";
    /// No service has this name, nor, where DNS was asked, has any other host.
    UnknownService = 404, 14, "destination_not_found", "unknown_service";
    /// The host is no service of the mesh, and hosts outside it may not be called.
    OutsideDenied = 403, 7, "http_request_denied", "outside_denied";
    /// The host is this proxy itself, by one of the ports that it listens on.
    OwnPort = 403, 7, "destination_ip_prohibited", "own_port";
    /// The host is no service of the mesh, and DNS failed to say where it is.
    DnsFailed = 502, 14, "dns_error", "dns_failed";
    /// DNS did not answer within `connect_timeout`.
    DnsTimeout = 504, 14, "dns_timeout", "dns_timeout";
    /// The service has no such port.
    UnknownPort = 404, 14, "destination_not_found", "unknown_port";
    /// No listener of the gateway's port is for this host.
    NoListener = 404, 12, "destination_not_found", "no_listener";
    /// The host is another listener's than the one that the client's TLS handshake named.
    Misdirected = 421, 14, "http_request_error", "misdirected";
    /// Routes are attached and none matches.
    NoRoute = 404, 12, "destination_not_found", "no_route";
    /// The chosen backend reference does not resolve, or a rule has no backend.
    BackendNotFound = 500, 14, "destination_not_found", "backend_not_found";
    /// The rule, or its backend, has a filter that refers to what does not exist.
    FilterNotFound = 500, 14, "proxy_configuration_error", "filter_not_found";
    /// The control plane did not answer about this service in time.
    DiscoveryTimeout = 503, 14, "destination_unavailable", "discovery_timeout";
    /// The service has no endpoint that could be tried.
    NoEndpoint = 503, 14, "destination_unavailable", "no_endpoint";
    /// The proxy has no certificate yet.
    NoIdentity = 503, 14, "destination_unavailable", "no_identity";
    /// The proxy is at its limit of requests or connections.
    Overloaded = 503, 8, "connection_limit_reached", "overloaded";
    /// The service is at a limit of its circuit breaker.
    Overflow = 503, 14, "connection_limit_reached", "overflow";
    /// The service has as many requests as it was found to answer in time.
    ConcurrencyLimit = 503, 14, "connection_limit_reached", "concurrency_limit";
    /// The proxy is stopping.
    Draining = 503, 14, "destination_unavailable", "draining";

    // What happened on the way.
    /// The endpoint refused the connection or was unreachable.
    ConnectFailed = 503, 14, "connection_refused", "connect_failed";
    /// The connection was not there within `connect_timeout`.
    ConnectTimeout = 504, 14, "connection_timeout", "connect_timeout";
    /// The TLS handshake failed.
    TlsFailed = 503, 14, "tls_protocol_error", "tls_failed";
    /// The endpoint has another identity than the control plane allows.
    PeerRefused = 503, 14, "tls_certificate_error", "peer_refused";
    /// The endpoint refused the stream before it did anything (REFUSED_STREAM, GOAWAY).
    StreamRefused = 503, 14, "connection_terminated", "stream_refused";
    /// The connection broke before the response's head.
    ConnectionReset = 502, 14, "connection_terminated", "connection_reset";
    /// Every attempt that the retry policy allows ended by a broken connection.
    RetriesExhausted = 503, 14, "connection_terminated", "retries_exhausted";
    /// The request's whole time was used up.
    RequestTimeout = 504, 4, "http_response_timeout", "request_timeout";
    /// One attempt's time was used up.
    AttemptTimeout = 504, 4, "http_response_timeout", "attempt_timeout";

    // What an answer may not be.
    /// The response's head does not parse.
    MalformedResponse = 502, 13, "http_protocol_error", "malformed_response";
    /// The response has two lengths, or one that is no number.
    AmbiguousResponseLength = 502, 13, "http_protocol_error", "ambiguous_response_length";
    /// The response's `Transfer-Encoding` is not exactly one `chunked`.
    BadResponseCoding = 502, 13, "http_response_transfer_coding", "bad_response_coding";
    /// A chunk of the response is badly framed.
    BadResponseChunk = 502, 13, "http_protocol_error", "bad_response_chunk";
    /// A trailer of the response carries framing or routing fields.
    BadResponseTrailer = 502, 13, "http_response_trailer_section_size", "bad_response_trailer";
    /// The response's head is over its limit, or has too many fields.
    ResponseHeadTooLarge = 502, 13, "http_response_header_section_size", "response_head_too_large";
    /// A 101 that was not asked for, or for another protocol.
    UnaskedUpgrade = 502, 13, "http_upgrade_failed", "unasked_upgrade";
    /// More 1xx responses than `interim_responses`.
    TooManyInterim = 502, 13, "http_protocol_error", "too_many_interim";
    /// The response broke off inside its body.
    ResponseIncomplete = 502, 14, "http_response_incomplete", "response_incomplete";
    /// Bytes after the end of a response, or a body where there can be none.
    ExcessResponse = 502, 13, "http_protocol_error", "excess_response";

    /// A FaultInjectionPolicy has it answered; its status is the policy's.
    FaultInjected = 503, 14, "proxy_internal_response", "fault_injected";

    /// A fault of the proxy's own.
    Internal = 500, 13, "proxy_internal_error", "internal";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_unique_and_statuses_are_errors() {
        for reason in Reason::ALL {
            assert!(reason.status().as_u16() >= 400);
            assert_eq!(Reason::from_detail(reason.detail()), Some(*reason));
        }
    }
}
