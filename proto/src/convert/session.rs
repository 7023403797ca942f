//! How a client's requests are kept together.

use std::time::Duration;

use model::FieldError;
use model::session::{SessionCarrier, SessionPersistence};

use super::read::millis;
use crate::v1;

pub(super) fn session_to_wire(session: &SessionPersistence) -> v1::SessionPersistence {
    let carrier = match session.carrier {
        SessionCarrier::Cookie => v1::SessionCarrier::Cookie,
        SessionCarrier::PermanentCookie => v1::SessionCarrier::PermanentCookie,
        SessionCarrier::Header => v1::SessionCarrier::Header,
    };
    v1::SessionPersistence {
        carrier: carrier.into(),
        name: session.name.clone(),
        absolute_timeout_ms: session.absolute_timeout.map_or(0, millis),
        idle_timeout_ms: session.idle_timeout.map_or(0, millis),
    }
}

pub(super) fn session_from_wire(wire: &v1::SessionPersistence) -> Result<SessionPersistence, FieldError> {
    let carrier = match v1::SessionCarrier::try_from(wire.carrier) {
        Ok(v1::SessionCarrier::Cookie) => SessionCarrier::Cookie,
        Ok(v1::SessionCarrier::PermanentCookie) => SessionCarrier::PermanentCookie,
        Ok(v1::SessionCarrier::Header) => SessionCarrier::Header,
        Ok(v1::SessionCarrier::Unspecified) | Err(_) => {
            let why = format!("{} is no carrier that this version knows", wire.carrier);
            return Err(FieldError::at("carrier", why));
        }
    };
    let time = |ms: u64| Some(Duration::from_millis(ms));
    SessionPersistence::new(
        carrier,
        &wire.name,
        time(wire.absolute_timeout_ms),
        time(wire.idle_timeout_ms),
    )
}
