//! What a field's name says about forwarding it. One look at the name answers every question that either direction
//! has: a comparison with each list in turn costs more than the rest of the field.

/// How a field is treated. Names are in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Passes as it is.
    Ordinary,
    /// `Connection`: about the connection, and names others that are.
    Connection,
    /// `Transfer-Encoding`: about the connection, and says how the body ends.
    TransferEncoding,
    /// `Proxy-Authenticate`: about the connection in a request; in a response it is for the client when no proxy in
    /// between answers it (RFC 9110 §11.7.1).
    ProxyAuthenticate,
    /// `Keep-Alive`: about the connection; a backend may say in it when it closes.
    KeepAlive,
    /// Only about one connection (RFC 9110 §7.6.1), and never forwarded.
    HopByHop,
    ContentLength,
    Via,
    /// `Max-Forwards`: passes, or is counted down and written by us.
    MaxForwards,
    /// What we write ourselves into a request, whatever the client sent.
    Ours,
    /// What tells a backend about the client; only a trusted peer's is believed.
    Forwarding,
    /// A name that a CGI or WSGI backend cannot tell from one of the above: `X_Forwarded_For` (RFC 3875 §4.1.18 maps
    /// `-` to `_`). Not forwarded in a request whoever sends it.
    Alias,
}

/// The class of the field with this name.
pub(super) fn class(name: &[u8]) -> Class {
    match name {
        b"connection" => Class::Connection,
        b"transfer-encoding" => Class::TransferEncoding,
        b"proxy-authenticate" => Class::ProxyAuthenticate,
        b"keep-alive" => Class::KeepAlive,
        b"proxy-connection" | b"te" | b"upgrade" | b"proxy-authorization" => Class::HopByHop,
        b"content-length" => Class::ContentLength,
        b"via" => Class::Via,
        b"host" | b"expect" | b"x-request-id" | b"x-request-timeout-ms" | b"http2-settings" => Class::Ours,
        b"max-forwards" => Class::MaxForwards,
        b"forwarded" | b"x-real-ip" | b"true-client-ip" => Class::Forwarding,
        name if name.contains(&b'_') => alias(name),
        // -For, -Proto, -Host and -Port; and -Prefix, -Server, -Ssl and whatever else a backend may believe.
        name if name.starts_with(b"x-forwarded-") => Class::Forwarding,
        _ => Class::Ordinary,
    }
}

#[cold]
fn alias(name: &[u8]) -> Class {
    let dashed: Vec<u8> = name.iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).collect();
    if matches!(class(&dashed), Class::Ordinary | Class::MaxForwards) { Class::Ordinary } else { Class::Alias }
}

/// Whether a field is only about one connection (RFC 9110 §7.6.1).
pub(super) fn is_hop_by_hop(name: &str) -> bool {
    use Class::{Connection, HopByHop, KeepAlive, ProxyAuthenticate, TransferEncoding};
    matches!(class(name.as_bytes()), Connection | HopByHop | KeepAlive | ProxyAuthenticate | TransferEncoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_one_class() {
        for (names, expected) in [
            ("connection", Class::Connection),
            ("transfer-encoding", Class::TransferEncoding),
            ("proxy-authenticate", Class::ProxyAuthenticate),
            ("keep-alive", Class::KeepAlive),
            ("proxy-connection te upgrade proxy-authorization", Class::HopByHop),
            ("content-length", Class::ContentLength),
            ("via", Class::Via),
            ("host expect x-request-id x-request-timeout-ms http2-settings", Class::Ours),
            ("max-forwards", Class::MaxForwards),
            ("x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port", Class::Forwarding),
            ("x-forwarded-prefix x-forwarded-server x-forwarded-ssl x-forwarded-", Class::Forwarding),
            ("forwarded x-real-ip true-client-ip", Class::Forwarding),
            ("x_forwarded_for x-forwarded_for keep_alive content_length transfer_encoding x_request-id", Class::Alias),
            ("x_forwarded_prefix x-forwarded_ssl x-forwarded-a_b", Class::Alias),
            ("accept user-agent max_forwards x_a _ vib viaa t x-forwarded cookie trailer", Class::Ordinary),
        ] {
            for name in names.split(' ') {
                assert_eq!(class(name.as_bytes()), expected, "{name}");
            }
        }
    }
}
