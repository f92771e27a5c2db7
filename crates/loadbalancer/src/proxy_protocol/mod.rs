//! The PROXY protocol, versions 1 and 2 (haproxy.org/download/3.0/doc/proxy-protocol.txt): a header before everything
//! else on a connection that says on whose behalf it was made.
//!
//! Bytes only: [`parse`] says what a header names and where it ends, [`write`] makes one. Who may send one and who gets
//! one is decided elsewhere (`listen`, `proxy::attempt`). Own code, because of the two crates there are one takes
//! headers that the grammar does not have (a sign before a port, any byte between words, lines longer than 107 bytes)
//! and the other would bring a second version of a dependency.

#[cfg(test)]
mod fuzz;
mod parse;

use std::fmt::Write as _;
use std::net::SocketAddr;

use bytes::{BufMut, BytesMut};

use crate::config::ProxyVersion;
pub(crate) use parse::{MOST_BYTES, Parsed, parse};

/// How version 2 begins.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, command LOCAL: a connection on the sender's own behalf.
const LOCAL: u8 = 0x20;
/// Version 2, command PROXY.
const PROXY: u8 = 0x21;

/// TCP over IPv4, and over IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// Both ends of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ends {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// Appends a header to `out`; without `ends`, one that says the connection is our own.
pub(crate) fn write(version: ProxyVersion, ends: Option<Ends>, out: &mut BytesMut) {
    let ends = ends.map(|ends| (canonical(ends.source), canonical(ends.destination)));
    match version {
        ProxyVersion::V1 => write_text(ends, out),
        ProxyVersion::V2 => write_binary(ends, out),
    }
}

fn write_text(ends: Option<(SocketAddr, SocketAddr)>, out: &mut BytesMut) {
    let Some((source, destination)) = ends else { return out.put_slice(b"PROXY UNKNOWN\r\n") };
    // Both of one family: if only one is IPv4, it is written as an IPv6 address that maps it.
    let words = match (source, destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
            write!(out, "PROXY TCP4 {} {} ", source.ip(), destination.ip())
        }
        _ => write!(out, "PROXY TCP6 {} {} ", mapped(source), mapped(destination)),
    };
    let ports = write!(out, "{} {}\r\n", source.port(), destination.port());
    debug_assert!(words.and(ports).is_ok(), "a buffer that grows takes everything");
}

fn write_binary(ends: Option<(SocketAddr, SocketAddr)>, out: &mut BytesMut) {
    out.put_slice(SIGNATURE);
    let Some((source, destination)) = ends else { return out.put_slice(&[LOCAL, 0, 0, 0]) };
    match (source, destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
            out.put_slice(&[PROXY, TCP4, 0, 12]);
            out.put_slice(&source.ip().octets());
            out.put_slice(&destination.ip().octets());
        }
        _ => {
            out.put_slice(&[PROXY, TCP6, 0, 36]);
            out.put_slice(&mapped(source).octets());
            out.put_slice(&mapped(destination).octets());
        }
    }
    out.put_u16(source.port());
    out.put_u16(destination.port());
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn mapped(address: SocketAddr) -> std::net::Ipv6Addr {
    match address {
        SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped(),
        SocketAddr::V6(v6) => *v6.ip(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(version: ProxyVersion, ends: Option<(&str, &str)>) -> Vec<u8> {
        let ends = ends.map(|(source, destination)| Ends {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        });
        let mut out = BytesMut::new();
        write(version, ends, &mut out);
        out.to_vec()
    }

    #[test]
    fn version_1_is_a_line_of_text() {
        for (ends, line) in [
            (None, "PROXY UNKNOWN\r\n"),
            (Some(("192.0.2.1:5", "198.51.100.2:65535")), "PROXY TCP4 192.0.2.1 198.51.100.2 5 65535\r\n"),
            (Some(("[::ffff:192.0.2.1]:5", "198.51.100.2:80")), "PROXY TCP4 192.0.2.1 198.51.100.2 5 80\r\n"),
            (Some(("[2001:db8::1]:5", "[2001:db8::2]:80")), "PROXY TCP6 2001:db8::1 2001:db8::2 5 80\r\n"),
            (Some(("[2001:db8::1]:5", "192.0.2.1:80")), "PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 5 80\r\n"),
        ] {
            assert_eq!(String::from_utf8(written(ProxyVersion::V1, ends)).unwrap(), line);
        }
    }

    #[test]
    fn version_2_is_binary() {
        let start = b"\r\n\r\n\0\r\nQUIT\n";
        assert_eq!(written(ProxyVersion::V2, None), [&start[..], &[0x20, 0, 0, 0]].concat());
        let v4 = written(ProxyVersion::V2, Some(("192.0.2.1:258", "198.51.100.2:80")));
        let rest = [0x21, 0x11, 0, 12, 192, 0, 2, 1, 198, 51, 100, 2, 1, 2, 0, 80];
        assert_eq!(v4, [&start[..], &rest].concat());
        let v6 = written(ProxyVersion::V2, Some(("[2001:db8::1]:5", "192.0.2.1:80")));
        assert_eq!((v6.len(), &v6[12..16]), (16 + 36, &[0x21, 0x21, 0, 36][..]));
    }
}
