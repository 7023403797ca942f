//! The rules of one port, made ready to choose among: many rules cost a request little more than one.

use std::cmp::Reverse;
use std::collections::HashMap;

use model::pattern::Regex;
use model::route::{PathMatch, RequestMatch, Rule};
use regex_syntax::hir::literal::{ExtractKind, Extractor, Seq};

use super::place::{FEW, NONE, Place, Rank};
use super::{RequestView, Summary, fits_beside_path, path_fits};
use crate::traffic::grpc;

/// An index of rules. It holds no rule itself, so that it can be kept beside those that it was made from.
///
/// All matches are put in the order of their summaries once; a place in that order is a match's rank, and of
/// those that fit, the one of the least rank wins. So it does not matter in which order matches are tried, and
/// those that a path cannot fit need not be: a request meets the matches filed under its whole path, under its
/// prefixes of whole elements, and those that say nothing of how a path begins; of many at one place, those that want
/// the value that it has of a field. Memory is linear in the rules.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    /// By rank.
    candidates: Vec<Candidate>,
    /// By the exact path they want.
    exact: ByPath,
    /// By a prefix of whole elements that every path has which they fit.
    under: ByPath,
    everywhere: Place,
    /// The least rank filed under any prefix of this length in bytes: most lengths need no look-up.
    least_under: Vec<Rank>,
    asks_for_grpc: bool,
    has_expressions: bool,
}

/// Only configuration puts paths in, so that no request can make them collide.
type ByPath = HashMap<Box<str>, Place, foldhash::fast::RandomState>;

/// One match of one rule.
#[derive(Debug, Clone)]
struct Candidate {
    rule: usize,
    /// Its place among the rule's matches.
    at: usize,
    /// Of an expression. Any other path fits wherever the match is met.
    literals: Option<Box<Literals>>,
    /// How the paths end that an expression matches, beside the match because most are told apart by it.
    end: Ending,
    wants_only_a_path: bool,
}

impl RouteTable {
    /// Makes the index; linear in the rules but for the sorting of their matches.
    pub fn compile(rules: &[Rule]) -> Self {
        Self::of(rules, 0..rules.len())
    }

    /// As [`RouteTable::compile`], of the rules at these places only, which are ascending. Places stay those in `rules`.
    pub fn of(rules: &[Rule], places: impl IntoIterator<Item = usize>) -> Self {
        let mut matches: Vec<_> = places
            .into_iter()
            .filter_map(|place| Some((place, rules.get(place)?)))
            .flat_map(|(rule, Rule { matches, .. })| {
                let placed = move |(at, wanted)| (Summary::of(wanted), rule, at, wanted);
                matches.iter().enumerate().map(placed)
            })
            .collect();
        // A stable sort: of equals the first stays before the others.
        matches.sort_by_key(|(summary, ..)| Reverse(*summary));

        let mut table = Self::default();
        for (rank, (_, rule, at, wanted)) in matches.into_iter().enumerate() {
            let literals = match &wanted.path {
                PathMatch::Regex(regex) => Some(Box::new(Literals::of(regex))),
                PathMatch::Exact(_) | PathMatch::Prefix(_) => None,
            };
            table.file(rank, &wanted.path, literals.as_deref());
            table.asks_for_grpc |= wanted.grpc_only;
            table.has_expressions |= literals.is_some();
            table.candidates.push(Candidate {
                rule,
                at,
                end: literals
                    .as_ref()
                    .map(|literals| Ending::wanted(&literals.last))
                    .unwrap_or_default(),
                literals,
                wants_only_a_path: wants_only_a_path(wanted),
            });
        }
        table.tell_apart(rules);
        table
    }

    /// The place in `rules` of the rule that governs this request; `None` where none matches. `rules` are those
    /// that the table was compiled from. It is the one that comparing all of them would find.
    pub fn choose(&self, rules: &[Rule], request: &RequestView<'_>) -> Option<usize> {
        let is_grpc = self.asks_for_grpc && grpc::is_grpc(request.headers);
        let fits = |candidate: &Candidate, path_is_certain: bool| {
            if path_is_certain && candidate.wants_only_a_path {
                return true;
            }
            let wanted = rules
                .get(candidate.rule)
                .and_then(|rule| rule.matches.get(candidate.at));
            wanted.is_some_and(|wanted| {
                (path_is_certain || path_fits(&wanted.path, request.path))
                    && fits_beside_path(wanted, request, is_grpc)
            })
        };
        if self.candidates.len() <= FEW {
            let first = self.candidates.iter().find(|candidate| fits(candidate, false));
            return first.map(|candidate| candidate.rule);
        }
        let end = if self.has_expressions {
            ending(request.path)
        } else {
            0
        };
        let best_of = |place: &Place, best: Rank| {
            place.least(request, best, |rank| {
                let candidate = self.candidates.get(rank);
                candidate.is_some_and(|candidate| match &candidate.literals {
                    None => fits(candidate, true),
                    Some(literals) => {
                        candidate.end.fits(end) && literals.are_in(request.path) && fits(candidate, false)
                    }
                })
            })
        };
        let path = request.path;
        let mut best = match self.exact.get(path) {
            Some(place) => best_of(place, NONE),
            None => NONE,
        };
        for end in element_ends(path, self.least_under.len()) {
            if self.least_under.get(end).is_some_and(|least| *least < best)
                && let Some(place) = path.get(..end).and_then(|prefix| self.under.get(prefix))
            {
                best = best_of(place, best);
            }
        }
        best = best_of(&self.everywhere, best);
        self.candidates.get(best).map(|candidate| candidate.rule)
    }

    /// Where each match stands, that of the highest precedence first: the place of its rule, and its own among the
    /// rule's matches.
    pub(super) fn by_precedence(&self) -> impl Iterator<Item = (usize, usize)> {
        self.candidates
            .iter()
            .map(|candidate| (candidate.rule, candidate.at))
    }

    /// Files a match where every request that can fit it will meet it.
    fn file(&mut self, rank: Rank, wanted: &PathMatch, literals: Option<&Literals>) {
        match wanted {
            PathMatch::Exact(path) => self.exact.entry(path.as_str().into()).or_default().push(rank),
            PathMatch::Prefix(prefix) if prefix != "/" => self.file_under(prefix, rank),
            PathMatch::Prefix(_) => self.everywhere.push(rank),
            PathMatch::Regex(_) => match literals.and_then(Literals::leading_elements) {
                Some(prefix) => self.file_under(prefix, rank),
                None => self.everywhere.push(rank),
            },
        }
    }

    fn tell_apart(&mut self, rules: &[Rule]) {
        let Self {
            candidates,
            exact,
            under,
            everywhere,
            ..
        } = self;
        let wanted = |rank: Rank| {
            let Candidate { rule, at, .. } = candidates.get(rank)?;
            rules.get(*rule)?.matches.get(*at)
        };
        for place in exact.values_mut().chain(under.values_mut()).chain([everywhere]) {
            place.tell_apart(wanted);
        }
    }

    fn file_under(&mut self, prefix: &str, rank: Rank) {
        self.under.entry(prefix.into()).or_default().push(rank);
        if self.least_under.len() <= prefix.len() {
            self.least_under.resize(prefix.len() + 1, NONE);
        }
        if let Some(least) = self.least_under.get_mut(prefix.len()) {
            *least = rank.min(*least);
        }
    }
}

fn wants_only_a_path(wanted: &RequestMatch) -> bool {
    let RequestMatch {
        path: _,
        method,
        headers,
        query,
        grpc_only,
    } = wanted;
    method.is_none() && headers.is_empty() && query.is_empty() && !grpc_only
}

/// Where the prefixes of whole elements end that are shorter than `limit` bytes, the longest first.
fn element_ends(path: &str, limit: usize) -> impl Iterator<Item = usize> {
    let within = path.as_bytes().get(..limit).unwrap_or(path.as_bytes());
    let whole = (path.len() < limit).then_some(path.len());
    whole.into_iter().chain(memchr::memrchr_iter(b'/', within))
}

/// The last eight bytes that are wanted of a path, or as many of them as are known.
#[derive(Debug, Clone, Copy, Default)]
struct Ending {
    known: u64,
    bytes: u64,
}

impl Ending {
    fn wanted(last: &str) -> Self {
        let known = match last.len() {
            length @ 0..8 => (1 << (8 * length)) - 1,
            _ => u64::MAX,
        };
        Self {
            known,
            bytes: ending(last),
        }
    }

    fn fits(self, end: u64) -> bool {
        end & self.known == self.bytes
    }
}

/// The last eight bytes, with zeros before those of a shorter text.
fn ending(text: &str) -> u64 {
    match text.as_bytes().last_chunk::<8>() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => text.bytes().fold(0, |end, byte| end << 8 | u64::from(byte)),
    }
}

/// What is known of every path that an expression matches, which is cheaper to see than whether it matches.
#[derive(Debug, Clone, Default)]
struct Literals {
    first: Box<str>,
    last: Box<str>,
}

impl Literals {
    fn of(regex: &Regex) -> Self {
        // The expression is known to compile; where another parser disagrees, nothing is known.
        let Ok(parsed) = regex_syntax::parse(regex.source()) else {
            return Self::default();
        };
        let extract = |kind| Extractor::new().kind(kind).extract(&parsed);
        let text = |bytes: Option<&[u8]>| {
            let text = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok());
            text.unwrap_or_default().into()
        };
        Self {
            first: text(Seq::longest_common_prefix(&extract(ExtractKind::Prefix))),
            last: text(Seq::longest_common_suffix(&extract(ExtractKind::Suffix))),
        }
    }

    fn are_in(&self, path: &str) -> bool {
        path.ends_with(&*self.last) && path.starts_with(&*self.first)
    }

    /// `/users` of `/users/[0-9]+`; `None` where there are none to look for.
    fn leading_elements(&self) -> Option<&str> {
        let (elements, _) = self.first.rsplit_once('/')?;
        (!elements.is_empty()).then_some(elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_filed_under_the_elements_they_begin_with() {
        for (source, elements) in [
            ("/users/[0-9]+", Some("/users")),
            ("/users/4[0-9]*/cart", Some("/users")),
            ("/users/(a|b)/x", Some("/users")),
            ("/v1/(users|user/x)", Some("/v1")),
            ("(/v1|/v1/a)/b", Some("/v1")),
            ("/a/b/", Some("/a/b")),
            ("/a/b/?", Some("/a")),
            ("^/a/b", Some("/a")),
            ("/(a/b/)?c", None),
            ("/a/b|/c/d", None),
            ("(?i)/a/b", None),
            ("/a", None),
            ("/[^/]+/Get", None),
            (".*", None),
            ("", None),
        ] {
            let regex = Regex::new(source).expect("valid");
            assert_eq!(Literals::of(&regex).leading_elements(), elements, "{source}");
        }
    }

    #[test]
    fn what_every_match_ends_with() {
        for (source, last) in [
            ("/users/[0-9]+/cart", "/cart"),
            ("/users/[0-9]+", ""),
            ("/(a|ba)", "a"),
            ("/a|/b", ""),
            ("/x/a?", ""),
            ("(?i)/x", ""),
            ("/.*\\.(js|css)$", "s"),
        ] {
            let regex = Regex::new(source).expect("valid");
            assert_eq!(&*Literals::of(&regex).last, last, "{source}");
        }
    }

    #[test]
    fn an_ending_fits_what_ends_with_it() {
        for last in ["", "a", "/cart", "12345678", "/long/12345678", "é"] {
            for path in [
                "",
                "/",
                "a",
                "/cart",
                "/a/cart",
                "12345678",
                "/x/12345678",
                "/long/12345678",
                "/é",
            ] {
                let fits = Ending::wanted(last).fits(ending(path));
                let eight = last.as_bytes();
                let eight = &eight[eight.len().saturating_sub(8)..];
                assert_eq!(fits, path.as_bytes().ends_with(eight), "{path} with {last}");
            }
        }
    }

    #[test]
    fn prefixes_of_whole_elements() {
        let ends = |path, limit| element_ends(path, limit).collect::<Vec<_>>();
        assert_eq!(ends("/a/bc", 99), [5, 2, 0]);
        assert_eq!(ends("/a/bc/", 99), [6, 5, 2, 0]);
        assert_eq!(ends("/a/bc", 5), [2, 0]);
        assert_eq!(ends("/a/bc", 6), [5, 2, 0]);
        assert_eq!(ends("/a/bc", 0), [] as [usize; 0]);
        assert_eq!(ends("*", 9), [1]);
    }
}
