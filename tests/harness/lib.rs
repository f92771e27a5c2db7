//! What the end-to-end tests are made of: the real programs as processes ([`program`]), plain HTTP requests
//! ([`http`]), raw bytes ([`raw`]; [`wire`] knows where a message ends), scripted backends ([`origin`]) and closed-loop load ([`load`]).
//!
//! Nothing here knows what is being tested. Everything is bounded in time, uses port 0, and ends what it started.

pub mod http;
pub mod load;
pub mod origin;
pub mod program;
pub mod raw;
pub mod wire;

use std::time::Duration;

/// The one knob for slow machines: how long a test waits for something that is expected to happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `check` answers `Some`, looking every 10 ms, at most [`PATIENCE`].
///
/// # Panics
/// When it never does, naming `what`.
pub async fn eventually<T>(what: &str, check: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, check).await
}

/// As [`eventually`], with a patience of its own.
///
/// # Panics
/// When it never does, naming `what`.
pub async fn eventually_within<T>(patience: Duration, what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
