//! What of Gateway API Weft does: what a GatewayClass says that its Gateways support.

use serde_json::{Value, json};

/// The names that Gateway API's conformance tests have for their parts (`FeatureName`), ascending as its CRD wants them.
/// Those of meshes are not a GatewayClass's to say. One that is not here: `GatewayInfrastructurePropagation`, since nothing
/// is made for a Gateway that could have labels.
const SUPPORTED: [&str; 50] = [
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "GRPCRouteRequestHeaderModifier",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayBackendClientCertificate",
    "GatewayFrontendClientCertificateValidation",
    "GatewayFrontendClientCertificateValidationInsecureFallback",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayPort8080",
    "GatewayStaticAddresses",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendRequestRedirect",
    "HTTPRouteBackendTimeout",
    "HTTPRouteBackendURLRewrite",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteRetry",
    "HTTPRouteRetryBackendTimeout",
    "HTTPRouteRetryConnectionError",
    "HTTPRouteSchemeRedirect",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
    "TLSRouteModeMixed",
    "TLSRouteModeTerminate",
    "UDPRoute",
];

/// `status.supportedFeatures`.
pub(super) fn supported() -> Value {
    SUPPORTED.iter().map(|name| json!({"name": name})).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Most that the CRD lets there be.
    const MAX_FEATURES: usize = 64;

    #[test]
    fn they_are_as_the_crd_wants_them() {
        assert!(SUPPORTED.is_sorted_by(|one, next| one < next));
        assert!(SUPPORTED.len() <= MAX_FEATURES);
    }
}
