//! Why a backend is in its state, as one of a fixed set.

use serde::{Deserialize, Serialize};

/// Why a backend is in its state. A fixed set: it is a metric label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    #[default]
    NotCheckedYet,
    ChecksPass,
    /// The operator asked for it.
    Operator,
    ConnectionRefused,
    ConnectTimeout,
    /// No route, network or host down, reset while connecting.
    Unreachable,
    /// The host name has no address.
    NotResolved,
    /// It failed requests.
    Ejected,
    /// It has come back, or is new, and gets less than its share for a while.
    SlowStart,
    /// A check had no whole answer in its time.
    ResponseTimeout,
    /// The connection was reset inside a check.
    Reset,
    /// The connection was closed before the end of a check's answer.
    Closed,
    /// A check's answer was not HTTP.
    BadResponse,
    /// A check's answer was TLS.
    TlsResponse,
    /// A check's answer did not come to an end.
    TooLong,
    /// A check's answer had an unexpected status.
    WrongStatus,
    /// A check's answer had not the expected text in its body.
    WrongBody,
}

impl ReasonCode {
    /// What a check can fail with: the classes of the metrics.
    pub const CHECK_FAILURES: [Self; 12] = [
        Self::NotResolved,
        Self::ConnectionRefused,
        Self::ConnectTimeout,
        Self::Unreachable,
        Self::ResponseTimeout,
        Self::Reset,
        Self::Closed,
        Self::BadResponse,
        Self::TlsResponse,
        Self::TooLong,
        Self::WrongStatus,
        Self::WrongBody,
    ];

    /// The word on the wire and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotCheckedYet => "not_checked_yet",
            Self::ChecksPass => "checks_pass",
            Self::Operator => "operator",
            Self::ConnectionRefused => "connection_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::Unreachable => "unreachable",
            Self::NotResolved => "not_resolved",
            Self::Ejected => "ejected",
            Self::SlowStart => "slow_start",
            Self::ResponseTimeout => "response_timeout",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::BadResponse => "bad_response",
            Self::TlsResponse => "tls_response",
            Self::TooLong => "too_long",
            Self::WrongStatus => "wrong_status",
            Self::WrongBody => "wrong_body",
        }
    }
}
