//! Where a PROXY header ends and what it names, strictly: a byte more or less would be taken for part of a request.
//!
//! [`parse`] looks at the bytes that have come so far. It depends on nothing behind the header's end, so a caller may
//! look at more than that as long as it takes only what belongs to the header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{Ends, LOCAL, PROXY, SIGNATURE, TCP4, TCP6};

/// The longest line of version 1, its end included (§2.1).
const MOST_TEXT: usize = 107;

/// Version 2 up to where its addresses begin.
const FIXED: usize = 16;

/// Most bytes behind that, for addresses and TLVs: what fits into the smallest segment that every path takes (§2.2).
const MOST_VARIABLE: usize = 536;

/// No header that is taken is longer.
pub(crate) const MOST_BYTES: usize = FIXED + MOST_VARIABLE;

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// All of them belong to a header that goes on.
    Partial,
    /// A whole header of so many bytes.
    Whole {
        length: usize,
        /// `None` when it names nobody: then the connection's own ends count.
        ends: Option<Ends>,
    },
    /// No header; says why.
    Wrong(&'static str),
}

/// Looks at everything that has come.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let parsed = match bytes.first() {
        None => Ok(None),
        Some(b'P') => text(bytes),
        Some(_) => binary(bytes),
    };
    match parsed {
        Ok(Some((length, ends))) => Parsed::Whole { length, ends },
        Ok(None) => Parsed::Partial,
        Err(why) => Parsed::Wrong(why),
    }
}

type Found = Result<Option<(usize, Option<Ends>)>, &'static str>;

/// §2.1: `PROXY TCP4 source destination port port CR LF`, or TCP6, or `PROXY UNKNOWN` and whatever up to CR LF.
fn text(bytes: &[u8]) -> Found {
    let start = b"PROXY ";
    let common = bytes.len().min(start.len());
    if bytes[..common] != start[..common] {
        return Err("it does not begin with PROXY");
    }
    let within = &bytes[..bytes.len().min(MOST_TEXT)];
    let Some(end) = within.iter().position(|b| *b == b'\n') else {
        return if within.len() == MOST_TEXT { Err("its line is too long") } else { Ok(None) };
    };
    let line = within[..end].strip_suffix(b"\r").ok_or("its line ends in LF without CR")?;
    if line.contains(&b'\r') {
        return Err("its line has a CR inside");
    }
    let words = line.strip_prefix(start).ok_or("it does not begin with PROXY")?;
    // The receiver must ignore anything that follows UNKNOWN.
    if words == b"UNKNOWN" || words.starts_with(b"UNKNOWN ") {
        return Ok(Some((end + 1, None)));
    }
    let words = std::str::from_utf8(words).map_err(|_| "its line is not text")?;
    let ends = match words.split_once(' ') {
        Some(("TCP4", rest)) => Some(ends_of::<Ipv4Addr>(rest).ok_or("its IPv4 addresses or ports are not valid")?),
        Some(("TCP6", rest)) => Some(ends_of::<Ipv6Addr>(rest).ok_or("its IPv6 addresses or ports are not valid")?),
        _ => return Err("its protocol is not TCP4, TCP6 or UNKNOWN"),
    };
    Ok(Some((end + 1, ends)))
}

fn ends_of<A: FromStr + Into<IpAddr>>(words: &str) -> Option<Ends> {
    let mut words = words.split(' ');
    let mut address = || Some(words.next()?.parse::<A>().ok()?.into());
    let (source, destination) = (address()?, address()?);
    let (from, to) = (port(words.next()?)?, port(words.next()?)?);
    let none_left = words.next().is_none();
    none_left.then(|| Ends { source: SocketAddr::new(source, from), destination: SocketAddr::new(destination, to) })
}

/// Digits only, no leading zero. `parse` alone would take a sign.
fn port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|b| b.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    plain.then(|| word.parse().ok()).flatten()
}

/// §2.2: signature, version and command, family, length, addresses, TLVs.
fn binary(bytes: &[u8]) -> Found {
    let common = bytes.len().min(SIGNATURE.len());
    if bytes[..common] != SIGNATURE[..common] {
        return Err("it begins with neither PROXY nor the signature of version 2");
    }
    let Some([command, family, high, low]) = bytes.get(SIGNATURE.len()..FIXED) else { return Ok(None) };
    let variable = usize::from(u16::from_be_bytes([*high, *low]));
    if variable > MOST_VARIABLE {
        return Err("it is too long");
    }
    let least = match (*command, *family) {
        // LOCAL: the family, and what follows, is ignored.
        (LOCAL, _) => 0,
        (PROXY, TCP4) => 12,
        (PROXY, TCP6) => 36,
        // Unspecified, datagrams, and sockets of the file system: valid, but nothing that a client could have here.
        (PROXY, 0x00) => 0,
        (PROXY, 0x12) => 12,
        (PROXY, 0x22) => 36,
        (PROXY, 0x31 | 0x32) => 216,
        (PROXY, _) => return Err("its address family is not known"),
        _ => return Err("its version or command is not known"),
    };
    if variable < least {
        return Err("it is too short for its addresses");
    }
    let length = FIXED + variable;
    let Some(addresses) = bytes.get(FIXED..length) else { return Ok(None) };
    let ends = match (*command, *family) {
        (PROXY, TCP4) => pair::<4>(addresses),
        (PROXY, TCP6) => pair::<16>(addresses),
        _ => None,
    };
    Ok(Some((length, ends)))
}

/// Two addresses of `N` bytes, then two ports.
fn pair<const N: usize>(bytes: &[u8]) -> Option<Ends>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = bytes.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (from, rest) = rest.split_first_chunk()?;
    let (to, _tlvs) = rest.split_first_chunk()?;
    Some(Ends {
        source: SocketAddr::new((*source).into(), u16::from_be_bytes(*from)),
        destination: SocketAddr::new((*destination).into(), u16::from_be_bytes(*to)),
    })
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
