//! What rules and backends change in the fields of requests and responses.

use http::HeaderMap;
use model::filter::{Filter, HeaderModifier};

use super::first_of_each_name;

/// Applies the request modifiers among these filters, in their order.
pub fn on_request(filters: &[Filter], headers: &mut HeaderMap) {
    for filter in filters {
        if let Filter::RequestHeaders(modifier) = filter {
            apply(modifier, headers);
        }
    }
}

/// Applies the response modifiers among these filters, in their order.
pub fn on_response(filters: &[Filter], headers: &mut HeaderMap) {
    for filter in filters {
        if let Filter::ResponseHeaders(modifier) = filter {
            apply(modifier, headers);
        }
    }
}

/// Removes, then sets, then adds. Of several entries with one name in a list the first counts (Gateway API
/// `HTTPHeaderFilter`); an added value becomes a further line of its field, which means the same as appending
/// it with a comma (RFC 9110 section 5.3).
pub fn apply(modifier: &HeaderModifier, headers: &mut HeaderMap) {
    for name in &modifier.remove {
        headers.remove(name);
    }
    // A map refuses its 32,769th field; heads are limited far below that before they come here.
    for (name, value) in first_of_each_name(&modifier.set) {
        let _ = headers.try_insert(name.clone(), value.clone());
    }
    for (name, value) in first_of_each_name(&modifier.add) {
        let _ = headers.try_append(name.clone(), value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    const NAMES: [&str; 4] = ["x-a", "x-b", "x-c", "x-d"];
    const VALUES: [&str; 3] = ["1", "2", "3"];

    type Lines = Vec<(&'static str, &'static str)>;

    /// The same on a list of lines.
    fn on_lines(remove: &[&str], set: &Lines, add: &Lines, lines: &mut Lines) {
        lines.retain(|(name, _)| !remove.contains(name));
        for (at, (name, value)) in set.iter().enumerate() {
            if !set[..at].iter().any(|(earlier, _)| earlier == name) {
                lines.retain(|(present, _)| present != name);
                lines.push((name, value));
            }
        }
        for (at, (name, value)) in add.iter().enumerate() {
            if !add[..at].iter().any(|(earlier, _)| earlier == name) {
                lines.push((name, value));
            }
        }
    }

    fn fields(lines: &Lines) -> Vec<(HeaderName, HeaderValue)> {
        lines
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect()
    }

    fn some_lines() -> impl Strategy<Value = Lines> {
        vec((select(&NAMES[..]), select(&VALUES[..])), 0..5)
    }

    proptest! {
        #[test]
        fn fields_change_as_lines_do(
            remove in vec(select(&NAMES[..]), 0..3),
            set in some_lines(),
            add in some_lines(),
            mut lines in some_lines(),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in fields(&lines) {
                headers.append(name, value);
            }
            let removed = remove.iter().map(|name| HeaderName::from_static(name)).collect();
            let modifier = HeaderModifier::new(removed, fields(&set), fields(&add)).expect("valid");
            on_request(&[Filter::RequestHeaders(modifier.clone())], &mut headers);
            on_request(&[Filter::ResponseHeaders(modifier)], &mut headers);
            on_lines(&remove, &set, &add, &mut lines);
            for name in NAMES {
                let left: Vec<_> = headers.get_all(name).iter().map(|v| v.to_str().expect("ascii")).collect();
                let right: Vec<_> = lines.iter().filter(|(n, _)| *n == name).map(|(_, v)| *v).collect();
                prop_assert_eq!(left, right);
            }
        }
    }
}
