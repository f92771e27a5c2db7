//! The domain of the load balancer.

pub mod api;
