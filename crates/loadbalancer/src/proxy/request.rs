//! From what a client sent to what a backend may get: validated, and with the facts that are forwarded.
//!
//! The head's bytes were judged at the [`door`](crate::door), hyper has parsed them; here is what only shows in the
//! parsed fields.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::Ipv6Addr;
use std::time::Duration;

use http::header::{CONNECTION, EXPECT, HOST, HeaderValue, MAX_FORWARDS, TE, UPGRADE, VIA};
use http::request::Parts;
use http::{Method, Version};
use lb_core::metrics::Rejected;

use super::error::ProxyError;
use crate::conn::Client;
use crate::upstream::{TIME_LEFT, words};

const REQUEST_ID: &str = "x-request-id";

/// The longest request id taken over from a trusted peer.
const MOST_REQUEST_ID: usize = 128;

/// A request that may be forwarded.
pub(super) struct Outbound<'a> {
    pub head: &'a Parts,
    /// Path and query, or `*`; in origin form whatever form the client chose (RFC 9112 §3.2).
    pub target: Cow<'a, str>,
    /// `Host`, from the target if it names one (RFC 9112 §3.2.2); empty from an HTTP/1.0 client without one.
    pub host: &'a [u8],
    pub request_id: RequestId<'a>,
    /// Whether a body, even an empty one, was announced by `Content-Length`.
    pub length_announced: bool,
    /// The client's connection must not be kept behind its response: it says so, or speaks HTTP/1.0 (RFC 9112 §9.3).
    pub ends_connection: bool,
    /// The client waits for 100 before it sends its body (RFC 9110 §10.1.1).
    pub expects_continue: bool,
    /// The protocol it wants to go on with, if that may be (RFC 9110 §7.8).
    pub upgrade: Option<&'a str>,
    /// Whether it takes trailers (RFC 9110 §10.1.4).
    pub takes_trailers: bool,
    /// What is left of `Max-Forwards`, where that counts (RFC 9110 §7.6.2).
    pub max_forwards: Option<u64>,
}

/// An id for logs on all sides.
pub(super) enum RequestId<'a> {
    Kept(&'a [u8]),
    Made([u8; 32]),
}

impl RequestId<'_> {
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Kept(id) => id,
            Self::Made(id) => id,
        }
    }

    fn made(number: u128) -> Self {
        let mut id = [0; 32];
        let digit = |number: u8| b"0123456789abcdef"[usize::from(number)];
        for (byte, digits) in number.to_le_bytes().into_iter().zip(id.as_chunks_mut::<2>().0) {
            *digits = [digit(byte >> 4), digit(byte & 0xf)];
        }
        Self::Made(id)
    }
}

/// What else counts for how a head is read.
pub(super) struct Asking<'a> {
    /// Whether the peer's own forwarding fields are believed.
    trusted: bool,
    /// Whether it asks about the server as a whole though its target does not say `*`.
    about_server: bool,
    has_body: bool,
    /// Our own pseudonym.
    via: &'a str,
    /// Protocols that may be switched to.
    upgrades: &'a [String],
}

impl<'a> Outbound<'a> {
    /// Validates a request head, and lets it shorten its own time.
    ///
    /// # Errors
    /// Why it cannot be forwarded; the client's fault.
    pub(super) fn new(client: &'a Client, head: &'a Parts) -> Result<Self, ProxyError> {
        let config = &client.worker.shared.config;
        let asking = Asking {
            trusted: client.trusted,
            about_server: client.about_server.get(),
            has_body: client.has_body(),
            via: &config.via,
            upgrades: &config.upgrades,
        };
        let (outbound, time_left) = Self::read(&asking, head, || client.worker.random())?;
        if let Some(left) = time_left {
            client.time.request_until(client.worker.clock.now().plus(left));
        }
        Ok(outbound)
    }

    /// The same, without any state: the request, and how long whoever sent it will wait at most. `number` is for an id.
    #[inline]
    fn read(
        asking: &Asking<'a>,
        head: &'a Parts,
        number: impl FnOnce() -> u128,
    ) -> Result<(Self, Option<Duration>), ProxyError> {
        // RFC 9110 §9.3.6: a gateway is not a tunnel to wherever a client likes. §9.3.8: an echo of the head would
        // show a script what it must not see.
        if head.method == Method::CONNECT || head.method == Method::TRACE {
            return Err(bad(Rejected::Method));
        }
        let modern = head.version != Version::HTTP_10;
        let mut upgrade = None;
        let mut takes_trailers = false;
        let mut ends_connection = !modern;
        let seen = Seen::of(head);
        if seen.connection {
            let named = Named::by(head)?;
            // What follows its head must be the tunnel's.
            let alone = named.upgrade && modern && !asking.has_body;
            upgrade = if alone { upgrade_of(asking.upgrades, head) } else { None };
            ends_connection |= named.close;
            takes_trailers = named.te && head.headers.get_all(TE).iter().any(|te| lists(te.as_bytes(), "trailers"));
        }
        if seen.via && is_loop(asking.via, head) {
            return Err(bad(Rejected::Loop));
        }
        // A stranger's is not even looked for.
        let kept = if asking.trusted { head.headers.get(REQUEST_ID).map(HeaderValue::as_bytes) } else { None };
        let request_id = match kept {
            Some(id) if !id.is_empty() && id.len() <= MOST_REQUEST_ID => RequestId::Kept(id),
            _ => RequestId::made(number()),
        };
        let outbound = Self {
            head,
            target: target(asking.trusted, asking.about_server, head)?,
            host: host(head)?,
            request_id,
            length_announced: seen.length,
            ends_connection,
            expects_continue: seen.expect && expectation(head)? && modern,
            upgrade,
            takes_trailers,
            max_forwards: max_forwards(head)?,
        };
        let time_left = if seen.time_left && asking.trusted { time_left(head) } else { None };
        Ok((outbound, time_left))
    }
}

/// Which fields there are that need more than being forwarded. Most requests have none of them, and one look at the
/// few names they have is cheaper than a search for each of these.
#[derive(Default)]
struct Seen {
    connection: bool,
    via: bool,
    expect: bool,
    length: bool,
    time_left: bool,
}

impl Seen {
    fn of(head: &Parts) -> Self {
        let mut seen = Self::default();
        for name in head.headers.keys() {
            match name.as_str().as_bytes() {
                b"connection" => seen.connection = true,
                b"via" => seen.via = true,
                b"expect" => seen.expect = true,
                b"content-length" => seen.length = true,
                b"x-request-timeout-ms" => seen.time_left = true,
                _ => {}
            }
        }
        seen
    }
}

/// A trusted peer says how long it will wait: longer is in vain. What it says is believed only if it is a number.
fn time_left(head: &Parts) -> Option<Duration> {
    // A sign is no part of a number, but of what the standard library takes for one.
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u32>().ok()).flatten();
    let numbers = head.headers.get_all(TIME_LEFT).iter().filter_map(|value| number(value.to_str().ok()?));
    numbers.min().map(|left_ms| Duration::from_millis(u64::from(left_ms)))
}

/// What `Connection` names, as far as that is not only to be left out.
#[derive(Default)]
struct Named {
    close: bool,
    upgrade: bool,
    te: bool,
}

impl Named {
    /// # Errors
    /// RFC 9110 §7.6.1: it must not name what is meant for all recipients; whoever names what frames or routes a message
    /// wants two readings of it.
    fn by(head: &Parts) -> Result<Self, ProxyError> {
        let mut named = Self::default();
        for value in head.headers.get_all(CONNECTION) {
            for word in words(value.as_bytes()) {
                match word.len() {
                    2 if word.eq_ignore_ascii_case(b"te") => named.te = true,
                    5 if word.eq_ignore_ascii_case(b"close") => named.close = true,
                    7 if word.eq_ignore_ascii_case(b"upgrade") => named.upgrade = true,
                    4 if word.eq_ignore_ascii_case(b"host") => return Err(bad(Rejected::ConnectionNames)),
                    14 if word.eq_ignore_ascii_case(b"content-length") => return Err(bad(Rejected::ConnectionNames)),
                    17 if word.eq_ignore_ascii_case(b"transfer-encoding") => {
                        return Err(bad(Rejected::ConnectionNames));
                    }
                    _ if word.first() == Some(&b':') => return Err(bad(Rejected::ConnectionNames)),
                    _ => {}
                }
            }
        }
        Ok(named)
    }
}

fn lists(value: &[u8], word: &str) -> bool {
    words(value).any(|listed| listed.eq_ignore_ascii_case(word.as_bytes()))
}

/// RFC 9110 §7.8: the first offered protocol that may be tunnelled; the others, `h2c` above all, are not passed on.
fn upgrade_of<'a>(allowed: &'a [String], head: &Parts) -> Option<&'a str> {
    if head.method != Method::GET {
        return None;
    }
    let offers = |name: &str| head.headers.get_all(UPGRADE).iter().any(|value| lists(value.as_bytes(), name));
    allowed.iter().map(String::as_str).find(|name| offers(name))
}

/// RFC 9110 §7.6.3: our own pseudonym, which no other process has, in `Via`.
fn is_loop(own: &str, head: &Parts) -> bool {
    let own = own.as_bytes();
    head.headers.get_all(VIA).iter().any(|value| {
        words(value.as_bytes())
            .any(|hop| hop.split(|b| *b == b' ').nth(1).is_some_and(|by| by.eq_ignore_ascii_case(own)))
    })
}

/// RFC 9110 §10.1.1: whether 100 is expected. Any other expectation cannot be met.
fn expectation(head: &Parts) -> Result<bool, ProxyError> {
    let mut expected = head.headers.get_all(EXPECT).iter();
    match expected.next() {
        None => Ok(false),
        // RFC 9110 §10.1.1: from an HTTP/1.0 client it is ignored.
        Some(_) if head.version == Version::HTTP_10 => Ok(false),
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") && expected.next().is_none() => Ok(true),
        Some(_) => Err(bad(Rejected::Expectation)),
    }
}

/// RFC 9110 §7.6.2: it counts for OPTIONS (and TRACE, which goes no further anyway).
fn max_forwards(head: &Parts) -> Result<Option<u64>, ProxyError> {
    if head.method != Method::OPTIONS {
        return Ok(None);
    }
    let mut values = head.headers.get_all(MAX_FORWARDS).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let number = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match number {
        // More hops than we can count are as many as we can count: the lesser of the two goes on.
        Some(digits) if !digits.is_empty() && values.next().is_none() => Ok(Some(digits.parse().unwrap_or(u64::MAX))),
        _ => Err(bad(Rejected::MaxForwards)),
    }
}

/// The target as a backend would get it; `None` when none gets it.
pub(crate) fn sent_target<'a>(client: &Client, head: &'a Parts) -> Option<Cow<'a, str>> {
    target(client.trusted, client.about_server.get(), head).ok()
}

/// RFC 9112 §3.2: origin form, taken from an absolute one.
fn target(trusted: bool, about_server: bool, head: &Parts) -> Result<Cow<'_, str>, ProxyError> {
    if head.uri.authority().is_some() {
        match head.uri.scheme_str() {
            Some("http") => {}
            // RFC 9110 §7.4: what was asked for securely did not come so, unless somebody trusted in front of us took it.
            Some("https") if trusted => {}
            // §3.2.3: the authority form is for CONNECT only. Nothing but HTTP is behind this gateway.
            _ => return Err(bad(Rejected::Target)),
        }
    }
    match head.uri.path_and_query().map(|target| target.as_str()) {
        // §3.2.4: only OPTIONS may ask about the server as a whole.
        Some("*") if head.method != Method::OPTIONS => Err(bad(Rejected::Target)),
        // §3.2.4: an absolute target without path and query stands for `*` with OPTIONS.
        _ if about_server => Ok(Cow::Borrowed("*")),
        Some(target) if target.starts_with('?') => Ok(Cow::Owned(format!("/{target}"))),
        Some(target) if !target.is_empty() => Ok(Cow::Borrowed(target)),
        _ => Ok(Cow::Borrowed("/")),
    }
}

/// RFC 9112 §3.2: exactly one valid Host in HTTP/1.1; the authority of an absolute target replaces it (§3.2.2).
fn host(head: &Parts) -> Result<&[u8], ProxyError> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(host.as_bytes()),
        (None, _) if head.version == Version::HTTP_10 => None,
        _ => return Err(bad(Rejected::Host)),
    };
    // RFC 9110 §7.2: uri-host [ ":" port ]; no user information, path, list or white space. Empty is valid syntax,
    // but names nobody.
    if host.is_some_and(|host| !is_host(host)) {
        return Err(bad(Rejected::Host));
    }
    match head.uri.authority() {
        Some(authority) if !is_host(authority.as_str().as_bytes()) => Err(bad(Rejected::Target)),
        Some(authority) => Ok(authority.as_str().as_bytes()),
        None => Ok(host.unwrap_or_default()),
    }
}

/// RFC 3986 §3.2.2: a name, an IPv4 address or a bracketed later one, and perhaps a port. A comma is a sub-delimiter
/// there, but a list of hosts everywhere else.
fn is_host(text: &[u8]) -> bool {
    let (host, port) = match text.first() {
        Some(b'[') => match text.iter().position(|b| *b == b']') {
            Some(end) => text.split_at(end + 1),
            None => return false,
        },
        _ => text.split_at(text.iter().position(|b| *b == b':').unwrap_or(text.len())),
    };
    let port_fits = match port {
        [] => true,
        [b':', digits @ ..] => is_port(digits),
        _ => false,
    };
    let name_fits = match host {
        [] => false,
        [b'[', address @ .., b']'] => is_literal(address),
        name => match name.iter().fold(FITS, |kinds, b| kinds | KINDS[usize::from(*b)]) {
            FITS => true,
            ENCODES => is_encoded(name),
            _ => false,
        },
    };
    port_fits && name_fits
}

/// RFC 3986 §3.2.2, IP-literal: an IPv6 address, without a zone, which means something only on the host that it comes from
/// (RFC 6874 §4 has clients leave it out); or `v`, a version, and an address of it.
#[cold]
fn is_literal(address: &[u8]) -> bool {
    let of_later_version = |rest: &[u8]| {
        let Some(dot) = rest.iter().position(|b| *b == b'.') else { return false };
        let (version, address) = (&rest[..dot], &rest[dot + 1..]);
        let fits = |b: &u8| *b == b':' || KINDS[usize::from(*b)] == FITS;
        !version.is_empty()
            && version.iter().all(u8::is_ascii_hexdigit)
            && !address.is_empty()
            && address.iter().all(fits)
    };
    match address {
        [b'v' | b'V', rest @ ..] => of_later_version(rest),
        _ => std::str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok()),
    }
}

/// RFC 3986 §2.1: behind each `%` are two hex digits.
#[cold]
fn is_encoded(name: &[u8]) -> bool {
    let mut rest = name.split(|b| *b == b'%');
    rest.next();
    rest.all(|part| part.len() >= 2 && part[..2].iter().all(u8::is_ascii_hexdigit))
}

/// What a byte is in a name: part of it, the beginning of an encoded byte, or nothing.
const FITS: u8 = 0;
const ENCODES: u8 = 1;
const NOTHING: u8 = 2;

/// RFC 3986 §3.2.2, reg-name without the comma. A table: a search per byte is most of what a request's host costs.
const KINDS: [u8; 256] = {
    let mut kinds = [NOTHING; 256];
    let punctuation = b"-._~!$&'()*+;=";
    let mut at = 0;
    while at < punctuation.len() {
        kinds[punctuation[at] as usize] = FITS;
        at += 1;
    }
    kinds[b'%' as usize] = ENCODES;
    let mut byte = 0_u8;
    while byte < 0x7f {
        if byte.is_ascii_alphanumeric() {
            kinds[byte as usize] = FITS;
        }
        byte += 1;
    }
    kinds
};

/// RFC 3986 §3.2.3: any digits, or none.
fn is_port(digits: &[u8]) -> bool {
    let number = |number: u16, digit: &u8| {
        let digit = digit.is_ascii_digit().then(|| u16::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    };
    digits.iter().try_fold(0, number).is_some()
}

fn bad(why: Rejected) -> ProxyError {
    ProxyError::Rejected(why)
}

/// For people: `GET /a` without the query, which may hold secrets, and not too long.
pub(super) fn describe(head: &Parts) -> String {
    let mut words = String::new();
    let path: String = head.uri.path().chars().take(100).collect();
    let _ = write!(words, "{} {path}", head.method);
    words
}

#[cfg(test)]
#[path = "request_fuzz.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_perhaps_a_port() {
        for good in [
            "localhost:8080",
            "a",
            "a.b-c_d",
            "127.0.0.1",
            "[::1]",
            "[2001:db8::a]:80",
            "[::ffff:1.2.3.4]",
            "x:",
            "a%2d%C3",
            "[v1.a:b]",
            "[vF.-~]:80",
        ] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "a@b",
            "a/b",
            "a,b",
            "a b",
            "a:b",
            "a:1:2",
            "[::1",
            "[]",
            "::1",
            "a:123456",
            "a:65536",
            ":80",
            "a:+1",
            "a?b",
            "a#b",
            "[g]",
            "[::g]",
            "[:]",
            "[::::]",
            "[1::2::3]",
            "[1:2:3]",
            "[12345::]",
            "[::1.2.3]",
            "[::1%eth0]",
            "[fe80::1%25eth0]",
            "[1.2.3.4]",
            "[v.a]",
            "[v1]",
            "[v1.]",
            "[vg.a]",
            "[v1.a%41]",
            "[\u{e9}::1]",
            "a%",
            "a%4",
            "a%zz",
            "%",
            "%4%41",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
        for byte in 0..=255_u8 {
            let fits = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(&byte);
            assert_eq!(is_host(&[b'a', byte]), fits || byte == b':', "{byte}");
        }
    }

    #[test]
    fn an_id_is_every_digit_of_its_number() {
        let RequestId::Made(id) = RequestId::made(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210) else { panic!() };
        assert_eq!(std::str::from_utf8(&id).unwrap(), "1032547698badcfeefcdab8967452301");
    }
}
