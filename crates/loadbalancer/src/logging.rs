//! Logs go to standard error: text for people on a terminal, JSON lines for machines. `RUST_LOG` wins over the level.
//!
//! A thread of its own writes them. When the reader does not keep up, lines are dropped and counted: neither plane may
//! wait for whoever reads the log.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Lines that may wait to be written: some seconds of a bad day. Their places are allocated at the start, and the
/// library's default of 128,000 would take 5 MiB.
const LINES_KEPT: usize = 4096;

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Log lines that nobody took in time.
pub(crate) fn dropped() -> usize {
    DROPPED.get().map_or(0, ErrorCounter::dropped_lines)
}

/// Sets the process's logging up. The first call wins. What is logged is written out when the guard is dropped.
pub fn init(config: &LogConfig) -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default().buffered_lines_limit(LINES_KEPT).finish(std::io::stderr());
    let _ = DROPPED.set(writer.error_counter());
    let filter = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let filter = EnvFilter::try_new(filter.as_deref().unwrap_or(&config.filter))
        .unwrap_or_else(|_| EnvFilter::new(&config.filter));
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
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
    guard
}
