//! PROXY headers fed with anything: one boundary, that nothing behind it moves, and what they name can be said again.

use bytes::BytesMut;
use lb_fuzz::{Fuzz, Seen};

use super::*;

const WORDS: &[&[u8]] = &[
    b"PROXY ",
    b"TCP4 ",
    b"TCP6 ",
    b"UNKNOWN",
    b" ",
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b"192.0.2.1",
    b"0.0.0.0",
    b"255.255.255.255",
    b"::1",
    b"2001:db8::1",
    b"::ffff:192.0.2.1",
    b"%eth0",
    b"01",
    b"+1",
    b"65535",
    b"65536",
    SIGNATURE,
    b"\x20",
    b"\x21",
    b"\x11",
    b"\x12",
    b"\x22",
    b"\x31",
    b"\x00\x0c",
    b"\x00\x24",
    b"\x00\xd8",
    b"\x02\x18",
    b"\x02\x19",
];

#[test]
fn fuzz_proxy_header() {
    Fuzz::new(env!("CARGO_MANIFEST_DIR"), "proxy_header").words(WORDS).longest(2 * MOST_BYTES).run(|bytes| {
        let parsed = parse(bytes);
        match parsed {
            Parsed::Wrong(why) => {
                assert!(!why.is_empty());
                assert_eq!(parse(&[bytes, b"\r\n\r\n"].concat()), parsed, "what is wrong stays wrong");
                Seen::refused().of(&why)
            }
            Parsed::Partial => {
                assert!(bytes.len() < MOST_BYTES, "{} bytes are waited behind", bytes.len());
                assert!((0..bytes.len()).all(|at| parse(&bytes[..at]) == Parsed::Partial));
                Seen::refused().of(&(bytes.first() == Some(&b'P')))
            }
            Parsed::Whole { length, ends } => {
                assert!(length <= bytes.len() && length <= MOST_BYTES);
                assert!((0..length).all(|at| parse(&bytes[..at]) == Parsed::Partial), "it ended before its end");
                assert!((length..bytes.len()).all(|at| parse(&bytes[..at]) == parsed), "what is behind it counts");
                let text = bytes[0] == b'P';
                if let Some(ends) = ends {
                    again(&bytes[..length], ends, text);
                }
                let family = ends.map(|ends| ends.source.is_ipv4());
                Seen::taken().of(&(text, family, length > 107))
            }
        }
    });
}

/// Written by us in both versions, it is read as the same; and in IPv4, which has one spelling, it is the same bytes.
fn again(header: &[u8], ends: Ends, text: bool) {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let mut out = BytesMut::new();
        write(version, Some(ends), &mut out);
        let Parsed::Whole { length, ends: Some(read) } = parse(&out) else { panic!("{}", out.escape_ascii()) };
        let plain = |ends: Ends| [ends.source, ends.destination].map(|end| (end.ip().to_canonical(), end.port()));
        assert_eq!((length, plain(read)), (out.len(), plain(ends)));
        let same_version = text == (version == ProxyVersion::V1);
        if same_version && ends.source.is_ipv4() {
            // TLVs are not written again.
            let part = if text { 0..header.len() } else { 16..28 };
            assert_eq!(out[part.clone()].escape_ascii().to_string(), header[part].escape_ascii().to_string());
        }
    }
}
