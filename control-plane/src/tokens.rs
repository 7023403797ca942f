//! Join tokens: single use, short-lived, for one service account, and carrying the hash of the authority.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::spiffe::SYSTEM_NAMESPACE;
use model::{FieldError, Label, SpiffeId, TrustDomain};
use rand::Rng as _;
use sha2::{Digest, Sha256};

use crate::store::{Store, StoreError, TokenRecord};

const PREFIX: &str = "weft-join.";
const SECRET_BYTES: usize = 32;
const HASH_BYTES: usize = 32;

/// Why a token is not made or not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the join token is not valid: unknown, used already, or expired")]
    NotValid,
    #[error("{0}")]
    Field(#[from] FieldError),
    #[error("there are too many unused join tokens")]
    TooMany,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a token for a service account. Returns its text and when it expires.
pub(crate) fn create(
    store: &Store,
    root_hash: &[u8; HASH_BYTES],
    namespace: &str,
    service_account: &str,
    lifetime: Duration,
    most: usize,
) -> Result<(String, SystemTime), TokenError> {
    let namespace: Label = namespace
        .parse()
        .map_err(|error: FieldError| error.within("namespace"))?;
    let account: Label = service_account
        .parse()
        .map_err(|error: FieldError| error.within("service_account"))?;
    if namespace.as_str() == SYSTEM_NAMESPACE {
        let why = format!("{SYSTEM_NAMESPACE} is the mesh's own");
        return Err(FieldError::at("namespace", why).into());
    }
    let mut secret = [0; SECRET_BYTES];
    rand::rng().fill_bytes(&mut secret);
    let now = SystemTime::now();
    let record = TokenRecord {
        namespace: namespace.to_string(),
        service_account: account.to_string(),
        expires_at: unix(now + lifetime),
    };
    if !store.add_token(&hash_of(&secret), &record, unix(now), most)? {
        return Err(TokenError::TooMany);
    }
    let text = URL_SAFE_NO_PAD.encode([&secret[..], root_hash].concat());
    Ok((format!("{PREFIX}{text}"), now + lifetime))
}

/// Takes a token, which can be done once, and says whose it is.
pub(crate) fn redeem(store: &Store, text: &str, trust_domain: &TrustDomain) -> Result<SpiffeId, TokenError> {
    let bytes = text
        .strip_prefix(PREFIX)
        .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let bytes = bytes
        .filter(|bytes| bytes.len() == SECRET_BYTES + HASH_BYTES)
        .ok_or(TokenError::NotValid)?;
    let record = store
        .take_token(&hash_of(&bytes[..SECRET_BYTES]))?
        .ok_or(TokenError::NotValid)?;
    if record.expires_at <= unix(SystemTime::now()) {
        return Err(TokenError::NotValid);
    }
    Ok(SpiffeId {
        trust_domain: trust_domain.clone(),
        namespace: record.namespace.parse()?,
        service_account: record.service_account.parse()?,
    })
}

fn hash_of(secret: &[u8]) -> String {
    hex::encode(Sha256::digest(secret))
}

/// Seconds since 1970, as the wire carries them.
pub(crate) fn unix(time: SystemTime) -> i64 {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("weft.redb")).unwrap();
        (folder, store)
    }

    #[test]
    fn a_token_works_once() {
        let (_folder, store) = store();
        let domain = "mesh.test".parse().unwrap();
        let (token, _) = create(&store, &[7; 32], "shop", "cart", Duration::from_secs(60), 10).unwrap();
        let id = redeem(&store, &token, &domain).unwrap();
        assert_eq!(id.to_string(), "spiffe://mesh.test/ns/shop/sa/cart");
        assert!(matches!(
            redeem(&store, &token, &domain),
            Err(TokenError::NotValid)
        ));
    }

    #[test]
    fn an_expired_or_foreign_token_does_not_work() {
        let (_folder, store) = store();
        let domain = "mesh.test".parse().unwrap();
        let (expired, _) = create(&store, &[7; 32], "shop", "cart", Duration::ZERO, 10).unwrap();
        for text in [
            expired.as_str(),
            "",
            "weft-join.",
            "weft-join.AAAA",
            "weft-join.!",
        ] {
            assert!(
                matches!(redeem(&store, text, &domain), Err(TokenError::NotValid)),
                "{text}"
            );
        }
    }

    #[test]
    fn the_mesh_s_own_namespace_and_too_many_are_refused() {
        let (_folder, store) = store();
        let make = |namespace: &str| create(&store, &[7; 32], namespace, "a", Duration::from_secs(60), 1);
        assert!(matches!(make("weft-system"), Err(TokenError::Field(_))));
        assert!(make("shop").is_ok());
        assert!(matches!(make("shop"), Err(TokenError::TooMany)));
    }
}
