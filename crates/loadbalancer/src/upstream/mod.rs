//! The HTTP/1.1 exchange with a backend: one head written from the parsed request ([`encode`]), the request body sent
//! ([`send`]), one head read ([`head`]), the response body read ([`body`], [`chunked`]), and the connection kept for
//! the next one ([`cache`]) or closed. [`exchange`] puts them together; buffers are [`lent`].
//!
//! It is run inline by the task of the client's connection: no second task, no channel, and exact knowledge of what
//! was sent, which is what decides about a retry.
//!
//! What does not live here: which backend, how often, and what a client is told (`proxy`).

mod body;
mod cache;
mod chunked;
mod connection;
mod encode;
mod exchange;
mod fields;
mod head;
mod lent;
mod names;
mod open;
#[cfg(test)]
pub(crate) mod reference;
mod send;

use std::io;

use lb_core::metrics::FailureKind;

pub(crate) use cache::ConnCache;
pub(crate) use connection::{UpstreamConn, connect};
pub(crate) use encode::{Forwarding, Framing, TIME_LEFT, Via, words, write_head};
pub(crate) use exchange::{Answer, Exchange, Progress};
pub(crate) use open::{OpenConns, Opened};
pub(crate) use send::{Outgoing, RequestBody};

/// Why an exchange broke.
#[derive(Debug)]
pub(crate) enum ExchangeError {
    /// The client's fault: its body broke off, or was not valid.
    ClientBody(hyper::Error),
    /// The client's fault: its body stood still.
    ClientStalled,
    /// The backend closed or reset the connection before the response head.
    Closed(io::Error),
    /// The backend closed or reset the connection inside the response head, or between an interim head and the final
    /// one. Nothing of a head goes to the client before all of it is there.
    HeadCut(io::Error),
    /// The backend did not take the request body in time, or sent no response head in time.
    HeadTimeout,
    /// It sent no whole response head within the time for one try.
    TryTimeout,
    /// The time for the whole request passed; nobody in particular is to blame.
    Overdue,
    /// The backend's response is not HTTP that can be forwarded; says why.
    Bad(&'static str),
    /// The backend closed or reset the connection inside the response body, or let it stand still.
    Body(io::Error),
    /// Nobody's fault: the backend was taken out, and its drain is past its deadline.
    Drained,
}

impl ExchangeError {
    /// Whether the client went away, rather than sent something wrong.
    pub(crate) fn client_gone(&self) -> bool {
        let Self::ClientBody(error) = self else { return false };
        let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
        let invalid = |kind| matches!(kind, io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData);
        !cause.is_some_and(|cause| invalid(cause.kind()))
    }

    /// How it is counted at the backend; `None` when the backend is not at fault.
    pub(crate) fn failure(&self) -> Option<FailureKind> {
        match self {
            Self::ClientBody(_) | Self::ClientStalled | Self::Overdue | Self::Drained => None,
            Self::Closed(_) | Self::HeadCut(_) => Some(FailureKind::Closed),
            Self::HeadTimeout | Self::TryTimeout => Some(FailureKind::HeadTimeout),
            Self::Bad(_) => Some(FailureKind::BadResponse),
            Self::Body(_) => Some(FailureKind::Body),
        }
    }
}

impl std::fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ClientBody(error) => write!(f, "the request body broke off: {error}"),
            Self::ClientStalled => f.write_str("the request body stood still"),
            Self::Closed(error) => write!(f, "the connection closed before the response head: {error}"),
            Self::HeadCut(error) => write!(f, "the connection closed inside the response head: {error}"),
            Self::HeadTimeout => f.write_str("no response head in time"),
            Self::TryTimeout => f.write_str("no response within timeouts.try"),
            Self::Overdue => f.write_str("the time for the whole request passed meanwhile"),
            Self::Bad(why) => write!(f, "not a response that can be forwarded: {why}"),
            Self::Body(error) => write!(f, "the response body broke off: {error}"),
            Self::Drained => f.write_str("closed here: the backend's drain is past its deadline"),
        }
    }
}

impl std::error::Error for ExchangeError {}
