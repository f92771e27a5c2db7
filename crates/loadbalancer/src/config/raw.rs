//! What was said, by whom: every source of options is lowered to this one form before anything is judged.

use std::collections::BTreeMap;
use std::fmt;

/// Who said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag(String),
    Variable(String),
    /// File, line and column, both from 1.
    File(String, usize, usize),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag --{flag}"),
            Self::Variable(variable) => write!(f, "variable {variable}"),
            Self::File(file, line, column) => write!(f, "{file}:{line}:{column}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value as text; a list has several, a scalar one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub texts: Vec<(String, Origin)>,
    pub origin: Origin,
}

impl Given {
    pub(crate) fn one(text: impl Into<String>, origin: Origin) -> Self {
        Self { texts: vec![(text.into(), origin.clone())], origin }
    }
}

/// Everything that was said, by option name, the strongest source first to be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Raw {
    pub values: BTreeMap<&'static str, Given>,
    /// The pool's name, which only a file can say.
    pub pool_name: Option<Given>,
}

impl Raw {
    /// Lets `weaker` speak where nothing was said.
    pub(crate) fn or(mut self, weaker: Self) -> Self {
        for (key, given) in weaker.values {
            self.values.entry(key).or_insert(given);
        }
        self.pool_name = self.pool_name.or(weaker.pool_name);
        self
    }
}

/// What kind of wrong: it decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// A value that cannot be read: a slip of whoever typed it.
    Value,
    /// Readable values that cannot work together or at all.
    Meaning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub wrong: Wrong,
    pub origin: Origin,
    /// The option's name in messages.
    pub key: String,
    /// As given; `None` for a secret.
    pub value: Option<String>,
    /// What was expected, or what is wrong.
    pub words: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        let named = matches!(&self.origin, Origin::Variable(variable) if *variable == self.key);
        if !self.key.is_empty() && !named {
            // A key of a file may be any text, in quotes; a line of ours stays a line.
            write!(f, "{}: ", self.key.escape_debug())?;
        }
        if let Some(value) = &self.value {
            write!(f, "{value:?}: ")?;
        }
        f.write_str(&self.words)
    }
}
