//! What rules and backends change in the fields of requests and responses.

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};
use model::filter::HeaderModifier;

use super::first_of_each_name;

/// Removes, then sets, then adds. Of several entries with one name in a list the first counts (Gateway API
/// `HTTPHeaderFilter`). An added value joins those that are there, behind a comma, on one line.
pub fn apply(modifier: &HeaderModifier, headers: &mut HeaderMap) {
    for name in &modifier.remove {
        headers.remove(name);
    }
    // A map refuses its 32,769th field; heads are limited far below that before they come here.
    for (name, value) in first_of_each_name(&modifier.set) {
        let _ = headers.try_insert(name.clone(), value.clone());
    }
    for (name, value) in first_of_each_name(&modifier.add) {
        add(name, value, headers);
    }
}

/// Adds a value to a field: on the same line as what is there, since some readers take the first line for the whole
/// (RFC 9110 section 5.3). `Cookie` has a separator of its own, and `Set-Cookie` none.
pub fn add(name: &HeaderName, value: &HeaderValue, headers: &mut HeaderMap) {
    let separator: &[u8] = if name == COOKIE { b"; " } else { b"," };
    let present: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if present.is_empty() || name == SET_COOKIE {
        let _ = headers.try_append(name.clone(), value.clone());
        return;
    }
    let all = [&present[..], &[value.as_bytes()]].concat().join(separator);
    if let Ok(joined) = HeaderValue::from_bytes(&all) {
        let _ = headers.try_insert(name.clone(), joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    const NAMES: [&str; 4] = ["x-a", "x-b", "x-c", "x-d"];
    const VALUES: [&str; 3] = ["1", "2", "3"];

    type Lines = Vec<(&'static str, &'static str)>;

    /// The same on a list of lines: what a field then is, and on how many lines.
    fn on_lines(remove: &[&str], set: &Lines, add: &Lines, lines: &mut Lines) -> Vec<(String, usize)> {
        lines.retain(|(name, _)| !remove.contains(name));
        for (at, (name, value)) in set.iter().enumerate() {
            if !set[..at].iter().any(|(earlier, _)| earlier == name) {
                lines.retain(|(present, _)| present != name);
                lines.push((name, value));
            }
        }
        let changed = NAMES.iter().map(|name| {
            let of_name = |lines: &Lines| -> Vec<&str> {
                let of_name = lines.iter().filter(|(n, _)| n == name);
                of_name.map(|(_, value)| *value).collect()
            };
            let mut values = of_name(lines);
            let added = of_name(add).first().copied();
            values.extend(added);
            let count = if added.is_some() { 1 } else { values.len() };
            (values.join(","), count)
        });
        changed.collect()
    }

    fn fields(lines: &[(&'static str, &'static str)]) -> Vec<(HeaderName, HeaderValue)> {
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
            apply(&modifier, &mut headers);
            let expected = on_lines(&remove, &set, &add, &mut lines);
            for (name, expected) in NAMES.iter().zip(expected) {
                let left: Vec<_> = headers.get_all(*name).iter().map(|v| v.to_str().expect("ascii")).collect();
                prop_assert_eq!((left.join(","), left.len()), expected);
            }
        }
    }

    #[test]
    fn cookies_are_not_joined_by_a_comma() {
        let add = fields(&[("cookie", "b=2"), ("set-cookie", "d=4")]);
        let modifier = HeaderModifier::new(vec![], vec![], add).expect("valid");
        let mut headers: HeaderMap = fields(&[("cookie", "a=1"), ("set-cookie", "c=3")])
            .into_iter()
            .collect();
        apply(&modifier, &mut headers);
        assert_eq!(headers["cookie"], "a=1; b=2");
        let set: Vec<_> = headers.get_all("set-cookie").iter().collect();
        assert_eq!(set, ["c=3", "d=4"]);
    }
}
