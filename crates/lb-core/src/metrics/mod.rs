//! What is measured: counters and histograms, one padded shard per worker.
//!
//! A shard has a single writer, so writing is a plain load and store, no locked instruction. Readers add the shards
//! up whenever they like. Relaxed ordering suffices: each number stands for itself, and none guards other memory.
//! Names and the text format live in [`text`].

mod histogram;
mod rejected;
mod shard;
pub mod text;
pub(crate) mod under_way;

pub use histogram::{Counts, Histogram};
pub use rejected::Rejected;
pub use shard::{
    BackendShard, BackendTotals, Counter, EndedEarly, FailureKind, LocalReply, TunnelEnd, WorkerShard, WorkerTotals,
};
pub use under_way::{Kind, Look, STREAM_AFTER, UnderWay};
