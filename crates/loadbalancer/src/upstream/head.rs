//! The response head: read with httparse, judged by RFC 9112 §6, never guessed at.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{Method, StatusCode};

use super::chunked::ChunkDecoder;
use super::encode::{is_hop_by_hop, named_by_connection};

/// A head larger than this is refused; NGINX's and HAProxy's buffers are 4 to 16 KiB.
const MOST_HEAD_BYTES: usize = 64 * 1024;

/// More fields than this are refused; hyper's bound.
const MOST_FIELDS: usize = 100;

/// Longer bodies are refused: what fits a signed 64-bit offset, as in NGINX and HAProxy. RFC 9110 §8.6 asks to beware of
/// overflow, here and in who reads the field after us.
const MOST_LENGTH: u64 = i64::MAX as u64;

/// A final response head. Fields about the connection are gone; framing fields are judged.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub framing: BodyFraming,
    /// Whether the backend will take another request on the connection.
    pub keep_alive: bool,
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
    let start = received.as_ptr() as usize;
    let place = |bytes: &[u8]| {
        let from = bytes.as_ptr() as usize - start;
        from..from + bytes.len()
    };
    let mut places = [const { (0_u32, 0_u32, 0_u32, 0_u32) }; MOST_FIELDS];
    let count = response.headers.len();
    for (slot, field) in places.iter_mut().zip(response.headers.iter()) {
        let (name, value) = (place(field.name.as_bytes()), place(field.value));
        *slot = (name.start as u32, name.end as u32, value.start as u32, value.end as u32);
    }
    let head = received.split_to(length).freeze();
    if has_bare_lf(&head) {
        return Err("bare LF in the head");
    }
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return switched(header_map(&head, &places[..count])?, version, offered).map(Parsed::Switched);
    }
    if status.is_informational() {
        return Ok(Parsed::Interim(status));
    }
    let headers = header_map(&head, &places[..count])?;
    judge(status, version, headers, method).map(Parsed::Final)
}

/// RFC 9110 §7.8 and §15.2.2: a 101 must name what it switches to, and that must have been offered.
fn switched(mut headers: HeaderMap, version: Option<u8>, offered: Option<&str>) -> Result<ResponseHead, &'static str> {
    let Some(offered) = offered else { return Err("101 without an upgrade") };
    let mut names = headers.get_all(UPGRADE).iter();
    let matches = names.next().is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(offered.as_bytes()));
    if !matches || names.next().is_some() || version != Some(1) {
        return Err("101 to another protocol than was offered");
    }
    // §15.2: it has no body, whatever it announces; what announces one means something else.
    if headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING) {
        return Err("101 with a body");
    }
    strip(&mut headers);
    let status = StatusCode::SWITCHING_PROTOCOLS;
    Ok(ResponseHead { status, headers, framing: BodyFraming::None, keep_alive: false, old: false })
}

/// RFC 9112 §2.2 lets a recipient take a lone LF for a line end; peers differ in it, so we do not.
pub(super) fn has_bare_lf(head: &[u8]) -> bool {
    head.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || head[at - 1] != b'\r'))
}

fn header_map(head: &Bytes, places: &[(u32, u32, u32, u32)]) -> Result<HeaderMap, &'static str> {
    let mut headers = HeaderMap::with_capacity(places.len() + 2);
    for (name_start, name_end, value_start, value_end) in places {
        let name = &head[*name_start as usize..*name_end as usize];
        let name = HeaderName::from_bytes(name).map_err(|_| "invalid field name")?;
        let value = head.slice(*value_start as usize..*value_end as usize);
        // RFC 9110 §5.5: CR, LF and NUL are invalid; this refuses other control characters too.
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| "invalid field value")?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn judge(
    status: StatusCode,
    version: Option<u8>,
    mut headers: HeaderMap,
    method: &Method,
) -> Result<ResponseHead, &'static str> {
    let length = content_length(&headers)?;
    let chunked = is_chunked(&headers)?;
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
        (_, true, _) => BodyFraming::Chunked(ChunkDecoder::default()),
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
    let keep_alive = version == Some(1) && !says_close(&headers) && delimited;
    strip(&mut headers);
    Ok(ResponseHead { status, headers, framing, keep_alive, old: version != Some(1) })
}

/// RFC 9110 §8.6 and RFC 9112 §6.3: one field of digits; anything else is refused, also when it repeats itself.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let digits = value.as_bytes();
    if values.next().is_some() {
        return Err("more than one Content-Length");
    }
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err("invalid Content-Length");
    }
    let number = digits.iter().try_fold(0_u64, |n, digit| n.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
    number.filter(|length| *length <= MOST_LENGTH).map(Some).ok_or("Content-Length too large")
}

/// RFC 9112 §6.1: `chunked` alone is understood; no other coding was asked for (TE is not forwarded).
fn is_chunked(headers: &HeaderMap) -> Result<bool, &'static str> {
    let mut values = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(value) = values.next() else { return Ok(false) };
    if values.next().is_some() || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err("Transfer-Encoding other than chunked");
    }
    Ok(true)
}

fn says_close(headers: &HeaderMap) -> bool {
    let words = headers.get_all(CONNECTION).into_iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    words.into_iter().any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// RFC 9110 §7.6.1: what is about the connection to the backend ends here.
fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        for name in named_by_connection(headers) {
            headers.remove(name);
        }
    }
    let ends_here: Vec<HeaderName> = headers.keys().filter(|name| is_hop_by_hop(name.as_str())).cloned().collect();
    for name in ends_here {
        // RFC 9110 §11.7.1: a challenge of the backend is for the client when no proxy in between answers it.
        if name != http::header::PROXY_AUTHENTICATE {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
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
