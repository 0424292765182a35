//! What is wrong with a scenario file: where, why, and what would do.

use std::{fmt, ops::Range};

use crate::advice::advice;

/// A mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The line itself.
    pub text: String,
    /// What is wrong, and what to try.
    pub message: String,
}

impl std::error::Error for Problem {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem {
            path,
            line,
            column,
            text,
            message,
        } = self;
        writeln!(f, "{path}:{line}:{column}: {message}")?;
        writeln!(f, "{line:>5} | {text}")?;
        write!(f, "      | {:>column$}", "^")
    }
}

impl Problem {
    /// At a place of `source`.
    pub fn at(path: &str, source: &str, span: Range<usize>, message: impl Into<String>) -> Problem {
        let start = (0..=span.start.min(source.len()))
            .rev()
            .find(|at| source.is_char_boundary(*at));
        let before = &source[..start.unwrap_or(0)];
        let line_begin = before.rfind('\n').map_or(0, |at| at + 1);
        let text = source[line_begin..].lines().next().unwrap_or_default();
        Problem {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_begin..].chars().count() + 1,
            text: text.to_owned(),
            message: message.into(),
        }
    }

    /// What the TOML reader says, with the nearest names that it knows where it met one that it does not.
    pub fn from_toml(path: &str, source: &str, error: &toml::de::Error) -> Problem {
        let message = match nearest_known(error.message()) {
            Some(advice) => advice,
            None => error.message().to_owned(),
        };
        Problem::at(path, source, error.span().unwrap_or(0..0), message)
    }
}

/// Serde's "unknown field `x`, expected one of `a`, `b`" as a sentence that a person can use.
fn nearest_known(message: &str) -> Option<String> {
    let what = ["field", "variant"]
        .into_iter()
        .find(|what| message.starts_with(&format!("unknown {what} `")))?;
    let mut names = message.split('`').skip(1).step_by(2);
    let (unknown, known) = (names.next()?, names.collect::<Vec<_>>());
    let what = if what == "field" { "key" } else { "value" };
    Some(format!(
        "there is no {what} {unknown:?} here; {}",
        advice(unknown, known)
    ))
}
