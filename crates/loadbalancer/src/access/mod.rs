//! The access log: one JSON line per request, whatever became of it, for those who keep them. Off by default, and then
//! all of this is a branch.
//!
//! An [`Entry`] is a request's line to be. It is made when the request has come, goes from hand to hand with it (into
//! each attempt's record, and with the last one into the response body), and writes its line when it is dropped; so
//! each request has exactly one line, also one whose client went away wherever that was. What never became a request
//! has its line from [`rejected`].
//!
//! Lines are gathered per worker ([`lines`]), in the form of [`line`], and written by a thread of their own
//! ([`writer`]): neither a slow disk nor a reader that has stopped holds a request up. What cannot be written is
//! dropped and counted.

mod address;
mod entry;
#[cfg(test)]
mod fuzz;
mod line;
mod lines;
mod stamp;
mod writer;

pub(crate) use address::forwarded_for;
pub(crate) use entry::{Entry, rejected};
pub(crate) use lines::Lines;
pub(crate) use writer::{Log, start};
