//! A request that fits a match: what one says of a rule can be tried on it.

use http::{HeaderMap, HeaderValue, Method, header};
use model::pattern::{Regex, ValuePattern};
use model::route::{PathMatch, RequestMatch};
use regex_syntax::hir::{Class, Hir, HirKind};

use super::{RequestView, path_fits};
use crate::traffic::{first_of_each_name, grpc};

/// A request in the parts that rules look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub method: Method,
    pub path: String,
    pub query: Option<String>,
    pub headers: HeaderMap,
}

impl Sample {
    /// The plainest request that fits; `None` where none is found, as for an expression with assertions that
    /// contradict each other.
    pub fn of(wanted: &RequestMatch) -> Option<Self> {
        let mut headers = HeaderMap::new();
        if wanted.grpc_only {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        }
        for (name, pattern) in first_of_each_name(&wanted.headers) {
            let value = HeaderValue::from_str(&value(pattern)?).ok()?;
            headers.insert(name.clone(), value);
        }
        if wanted.grpc_only && !grpc::is_grpc(&headers) {
            return None;
        }
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, pattern) in first_of_each_name(&wanted.query) {
            query.append_pair(name, &value(pattern)?);
        }
        let query = query.finish();
        let default_method = if wanted.grpc_only {
            Method::POST
        } else {
            Method::GET
        };
        let path = match &wanted.path {
            PathMatch::Exact(path) | PathMatch::Prefix(path) => path.clone(),
            PathMatch::Regex(regex) => text(regex)?,
        };
        let sample = Self {
            method: wanted.method.clone().unwrap_or(default_method),
            path,
            query: (!query.is_empty()).then_some(query),
            headers,
        };
        path_fits(&wanted.path, &sample.path).then_some(sample)
    }

    /// As rules look at it.
    pub fn view(&self) -> RequestView<'_> {
        RequestView {
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
        }
    }
}

fn value(pattern: &ValuePattern) -> Option<String> {
    match pattern {
        ValuePattern::Exact(value) => Some(value.clone()),
        ValuePattern::Regex(regex) => text(regex),
    }
}

/// Some short text that an expression matches.
fn text(regex: &Regex) -> Option<String> {
    let parsed = regex_syntax::parse(regex.source()).ok()?;
    let mut text = String::new();
    write(&parsed, &mut text)?;
    regex.is_match(&text).then_some(text)
}

/// Longest text that is made of an expression, in bytes.
const MAX_TEXT_BYTES: usize = 4096;

fn write(part: &Hir, text: &mut String) -> Option<()> {
    if text.len() > MAX_TEXT_BYTES {
        return None;
    }
    match part.kind() {
        // An assertion writes nothing; whether it holds is seen at the end.
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => text.push_str(std::str::from_utf8(&literal.0).ok()?),
        HirKind::Class(class) => text.push(letter(class)?),
        HirKind::Repetition(repetition) => {
            for _ in 0..repetition.min {
                write(&repetition.sub, text)?;
            }
        }
        HirKind::Capture(capture) => write(&capture.sub, text)?,
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| write(part, text))?,
        HirKind::Alternation(parts) => {
            // The parser has no alternation without a part.
            write(parts.first()?, text)?;
        }
    }
    Some(())
}

/// The plainest letter of a class.
fn letter(class: &Class) -> Option<char> {
    let Class::Unicode(class) = class else { return None };
    let has = |letter: &char| {
        let ranges = class.ranges();
        ranges
            .iter()
            .any(|range| (range.start()..=range.end()).contains(letter))
    };
    let plain = ('a'..='z').chain('0'..='9').chain('A'..='Z').find(has);
    plain.or_else(|| class.ranges().first().map(|range| range.start()))
}
