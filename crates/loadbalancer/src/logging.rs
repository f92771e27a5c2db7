//! Logs go to standard error: text for people on a terminal, JSON lines for machines. `RUST_LOG` wins over the level.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Sets the process's logging up. The first call wins.
pub fn init(config: &LogConfig) {
    let filter = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let filter = EnvFilter::try_new(filter.as_deref().unwrap_or(&config.filter))
        .unwrap_or_else(|_| EnvFilter::new(&config.filter));
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        // Its own complaint about a log line that cannot be written would go to the same place, and panic there.
        .log_internal_errors(false);
    let json = match config.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let _ = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(terminal && std::env::var_os("NO_COLOR").is_none()).try_init()
    };
}
