//! Chains that were found good under one bundle, so that the same bytes need no second look at their signatures.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use crate::chain::{self, Usage};
use crate::recent::Recent;
use crate::svid::{Svid, validity};
use crate::validity::Validity;
use crate::{CertError, TrustBundle};

/// Most chains of one bundle that are remembered; about 0.5 KiB each.
const MAX_VERDICTS: usize = 1024;

/// Good chains by their hash. Belongs to one bundle and must be asked about no other.
///
/// A verdict is a function of the presented bytes, the side they stand on, the bundle and the time, and of
/// nothing else: there are no revocation lists. The first two are in the hash, the third is fixed, and the
/// fourth enters only by the periods of the presented certificates. So while all these periods last, the same
/// chain is as good as it was, and only the leaf's period remains to be judged. Bad chains are not remembered:
/// whoever has no good one cannot fill this.
pub(crate) struct Verdicts(Mutex<Recent<[u8; 32], Verdict>>);

#[derive(Clone)]
struct Verdict {
    svid: Svid,
    /// When every presented certificate is valid.
    period: Validity,
}

impl Default for Verdicts {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(MAX_VERDICTS)))
    }
}

impl Verdicts {
    /// As [`chain::verify`], whose word it is.
    pub(crate) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        bundle: &TrustBundle,
        usage: Usage,
        now: SystemTime,
    ) -> Result<Svid, CertError> {
        let hash = hash(leaf, intermediates, usage);
        if let Some(svid) = self.remembered(&hash, now) {
            svid.validity.check(now)?;
            return Ok(svid);
        }
        let svid = chain::verify(leaf, intermediates, bundle, usage, now)?;
        if let Some(period) = common_period(svid.validity, intermediates) {
            let verdict = Verdict {
                svid: svid.clone(),
                period,
            };
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.put(hash, verdict);
        }
        Ok(svid)
    }

    fn remembered(&self, hash: &[u8; 32], now: SystemTime) -> Option<Svid> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = known.get(hash)?;
        // The moment at which `chain::verify` would judge the path.
        let moment = now.clamp(verdict.svid.validity.not_before, verdict.svid.validity.not_after);
        let lasts = (verdict.period.not_before..=verdict.period.not_after).contains(&moment);
        lasts.then(|| verdict.svid.clone())
    }
}

impl fmt::Debug for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verdicts")
    }
}

/// The bytes with their lengths, so that no two chains run into the same hash.
fn hash(leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>], usage: Usage) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update([match usage {
        Usage::Server => 0,
        Usage::Client => 1,
    }]);
    for certificate in std::iter::once(leaf).chain(intermediates) {
        hasher.update(certificate.len().to_le_bytes());
        hasher.update(certificate);
    }
    hasher.finalize().into()
}

/// The overlap of all periods, of certificates that the path may not even need: then the signatures are looked
/// at once more, which harms nobody. `None` where one cannot be read.
fn common_period(leaf: Validity, intermediates: &[CertificateDer<'_>]) -> Option<Validity> {
    intermediates.iter().try_fold(leaf, |common, certificate| {
        let period = validity(certificate).ok()?;
        Some(Validity {
            not_before: common.not_before.max(period.not_before),
            not_after: common.not_after.min(period.not_after),
        })
    })
}
