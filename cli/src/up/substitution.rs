//! `${NAME}` in commands and environments of up.yaml.

use model::FieldError;

/// Puts in place of every `${NAME}` what `value` says; a name it does not know is an error. `$` alone is a `$`.
pub(crate) fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> Result<String, FieldError> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, following) = after
            .split_once('}')
            .ok_or_else(|| FieldError::new(format!("{text:?} has a ${{ without its }}")))?;
        let value = value(name).ok_or_else(|| {
            FieldError::new(format!(
                "${{{name}}} is not known here (APP, OUTBOUND, TARGET, and LOCAL:service:port of what `local` lists)"
            ))
        })?;
        expanded.push_str(before);
        expanded.push_str(&value);
        rest = following;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str) -> Option<String> {
        match name {
            "APP" => Some("127.0.0.1:8080".to_owned()),
            "LOCAL:payments:50051" => Some("127.0.0.1:9000".to_owned()),
            "NESTED" => Some("${APP}".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn names_become_values_wherever_they_stand() {
        for (text, expected) in [
            ("", ""),
            ("plain $5 {x}", "plain $5 {x}"),
            ("${APP}", "127.0.0.1:8080"),
            (
                "http://${APP}/${LOCAL:payments:50051}x",
                "http://127.0.0.1:8080/127.0.0.1:9000x",
            ),
            ("${NESTED}", "${APP}"),
        ] {
            assert_eq!(expand(text, value).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn unknown_and_open_names_are_errors() {
        for text in ["${}", "${PORT}", "${app}", "${APP", "a ${LOCAL:payments} b"] {
            assert!(expand(text, value).is_err(), "{text}");
        }
    }
}
