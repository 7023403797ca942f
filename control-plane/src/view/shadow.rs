//! How routes stand to those in shadow: what is in force, and what would be.

use std::collections::BTreeSet;

use model::Label;

use crate::sources::{Kind, ObjectKey, ObjectName, RouteObject};

/// In which of both worlds a route governs requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// In both.
    Kept,
    /// Only now: a route in shadow would take its place.
    Replaced,
    /// Only in the one that is compared with.
    Shadow,
}

impl Standing {
    pub(super) fn is_in_force(self) -> bool {
        self != Self::Shadow
    }

    pub(super) fn would_be(self) -> bool {
        self != Self::Replaced
    }
}

/// The routes that are in shadow, among some.
#[derive(Debug, Default)]
pub(super) struct Shadows<'s> {
    replaced: BTreeSet<(Kind, &'s Label, &'s ObjectName)>,
    are_some: bool,
}

impl<'s> Shadows<'s> {
    pub(super) fn among(routes: impl IntoIterator<Item = &'s RouteObject>) -> Self {
        let mut this = Self::default();
        for route in routes {
            let Some(shadow) = &route.shadow else { continue };
            this.are_some = true;
            if let Some(name) = &shadow.replaces {
                this.replaced.insert((route.key.kind, &route.key.namespace, name));
            }
        }
        this
    }

    pub(super) fn are_some(&self) -> bool {
        self.are_some
    }

    pub(super) fn standing(&self, route: &RouteObject) -> Standing {
        let ObjectKey {
            kind,
            namespace,
            name,
        } = &route.key;
        if route.shadow.is_some() {
            Standing::Shadow
        } else if self.replaced.contains(&(*kind, namespace, name)) {
            Standing::Replaced
        } else {
            Standing::Kept
        }
    }
}
