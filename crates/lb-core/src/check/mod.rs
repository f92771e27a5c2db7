//! What an active check asks of a backend and expects of it, and what the last checks found.
//!
//! Pure: how a check is made over a socket is [`probe`](crate::probe)'s business, and what follows from its result
//! that of [`health`](crate::health).

mod history;
mod statuses;

pub use history::{Explained, History};
pub use statuses::Statuses;

/// What a check is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// A connection that can be made is enough.
    Tcp,
    /// A request over HTTP/1.1, and an answer that is as expected.
    Http(HttpCheck),
}

/// A request and the answer that is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    pub method: CheckMethod,
    /// In origin form (RFC 9112 §3.2.1): a path, perhaps a query.
    pub target: String,
    /// Of the `Host` field; `None` is the backend's own name and the port that is checked.
    pub host: Option<String>,
    pub statuses: Statuses,
    /// A text that must stand near the beginning of the body; `None` is any body.
    pub text: Option<String>,
}

/// A method that changes nothing (RFC 9110 §9.2.1): a check is made for ever, whatever the server thinks of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckMethod {
    Get,
    /// The answer has no body.
    Head,
    Options,
}

impl CheckMethod {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Get, Self::Head, Self::Options];

    /// As it stands in a request.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
        }
    }
}
