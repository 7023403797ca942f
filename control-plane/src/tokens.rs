//! Join tokens: single use, short-lived, for one service account, and carrying the hash of the authority.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::spiffe::SYSTEM_NAMESPACE;
use model::{FieldError, Label, SpiffeId, TrustDomain};
use sha2::{Digest as _, Sha256};

use crate::store::{Redemption, Store, StoreError, TokenRecord};

const PREFIX: &str = "weft-join.";
const SECRET_BYTES: usize = 32;
const HASH_BYTES: usize = 32;

/// Why a token is not made or not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("this is no join token")]
    Malformed,
    #[error("the join token is of another mesh")]
    OtherMesh,
    #[error("the join token is not known; it may have expired long ago")]
    Unknown,
    #[error("the join token has expired")]
    Expired,
    #[error("the join token was used before")]
    Used,
    #[error("{0}")]
    Field(#[from] FieldError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A token as it is handed to whoever starts a sidecar.
#[derive(Debug)]
pub(crate) struct NewToken {
    pub(crate) text: String,
    pub(crate) expires: SystemTime,
}

/// For whom a token is made.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    namespace: Label,
    service_account: Label,
}

impl Account {
    /// # Errors
    /// Names the field that is wrong; the mesh's own namespace is nobody else's.
    pub(crate) fn new(namespace: &str, service_account: &str) -> Result<Self, FieldError> {
        let label =
            |field: &'static str, text: &str| text.parse::<Label>().map_err(|error| error.within(field));
        let namespace = label("namespace", namespace)?;
        if namespace.as_str() == SYSTEM_NAMESPACE {
            let why = format!("{SYSTEM_NAMESPACE} is the mesh's own");
            return Err(FieldError::at("namespace", why));
        }
        Ok(Self {
            namespace,
            service_account: label("service_account", service_account)?,
        })
    }
}

/// Makes a token. At most `most` may be neither used nor expired.
pub(crate) fn create(
    store: &Store,
    root_hash: &[u8; HASH_BYTES],
    account: &Account,
    lifetime: Duration,
    most: usize,
) -> Result<NewToken, TokenError> {
    let secret: [u8; SECRET_BYTES] = rand::random();
    let now = SystemTime::now();
    let expires = now + lifetime;
    let record = TokenRecord {
        namespace: account.namespace.to_string(),
        service_account: account.service_account.to_string(),
        expires_at: unix(expires),
        used_by: None,
    };
    store.add_token(&Sha256::digest(secret).into(), &record, unix(now), most)?;
    let body = URL_SAFE_NO_PAD.encode([secret, *root_hash].concat());
    Ok(NewToken {
        text: format!("{PREFIX}{body}"),
        expires,
    })
}

/// A token that is handed in together with a signing request.
#[derive(Debug)]
pub(crate) struct Offer {
    secret_hash: [u8; HASH_BYTES],
    request_hash: String,
}

impl Offer {
    pub(crate) fn read(text: &str, root_hash: &[u8; HASH_BYTES], csr: &[u8]) -> Result<Self, TokenError> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(TokenError::Malformed)?;
        let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::Malformed)?;
        let (secret, hash) = bytes
            .split_first_chunk::<SECRET_BYTES>()
            .filter(|(_, hash)| hash.len() == HASH_BYTES)
            .ok_or(TokenError::Malformed)?;
        if hash != root_hash.as_slice() {
            return Err(TokenError::OtherMesh);
        }
        Ok(Self {
            secret_hash: Sha256::digest(secret).into(),
            request_hash: hex::encode(Sha256::digest(csr)),
        })
    }

    /// For whom the token is, if it can be used. It stays usable.
    pub(crate) fn judge(&self, store: &Store, trust_domain: &TrustDomain) -> Result<SpiffeId, TokenError> {
        let now = unix(SystemTime::now());
        identity(
            store.judge_token(&self.secret_hash, &self.request_hash, now)?,
            trust_domain,
        )
    }

    /// Uses the token: nobody with another key can use it afterwards.
    pub(crate) fn redeem(&self, store: &Store, trust_domain: &TrustDomain) -> Result<SpiffeId, TokenError> {
        let now = unix(SystemTime::now());
        identity(
            store.redeem_token(&self.secret_hash, &self.request_hash, now)?,
            trust_domain,
        )
    }
}

fn identity(redemption: Redemption, trust_domain: &TrustDomain) -> Result<SpiffeId, TokenError> {
    match redemption {
        Redemption::Granted(record) => Ok(SpiffeId {
            trust_domain: trust_domain.clone(),
            namespace: record.namespace.parse()?,
            service_account: record.service_account.parse()?,
        }),
        Redemption::Unknown => Err(TokenError::Unknown),
        Redemption::Expired => Err(TokenError::Expired),
        Redemption::Used => Err(TokenError::Used),
    }
}

/// Seconds since 1970.
pub(crate) fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Seconds since 1970, as the wire carries them.
pub(crate) fn unix_wire(time: SystemTime) -> i64 {
    i64::try_from(unix(time)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_its_account_and_its_mesh() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("weft.redb")).unwrap();
        let domain = "mesh.test".parse().unwrap();
        let account = Account::new("shop", "cart").unwrap();
        let token = create(&store, &[7; 32], &account, Duration::from_secs(60), 10).unwrap();
        let offer = Offer::read(&format!(" {}\n", token.text), &[7; 32], b"csr").unwrap();
        for id in [offer.judge(&store, &domain), offer.redeem(&store, &domain)] {
            assert_eq!(id.unwrap().to_string(), "spiffe://mesh.test/ns/shop/sa/cart");
        }
        let other_key = Offer::read(&token.text, &[7; 32], b"another csr").unwrap();
        assert!(matches!(other_key.judge(&store, &domain), Err(TokenError::Used)));
        let other_mesh = Offer::read(&token.text, &[8; 32], b"csr");
        assert!(matches!(other_mesh, Err(TokenError::OtherMesh)));
    }

    #[test]
    fn other_texts_are_no_tokens() {
        for text in ["", "weft-join.", "weft-join.AAAA", "weft-join.!", "AAAA"] {
            assert!(
                matches!(Offer::read(text, &[7; 32], b""), Err(TokenError::Malformed)),
                "{text}"
            );
        }
    }

    #[test]
    fn the_mesh_s_own_namespace_is_nobody_else_s() {
        for (namespace, account) in [("weft-system", "operator"), ("", "cart"), ("shop", "a/b")] {
            assert!(Account::new(namespace, account).is_err(), "{namespace}/{account}");
        }
    }
}
