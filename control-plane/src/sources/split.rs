//! Splits a file into its documents by their marker lines, so that each is read, kept and refused by itself.
//!
//! YAML 1.2 (section 9.1.2) lets no content line begin with `---` or `...` and a space, not even inside a
//! quoted or block scalar, so the split needs no parser.

/// The text of one document and where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part<'t> {
    pub(super) text: &'t str,
    /// Its first line in the file, from 1.
    pub(super) line: u32,
}

/// The documents of a text in order. Comments and directives before a `---` belong to the document after it.
pub(super) fn documents(text: &str) -> Vec<Part<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parts = Vec::new();
    let (mut start, mut start_line, mut begun) = (0, 1, false);
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let number = u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1);
        let end = offset + line.len();
        if is_marker(line, "...") {
            push(&mut parts, text, start..offset, start_line, begun);
            (start, start_line, begun) = (end, number.saturating_add(1), false);
        } else if is_marker(line, "---") && begun {
            push(&mut parts, text, start..offset, start_line, begun);
            (start, start_line) = (offset, number);
        } else if !is_prelude(line) {
            begun = true;
        }
        offset = end;
    }
    push(&mut parts, text, start..text.len(), start_line, begun);
    parts
}

/// Keeps a part that says something, without the bare `---` and the blank lines it may begin with.
fn push<'t>(
    parts: &mut Vec<Part<'t>>,
    text: &'t str,
    range: std::ops::Range<usize>,
    mut line: u32,
    begun: bool,
) {
    let Some(mut text) = text.get(range).filter(|_| begun) else {
        return;
    };
    while let Some((first, rest)) = text.split_once('\n')
        && (first.trim_end() == "---" || first.trim().is_empty())
    {
        (text, line) = (rest, line.saturating_add(1));
    }
    parts.push(Part { text, line });
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn is_prelude(line: &str) -> bool {
    line.trim().is_empty() || line.trim_start().starts_with('#') || line.starts_with('%')
}
