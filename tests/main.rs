//! One test binary for everything that needs the real programs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod browser;
mod dashboard;
mod demo;
mod differential;
mod loadbalancer;
mod logs;
mod probes;
mod readme;
mod server;
mod systemd;
