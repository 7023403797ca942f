//! Colours, where somebody looks at a terminal.

use std::io::IsTerminal;

use crossterm::style::Stylize;

/// Paints text, or leaves it as it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint(bool);

impl Paint {
    /// For standard output: plain in a pipe, and where `NO_COLOR` says so (no-color.org).
    pub(crate) fn stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(std::io::stdout().is_terminal() && !refused)
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.with(text, Stylize::green)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.with(text, Stylize::red)
    }

    /// What matters less.
    pub(crate) fn quiet(self, text: &str) -> String {
        self.with(text, Stylize::dim)
    }

    fn with<'t, S: std::fmt::Display>(self, text: &'t str, style: impl FnOnce(&'t str) -> S) -> String {
        if self.0 {
            style(text).to_string()
        } else {
            text.to_owned()
        }
    }
}
