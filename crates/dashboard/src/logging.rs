//! Logs go to standard error: text for a person at a terminal, JSON lines for everything else.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    Text,
    Json,
}

/// What is logged when nobody says otherwise: starts, stops, connections gained and lost, actions.
const DEFAULT_LEVEL: &str = "info";

/// Installs the process-wide logger. `RUST_LOG` wins over `level`; the second call in a process has no effect.
pub fn init(format: LogFormat, level: Option<&str>) {
    let rust_log = std::env::var("RUST_LOG").ok().filter(|value| !value.is_empty());
    let wanted = rust_log.as_deref().or(level).unwrap_or(DEFAULT_LEVEL);
    let (filter, complaint) = match EnvFilter::try_new(wanted) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(DEFAULT_LEVEL), Some(error)),
    };
    let on_terminal = io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(on_terminal)
        // Its own complaint about a line that cannot be written would go to the same place, and panic there.
        .log_internal_errors(false);
    let json = match format {
        LogFormat::Auto => !on_terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let installed = if json { builder.json().flatten_event(true).try_init() } else { builder.try_init() };
    if installed.is_ok()
        && let Some(error) = complaint
    {
        tracing::warn!(%error, "log level not understood, using {DEFAULT_LEVEL}; expected such as info or debug");
    }
}
