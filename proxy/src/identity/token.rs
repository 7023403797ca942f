//! Join tokens: the secret that lets a sidecar in once, and the hash of the root that it may trust while
//! doing so.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What every join token begins with.
const PREFIX: &str = "weft-join.";
const SECRET_BYTES: usize = 32;
const HASH_BYTES: usize = 32;

/// A join token as printed by `weft token create`. It is a secret: neither `Debug` nor any error shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    text: String,
    root_hash: [u8; HASH_BYTES],
}

/// Why a text is no join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("a join token begins with {PREFIX:?}")]
    Prefix,
    #[error("a join token is base64url of 64 bytes: it was cut or changed on its way")]
    Body,
}

impl JoinToken {
    /// Reads `weft-join.<base64url: 32 bytes secret, 32 bytes SHA-256 of the root certificate>`; white space
    /// around it, as a file's last line end, is no part of it.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let body = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::Body)?;
        let (_secret, hash) = bytes.split_at_checked(SECRET_BYTES).ok_or(TokenError::Body)?;
        let root_hash = hash.try_into().map_err(|_| TokenError::Body)?;
        Ok(Self {
            text: text.to_owned(),
            root_hash,
        })
    }

    /// SHA-256 of the DER of the one root that first contact may trust.
    pub fn root_hash(&self) -> [u8; HASH_BYTES] {
        self.root_hash
    }

    /// The token as it goes to the control plane.
    pub(super) fn secret_text(&self) -> &str {
        &self.text
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        Self::parse(text)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_carries_the_root_hash_and_hides_its_secret() {
        let body: Vec<u8> = [[7u8; 32], [9u8; 32]].concat();
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(body));
        let token = JoinToken::parse(&format!(" {text}\n")).expect("valid");
        assert_eq!(token.root_hash(), [9; 32]);
        assert_eq!(token.secret_text(), text);
        assert!(!format!("{token:?}").contains(&text[PREFIX.len()..]));
    }

    #[test]
    fn anything_else_is_refused_without_showing_it() {
        let long = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([1u8; 65]));
        let short = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([1u8; 63]));
        for text in [
            "",
            "weft-join",
            "weft-join.",
            "weft-join.AAAA",
            "other.AAAA",
            "weft-join.ä=",
            &long,
            &short,
        ] {
            let error = JoinToken::parse(text).expect_err(text);
            assert!(!error.to_string().contains("AAAA"));
        }
    }
}
