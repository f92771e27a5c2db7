//! The domain of the load balancer: what a backend, a pool and a policy are, when a server counts as broken, what is
//! measured, and what the admin API says about it.
//!
//! Everything here is pure: time, randomness and I/O are arguments, so the same code runs in the load balancer, in
//! property tests and in a simulator. Only [`probe`], behind a feature, opens sockets. Command lines, HTTP and
//! threads do not live here.
//!
//! # Why it is shaped this way
//!
//! * **One snapshot, one writer.** Which backends exist, how healthy they are and what the operator wants are one
//!   immutable [`snapshot::Snapshot`], written by the control task alone and swapped as a whole. Two swaps, one for
//!   backends and one for health, would let a request see a pair that never was.
//! * **Numbers are shared, verdicts are not.** What changes with every request (in-flight, counters, histograms)
//!   stays in the [`backend::Backend`] behind an `Arc`, which outlives snapshots. What changes rarely is in the
//!   snapshot, so that a pick never has to skip a dead backend.
//! * **Counters have one writer.** Each worker owns a padded shard; readers add the shards up. No lock, no shared
//!   cache line on the request path, except the two that the promise needs: the round-robin cursor of a pool (exact
//!   order across workers) and a backend's in-flight count.

pub mod api;
pub mod backend;
pub mod check;
pub mod gate;
pub mod health;
pub mod idle;
pub mod metrics;
pub mod outlier;
pub mod overload;
pub mod panic;
pub mod policy;
#[cfg(feature = "probe")]
pub mod probe;
pub mod queue;
pub mod rate;
pub mod retry;
pub mod rotation;
pub mod slow_start;
pub mod snapshot;
