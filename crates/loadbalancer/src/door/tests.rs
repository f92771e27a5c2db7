use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    head: 32 * 1024,
    fields: 100,
    target: 8192,
    body: u64::MAX,
    requests_per_connection: u64::MAX,
    min_body_rate: 0,
};

/// What one whole message at the door comes to: how much goes on, and as what.
fn judged(message: &str) -> Result<(usize, Body), Rejected> {
    match Door::default().pass_head(message.as_bytes(), &LIMITS)? {
        (Pass::On(passed), Some(body)) => Ok((passed, body)),
        other => panic!("{message:?}: {other:?}"),
    }
}

fn refused(head: &str) -> Rejected {
    let message = format!("{head}\r\n\r\n");
    judged(&message).expect_err(&message)
}

#[test]
fn an_ordinary_head_goes_on_whole_and_what_follows_does_not() {
    let head = "GET /a?b=c HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n";
    assert_eq!(judged(head), Ok((head.len(), Body::None)));
    assert_eq!(judged(&format!("{head}GET / HT")), Ok((head.len(), Body::None)));
    assert_eq!(judged(&format!("\r\n\r\n{head}")), Ok((head.len() + 4, Body::None)));
    let post = "POST / HTTP/1.1\r\nHost: x\r\ncontent-LENGTH: \t5 \r\n\r\n";
    assert_eq!(judged(&format!("{post}helloGET")), Ok((post.len() + 5, Body::Length(5))));
    let chunked = "POST / HTTP/1.0\r\nTransfer-Encoding: CHUNKED\r\n\r\n".replace("1.0", "1.1");
    assert_eq!(judged(&format!("{chunked}1\r\na\r\n0\r\n\r\nGET")), Ok((chunked.len() + 11, Body::Chunked)));
}

/// RFC 9112 §2.2, §3, §5, §6 and RFC 9110 §8.6: everything that two readers could read differently.
#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    for (head, reason) in [
        ("GET / HTTP/1.1\nHost: x", Rejected::BareLf),
        ("GET / HTTP/1.1\r\nHost: x\nA: b", Rejected::BareLf),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r", Rejected::BareCr),
        ("GET / HTTP/1.1\r\nHost: x\r\n b", Rejected::ObsFold),
        ("GET / HTTP/1.1\r\n Host: x", Rejected::FieldName),
        ("GET / HTTP/1.2\r\nHost: x", Rejected::Version),
        ("PRI * HTTP/2.0", Rejected::Version),
        ("GET / HTTP/1\r\nHost: x", Rejected::RequestLine),
        ("GET / http/1.1\r\nHost: x", Rejected::RequestLine),
        ("GET /", Rejected::RequestLine),
        ("GET  / HTTP/1.1", Rejected::RequestLine),
        ("GET / x HTTP/1.1", Rejected::RequestLine),
        (" GET / HTTP/1.1", Rejected::RequestLine),
        ("GET /a#b HTTP/1.1", Rejected::Target),
        ("GET /\u{fc} HTTP/1.1", Rejected::Target),
        ("GET /\u{1} HTTP/1.1", Rejected::Target),
        ("POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5", Rejected::ContentLength),
        ("POST / HTTP/1.1\r\nContent-Length: 5, 5", Rejected::ContentLength),
        ("POST / HTTP/1.1\r\nContent-Length: +5", Rejected::ContentLength),
        ("POST / HTTP/1.1\r\nContent-Length: 0x5", Rejected::ContentLength),
        ("POST / HTTP/1.1\r\nContent-Length: 5 5", Rejected::ContentLength),
        ("POST / HTTP/1.1\r\nContent-Length: 010", Rejected::ContentLength),
        ("POST / HTTP/1.1\r\nContent-Length:", Rejected::ContentLength),
        ("POST / HTTP/1.1\r\nContent-Length: 18446744073709551616", Rejected::ContentLength),
        ("POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", Rejected::TeAndCl),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\nContent-Length: 5", Rejected::TeAndCl),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip", Rejected::UnknownCoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked", Rejected::TransferEncoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked", Rejected::UnknownCoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip", Rejected::TransferEncoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked,", Rejected::TransferEncoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: ,chunked", Rejected::TransferEncoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: xchunked", Rejected::UnknownCoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding:", Rejected::TransferEncoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: \u{b}chunked", Rejected::TransferEncoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Rejected::TransferEncoding),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked", Rejected::TransferEncoding),
        ("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1", Rejected::RequestLine),
    ] {
        assert_eq!(refused(head), reason, "{head:?}");
    }
}

#[test]
fn sizes_have_limits_that_name_what_is_too_large() {
    assert_eq!(refused(&format!("GET /{} HTTP/1.1", "a".repeat(8192))), Rejected::TargetTooLong);
    assert_eq!(refused(&format!("GET /{} HTTP/1.1", "a".repeat(40_000))), Rejected::TargetTooLong);
    assert_eq!(refused(&format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(40_000))), Rejected::HeadTooLarge);
    assert_eq!(refused(&format!("GET / HTTP/1.1{}", "\r\nA: b".repeat(101))), Rejected::TooManyFields);
    assert!(judged(&format!("GET / HTTP/1.1{}\r\n\r\n", "\r\nA: b".repeat(100))).is_ok());
    let small = Limits { body: 4, ..LIMITS };
    let refused = |message: &[u8]| Door::default().pass_head(message, &small).err();
    assert_eq!(refused(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n"), Some(Rejected::BodyTooLarge));
    let chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\n";
    assert_eq!(refused(chunked), Some(Rejected::BodyTooLarge));
}

/// What can never become a head is refused before its end, which may never come.
#[test]
fn part_of_a_head_is_waited_for_unless_it_is_none() {
    let part = |bytes: &[u8]| Door::default().pass_head(bytes, &LIMITS).map(|(pass, _)| pass);
    for good in [&b"G"[..], b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\nHost: x\r\n", b"\r\n", b"\r"] {
        assert_eq!(part(good), Ok(Pass::Wait), "{good:?}");
    }
    assert_eq!(part(b"\x16\x03\x01\x02"), Err(Rejected::RequestLine));
    assert_eq!(part(b"GET / HTTP/1.1\n"), Err(Rejected::BareLf));
    assert_eq!(part(b"GET / HTTP/1.1\r\nA: \0"), Err(Rejected::FieldValue));
    assert_eq!(part(&[b'A'; 40_000]), Err(Rejected::HeadTooLarge));
    assert_eq!(part(format!("GET /{}", "a".repeat(40_000)).as_bytes()), Err(Rejected::TargetTooLong));
}

/// RFC 9112 §7.1.
#[test]
fn a_chunked_body_is_valid_or_refused() {
    let pass = |body: &str| ChunkWatch::new(u64::MAX).pass(body.as_bytes());
    for good in [
        "0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "A;a=\"b\";c\r\n0123456789\r\n00\r\nX: y\r\nZ:\r\n\r\n",
        "1 ;x\r\na\r\n0\r\n\r\n",
    ] {
        assert_eq!(pass(&format!("{good}GET")), Ok((good.len(), true)), "{good:?}");
    }
    for bad in [
        "\r\n",
        "g\r\n",
        "0x5\r\n",
        "-1\r\n",
        "+1\r\n",
        " 1\r\n",
        "1 \r\n",
        "1_0\r\n",
        "1\n",
        "1\r\r\n",
        "1;\0\r\n",
        "1;a\n",
        "1\r\nab\r\n",
        "1\r\na\n",
        "1\r\na0\r\n",
        "11111111111111111\r\n",
        "0\r\n\n",
        "0\r\nA b: c\r\n",
        "0\r\n: c\r\n",
        "0\r\nA: b\n",
        "0\r\n A: b\r\n",
        "0\r\nA\r\n",
        "0\r\nA: \x01\r\n",
    ] {
        assert_eq!(pass(bad), Err(Rejected::Chunk), "{bad:?}");
    }
    assert!(pass(&format!("1;{}\r\n", "a".repeat(1100))).is_err());
    assert!(pass(&format!("1;{}\r\na\r\n", "a".repeat(1000)).repeat(17)).is_err());
    assert!(pass(&format!("0\r\n{}", "A: b\r\n".repeat(70))).is_err());
}

#[test]
fn the_parsers_refusals_have_names() {
    for (head, reason) in [
        ("G(T / HTTP/1.1\r\n\r\n", Rejected::RequestLine),
        ("GET / HTTP/1.1\r\nA : b\r\n\r\n", Rejected::FieldName),
        ("GET / HTTP/1.1\r\n: b\r\n\r\n", Rejected::FieldName),
        ("GET / HTTP/1.1\r\nA\r\n\r\n", Rejected::FieldName),
        ("GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", Rejected::BareCr),
        ("GET / HTTP/1.1\r\nA: \0\r\n\r\n", Rejected::FieldValue),
        ("GET http://[ HTTP/1.1\r\nA: b\r\n\r\n", Rejected::Target),
    ] {
        assert_eq!(diagnose(head.as_bytes()), reason, "{head:?}");
    }
}

/// Passes a stream through a door as the socket does, in pieces that end at `cuts`; what goes on, and how it ends.
fn through(stream: &[u8], cuts: &[usize]) -> (Vec<u8>, Option<Rejected>) {
    let (mut door, mut passed, mut from) = (Door::default(), Vec::new(), 0);
    for to in cuts.iter().copied().chain([stream.len()]) {
        door.held.extend_from_slice(&stream[from..to]);
        from = to;
        loop {
            let held = std::mem::take(&mut door.held);
            let judged = if door.is_between() {
                door.pass_head(&held, &LIMITS).map(|(pass, _)| match pass {
                    Pass::On(bytes) => bytes,
                    Pass::Wait => 0,
                })
            } else {
                door.pass_body(&held)
            };
            let bytes = match judged {
                Ok(bytes) => bytes,
                Err(reason) => return (passed, Some(reason)),
            };
            passed.extend_from_slice(&held[..bytes]);
            door.held = held;
            bytes::Buf::advance(&mut door.held, bytes);
            if bytes == 0 || door.held.is_empty() {
                break;
            }
        }
    }
    (passed, None)
}

proptest! {
    /// However a stream of requests is cut into pieces, the same bytes go on.
    #[test]
    fn the_pieces_do_not_matter(cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        let stream = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a\r\nabc\r\n0\r\nT: r\r\n\r\n\
            \r\nGET /1 HTTP/1.1\r\nHost: x\r\n\r\nPOST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nGET GET /3 HTTP/1.1\r\n\r\n";
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        at.sort_unstable();
        prop_assert_eq!(through(stream, &at), (stream.to_vec(), None));
    }

    /// Nothing panics, and the verdict on bytes does not depend on the pieces they come in.
    #[test]
    fn any_bytes_are_judged(stream in prop::collection::vec(prop::sample::select(&b"GET /: HTP1.\r\n\t 0a;\0\xff"[..]), 0..80)) {
        let every: Vec<usize> = (1..stream.len()).collect();
        let (whole, pieces) = (through(&stream, &[]), through(&stream, &every));
        prop_assert_eq!(whole.1.is_some(), pieces.1.is_some());
        prop_assert!(pieces.0.starts_with(&whole.0));
    }
}

#[test]
fn only_a_bare_absolute_target_of_options_is_about_the_server() {
    let seen = |line: &str| head::asks_about_server(format!("{line} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes());
    for line in ["OPTIONS http://a", "OPTIONS https://a:1"] {
        assert!(seen(line), "{line}");
    }
    for line in ["OPTIONS http://a/", "OPTIONS http://a?q", "OPTIONS *", "OPTIONS /x://b", "GET http://a"] {
        assert!(!seen(line), "{line}");
    }
}
