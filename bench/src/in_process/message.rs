//! The one request and the one response of all runs, as fields; each protocol writes them in its own way.

pub(super) const PATH: &str = "/catalogue/00042/items?page=1&sort=price";
/// The service, as an application in another namespace names it.
pub(super) const HOST: &str = "catalogue.shop.svc.cluster.local";

/// As a small program's client sends it; with path and host about 350 bytes.
pub(super) const REQUEST_FIELDS: [(&str, &str); 6] = [
    ("user-agent", "frontend/1.8.2 (linux; amd64)"),
    ("accept", "application/json, text/plain, */*"),
    ("accept-encoding", "gzip, deflate, br"),
    ("x-request-id", "5bd1c6b2-8f0e-4c0e-9d35-3f6a1f1b7a11"),
    (
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
    ),
    ("x-version", "v1"),
];

/// As a small service answers. Date is the application's, so that a run does not depend on the clock.
pub(super) const RESPONSE_FIELDS: [(&str, &str); 5] = [
    ("content-type", "application/json; charset=utf-8"),
    ("content-length", "100"),
    ("cache-control", "no-cache"),
    ("date", "Thu, 05 Nov 2026 10:00:00 GMT"),
    ("server", "catalogue"),
];

/// Found nowhere else in a response.
pub(super) const BODY: &[u8; 100] =
    b"{\"id\":42,\"items\":[{\"sku\":\"a-100\",\"price\":125},{\"sku\":\"a-101\",\"price\":98}],\"page\":1,\"of\":7,\"more\":1}\n";
