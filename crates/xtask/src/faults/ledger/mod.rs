//! The ledger: what the clients, the proxy and the origins each say about every request. Pure.

mod access;
mod check;
#[cfg(test)]
mod tests;

use std::fmt;

use super::ident::Id;

pub(super) use access::Line;
pub(super) use check::{Fates, Findings, Log, check};

/// What a client knows of one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) number: u64,
    pub(super) post: bool,
    /// Of the request's body.
    pub(super) hash: u64,
    /// Since the run's start.
    pub(super) at_us: u64,
    pub(super) took_us: u64,
    pub(super) end: End,
}

/// How a request ended for its client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum End {
    /// A whole answer.
    Answered(Answer),
    /// The answer is not whole, or there is none. The status, if there was that much.
    Failed(Why, Option<u16>),
}

/// A whole answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Whose answer the origin says it is; `None` when it is the proxy's own.
    pub(super) id: Option<Id>,
    /// Of the request's body as the origin read it; `None` when it did not.
    pub(super) heard: Option<u64>,
    /// Whether the body is the one that belongs to the request.
    pub(super) body: Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Right,
    /// The first bytes of the right one, and then a clean end.
    Short,
    Wrong,
}

/// Why there is no whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// No connection to the proxy: it never knew of the request.
    Connect,
    /// Closed or reset before the first byte of an answer.
    Dropped,
    /// Closed or reset inside the answer.
    Cut,
    /// Not HTTP.
    Garbage,
    /// Nothing for longer than any timeout allows.
    Hung,
}

impl Asked {
    /// Whether it got what it asked for.
    pub(super) fn is_well(&self) -> bool {
        matches!(self.end, End::Answered(Answer { status: 200..=299, body: Body::Right, .. }))
    }
}

/// What an origin did with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// Read it to its end, and executed it.
    Whole,
    /// Answered without reading its body.
    Early,
    /// Nothing: the connection ended inside the request.
    Broken,
    /// Executed it, and then could not send the whole answer.
    Unheard,
}

/// A line of an origin's book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Executed {
    pub(super) id: Id,
    pub(super) deed: Deed,
    pub(super) post: bool,
    /// Of the request's body as far as it was read.
    pub(super) hash: u64,
    /// Since 1970.
    pub(super) at_us: u64,
    pub(super) origin: u8,
}

const DEEDS: [(Deed, &str); 4] =
    [(Deed::Whole, "whole"), (Deed::Early, "early"), (Deed::Broken, "broken"), (Deed::Unheard, "unheard")];

impl fmt::Display for Executed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deed = DEEDS.iter().find(|(deed, _)| *deed == self.deed).map_or("", |(_, word)| word);
        let method = if self.post { "POST" } else { "GET" };
        write!(f, "{deed} {} {method} {:016x} {} {}", self.id, self.hash, self.at_us, self.origin)
    }
}

impl Executed {
    /// `None` for a line that an origin did not live to finish.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let deed = words.next()?;
        let deed = DEEDS.iter().find(|(_, word)| *word == deed)?.0;
        let id = Id::parse(words.next()?)?;
        let post = words.next()? == "POST";
        let hash = u64::from_str_radix(words.next()?, 16).ok()?;
        let record =
            Self { id, deed, post, hash, at_us: words.next()?.parse().ok()?, origin: words.next()?.parse().ok()? };
        words.next().is_none().then_some(record)
    }
}
