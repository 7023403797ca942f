//! How a path is replaced by redirects and rewrites.

use std::borrow::Cow;

use model::filter::PathChange;

/// The path after the change (Gateway API `HTTPPathModifier`). A prefix is replaced by whole elements, and a slash at the
/// end of it, or of its replacement, is ignored. A path that does not have the prefix stays.
pub fn changed<'p>(change: &'p PathChange, path: &'p str) -> Cow<'p, str> {
    let (matched, replacement) = match change {
        PathChange::Full(path) => return Cow::Borrowed(path),
        PathChange::Prefix { matched, replacement } => {
            (matched.trim_end_matches('/'), replacement.trim_end_matches('/'))
        }
    };
    let rest = path.strip_prefix(matched);
    let Some(rest) = rest.filter(|rest| rest.is_empty() || rest.starts_with('/')) else {
        return Cow::Borrowed(path);
    };
    match (replacement, rest) {
        ("", "") => Cow::Borrowed("/"),
        ("", rest) => Cow::Borrowed(rest),
        (replacement, "") => Cow::Borrowed(replacement),
        (replacement, rest) => Cow::Owned([replacement, rest].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::route::PathMatch;
    use proptest::prelude::*;

    fn prefix(matched: &str, replacement: &str) -> PathChange {
        PathChange::prefix(&PathMatch::prefix(matched).expect("a path"), replacement).expect("a path")
    }

    /// The table in Gateway API's documentation of `replacePrefixMatch`.
    #[test]
    fn a_prefix_is_replaced_as_the_specification_says() {
        for (path, matched, replacement, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            // Beside the table.
            ("/bar", "/", "/xyz", "/xyz/bar"),
            ("/foobar", "/foo", "/xyz", "/foobar"),
            ("*", "/", "/xyz", "*"),
        ] {
            let change = prefix(matched, replacement);
            assert_eq!(changed(&change, path), expected, "{path} {matched} {replacement}");
        }
        let full = PathChange::full("/x").expect("a path");
        assert_eq!(changed(&full, "/foo/bar"), "/x");
        assert_eq!(changed(&PathChange::full("").expect("a path"), "/foo"), "/");
    }

    /// The same on lists of elements.
    fn by_elements(path: &str, matched: &str, replacement: &str) -> String {
        let elements = |path: &str| -> Vec<String> { path.split('/').skip(1).map(str::to_owned).collect() };
        let whole = |path: &str| elements(path.trim_end_matches('/'));
        let (path, matched) = (elements(path), whole(matched));
        let mut result = if path.starts_with(&matched) {
            [&whole(replacement)[..], &path[matched.len()..]].concat()
        } else {
            path
        };
        if result.is_empty() {
            result.push(String::new());
        }
        result.iter().map(|element| format!("/{element}")).collect()
    }

    proptest! {
        #[test]
        fn elements_are_replaced(
            path in "(/[ab]{0,2}){1,5}", matched in "/|(/[ab]{1,2}){1,2}/?", replacement in "(/[xy]{1,2}){0,2}/?",
        ) {
            let change = prefix(&matched, &replacement);
            prop_assert_eq!(changed(&change, &path), by_elements(&path, &matched, &replacement));
        }

        #[test]
        fn any_path_is_changed_without_panic(path in ".{0,12}", matched in "(/[ab]){1,2}") {
            let change = prefix(&matched, "/x");
            let _ = changed(&change, &path);
        }
    }
}
