//! Whether there is colour, and whether there is more than ASCII: from the options, the environment and the terminal.

#![forbid(unsafe_code)]

use std::fmt::{self, Display};
use std::io::IsTerminal;

use anstyle::Style;

/// How lines on one stream look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) color: bool,
    pub(crate) ascii: bool,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb
    Auto,
    /// Also into files and pipes
    Always,
    /// Not at all
    Never,
}

impl Look {
    /// The look for `stream`.
    pub(crate) fn choose(color: Color, ascii: bool, stream: &impl IsTerminal) -> Look {
        Look::from(color, ascii, stream.is_terminal(), |name| std::env::var(name).ok())
    }

    fn from(color: Color, ascii: bool, terminal: bool, env: impl Fn(&str) -> Option<String>) -> Look {
        let set = |name| env(name).filter(|value| !value.is_empty());
        let color = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && set("NO_COLOR").is_none() && set("TERM").as_deref() != Some("dumb"),
        };
        // locale(7): the first of these that is set and not empty decides; none is the C locale.
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
        let utf8 = locale.is_some_and(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        Look { color, ascii: ascii || !utf8 }
    }

    /// `text` in `style`, if there is colour. It is written as `text` would be, padding and all.
    pub(crate) fn paint<T: Display>(self, style: Style, text: T) -> Painted<T> {
        Painted { style: self.color.then_some(style), text }
    }
}

/// Text in a style.
#[derive(Debug)]
pub(crate) struct Painted<T> {
    style: Option<Style>,
    text: T,
}

impl<T: Display> Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(style) = self.style else { return self.text.fmt(f) };
        write!(f, "{style}")?;
        self.text.fmt(f)?;
        write!(f, "{style:#}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(color: Color, terminal: bool, env: &[(&str, &str)]) -> Look {
        Look::from(color, false, terminal, |name| {
            let value = env.iter().find(|(n, _)| *n == name);
            value.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn color_is_for_terminals_unless_told_otherwise() {
        assert!(look(Color::Auto, true, &[]).color);
        assert!(look(Color::Auto, true, &[("NO_COLOR", "")]).color);
        assert!(!look(Color::Auto, true, &[("NO_COLOR", "1")]).color);
        assert!(!look(Color::Auto, true, &[("TERM", "dumb")]).color);
        assert!(!look(Color::Auto, false, &[]).color);
        assert!(look(Color::Always, false, &[("NO_COLOR", "1")]).color);
        assert!(!look(Color::Never, true, &[]).color);
    }

    #[test]
    fn a_locale_without_utf8_gets_ascii() {
        let ascii = |env: &[_]| look(Color::Auto, true, env).ascii;
        assert!(ascii(&[]));
        assert!(ascii(&[("LANG", "C")]));
        assert!(!ascii(&[("LANG", "en_GB.UTF-8")]));
        assert!(!ascii(&[("LANG", "C.utf8")]));
        assert!(ascii(&[("LC_ALL", "C"), ("LANG", "en_GB.UTF-8")]));
        assert!(!ascii(&[("LC_ALL", ""), ("LC_CTYPE", "C.UTF-8"), ("LANG", "C")]));
        assert!(Look::from(Color::Auto, true, true, |_| Some("C.UTF-8".into())).ascii);
    }
}
