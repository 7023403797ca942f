//! Text patterns of route matches: exact, or a regular expression that is known to compile.

use crate::FieldError;

/// Longest regular expression that is accepted, in bytes.
pub const MAX_REGEX_BYTES: usize = 1024;
/// Largest compiled regular expression, in bytes of memory.
pub const MAX_REGEX_PROGRAM_BYTES: usize = 256 * 1024;

/// A regular expression (RE2 syntax, linear time) that must match the whole value.
#[derive(Debug, Clone)]
pub struct Regex {
    source: String,
    compiled: regex::Regex,
}

impl Regex {
    /// Compiles `source`, anchored at both ends.
    pub fn new(source: &str) -> Result<Self, FieldError> {
        if source.len() > MAX_REGEX_BYTES {
            return Err(FieldError::new(format!(
                "a regular expression has at most {MAX_REGEX_BYTES} bytes"
            )));
        }
        // Compiled alone first, so that `a)(b` cannot borrow the anchoring group's parentheses.
        let compile = |pattern: &str| {
            regex::RegexBuilder::new(pattern)
                .size_limit(MAX_REGEX_PROGRAM_BYTES)
                .build()
                .map_err(|error| {
                    FieldError::new(format!("is not a regular expression: {}", one_line(&error)))
                })
        };
        compile(source)?;
        Ok(Self {
            source: source.to_owned(),
            compiled: compile(&format!("^(?:{source})$"))?,
        })
    }

    pub fn is_match(&self, text: &str) -> bool {
        self.compiled.is_match(text)
    }

    /// The expression as it was written, without the anchors.
    pub fn source(&self) -> &str {
        &self.source
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Regex {}

/// How a header's or query parameter's value must look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValuePattern {
    Exact(String),
    Regex(Regex),
}

impl ValuePattern {
    pub fn is_match(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// regex prints a drawing over several lines; its last line is the sentence.
fn one_line(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines()
        .last()
        .unwrap_or(&text)
        .trim()
        .trim_start_matches("error: ")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_value_must_match() {
        let regex = Regex::new("v[12]|beta").expect("valid");
        assert!(regex.is_match("v1") && regex.is_match("beta"));
        assert!(!regex.is_match("v12") && !regex.is_match("xbeta"));
    }

    #[test]
    fn bad_and_huge_expressions_are_refused() {
        for source in ["(", "a)(b", "*", "a{1000}{1000}", &"a".repeat(2000)] {
            assert!(Regex::new(source).is_err(), "{source}");
        }
    }
}
