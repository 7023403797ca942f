//! The matches filed at one place of a route table; where many of them want a value of the same field, only those are
//! tried that want the request's.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::Hash;

use http::HeaderName;
use model::pattern::ValuePattern;
use model::route::RequestMatch;
use smallvec::SmallVec;

use super::{RequestView, field_value, first_of_each_name, query_value};

/// Where a match stands among all of a table, less taking precedence.
pub(super) type Rank = usize;

pub(super) const NONE: Rank = Rank::MAX;
/// So many matches are tried in turn: no look-up is cheaper.
pub(super) const FEW: usize = 3;

#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    ranks: Ranks,
    by_value: Vec<ByValue>,
}

/// Ascending. Most places have a match or two.
type Ranks = SmallVec<[Rank; 2]>;

/// Matches that want one value each of the same field or parameter.
#[derive(Debug, Clone)]
struct ByValue {
    asked: Asked,
    /// Only configuration puts values in, so that no request can make them collide.
    ranks: HashMap<Box<str>, Ranks, foldhash::fast::RandomState>,
    least: Rank,
}

/// What a request is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Asked {
    Field(HeaderName),
    Parameter(Box<str>),
}

impl Place {
    /// Files one more match, of a greater rank than those before it.
    pub(super) fn push(&mut self, rank: Rank) {
        self.ranks.push(rank);
    }

    /// Once all are filed: takes those apart of which many want a value of the same field. `wanted` is what the match of a
    /// rank wants.
    pub(super) fn tell_apart<'r>(&mut self, wanted: impl Fn(Rank) -> Option<&'r RequestMatch>) {
        if self.ranks.len() <= FEW {
            return;
        }
        let (mut of_asked, mut of_value) = (HashMap::new(), HashMap::new());
        for (asked, value) in self
            .ranks
            .iter()
            .filter_map(|rank| wanted(*rank))
            .flat_map(values)
        {
            *of_value.entry((asked.clone(), value)).or_insert(0_usize) += 1;
            *of_asked.entry(asked).or_insert(0_usize) += 1;
        }
        // Of all that a match asks for, the value that it shares with the fewest.
        let telling = |rank: Rank| {
            let many =
                values(wanted(rank)?).filter(|(asked, _)| of_asked.get(asked).is_some_and(|all| *all > FEW));
            many.min_by_key(|wanted| of_value.get(wanted).copied())
        };
        let mut rest = Ranks::new();
        for rank in std::mem::take(&mut self.ranks) {
            match telling(rank) {
                Some((asked, value)) => self.file(rank, asked, value),
                None => rest.push(rank),
            }
        }
        self.ranks = rest;
    }

    /// The least rank below `best` of a match that fits the request, or else `best`. `fits` need not be asked of every match.
    pub(super) fn least(&self, request: &RequestView<'_>, best: Rank, fits: impl Fn(Rank) -> bool) -> Rank {
        let least_of = |ranks: &Ranks, best: Rank| {
            let mut better = ranks.iter().copied().take_while(|rank| *rank < best);
            better.find(|rank| fits(*rank)).unwrap_or(best)
        };
        let mut best = least_of(&self.ranks, best);
        for by_value in &self.by_value {
            if by_value.least < best
                && let Some(value) = by_value.asked.value(request)
                && let Some(ranks) = by_value.ranks.get(&*value)
            {
                best = least_of(ranks, best);
            }
        }
        best
    }

    fn file(&mut self, rank: Rank, asked: Asked, value: &str) {
        let at = self.by_value.iter().position(|by_value| by_value.asked == asked);
        let at = at.unwrap_or_else(|| {
            self.by_value.push(ByValue {
                asked,
                ranks: HashMap::default(),
                least: rank,
            });
            self.by_value.len() - 1
        });
        if let Some(ByValue { ranks, .. }) = self.by_value.get_mut(at) {
            ranks.entry(value.into()).or_default().push(rank);
        }
    }
}

impl Asked {
    fn value<'r>(&self, request: &RequestView<'r>) -> Option<Cow<'r, str>> {
        match self {
            Self::Field(name) => field_value(request.headers, name),
            Self::Parameter(name) => query_value(request.query, name),
        }
    }
}

/// What a match asks for by its whole value.
fn values(wanted: &RequestMatch) -> impl Iterator<Item = (Asked, &str)> {
    let fields = first_of_each_name(&wanted.headers)
        .filter_map(|(name, pattern)| Some((Asked::Field(name.clone()), whole(pattern)?)));
    let parameters = first_of_each_name(&wanted.query)
        .filter_map(|(name, pattern)| Some((Asked::Parameter(name.as_str().into()), whole(pattern)?)));
    fields.chain(parameters)
}

fn whole(pattern: &ValuePattern) -> Option<&str> {
    match pattern {
        ValuePattern::Exact(value) => Some(value),
        ValuePattern::Regex(_) => None,
    }
}
