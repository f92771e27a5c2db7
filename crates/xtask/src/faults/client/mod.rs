//! The clients: keep-alive connections that ask, and write down what they got.

mod abort;
mod ask;
mod load;

pub(super) use abort::{Aborted, abort_many};
pub(super) use load::{Load, Plan};
