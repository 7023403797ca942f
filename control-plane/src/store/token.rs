//! Join tokens: only the hash of the secret is kept, and whether and for which key it was used.

use redb::{
    ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};

use super::{Store, StoreError, read, written};

/// SHA-256 of the secret to [`TokenRecord`].
const TOKENS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("tokens");

/// A join token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenRecord {
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    /// Unix seconds.
    pub(crate) expires_at: u64,
    /// SHA-256 of the signing request that used it, hex.
    pub(crate) used_by: Option<String>,
}

/// What handing in a token comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Redemption {
    Granted(TokenRecord),
    Unknown,
    Expired,
    /// By another key.
    Used,
}

pub(super) fn create_table(write: &WriteTransaction) -> Result<(), StoreError> {
    write.open_table(TOKENS)?;
    Ok(())
}

impl Store {
    /// Keeps a new token; those that have ended are forgotten.
    ///
    /// # Errors
    /// [`StoreError::TooManyTokens`] where `limit` of them have not ended.
    pub(crate) fn add_token(
        &self,
        hash: &[u8; 32],
        token: &TokenRecord,
        now: u64,
        limit: usize,
    ) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        {
            let mut tokens = write.open_table(TOKENS)?;
            tokens.retain(|_, record| {
                serde_json::from_slice::<TokenRecord>(record).is_ok_and(|token| token.expires_at > now)
            })?;
            if tokens.len()? >= u64::try_from(limit).unwrap_or(u64::MAX) {
                return Err(StoreError::TooManyTokens { limit });
            }
            let bytes = written("token", token)?;
            tokens.insert(hash.as_slice(), bytes.as_slice())?;
        }
        write.commit()?;
        Ok(())
    }

    /// What [`Store::redeem_token`] would come to, without using the token.
    pub(crate) fn judge_token(
        &self,
        hash: &[u8; 32],
        request: &str,
        now: u64,
    ) -> Result<Redemption, StoreError> {
        let tokens = self.database.begin_read()?.open_table(TOKENS)?;
        let record = tokens.get(hash.as_slice())?;
        judge(record.as_ref().map(|record| record.value()), request, now)
    }

    /// Uses a token for the key of one signing request. The same request may ask again: its answer may have been
    /// lost, and nobody else has its key.
    pub(crate) fn redeem_token(
        &self,
        hash: &[u8; 32],
        request: &str,
        now: u64,
    ) -> Result<Redemption, StoreError> {
        let write = self.database.begin_write()?;
        let redemption = {
            let mut tokens = write.open_table(TOKENS)?;
            let redemption = {
                let record = tokens.get(hash.as_slice())?;
                judge(record.as_ref().map(|record| record.value()), request, now)?
            };
            if let Redemption::Granted(token) = &redemption {
                let used = TokenRecord {
                    used_by: Some(request.to_owned()),
                    ..token.clone()
                };
                let bytes = written("token", &used)?;
                tokens.insert(hash.as_slice(), bytes.as_slice())?;
            }
            redemption
        };
        write.commit()?;
        Ok(redemption)
    }
}

fn judge(record: Option<&[u8]>, request: &str, now: u64) -> Result<Redemption, StoreError> {
    let Some(record) = record else {
        return Ok(Redemption::Unknown);
    };
    let token: TokenRecord = read("token", record)?;
    Ok(match &token.used_by {
        Some(used_by) if used_by != request => Redemption::Used,
        _ if token.expires_at <= now => Redemption::Expired,
        _ => Redemption::Granted(token),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_used_once_and_not_after_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("weft.redb")).unwrap();
        let token = TokenRecord {
            namespace: "shop".to_owned(),
            service_account: "cart".to_owned(),
            expires_at: 100,
            used_by: None,
        };
        store.add_token(&[1; 32], &token, 0, 1).unwrap();
        let full = store.add_token(&[2; 32], &token, 99, 1);
        assert!(matches!(full, Err(StoreError::TooManyTokens { limit: 1 })));

        assert_eq!(store.redeem_token(&[9; 32], "a", 0).unwrap(), Redemption::Unknown);
        assert_eq!(
            store.redeem_token(&[1; 32], "a", 100).unwrap(),
            Redemption::Expired
        );
        let granted = store.redeem_token(&[1; 32], "a", 99).unwrap();
        assert_eq!(granted, Redemption::Granted(token.clone()));
        assert_eq!(store.redeem_token(&[1; 32], "b", 99).unwrap(), Redemption::Used);
        let again = store.redeem_token(&[1; 32], "a", 99).unwrap();
        assert!(
            matches!(again, Redemption::Granted(_)),
            "the same key may ask again"
        );
        // Once it has ended it makes room.
        store.add_token(&[2; 32], &token, 100, 1).unwrap();
        assert_eq!(
            store.redeem_token(&[1; 32], "a", 99).unwrap(),
            Redemption::Unknown
        );
    }
}
