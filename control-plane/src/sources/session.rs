//! `sessionPersistence`, which rules of HTTPRoutes and GRPCRoutes and policies have alike.

use gateway_api::experimental::httproutes::{
    HttpRouteRulesSessionPersistence, HttpRouteRulesSessionPersistenceCookieConfigLifetimeType as Lifetime,
    HttpRouteRulesSessionPersistenceType as Type,
};
use model::session::{SessionCarrier, SessionPersistence};
use sha2::{Digest as _, Sha256};

use super::check::At;
use super::kind::ObjectKey;
use super::route::duration;

/// Bytes of the hash in a name that nobody gave.
const NAME_BYTES: usize = 4;

/// `at` is a rule of the route `key`, or what the policy `key` says.
pub(super) fn session(
    at: &At<'_>,
    key: &ObjectKey,
    session: Option<HttpRouteRulesSessionPersistence>,
) -> Option<SessionPersistence> {
    let session = session?;
    let lifetime = session
        .cookie_config
        .as_ref()
        .and_then(|config| config.lifetime_type.as_ref());
    let place = at.path().to_string();
    let at = at.field("sessionPersistence");
    let carrier = match (session.r#type, lifetime) {
        (Some(Type::Header), _) => SessionCarrier::Header,
        (Some(Type::Cookie) | None, Some(Lifetime::Permanent)) => SessionCarrier::PermanentCookie,
        (Some(Type::Cookie) | None, Some(Lifetime::Session) | None) => SessionCarrier::Cookie,
    };
    if carrier == SessionCarrier::Header && session.cookie_config.is_some() {
        at.field("cookieConfig").refuse("is not what the type says");
    }
    let timeout = |name: &str, text: &Option<String>| match text {
        Some(text) => duration(&at.field(name), text).map(Some),
        None => Some(None),
    };
    let absolute = timeout("absoluteTimeout", &session.absolute_timeout);
    let idle = timeout("idleTimeout", &session.idle_timeout);
    let name = session.session_name.unwrap_or_else(|| name_of(key, &place));
    at.keep(SessionPersistence::new(carrier, &name, absolute?, idle?))
}

/// The same for the same rule or policy, and another for every other.
fn name_of(key: &ObjectKey, place: &str) -> String {
    let hash = Sha256::digest(format!("{key} {place}"));
    format!(
        "weft-session-{}",
        hex::encode(hash.get(..NAME_BYTES).unwrap_or(&hash))
    )
}
