//! From when until when a certificate counts, in whole seconds as X.509 has them.

use std::time::{Duration, SystemTime};

use rustls::pki_types::UnixTime;
use time::OffsetDateTime;

use crate::CertError;

/// How far two clocks of the mesh may be apart, 2 minutes. Certificates are back-dated by it, and one whose
/// time has not quite come or is just over is still taken.
pub const CLOCK_SKEW: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl Validity {
    /// From [`CLOCK_SKEW`] before `now` for `lifetime` after it, but never beyond `issuer`'s time.
    pub(crate) fn starting(
        now: SystemTime,
        lifetime: Duration,
        issuer: Option<&Self>,
    ) -> Result<Self, CertError> {
        let mut not_before = now.checked_sub(CLOCK_SKEW).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut not_after = now.checked_add(lifetime);
        if let Some(issuer) = issuer {
            if now < issuer.not_before || now >= issuer.not_after {
                return Err(CertError::AuthorityNotValid);
            }
            not_before = not_before.max(issuer.not_before);
            not_after = Some(not_after.map_or(issuer.not_after, |end| end.min(issuer.not_after)));
        }
        let not_after = not_after.ok_or(CertError::Malformed("it would never expire"))?;
        Ok(Self {
            not_before: whole_seconds(not_before),
            not_after: whole_seconds(not_after),
        })
    }

    pub(crate) fn read(validity: &x509_parser::certificate::Validity) -> Result<Self, CertError> {
        let moment = |seconds: i64| {
            u64::try_from(seconds)
                .ok()
                .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
                .ok_or(CertError::Malformed("its validity is out of range"))
        };
        let (not_before, not_after) = (
            moment(validity.not_before.timestamp())?,
            moment(validity.not_after.timestamp())?,
        );
        if not_after < not_before {
            return Err(CertError::Malformed("its validity ends before it starts"));
        }
        Ok(Self {
            not_before,
            not_after,
        })
    }

    /// Whether `now` is inside, give or take [`CLOCK_SKEW`].
    pub(crate) fn check(&self, now: SystemTime) -> Result<(), CertError> {
        if now + CLOCK_SKEW < self.not_before {
            return Err(CertError::NotYetValid);
        }
        if now > self.not_after + CLOCK_SKEW {
            return Err(CertError::Expired);
        }
        Ok(())
    }

    /// The moment inside that is nearest to `now`.
    pub(crate) fn nearest(&self, now: SystemTime) -> UnixTime {
        UnixTime::since_unix_epoch(since_epoch(now.clamp(self.not_before, self.not_after)))
    }
}

/// As rcgen wants it.
pub(crate) fn date(moment: SystemTime) -> Result<OffsetDateTime, CertError> {
    i64::try_from(since_epoch(moment).as_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or(CertError::Malformed("its validity is out of range"))
}

fn whole_seconds(moment: SystemTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(since_epoch(moment).as_secs())
}

fn since_epoch(moment: SystemTime) -> Duration {
    moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
