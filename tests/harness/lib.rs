//! What the end-to-end tests are made of: the real programs as processes ([`program`]), plain HTTP requests
//! ([`http`]) and raw bytes ([`raw`]).
//!
//! Nothing here knows what is being tested. Everything is bounded in time, uses port 0, and ends what it started.

pub mod http;
pub mod program;
pub mod raw;

use std::time::Duration;

/// The one knob for slow machines: how long a test waits for something that is expected to happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `check` answers `Some`, looking every 10 ms, at most [`PATIENCE`].
///
/// # Panics
/// When it never does, naming `what`.
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
