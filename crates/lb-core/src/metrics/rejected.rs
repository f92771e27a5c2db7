//! Why a request was refused at the door. A fixed set: it is a metric label (`lb_rejected_total{reason}`), a word in
//! the access log and in the reply, so one table serves all three.

/// Why what a client sent goes to no backend. The client's fault, all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// Not `METHOD target HTTP/1.1`.
    RequestLine,
    /// A protocol version other than HTTP/1.0 and HTTP/1.1.
    Version,
    /// The target is not one, or not one for the method.
    Target,
    /// The target is longer than `limits.target`.
    TargetTooLong,
    /// A line that ends in LF alone.
    BareLf,
    /// A CR that no LF follows.
    BareCr,
    /// A field continued on the next line.
    ObsFold,
    /// A field name that is none, or white space before its colon.
    FieldName,
    /// A control character in a field's value.
    FieldValue,
    /// No Host field, more than one, or not a host.
    Host,
    /// Content-Length that is not one number.
    ContentLength,
    /// Transfer-Encoding that is not `chunked` alone, or in HTTP/1.0.
    TransferEncoding,
    /// A transfer coding that is not known here.
    UnknownCoding,
    /// Both Transfer-Encoding and Content-Length.
    TeAndCl,
    /// Connection names a field that frames or routes the message.
    ConnectionNames,
    /// A chunk, a chunk extension or a trailer that is not valid.
    Chunk,
    /// The head is larger than `limits.head`.
    HeadTooLarge,
    /// More fields than `limits.fields`.
    TooManyFields,
    /// The body is larger than `limits.body`.
    BodyTooLarge,
    /// A method that goes no further: CONNECT, TRACE.
    Method,
    /// An expectation other than 100-continue.
    Expectation,
    /// Max-Forwards that is not a number.
    MaxForwards,
    /// The request has been here before.
    Loop,
    /// The head did not come in time.
    HeadTimeout,
    /// The body stood still, or came slower than `limits.min_body_rate`.
    BodyTimeout,
    /// The client takes its response slower than `limits.min_body_rate`.
    SlowReader,
    /// More connections of one client than `limits.connections_per_client`.
    ClientConnections,
    /// No valid PROXY header from a peer that must send one.
    ProxyHeader,
    /// Two readings of where the message ends.
    Framing,
}

impl Rejected {
    /// All of them.
    pub const ALL: [Self; 29] = [
        Self::RequestLine,
        Self::Version,
        Self::Target,
        Self::TargetTooLong,
        Self::BareLf,
        Self::BareCr,
        Self::ObsFold,
        Self::FieldName,
        Self::FieldValue,
        Self::Host,
        Self::ContentLength,
        Self::TransferEncoding,
        Self::UnknownCoding,
        Self::TeAndCl,
        Self::ConnectionNames,
        Self::Chunk,
        Self::HeadTooLarge,
        Self::TooManyFields,
        Self::BodyTooLarge,
        Self::Method,
        Self::Expectation,
        Self::MaxForwards,
        Self::Loop,
        Self::HeadTimeout,
        Self::BodyTimeout,
        Self::SlowReader,
        Self::ClientConnections,
        Self::ProxyHeader,
        Self::Framing,
    ];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The status it is answered with; 499 where nobody is left to be answered.
    pub const fn status(self) -> u16 {
        self.row().1
    }

    /// What is wrong, for whoever sent it.
    pub const fn words(self) -> &'static str {
        self.row().2
    }

    const fn row(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::RequestLine => ("request_line", 400, "the request line is not METHOD SP target SP HTTP/1.1"),
            Self::Version => ("version", 505, "only HTTP/1.1 and HTTP/1.0 are spoken on this port"),
            Self::Target => ("target", 400, "the request target is not valid, or not for this method"),
            Self::TargetTooLong => ("target_too_long", 414, "the request target is too long"),
            Self::BareLf => ("bare_lf", 400, "a line ends in LF without CR"),
            Self::BareCr => ("bare_cr", 400, "there is a CR without LF"),
            Self::ObsFold => ("obs_fold", 400, "a header field is continued on a second line"),
            Self::FieldName => ("field_name", 400, "a header field's name is not valid"),
            Self::FieldValue => ("field_value", 400, "a header field's value has control characters"),
            Self::Host => ("host", 400, "there must be one Host field, and it must be a host name"),
            Self::ContentLength => ("content_length", 400, "Content-Length must be one number, given once"),
            Self::TransferEncoding => ("transfer_encoding", 400, "Transfer-Encoding must be chunked, given once"),
            Self::UnknownCoding => ("unknown_coding", 501, "only the transfer coding chunked is understood"),
            Self::TeAndCl => ("te_and_cl", 400, "both Transfer-Encoding and Content-Length are given"),
            Self::ConnectionNames => {
                ("connection_names_framing", 400, "Connection names a field that the message cannot do without")
            }
            Self::Chunk => ("chunk", 400, "the chunked body is not valid"),
            Self::HeadTooLarge => ("head_too_large", 431, "the request head is too large"),
            Self::TooManyFields => ("too_many_fields", 431, "the request has too many header fields"),
            Self::BodyTooLarge => ("body_too_large", 413, "the request body is too large"),
            Self::Method => ("method", 405, "this method is not available here"),
            Self::Expectation => ("expectation", 417, "only the expectation 100-continue is understood"),
            Self::MaxForwards => ("max_forwards", 400, "Max-Forwards must be a number"),
            Self::Loop => ("loop", 508, "the request has come through this load balancer before"),
            Self::HeadTimeout => ("head_timeout", 408, "the request head did not come in time"),
            Self::BodyTimeout => ("body_timeout", 408, "the request body did not come in time"),
            Self::SlowReader => ("slow_reader", 499, "the response is taken too slowly"),
            Self::ClientConnections => ("client_connections", 429, "there are too many connections from this client"),
            Self::ProxyHeader => ("proxy_header", 400, "the connection does not begin with a valid PROXY header"),
            Self::Framing => ("framing", 400, "the end of the message is not certain"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_words_and_all_different() {
        let mut seen = std::collections::HashSet::new();
        for (at, reason) in Rejected::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at, "counters are indexed by it");
            assert!(seen.insert(reason.as_str()));
            assert!(reason.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
            assert!((400..=508).contains(&reason.status()));
        }
    }
}
