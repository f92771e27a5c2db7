//! The response head: read with httparse, judged by RFC 9112 §6, never guessed at.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::chunked::ChunkDecoder;
use super::encode::{add_named, words};
use super::fields::Class;
use super::names::Names;

/// A head larger than this is refused; NGINX's and HAProxy's buffers are 4 to 16 KiB.
const MOST_HEAD_BYTES: usize = 64 * 1024;

/// More fields than this are refused; hyper's bound.
const MOST_FIELDS: usize = 100;

/// Longer bodies are refused: what fits a signed 64-bit offset, as in NGINX and HAProxy. RFC 9110 §8.6 asks to beware of
/// overflow, here and in who reads the field after us.
const MOST_LENGTH: u64 = i64::MAX as u64;

/// Nearly every response has no more fields than this; their places need no allocation.
const FEW_FIELDS: usize = 24;

/// A final response head. Fields about the connection are gone; framing fields are judged.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub framing: BodyFraming,
    /// Whether the backend will take another request on the connection.
    pub keep_alive: bool,
    /// After how long idle it will close the connection, if it says so.
    pub idle: Option<Duration>,
    /// Whether it speaks HTTP/1.0.
    pub old: bool,
}

/// How the response body ends (RFC 9112 §6.3).
#[derive(Debug)]
pub(super) enum BodyFraming {
    /// There is none, whatever the fields say.
    None,
    /// So many bytes are left.
    Length(u64),
    Chunked(ChunkDecoder),
    /// At the close of the connection.
    Close,
}

/// Where a field's name and value lie in a head: from, to.
#[derive(Clone, Copy, Default)]
struct Place {
    name: (u32, u32),
    value: (u32, u32),
}

impl Place {
    fn name(&self) -> Range<usize> {
        self.name.0 as usize..self.name.1 as usize
    }

    fn value(&self) -> Range<usize> {
        self.value.0 as usize..self.value.1 as usize
    }
}

/// What has been read so far.
#[derive(Debug)]
pub(super) enum Parsed {
    /// Not a whole head.
    Partial,
    /// A 1xx. Only 100 means something to us; the others are dropped, since hyper's server cannot send them.
    Interim(StatusCode),
    /// 101, to what was offered (RFC 9110 §7.8): from here on the connection speaks another protocol.
    Switched(ResponseHead),
    Final(ResponseHead),
}

/// Reads one head off the front of `received`. `offered` is the protocol that the request offered to switch to.
///
/// # Errors
/// Why it cannot be forwarded.
pub(super) fn parse(received: &mut BytesMut, method: &Method, offered: Option<&str>) -> Result<Parsed, &'static str> {
    // httparse skips empty lines. RFC 9112 §2.2 allows that for requests only; here they are stray bytes behind the
    // former response.
    if let Some(b'\r' | b'\n') = received.first() {
        return Err("an empty line before the head");
    }
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsed =
        httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, received, &mut fields);
    let length = match parsed {
        // The bound holds also when all of it arrives at once.
        Ok(httparse::Status::Complete(length)) if length > MOST_HEAD_BYTES => return Err("head too large"),
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if received.len() > MOST_HEAD_BYTES => return Err("head too large"),
        Ok(httparse::Status::Partial) => return Ok(Parsed::Partial),
        Err(httparse::Error::TooManyHeaders) => return Err("too many fields"),
        Err(_) => return Err("malformed head"),
    };
    let version = response.version;
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or("invalid status")?;
    // Where names and values lie, so that the values can share the buffer once it is split off.
    let count = response.headers.len();
    let (mut few, mut many) = ([Place::default(); FEW_FIELDS], Vec::new());
    let places = if count <= FEW_FIELDS {
        &mut few[..count]
    } else {
        many.resize(count, Place::default());
        &mut many[..]
    };
    let start = received.as_ptr() as usize;
    for (place, field) in places.iter_mut().zip(response.headers.iter()) {
        let (name, value) = (field.name.as_ptr() as usize - start, field.value.as_ptr() as usize - start);
        let span = |from: usize, length: usize| (from as u32, (from + length) as u32);
        *place = Place { name: span(name, field.name.len()), value: span(value, field.value.len()) };
    }
    let head = received.split_to(length).freeze();
    if has_lone_lf(&head, places) {
        return Err("bare LF in the head");
    }
    if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Parsed::Interim(status));
    }
    let fields = Names::with(|names| read_fields(&head, places, names))?;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return switched(&head, places, fields, version, offered).map(Parsed::Switched);
    }
    judge(status, version, fields, method).map(Parsed::Final)
}

/// RFC 9110 §7.8 and §15.2.2: a 101 must name what it switches to, and that must have been offered.
fn switched(
    head: &Bytes,
    places: &[Place],
    fields: Fields,
    version: Option<u8>,
    offered: Option<&str>,
) -> Result<ResponseHead, &'static str> {
    let Some(offered) = offered else { return Err("101 without an upgrade") };
    let upgrades = places.iter().filter(|place| head[place.name()].eq_ignore_ascii_case(b"upgrade"));
    let mut names = upgrades.map(|place| &head[place.value()]);
    let matches = names.next().is_some_and(|name| name.eq_ignore_ascii_case(offered.as_bytes()));
    if !matches || names.next().is_some() || version != Some(1) {
        return Err("101 to another protocol than was offered");
    }
    // §15.2: it has no body, whatever it announces; what announces one means something else.
    if fields.length.is_some() || fields.chunked {
        return Err("101 with a body");
    }
    let status = StatusCode::SWITCHING_PROTOCOLS;
    let headers = fields.headers;
    Ok(ResponseHead { status, headers, framing: BodyFraming::None, keep_alive: false, idle: None, old: false })
}

/// RFC 9112 §2.2 lets a recipient take a lone LF for a line end; peers differ in it, so we do not.
pub(super) fn has_bare_lf(head: &[u8]) -> bool {
    head.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || head[at - 1] != b'\r'))
}

/// [`has_bare_lf`] for a head that httparse has read: LF can only be where it saw a line end, which is before each
/// name and at the end of the head.
fn has_lone_lf(head: &[u8], places: &[Place]) -> bool {
    let begins_a_line = |place: &Place| head[..place.name.0 as usize].ends_with(b"\r\n");
    !head.ends_with(b"\r\n\r\n") || !places.iter().all(begins_a_line)
}

/// What the fields say, read in one pass.
struct Fields {
    /// What is forwarded.
    headers: HeaderMap,
    length: Option<u64>,
    chunked: bool,
    /// The connection is closed after this response.
    close: bool,
    /// What `Keep-Alive` says of it.
    idle: Option<Duration>,
    /// Fields that `Connection` names.
    named: Vec<HeaderName>,
}

/// RFC 9110 §7.6.1: what is about the connection to the backend ends here.
fn read_fields(head: &Bytes, places: &[Place], names: &mut Names) -> Result<Fields, &'static str> {
    // Two more are ours.
    let headers = HeaderMap::with_capacity(places.len() + 2);
    let mut fields = Fields { headers, length: None, chunked: false, close: false, idle: None, named: Vec::new() };
    for place in places {
        let (name, class) = names.read(&head[place.name()]).ok_or("invalid field name")?;
        let value = &head[place.value()];
        match class {
            Class::ContentLength if fields.length.is_some() => return Err("more than one Content-Length"),
            Class::ContentLength => fields.length = Some(content_length(value)?),
            // RFC 9112 §6.1: `chunked` alone is understood; no other coding was asked for (TE is not forwarded).
            Class::TransferEncoding if fields.chunked || !value.eq_ignore_ascii_case(b"chunked") => {
                return Err("Transfer-Encoding other than chunked");
            }
            Class::TransferEncoding => fields.chunked = true,
            Class::Connection => {
                fields.close |= words(value).any(|word| word.eq_ignore_ascii_case(b"close"));
                add_named(value, &mut fields.named);
            }
            Class::KeepAlive => fields.idle = keep_alive_timeout(value).or(fields.idle),
            _ => {}
        }
        // RFC 9110 §5.5: CR, LF and NUL are invalid; this refuses other control characters too.
        let value = HeaderValue::from_maybe_shared(head.slice(place.value())).map_err(|_| "invalid field value")?;
        if !matches!(class, Class::Connection | Class::TransferEncoding | Class::KeepAlive | Class::HopByHop) {
            fields.headers.append(name, value);
        }
    }
    if !fields.named.is_empty() {
        // Copied without them, since removing would change the order of the rest. Hardly a server does that.
        let all = std::mem::take(&mut fields.headers);
        for (name, value) in all.iter().filter(|(name, _)| !fields.named.contains(name)) {
            fields.headers.append(name.clone(), value.clone());
        }
    }
    Ok(fields)
}

/// `timeout=N`, in seconds (RFC 2068 §19.7.1.1; in wide use, and in no later RFC).
fn keep_alive_timeout(value: &[u8]) -> Option<Duration> {
    words(value).find_map(|word| {
        let (name, number) = word.split_at_checked(b"timeout=".len())?;
        let named = name.eq_ignore_ascii_case(b"timeout=") && number.iter().all(u8::is_ascii_digit);
        let number = named.then_some(number)?;
        let seconds: u32 = std::str::from_utf8(number).ok()?.parse().ok()?;
        Some(Duration::from_secs(seconds.into()))
    })
}

/// RFC 9110 §8.6 and RFC 9112 §6.3: digits; anything else is refused, also a list that repeats itself.
fn content_length(digits: &[u8]) -> Result<u64, &'static str> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err("invalid Content-Length");
    }
    let number = digits.iter().try_fold(0_u64, |n, digit| n.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
    number.filter(|length| *length <= MOST_LENGTH).ok_or("Content-Length too large")
}

fn judge(
    status: StatusCode,
    version: Option<u8>,
    fields: Fields,
    method: &Method,
) -> Result<ResponseHead, &'static str> {
    let Fields { headers, length, chunked, close, idle, named } = fields;
    // RFC 9112 §6.1: Transfer-Encoding in an HTTP/1.0 message, or beside Content-Length, is faulty framing.
    if chunked && version != Some(1) {
        return Err("Transfer-Encoding in an HTTP/1.0 response");
    }
    if chunked && length.is_some() {
        return Err("both Transfer-Encoding and Content-Length");
    }
    let bodyless = method == Method::HEAD || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    let framing = match (bodyless, chunked, length) {
        (true, _, _) => BodyFraming::None,
        (_, true, _) => BodyFraming::Chunked(ChunkDecoder::without(named)),
        (_, _, Some(length)) => BodyFraming::Length(length),
        (_, _, None) => BodyFraming::Close,
    };
    // RFC 9112 §6.3: these have no body whatever they announce; one that announces it all the same may well send it.
    let announced = match status {
        StatusCode::NO_CONTENT => chunked || length.is_some_and(|length| length > 0),
        StatusCode::NOT_MODIFIED => chunked,
        _ => false,
    };
    let delimited = !matches!(framing, BodyFraming::Close) && !announced;
    let keep_alive = version == Some(1) && !close && delimited;
    Ok(ResponseHead { status, headers, framing, keep_alive, idle, old: version != Some(1) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, method: &Method) -> Result<Parsed, &'static str> {
        parse(&mut BytesMut::from(text), method, None)
    }

    fn whole(text: &str) -> ResponseHead {
        match read(text, &Method::GET) {
            Ok(Parsed::Final(head)) => head,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn framing_follows_rfc_9112_section_6_3() {
        let framing = |fields: &str| whole(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).framing;
        assert!(matches!(framing("Content-Length: 7\r\n"), BodyFraming::Length(7)));
        assert!(matches!(framing("Transfer-Encoding: Chunked\r\n"), BodyFraming::Chunked(_)));
        assert!(matches!(framing(""), BodyFraming::Close));
        for status in ["204 No Content", "304 Not Modified"] {
            let head = whole(&format!("HTTP/1.1 {status}\r\nContent-Length: 7\r\n\r\n"));
            assert!(matches!(head.framing, BodyFraming::None));
            assert_eq!(head.keep_alive, status.starts_with("304"), "a 204 that announces a body may send it");
        }
        let Ok(Parsed::Final(head)) = read("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", &Method::HEAD) else {
            panic!()
        };
        assert!(matches!(head.framing, BodyFraming::None));
        assert_eq!(head.headers["content-length"], "7");
    }

    #[test]
    fn what_cannot_be_framed_for_sure_is_refused() {
        for (fields, why) in [
            ("Content-Length: 7\r\nContent-Length: 7\r\n", "more than one"),
            ("Content-Length: 7, 7\r\n", "invalid"),
            ("Content-Length: +7\r\n", "invalid"),
            ("Content-Length: \r\n", "invalid"),
            ("Content-Length: 18446744073709551616\r\n", "too large"),
            ("Content-Length: 9223372036854775808\r\n", "too large"),
            ("Content-Length: 7\r\nTransfer-Encoding: chunked\r\n", "both"),
            ("Transfer-Encoding: gzip, chunked\r\n", "other than chunked"),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "other than chunked"),
            ("Bad Name: 1\r\n", "malformed"),
            ("Folded: a\r\n b\r\n", "malformed"),
            ("Lone: a\n", "bare LF"),
        ] {
            let error = read(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), &Method::GET).unwrap_err();
            assert!(error.contains(why), "{fields:?}: {error}");
        }
        assert!(read("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &Method::GET).is_err());
        assert!(read("HTTP/1.1 101 Switching Protocols\r\n\r\n", &Method::GET).is_err());
        assert!(read("HTTP/1.1 099 Odd\r\n\r\n", &Method::GET).is_err());
        assert!(read("SSH-2.0-OpenSSH\r\n\r\n", &Method::GET).is_err());
        assert!(read(&format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(70_000)), &Method::GET).is_err());
    }

    proptest! {
        /// A quick look at the places where httparse saw line ends finds every lone LF that a look at all bytes finds.
        #[test]
        fn no_lone_lf_is_missed(
            reason in " ?[ a-z\t]{0,4}",
            lines in prop::collection::vec("[a-z]{1,3}:[ \t]?[a-z ]{0,3}[ \t\r]{0,2}\r?\n", 0..5),
            ends in ["\r?\n", "\r?\n"],
        ) {
            let text = format!("HTTP/1.1 200{reason}{}{}{}", ends[0], lines.concat(), ends[1]);
            let result = read(&text, &Method::GET);
            if has_bare_lf(text.as_bytes()) {
                prop_assert!(result.is_err(), "{:?}", text);
            } else if let Err(why) = result {
                prop_assert_eq!(why, "malformed head", "{:?}", text);
            }
        }
    }

    #[test]
    fn a_head_may_come_in_any_pieces_and_interim_heads_are_skipped() {
        let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let mut received = BytesMut::new();
        let mut seen = Vec::new();
        for byte in text.bytes() {
            received.extend_from_slice(&[byte]);
            match parse(&mut received, &Method::GET, None) {
                Ok(Parsed::Partial) => {}
                Ok(other) => {
                    let last = matches!(other, Parsed::Final(_));
                    seen.push(other);
                    if last {
                        break;
                    }
                }
                Err(why) => panic!("{why}"),
            }
        }
        assert!(matches!(&seen[..], [Parsed::Interim(_), Parsed::Final(_)]), "{seen:?}");
    }

    #[test]
    fn an_announced_idle_time_is_read() {
        for (value, seconds) in [
            ("timeout=5", Some(5)),
            ("max=100, Timeout=15", Some(15)),
            ("timeout=5, timeout=9", Some(5)),
            ("timeout=", None),
            ("timeout=-1", None),
            ("timeout=99999999999", None),
            ("5", None),
            ("time", None),
        ] {
            let head = whole(&format!("HTTP/1.1 200 OK\r\nKeep-Alive: {value}\r\nContent-Length: 0\r\n\r\n"));
            assert_eq!(head.idle, seconds.map(Duration::from_secs), "{value}");
            assert!(!head.headers.contains_key("keep-alive"));
        }
    }

    #[test]
    fn fields_about_the_connection_end_here() {
        let head = whole(
            "HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\n\
             Set-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
        );
        assert!(!head.keep_alive);
        let names: Vec<&str> = head.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["set-cookie", "set-cookie", "content-length"]);
    }
}
