//! One test binary for everything that needs the real programs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod demo;
mod readme;
mod server;
mod systemd;
