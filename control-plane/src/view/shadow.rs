//! How routes and policies stand to those in shadow: what is in force, and what would be.

use std::collections::BTreeSet;

use model::Label;

use crate::sources::{FaultPolicy, Kind, ObjectKey, ObjectName, RouteObject, Shadow, TrafficPolicyObject};

/// What may be in shadow.
pub(super) trait Shadowed {
    fn key(&self) -> &ObjectKey;

    fn shadow(&self) -> Option<&Shadow>;
}

impl Shadowed for RouteObject {
    fn key(&self) -> &ObjectKey {
        &self.key
    }

    fn shadow(&self) -> Option<&Shadow> {
        self.shadow.as_ref()
    }
}

impl Shadowed for TrafficPolicyObject {
    fn key(&self) -> &ObjectKey {
        &self.key
    }

    fn shadow(&self) -> Option<&Shadow> {
        self.shadow.as_ref()
    }
}

impl Shadowed for FaultPolicy {
    fn key(&self) -> &ObjectKey {
        &self.key
    }

    fn shadow(&self) -> Option<&Shadow> {
        self.shadow.as_ref()
    }
}

/// Those of some that are in force, in their order.
pub(super) fn in_force<T: Shadowed>(mut all: Vec<&T>) -> Vec<&T> {
    all.retain(|one| one.shadow().is_none());
    all
}

/// Those of some that would be in force if those in shadow were, in their order; `None` where none is in shadow.
pub(super) fn would_be<T: Shadowed>(mut all: Vec<&T>) -> Option<Vec<&T>> {
    let shadows = Shadows::among(all.iter().copied());
    if !shadows.are_some() {
        return None;
    }
    let stays: Vec<bool> = all.iter().map(|one| shadows.standing(*one).would_be()).collect();
    let mut stays = stays.into_iter();
    all.retain(|_| stays.next().unwrap_or_default());
    Some(all)
}

/// In which of both worlds something governs requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// In both.
    Kept,
    /// Only now: something in shadow would take its place.
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

/// What is in shadow among some, of whatever kind.
#[derive(Debug, Default)]
pub(super) struct Shadows<'s> {
    replaced: BTreeSet<(Kind, &'s Label, &'s ObjectName)>,
    are_some: bool,
}

impl<'s> Shadows<'s> {
    pub(super) fn among<T: Shadowed + 's>(all: impl IntoIterator<Item = &'s T>) -> Self {
        let mut this = Self::default();
        for one in all {
            let Some(shadow) = one.shadow() else { continue };
            this.are_some = true;
            if let Some(name) = &shadow.replaces {
                let key = one.key();
                this.replaced.insert((key.kind, &key.namespace, name));
            }
        }
        this
    }

    pub(super) fn are_some(&self) -> bool {
        self.are_some
    }

    pub(super) fn standing<T: Shadowed>(&self, one: &T) -> Standing {
        let ObjectKey {
            kind,
            namespace,
            name,
        } = one.key();
        if one.shadow().is_some() {
            Standing::Shadow
        } else if self.replaced.contains(&(*kind, namespace, name)) {
            Standing::Replaced
        } else {
            Standing::Kept
        }
    }
}
