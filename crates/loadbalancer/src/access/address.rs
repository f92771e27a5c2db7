//! Whose request it is: the effective address of a client behind proxies.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The client that the proxies in `trusted` vouch for: going back from the nearest, the first address in
/// X-Forwarded-For that is not one of theirs. `None` when that names nobody: there is no such field, all of it is
/// proxies, or what stands there is no address, and what lies behind it could be anybody's invention.
///
/// To be asked only for a peer that is trusted itself.
pub(crate) fn forwarded_for(headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let fields = headers.get_all(FORWARDED_FOR).iter().rev();
    let entries = fields.flat_map(|field| field.as_bytes().rsplit(|byte| *byte == b','));
    for entry in entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty()) {
        let address = parse(entry)?.to_canonical();
        if !trusted.iter().any(|network| network.contains(&address)) {
            return Some(address);
        }
    }
    None
}

/// An address, as some proxies write it with a port, and then IPv6 in brackets.
fn parse(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|peer| peer.ip())).or_else(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_address_that_is_not_a_trusted_proxy() {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().unwrap()).into();
        for (fields, expected) in [
            (&[][..], None),
            (&[""], None),
            (&["192.0.2.1"], Some("192.0.2.1")),
            (&["198.51.100.9, 192.0.2.1, 10.1.1.1"], Some("192.0.2.1")),
            (&["198.51.100.9", "192.0.2.1,10.1.1.1", " 10.2.2.2 ,"], Some("192.0.2.1")),
            (&["10.1.1.1, 10.2.2.2"], None),
            (&["192.0.2.1, unknown, 10.1.1.1"], None),
            (&["192.0.2.1:4711"], Some("192.0.2.1")),
            (&["[2001:db9::1]:4711, [2001:db8::1]"], Some("2001:db9::1")),
            (&["2001:db9::1, 2001:db8::1"], Some("2001:db9::1")),
            (&["::ffff:192.0.2.1, ::ffff:10.0.0.1"], Some("192.0.2.1")),
            (&["192.0.2.1\u{e9}"], None),
        ] {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(FORWARDED_FOR, http::HeaderValue::from_bytes(field.as_bytes()).unwrap());
            }
            let expected = expected.map(|address: &str| address.parse().unwrap());
            assert_eq!(forwarded_for(&headers, &trusted), expected, "{fields:?}");
        }
    }
}
