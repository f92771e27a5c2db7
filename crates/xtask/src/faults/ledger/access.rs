//! A line of the load balancer's access log, as far as the ledger needs it.

use serde::Deserialize;

use super::super::ident::Id;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Line {
    /// `None` for what was turned away before it was a request, and for requests that are not the ledger's.
    pub(in super::super) id: Option<Id>,
    pub(in super::super) status: u16,
    /// Why the answer is the proxy's own; empty when it is an origin's.
    pub(in super::super) reason: String,
    pub(in super::super) attempts: u32,
    pub(in super::super) complete: bool,
    /// What the line says of the end.
    pub(in super::super) ended: String,
}

#[derive(Deserialize)]
struct Raw {
    target: String,
    status: u16,
    reason: String,
    attempts: u32,
    ended: String,
}

impl Line {
    /// # Errors
    /// What is wrong with the line.
    pub(in super::super) fn parse(text: &str) -> Result<Self, String> {
        let raw: Raw = serde_json::from_str(text).map_err(|e| format!("{e} in the log line {text}"))?;
        // The target is /ID/LENGTH.
        let id = raw.target.strip_prefix('/').and_then(|rest| Id::parse(rest.split('/').next()?));
        let complete = raw.ended == "complete";
        Ok(Self { id, status: raw.status, reason: raw.reason, attempts: raw.attempts, complete, ended: raw.ended })
    }

    /// Whether it says why a client did not get what it asked for.
    pub(in super::super) fn explains_a_failure(&self) -> bool {
        !self.reason.is_empty() || !self.complete || self.status >= 500
    }
}
