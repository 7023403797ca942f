//! The last traces, in bounded memory: the oldest goes when a new one comes.

use std::collections::{HashMap, VecDeque};

use crate::trace::{Span, Summary, Trace};

/// How many traces are kept.
const MAX_TRACES: usize = 200;
/// How many spans of one trace are kept; further ones are counted.
const MAX_SPANS_PER_TRACE: usize = 500;
/// Longest beginning of an id that can be asked for, in characters.
const ID_CHARACTERS: usize = 32;

/// The last traces by the order in which their first spans came.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    traces: HashMap<String, Trace>,
    order: VecDeque<String>,
}

/// What an id that was asked for stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    One(Trace),
    /// None, or several.
    NotOne(usize),
}

impl Ring {
    pub(crate) fn add(&mut self, trace_id: String, span: Span) {
        if let Some(trace) = self.traces.get_mut(&trace_id) {
            if trace.spans.len() < MAX_SPANS_PER_TRACE {
                trace.spans.push(span);
            } else {
                trace.left_out += 1;
            }
            return;
        }
        if self.order.len() >= MAX_TRACES
            && let Some(oldest) = self.order.pop_front()
        {
            self.traces.remove(&oldest);
        }
        self.order.push_back(trace_id.clone());
        self.traces.insert(
            trace_id.clone(),
            Trace {
                id: trace_id,
                spans: vec![span],
                left_out: 0,
            },
        );
    }

    /// The `count` traces that started last, newest first.
    pub(crate) fn newest(&self, count: usize) -> Vec<Summary> {
        let mut summaries: Vec<Summary> = self.traces.values().filter_map(Trace::summary).collect();
        summaries.sort_by(|a, b| (b.start, &b.id).cmp(&(a.start, &a.id)));
        summaries.truncate(count);
        summaries
    }

    /// The one that started last among those whose spans are all here; where there is none, among all.
    pub(crate) fn newest_whole(&self) -> Option<&Trace> {
        let newest = self.newest(usize::MAX);
        let chosen = newest.iter().find(|summary| summary.whole).or(newest.first())?;
        self.traces.get(&chosen.id)
    }

    /// The trace whose id begins so.
    pub(crate) fn find(&self, id: &str) -> Found {
        if id.is_empty() || id.len() > ID_CHARACTERS {
            return Found::NotOne(0);
        }
        let mut matching = self.traces.values().filter(|trace| trace.id.starts_with(id));
        match (matching.next(), matching.count()) {
            (Some(trace), 0) => Found::One(trace.clone()),
            (Some(_), others) => Found::NotOne(others + 1),
            (None, _) => Found::NotOne(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: usize, start: u64) -> Span {
        Span {
            id: id.to_string(),
            start,
            end: start + 1,
            ..Default::default()
        }
    }

    #[test]
    fn only_the_last_traces_are_kept() {
        let mut ring = Ring::default();
        for number in 0..MAX_TRACES + 5 {
            ring.add(format!("{number:032x}"), span(number, 1_000 + number as u64));
        }
        assert_eq!(ring.newest(usize::MAX).len(), MAX_TRACES);
        assert_eq!(ring.find(&format!("{:032x}", 4)), Found::NotOne(0));
        let newest: Vec<u64> = ring.newest(2).iter().map(|summary| summary.start).collect();
        assert_eq!(
            newest,
            [1_000 + MAX_TRACES as u64 + 4, 1_000 + MAX_TRACES as u64 + 3]
        );
    }

    #[test]
    fn a_trace_is_found_by_the_beginning_of_its_id_where_no_other_has_it() {
        let mut ring = Ring::default();
        ring.add("abc1".to_owned(), span(1, 1));
        ring.add("abd2".to_owned(), span(2, 2));
        assert!(matches!(ring.find("abc"), Found::One(trace) if trace.id == "abc1"));
        assert_eq!(ring.find("ab"), Found::NotOne(2));
        assert_eq!(ring.find(""), Found::NotOne(0));
    }

    #[test]
    fn a_trace_does_not_grow_for_ever() {
        let mut ring = Ring::default();
        for number in 0..MAX_SPANS_PER_TRACE + 7 {
            ring.add("a".to_owned(), span(number, 1));
        }
        let Found::One(trace) = ring.find("a") else {
            panic!("one trace")
        };
        assert_eq!((trace.spans.len(), trace.left_out), (MAX_SPANS_PER_TRACE, 7));
    }
}
