//! One trace as its spans: what `weft up` keeps, `weft traces` receives, and a person reads as a tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::table::millis;

/// Attributes that the tree shows, and under which word; of two with one word the first that a span has.
const SHOWN: &[(&str, &str)] = &[
    ("weft.backend", "backend"),
    ("weft.endpoint", "endpoint"),
    ("http.response.status_code", "status"),
    ("rpc.response.status_code", "grpc"),
    ("rpc.grpc.status_code", "grpc"),
    ("weft.reason", "reason"),
    ("weft.retry.reason", "reason"),
    ("error.type", "reason"),
];

/// One span, with its ids as hex text and its attributes as text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    pub id: String,
    /// Empty for a root.
    pub parent: String,
    /// `service.name` of the workload.
    pub service: String,
    pub name: String,
    pub kind: Kind,
    /// Nanoseconds since 1970.
    pub start: u64,
    pub end: u64,
    pub failed: bool,
    /// Why it failed; may be empty.
    pub message: String,
    pub attributes: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    #[default]
    Internal,
    Server,
    Client,
    Producer,
    Consumer,
}

/// All spans of one trace that arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trace {
    pub id: String,
    pub spans: Vec<Span>,
    /// Spans that came after the trace was full.
    pub left_out: u64,
}

/// One line about a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub id: String,
    pub service: String,
    pub name: String,
    pub start: u64,
    pub duration: Duration,
    pub spans: usize,
    pub failed_spans: usize,
    /// Whether the root failed: retries may have hidden what failed beneath it.
    pub failed: bool,
    pub whole: bool,
}

impl Span {
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_nanos(self.end.saturating_sub(self.start))
    }

    fn kind_word(&self) -> &'static str {
        match self.kind {
            Kind::Internal => "",
            Kind::Server => " server",
            Kind::Client => " client",
            Kind::Producer => " producer",
            Kind::Consumer => " consumer",
        }
    }

    /// What was done: `POST /pay`, `payments.v1.Payments/Charge`, `attempt 2`.
    fn label(&self) -> String {
        let attribute = |name: &str| self.attributes.get(name).map(String::as_str);
        if let Some(number) = attribute("weft.attempt") {
            return format!("attempt {number}");
        }
        let after_host = |url: &'_ str| {
            url.split_once("://")
                .and_then(|(_, rest)| rest.find('/').and_then(|at| rest.get(at..)).map(str::to_owned))
        };
        let path = attribute("url.path")
            .map(str::to_owned)
            .or_else(|| attribute("url.full").and_then(after_host));
        match path {
            // gRPC spans are named after their path already.
            Some(path) if !path.ends_with(&self.name) && !self.name.contains('/') => {
                format!("{} {path}", self.name)
            }
            _ => self.name.clone(),
        }
    }

    /// `checkout attempt 2 client 12.3 ms endpoint=payments (127.0.0.1:4000) grpc=UNAVAILABLE FAILED`.
    fn line(&self) -> String {
        let label = self.label();
        let mut line = format!(
            "{} {label}{} {}",
            self.service,
            self.kind_word(),
            millis(self.duration())
        );
        let mut words = BTreeSet::new();
        for (attribute, word) in SHOWN {
            if let Some(value) = self.attributes.get(*attribute)
                && words.insert(*word)
            {
                let _ = write!(line, " {word}={value}");
                if *word == "endpoint"
                    && let Some(address) = self.peer()
                {
                    let _ = write!(line, " ({address})");
                }
            }
        }
        if self.failed {
            line += " FAILED";
            let said = words.contains("reason") || self.message.is_empty();
            if !said {
                let _ = write!(line, " ({})", self.message);
            }
        }
        // What a span says comes from elsewhere and must not steer the terminal.
        line.replace(char::is_control, " ")
    }

    fn peer(&self) -> Option<String> {
        let address = self.attributes.get("network.peer.address")?;
        let port = self.attributes.get("network.peer.port")?;
        Some(if address.contains(':') {
            format!("[{address}]:{port}")
        } else {
            format!("{address}:{port}")
        })
    }
}

impl Trace {
    /// The line that a list shows. The root is the earliest span whose parent is not here.
    pub(crate) fn summary(&self) -> Option<Summary> {
        let root = self.roots().into_iter().next()?;
        let end = self.spans.iter().map(|span| span.end).max().unwrap_or(root.end);
        Some(Summary {
            id: self.id.clone(),
            service: root.service.clone(),
            name: root.label(),
            start: root.start,
            duration: Duration::from_nanos(end.saturating_sub(root.start)),
            spans: self.spans.len(),
            failed_spans: self.spans.iter().filter(|span| span.failed).count(),
            failed: root.failed,
            whole: self.is_whole(),
        })
    }

    /// Whether all its spans seem to be here. Sidecars send their spans apart, each in the order in which they ended:
    /// what may still be missing is who called, and who answered an attempt.
    pub(crate) fn is_whole(&self) -> bool {
        let ids: BTreeSet<&str> = self.spans.iter().map(|span| span.id.as_str()).collect();
        let parents: BTreeSet<&str> = self.spans.iter().map(|span| span.parent.as_str()).collect();
        self.spans.iter().all(|span| {
            let was_answered = span.attributes.contains_key("weft.attempt")
                && span.attributes.contains_key("http.response.status_code");
            (span.parent.is_empty() || ids.contains(span.parent.as_str()))
                && (!was_answered || parents.contains(span.id.as_str()))
        })
    }

    /// The trace as a tree, children under their parents in the order of their starts.
    pub(crate) fn tree(&self) -> String {
        let mut text = format!("trace {}, {} spans\n", self.id, self.spans.len());
        let mut children: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
        for span in &self.spans {
            children.entry(&span.parent).or_default().push(span);
        }
        for spans in children.values_mut() {
            spans.sort_by_key(|span| (span.start, span.end));
        }
        // Spans come from elsewhere: their depth is theirs to choose, so no recursion, and none is shown twice.
        let mut shown = BTreeSet::new();
        let mut open: Vec<(&Span, String, Branch)> = Vec::new();
        open.extend(
            self.roots()
                .into_iter()
                .rev()
                .map(|root| (root, String::new(), Branch::Root)),
        );
        while let Some((span, indent, branch)) = open.pop() {
            if !shown.insert(span.id.as_str()) {
                continue;
            }
            let _ = writeln!(text, "{indent}{}{}", branch.mark(), span.line());
            let below = format!("{indent}{}", branch.below());
            let spans = children
                .get(span.id.as_str())
                .map(Vec::as_slice)
                .unwrap_or_default();
            for (position, child) in spans.iter().enumerate().rev() {
                let branch = if position + 1 == spans.len() {
                    Branch::Last
                } else {
                    Branch::Middle
                };
                open.push((child, below.clone(), branch));
            }
        }
        let hidden = self.left_out + u64::try_from(self.spans.len() - shown.len()).unwrap_or_default();
        if hidden > 0 {
            let _ = writeln!(text, "({hidden} more spans are not shown)");
        }
        text
    }

    /// Spans whose parent is not here, earliest first.
    fn roots(&self) -> Vec<&Span> {
        let ids: BTreeSet<&str> = self.spans.iter().map(|span| span.id.as_str()).collect();
        let mut roots: Vec<&Span> = self
            .spans
            .iter()
            .filter(|span| !ids.contains(span.parent.as_str()))
            .collect();
        roots.sort_by_key(|span| (span.start, span.end));
        roots
    }
}

/// How a line hangs on the one above it.
#[derive(Debug, Clone, Copy)]
enum Branch {
    Root,
    Middle,
    Last,
}

impl Branch {
    fn mark(self) -> &'static str {
        match self {
            Self::Root => "",
            Self::Middle => "├─ ",
            Self::Last => "└─ ",
        }
    }

    fn below(self) -> &'static str {
        match self {
            Self::Root => "",
            Self::Middle => "│  ",
            Self::Last => "   ",
        }
    }
}

#[cfg(test)]
mod tests;
