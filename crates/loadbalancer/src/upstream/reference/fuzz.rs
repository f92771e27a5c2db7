//! The codec fed with anything: no panic, nothing held back beyond its bound, the same verdict whatever the pieces, and
//! never a message that hyper does not understand the same way; and what a backend says of its idle time is believed
//! only where it is plain.

use std::time::Duration;

use bytes::BytesMut;
use http::Method;
use lb_fuzz::{Fuzz, Seen, cuts_of, seed_of};

use super::corpus::{NO_BODY, NO_HEAD, VALID};
use super::{Verdict, check_response};
use crate::upstream::head::{Parsed, parse};

/// What parsers stumble over.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b"\x0b",
    b"\x0c",
    b"\x7f",
    b"\x85",
    b"\xa0",
    b"\xff",
    b":",
    b",",
    b";",
    b"\"",
    b"=",
    b"0",
    b"1",
    b"5",
    b"a",
    b"f",
    b"F",
    b"+",
    b"-",
    b"_",
    b"0x",
    b"00",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"ffffffffffffffff",
    b"7fffffffffffffff",
    b"10000000000000000",
    b"9223372036854775807",
    b"18446744073709551615",
    b"Content-Length: ",
    b"Content-Length: 5\r\n",
    b"content-length",
    b"Transfer-Encoding: ",
    b"chunked",
    b"Transfer-Encoding: chunked\r\n",
    b"identity",
    b"gzip, ",
    b"Connection: ",
    b"close",
    b"keep-alive",
    b"Upgrade: h2c\r\n",
    b"Upgrade: websocket\r\n",
    b"Trailer: X\r\n",
    b"X: y\r\n",
    b"X:\r\n",
    b" folded\r\n",
    b"HTTP/1.1 ",
    b"HTTP/1.0 ",
    b"100",
    b"101",
    b"103",
    b"204",
    b"205",
    b"304",
    b"200",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"GET / HTTP/1.1\r\n\r\n",
];

/// What is new about a verdict: its kind and reason, not its bytes.
fn kind(verdict: &Verdict) -> (u8, u16, &'static str, [u32; 4]) {
    let size = |n: usize| n.checked_ilog2().map_or(0, |log| log + 1);
    match verdict {
        Verdict::Waiting => (0, 0, "", [0; 4]),
        Verdict::Broken(None, why) => (1, 0, why, [0; 4]),
        Verdict::Broken(Some((status, headers)), why) => (2, *status, why, [size(headers.len()), 0, 0, 0]),
        Verdict::Whole(message, rest) => {
            let sizes = [message.headers.len(), message.body.len(), message.trailers.len(), *rest];
            (3, message.status, if message.keep_alive { "kept" } else { "" }, sizes.map(size))
        }
    }
}

#[test]
fn fuzz_any_bytes_in_any_pieces() {
    let broken = NO_HEAD.iter().chain(NO_BODY).map(|(bytes, _)| *bytes);
    let fuzz = Fuzz::new(env!("CARGO_MANIFEST_DIR"), "response").words(WORDS).longest(300_000);
    fuzz.seeds(VALID.iter().copied().chain(broken)).run(|bytes| {
        let method = if seed_of(bytes).is_multiple_of(8) { Method::HEAD } else { Method::GET };
        let verdict = check_response(bytes, &cuts_of(bytes), &method);
        let seen = if matches!(verdict, Verdict::Whole(..)) { Seen::taken() } else { Seen::refused() };
        seen.of(&kind(&verdict))
    });
}

/// RFC 2068 §19.7.1.1 as plainly as it can be read: of the members of the list, the first that is `timeout=` and a
/// number.
fn announced(value: &str) -> Option<Duration> {
    let mut members = value.split(',').map(|member| member.trim_matches([' ', '\t']).to_ascii_lowercase());
    members.find_map(|member| {
        let digits = member.strip_prefix("timeout=").filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
        Some(Duration::from_secs(digits.parse::<u32>().ok()?.into()))
    })
}

#[test]
fn fuzz_keep_alive() {
    let words: &[&[u8]] = &[b"timeout=", b"max=", b",", b", ", b" ", b"\t", b"=", b"\"", b"5", b"0", b"Timeout=5"];
    Fuzz::new(env!("CARGO_MANIFEST_DIR"), "keep_alive").words(words).longest(200).run(|bytes| {
        if bytes.contains(&b'\r') || bytes.contains(&b'\n') {
            return Seen::refused().of(&"a line's end");
        }
        let head = [b"HTTP/1.1 204 No Content\r\nKeep-Alive: ", bytes, b"\r\nX: y\r\n\r\n"].concat();
        match parse(&mut BytesMut::from(&head[..]), &Method::GET, None) {
            Ok(Parsed::Final(head)) => {
                assert!(!head.headers.contains_key("keep-alive"), "it ends here");
                let value = String::from_utf8_lossy(bytes);
                assert_eq!(head.idle, announced(&value), "{value:?}");
                if head.idle.is_some() { Seen::taken() } else { Seen::refused() }.of(&value.matches(',').count().min(3))
            }
            // RFC 9110 §5.5: bytes that no value may have.
            Err(why) => Seen::refused().of(&why),
            other => panic!("a whole head is {other:?}"),
        }
    });
}
