//! Which session a request belongs to, and what its client is told.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use decision::traffic::session::{self, EndpointKey, Token};
use http::HeaderMap;
use model::route::Rule;
use model::session::SessionPersistence;

use super::answer::Marks;
use crate::downstream::Front;

/// The session of one request, where its rule keeps some.
pub(crate) struct Sticky<'r> {
    session: &'r SessionPersistence,
    presented: Option<Token>,
    served: Cell<Option<EndpointKey>>,
}

impl<'r> Sticky<'r> {
    /// Boxed: most rules keep no sessions.
    pub(crate) fn of(rule: Option<(usize, &'r Rule)>, headers: &HeaderMap) -> Option<Box<Self>> {
        let session = rule?.1.session.as_ref()?;
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
