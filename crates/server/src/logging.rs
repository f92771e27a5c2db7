//! Logs go to standard error: text for a person at a terminal, JSON lines for a collector.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    Auto,
    Text,
    Json,
}

impl Format {
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("auto, text or json"),
        }
    }
}

/// What is logged: a level, or tracing's `target=level` directives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level(String);

impl Level {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match EnvFilter::builder().parse(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(_) => Err("error, warn, info, debug, trace, or directives such as server=debug,hyper=info".to_owned()),
        }
    }
}

/// Starts logging for this process. A second call does nothing: the first one stands.
pub fn init(format: Format, level: &Level) {
    let json = match format {
        Format::Auto => !stderr().is_terminal(),
        Format::Text => false,
        Format::Json => true,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&level.0))
        .with_writer(stderr)
        // Its own complaint about a line that cannot be written would go to the same place, and panic there.
        .log_internal_errors(false);
    let started = if json {
        subscriber.json().flatten_event(true).try_init()
    } else {
        subscriber.with_ansi(stderr().is_terminal()).try_init()
    };
    drop(started);
}
