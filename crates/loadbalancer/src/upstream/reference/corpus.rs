//! Responses that real backends send, and ones that none should: where the fuzzer starts, and what each must come to.

use http::Method;

use super::{Verdict, check_response, ours};

/// Read completely by anybody.
pub(super) const VALID: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\ncontent-length:5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: \t 5 \t\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 000005\r\n\r\nhello",
    b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 404 Nicht gefunden \xfc\r\nContent-Length: 2\r\n\r\nno",
    b"HTTP/1.1 599 Odd\r\nContent-Length: 2\r\n\r\nno",
    b"HTTP/1.1 999 Odder\r\nContent-Length: 2\r\n\r\nno",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n000\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\nA\r\n0123456789\r\nb\r\n01234567890\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a\r\nhello\r\n0;last=\"x;y\" ; z\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 9\r\nX-B:\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 9\r\nX-Sum: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nold",
    b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nold",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\nETag: \"a\"\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nDate: x\r\nSet-Cookie: b=2\r\nX-Empty:\r\nX-Latin: \xe9\r\nContent-Length: 1\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nConnection: X-Hop, close\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 1\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Hop: 1\r\nX-Sum: 2\r\n\r\n",
    b"HTTP/1.1 407 Proxy\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
];

/// Refused at the head, with a word of the reason.
pub(super) const NO_HEAD: &[(&[u8], &str)] = &[
    // RFC 9112 §6.3, rule 5: Content-Length that is invalid, or differs.
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "more than one"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "more than one"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", "invalid Content-Length"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", "invalid Content-Length"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", "invalid Content-Length"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello", "invalid Content-Length"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5 5\r\n\r\nhello", "invalid Content-Length"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\nhello", "invalid Content-Length"),
    (b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello", "invalid Content-Length"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n", "too large"),
    // Also where there is no body: the field is forwarded.
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: x\r\n\r\n", "invalid Content-Length"),
    // RFC 9112 §6.1 and §6.3, rule 3.
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", "both"),
    (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.0"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "other than chunked"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", "other than chunked"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n", "other than chunked"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n", "other than chunked"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", "malformed"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked;q=1\r\n\r\n", "other than chunked"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n", "other than chunked"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "other than chunked"),
    // RFC 9112 §5.1, §5.2 and §2.2; RFC 9110 §5.5.
    (b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello", "malformed"),
    (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\nhello", "malformed"),
    (b"HTTP/1.1 200 OK\r\n Content-Length: 5\r\n\r\nhello", "malformed"),
    (b"HTTP/1.1 200 OK\r\nX: a\rContent-Length: 5\r\n\r\nhello", "malformed"),
    (b"HTTP/1.1 200 OK\r\nX: a\nContent-Length: 5\r\n\r\nhello", "bare LF"),
    (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", "bare LF"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\nhello", "bare LF"),
    (b"HTTP/1.1 200 OK\r\nX: \0\r\n\r\n", "malformed"),
    (b"HTTP/1.1 200 OK\r\nX: \x7f\r\n\r\n", "malformed"),
    (b"HTTP/1.1 200 OK\r\nX\r\n\r\n", "malformed"),
    (b"HTTP/1.1 200 OK\r\n: x\r\n\r\n", "malformed"),
    (b"HTTP/1.1 200 OK\r\nX\xe9: x\r\n\r\n", "malformed"),
    // RFC 9112 §4 and RFC 9110 §15.
    (b"HTTP/1.1 20 OK\r\n\r\n", "malformed"),
    (b"HTTP/1.1 2000 OK\r\n\r\n", "malformed"),
    (b"HTTP/1.1 099 OK\r\n\r\n", "invalid status"),
    (b"HTTP/1.1  200 OK\r\n\r\n", "malformed"),
    (b"HTTP/2.0 200 OK\r\n\r\n", "malformed"),
    (b"HTTP/0.9 200 OK\r\n\r\n", "malformed"),
    (b"http/1.1 200 OK\r\n\r\n", "malformed"),
    (b"<html>", "malformed"),
    (b"\r\nHTTP/1.1 200 OK\r\n\r\n", "empty line"),
    (b"\nHTTP/1.1 200 OK\r\n\r\n", "empty line"),
    (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "101"),
    (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n\x81\0", "101"),
    // What follows an interim response, which has no body whatever it says (§6.3, rule 1).
    (b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n", "malformed"),
    (b"HTTP/1.1 100 Continue\r\n\r\n", "closed"),
    (b"HTTP/1.1 200 OK\r\nContent-Le", "closed"),
    (b"", "closed"),
];

/// Refused in the body, with a word of the reason.
pub(super) const NO_BODY: &[(&[u8], &str)] = &[
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5  \r\nhello\r\n0\r\n\r\n", "blanks behind"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\t\r\n\r\n", "blanks behind"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "closed"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", "closed"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "closed"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "closed"),
    // RFC 9112 §7.1: nothing but digits, exactly the announced length, CRLF behind each.
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "chunk size"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n", "chunk size"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", "chunk extension"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", "chunk size"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5_\r\nhello\r\n0\r\n\r\n", "chunk extension"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5 5\r\nhello\r\n0\r\n\r\n", "chunk extension"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\x0c\r\nhello\r\n0\r\n\r\n", "chunk extension"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloo\r\n0\r\n\r\n", "not followed by CRLF"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhell\r\n0\r\n\r\n", "not followed by CRLF"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n", "not followed by CRLF"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", "bare LF"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nhello\r\n0\r\n\r\n", "bare LF"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n0\r\n\r\n", "bare CR"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a\0\r\nhello\r\n0\r\n\r\n", "chunk extension"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000005\r\nhello\r\n0\r\n\r\n", "chunk size"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: 1\n\r\n", "bare LF"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\n", "bare LF"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX : 1\r\n\r\n", "trailers"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: 1\r\n y\r\n\r\n", "trailers"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nGET / HTTP/1.1\r\n\r\n", "trailers"),
];

#[test]
fn what_backends_send_is_read_as_hyper_reads_it_wherever_it_is_cut() {
    for bytes in VALID {
        for cut in 0..=bytes.len() {
            for method in [Method::GET, Method::HEAD] {
                let verdict = check_response(bytes, &[cut], &method);
                assert!(matches!(verdict, Verdict::Whole(..)), "{}: {verdict:?}", bytes.escape_ascii());
            }
        }
        let every: Vec<usize> = (0..bytes.len()).collect();
        check_response(bytes, &every, &Method::GET);
    }
}

#[test]
fn what_connection_names_ends_here_as_a_trailer_too() {
    let named = VALID.iter().find(|bytes| bytes.ends_with(b"0\r\nX-Hop: 1\r\nX-Sum: 2\r\n\r\n")).unwrap();
    let Verdict::Whole(message, 0) = ours(&[named], &Method::GET, false) else { panic!() };
    // RFC 9110 §7.6.1.
    assert_eq!(message.trailers.keys().collect::<Vec<_>>(), ["x-sum"]);
}

#[test]
fn what_is_not_a_response_is_refused_wherever_it_is_cut() {
    let heads = NO_HEAD.iter().map(|(bytes, why)| (bytes, why, true));
    let bodies = NO_BODY.iter().map(|(bytes, why)| (bytes, why, false));
    for (bytes, expected, at_head) in heads.chain(bodies) {
        for cut in 0..=bytes.len() {
            match check_response(bytes, &[cut], &Method::GET) {
                Verdict::Broken(head, why) => {
                    assert_eq!(head.is_none(), at_head, "{}", bytes.escape_ascii());
                    assert!(why.contains(expected), "{}: {why}", bytes.escape_ascii());
                }
                other => panic!("{}: {other:?}", bytes.escape_ascii()),
            }
        }
    }
}

#[test]
fn bounds_do_not_depend_on_how_the_bytes_arrive() {
    let head = |length: usize| format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(length));
    let fixed = head(0).len();
    let chunked = |rest: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{rest}");
    let line = |length: usize| chunked(&format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(length - 2)));
    let extensions =
        |count: usize| chunked(&format!("{}0\r\n\r\n", format!("1;{}\r\nx\r\n", "e".repeat(63)).repeat(count)));
    let trailers = |length: usize| chunked(&format!("0\r\nX: {}\r\n\r\n", "t".repeat(length - 7)));
    let names = |count: usize| chunked(&format!("0\r\n{}\r\n", "X: y\r\n".repeat(count)));
    for (fits, exceeds) in [
        (head(64 * 1024 - fixed), head(64 * 1024 - fixed + 1)),
        (line(1024), line(1025)),
        // Bytes of extensions in the whole body: 64 each.
        (extensions(255), extensions(257)),
        (trailers(16 * 1024 - 2), trailers(16 * 1024 + 1)),
        (names(64), names(65)),
    ] {
        let cuts: Vec<usize> = (0..exceeds.len()).step_by(97).chain(exceeds.len() - 40..exceeds.len()).collect();
        for cuts in [&cuts[..], &[]] {
            let verdict = check_response(fits.as_bytes(), cuts, &Method::GET);
            assert!(matches!(verdict, Verdict::Whole(..)), "{} fit: {verdict:?}", fits.len());
            let verdict = check_response(exceeds.as_bytes(), cuts, &Method::GET);
            assert!(matches!(verdict, Verdict::Broken(..)), "{} are too many", exceeds.len());
        }
    }
    // Without an end a bound is met as well, and nothing grows.
    for endless in [&b"HTTP/1.1 200 OK\r\nX: "[..], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;"] {
        let endless = [endless, &[b'x'; 200_000]].concat();
        let pieces: Vec<&[u8]> = endless.chunks(1000).collect();
        assert!(matches!(ours(&pieces, &Method::GET, false), Verdict::Broken(..)));
    }
}
