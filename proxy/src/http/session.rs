//! Which session a request belongs to, and what its client is told.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use decision::traffic::session::{self, EndpointKey, Token};
use http::HeaderMap;
use model::session::SessionPersistence;

use super::answer::Marks;
use crate::downstream::Front;

/// The session of one request, where its rule or a policy keeps some.
pub(crate) struct Sticky<'s> {
    session: &'s SessionPersistence,
    presented: Option<Token>,
    served: Cell<Option<EndpointKey>>,
}

impl<'s> Sticky<'s> {
    /// Boxed: most requests have none.
    pub(crate) fn of(session: Option<&'s SessionPersistence>, headers: &HeaderMap) -> Option<Box<Self>> {
        let session = session?;
        Some(Box::new(Self {
            presented: session::presented(session, headers, now()),
            session,
            served: Cell::new(None),
        }))
    }

    /// The endpoint that the client was served by before.
    pub(crate) fn wanted(&self) -> Option<EndpointKey> {
        self.presented.map(|token| token.endpoint)
    }

    /// The request was sent to this endpoint, the last one counts.
    pub(crate) fn served(&self, by: EndpointKey) {
        self.served.set(Some(by));
    }

    /// Puts into the answer what the client does not know yet.
    pub(crate) fn tell(&self, front: Front, marks: &mut Marks) {
        let Some(served) = self.served.get() else {
            return;
        };
        let now = now();
        let token = session::renewed(self.session, self.presented.as_ref(), served, now);
        if let Some(field) = token.and_then(|token| session::field(self.session, &token, front.is_tls, now)) {
            marks.field(field);
        }
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
