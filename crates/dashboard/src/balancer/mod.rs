//! The load balancer as seen from here: requests to its admin API, and the one stream that everything live comes from.

mod client;
mod follow;
mod merge;
mod sse;

pub(crate) use client::{AdminClient, AdminError, Reply};
pub(crate) use follow::follow;
pub(crate) use merge::apply;

#[cfg(test)]
pub(crate) mod fixture;
