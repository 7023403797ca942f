//! Shows what is wrong with a configuration file: where, why, and the line itself with a caret under the place.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use proto::v1::Diagnostic;

/// `file:line:column: error: message (field ...)`, then the line of `text`, where the place is known and `text` given.
pub(crate) fn render(diagnostic: &Diagnostic, text: Option<&str>, styled: bool) -> String {
    let head = head(diagnostic, "error");
    let Diagnostic { line, column, .. } = diagnostic;
    match text.and_then(|text| excerpt(text, *line, *column, styled)) {
        Some(excerpt) => format!("{head}\n{excerpt}"),
        None => head,
    }
}

/// `file:line:column: severity: message (field ...)`.
pub(crate) fn head(diagnostic: &Diagnostic, severity: &str) -> String {
    let Diagnostic {
        file,
        line,
        column,
        field,
        message,
    } = diagnostic;
    let place = match (line, column) {
        (0, _) => file.clone(),
        (line, 0) => format!("{file}:{line}"),
        (line, column) => format!("{file}:{line}:{column}"),
    };
    let field = if field.is_empty() {
        String::new()
    } else {
        format!(" (field {field})")
    };
    format!("{place}: {severity}: {message}{field}")
}

/// The line with a caret under the column; `None` where the text has no such line.
fn excerpt(text: &str, line: u32, column: u32, styled: bool) -> Option<String> {
    let number = usize::try_from(line).ok()?;
    let source = text.lines().nth(number.checked_sub(1)?)?;
    let span = span(source, usize::try_from(column).ok()?);
    let snippet = Snippet::source(source)
        .line_start(number)
        .annotation(AnnotationKind::Primary.span(span));
    let renderer = if styled {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    Some(renderer.render(&[Group::with_level(Level::ERROR).element(snippet)]))
}

/// The bytes of the word that begins at a column (counted in characters, from 1).
fn span(source: &str, column: usize) -> Range<usize> {
    let skipped = column.saturating_sub(1);
    let start = source
        .char_indices()
        .nth(skipped)
        .map_or(source.len(), |(at, _)| at);
    let rest = source.get(start..).unwrap_or_default();
    let ends = |letter: char| letter.is_whitespace() || matches!(letter, ',' | '}' | ']' | ':');
    let word = rest
        .char_indices()
        .find(|(at, letter)| *at > 0 && ends(*letter))
        .map_or(rest.len(), |(at, _)| at);
    start..start + word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic(line: u32, column: u32) -> Diagnostic {
        Diagnostic {
            file: "canary.yaml".to_owned(),
            line,
            column,
            field: "spec.rules[0].backendRefs[1].weight".to_owned(),
            message: "is negative".to_owned(),
        }
    }

    #[test]
    fn the_caret_stands_under_the_column() {
        let text = "spec:\n  rules:\n  - weight: -5  # why\n";
        let shown = render(&diagnostic(3, 13), Some(text), false);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(
            lines.first().copied(),
            Some("canary.yaml:3:13: error: is negative (field spec.rules[0].backendRefs[1].weight)")
        );
        let source = lines
            .iter()
            .position(|line| line.contains("- weight: -5"))
            .expect("the line is shown");
        let caret = lines
            .get(source + 1)
            .and_then(|line| line.find("^^"))
            .expect("a caret");
        assert_eq!(lines.get(source).and_then(|line| line.find("-5")), Some(caret));
    }

    #[test]
    fn a_place_outside_the_text_shows_the_message_alone() {
        for (line, column) in [(0, 0), (9, 1), (u32::MAX, u32::MAX)] {
            assert_eq!(
                render(&diagnostic(line, column), Some("a: b\n"), false)
                    .lines()
                    .count(),
                1
            );
        }
    }

    #[test]
    fn any_column_of_any_line_is_shown_without_panic() {
        let text = "é: 日本\n\n\tx";
        for line in 0..5 {
            for column in 0..12 {
                let _ = render(&diagnostic(line, column), Some(text), true);
            }
        }
    }
}
