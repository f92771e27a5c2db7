//! What is taken for an answer, and what is not.

use proptest::prelude::*;

use super::*;

#[derive(Default)]
pub(super) struct Seen {
    pub(super) status: Option<u16>,
    pub(super) body: Vec<u8>,
}

impl Judge for Seen {
    fn status(&mut self, status: u16) -> Result<(), Failure> {
        self.status = Some(status);
        Ok(())
    }

    fn body(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.body.extend_from_slice(piece);
        Ok(())
    }
}

/// What comes of `bytes`, in pieces of `size`, and then the close: status, body, and whether it is reusable.
fn read(bytes: &[u8], size: usize, to_head: bool) -> Result<(u16, Vec<u8>, bool), Failure> {
    let (mut reply, mut seen) = (Reply::new(to_head), Seen::default());
    for piece in bytes.chunks(size) {
        if let Progress::Done { reusable } = reply.feed(piece, &mut seen)? {
            return Ok((seen.status.expect("a status before the end"), seen.body, reusable));
        }
        assert!(reply.head.capacity() <= 2 * MOST_HEAD + 2, "{} bytes kept", reply.head.capacity());
    }
    let Progress::Done { reusable } = reply.end()? else { panic!("an end is an end") };
    Ok((seen.status.expect("a status before the end"), seen.body, reusable))
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn answers_of_all_framings_are_read() {
    let with = |head: &str, body: &str| format!("{head}{body}").into_bytes();
    for (bytes, to_head, status, body, reusable) in [
        (with("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "ok"), false, 200, "ok", true),
        (
            with("HTTP/1.1 200 OK\r\nContent-Length: 2, \r\n".trim_end_matches(", \r\n"), "\r\n\r\nok"),
            false,
            200,
            "ok",
            true,
        ),
        (with("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: x, Close\r\n\r\n", "ok"), false, 200, "ok", false),
        (with("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n", "ok"), false, 200, "ok", false),
        (with("HTTP/1.1 200\r\n\r\n", "to the close"), false, 200, "to the close", false),
        (with("HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n", ""), true, 200, "", true),
        (with("HTTP/1.1 204 No\r\n\r\n", ""), false, 204, "", true),
        (with("HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n", ""), false, 304, "", true),
        (
            with("HTTP/1.1 103 Hint\r\nLink: x\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", ""),
            false,
            500,
            "",
            true,
        ),
        (with(CHUNKED, "2\r\nok\r\n0\r\n\r\n"), false, 200, "ok", true),
        (with(CHUNKED, "2 \t;a=\"b c\"\r\nok\r\n0\r\nX-\u{7e}:\r\n\r\n"), false, 200, "ok", true),
        (
            with(CHUNKED, &format!("1;{}\r\nk\r\n0\r\n{}\r\n", "e".repeat(1022), "X: y\r\n".repeat(64))),
            false,
            200,
            "k",
            true,
        ),
        (with(CHUNKED, "0002;a=b\r\nok\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n"), false, 200, "ok0123456789", true),
        (with("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "ok, and more"), false, 200, "ok", false),
    ] {
        let expected = (status, body.as_bytes().to_vec(), reusable);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(read(&bytes, bytes.len(), to_head), Ok(expected.clone()), "{text}");
        // In single bytes, what is behind the end has not come yet.
        let (status, body, _) = read(&bytes, 1, to_head).unwrap();
        assert_eq!((status, body), (expected.0, expected.1), "{text}");
    }
}

#[test]
fn small_chunks_are_an_answer_as_for_the_proxy() {
    let body = "x".repeat(MOST_HEAD);
    let bytes = format!("{CHUNKED}{}0\r\n\r\n", "0000000000000001\r\nx\r\n".repeat(MOST_HEAD));
    assert_eq!(read(bytes.as_bytes(), 4096, false), Ok((200, body.into_bytes(), true)));
}

#[test]
fn what_is_no_answer_is_a_failure_with_its_class() {
    use ReasonCode::{BadResponse, Closed, TlsResponse, TooLong};
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(MOST_HEAD));
    let fields = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(MOST_FIELDS + 1));
    let interim = "HTTP/1.1 102 On it\r\n\r\n".repeat(1000);
    let chunks = format!("{CHUNKED}{}", "1;e\r\nx\r\n".repeat(MOST_HEAD));
    let trailers = format!("{CHUNKED}0\r\n{}", "X: y\r\n".repeat(MOST_HEAD));
    let many_trailers = format!("{CHUNKED}0\r\n{}\r\n", "X: y\r\n".repeat(65));
    let long_line = format!("{CHUNKED}1;{}\r\n", "e".repeat(1023));
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(MOST_BODY as usize + 1));
    for (bytes, code) in [
        ("", Closed),
        ("HTTP/1.1 200 OK\r\nContent-", Closed),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", Closed),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", Closed),
        ("SSH-2.0-OpenSSH_9.2\r\n", BadResponse),
        ("HTTP/2 200 OK\r\n\r\n", BadResponse),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", BadResponse),
        ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", BadResponse),
        ("HTTP/1.1 200 OK\r\nX: y\nContent-Length: 0\r\n\r\n", BadResponse),
        ("HTTP/1.1 101 Switch\r\nUpgrade: x\r\n\r\n", BadResponse),
        ("HTTP/1.1 099 Low\r\n\r\n", BadResponse),
        ("HTTP/1.1 600 High\r\n\r\n", BadResponse),
        ("HTTP/1.1 abc\r\n\r\n", BadResponse),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", BadResponse),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", BadResponse),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", BadResponse),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", BadResponse),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", BadResponse),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx", BadResponse),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok0\r\n\r\n", BadResponse),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", BadResponse),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000001\r\n", BadResponse),
        ("\u{15}\u{3}\u{1}\0\u{2}\u{2}\u{28}", TlsResponse),
        (&long, TooLong),
        (&interim, BadResponse),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", BadResponse),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nok\r\n", BadResponse),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;\u{1}\r\nok\r\n", BadResponse),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nBad Name: x\r\n\r\n", BadResponse),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n folded\r\n\r\n", BadResponse),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: \u{7f}\r\n\r\n", BadResponse),
        (&many_trailers, BadResponse),
        ("HTTP/1.1 204 No\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", BadResponse),
        ("HTTP/1.1 204 No\r\nContent-Length: 9223372036854775808\r\n\r\n", BadResponse),
        (&long_line, BadResponse),
        (&fields, BadResponse),
        (&chunks, BadResponse),
        (&trailers, BadResponse),
        (&endless, TooLong),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n", TooLong),
    ] {
        for size in [1, 7, 4096] {
            let failure = read(bytes.as_bytes(), size, false).unwrap_err();
            let shown = &bytes[..bytes.len().min(80)];
            assert_eq!(failure.code, code, "{shown:?} in pieces of {size}: {}", failure.words);
            assert!(failure.words.len() < 200, "{}", failure.words);
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_break_it_and_pieces_do_not_matter(
        begins in proptest::sample::select(vec!["", "HTTP/1.1 200 OK\r\n", CHUNKED]),
        rest in proptest::collection::vec(
            proptest::sample::select(b"\r\n\r\n0123afX: chunkedtransfer-encoding,content-length\0\xff".to_vec()), 0..120),
        size in 1..40_usize,
    ) {
        let bytes = [begins.as_bytes(), &rest].concat();
        let (whole, pieces) = (read(&bytes, bytes.len().max(1), false), read(&bytes, size, false));
        match (whole, pieces) {
            (Ok((status, body, _)), Ok((other, others, _))) => prop_assert_eq!((status, body), (other, others)),
            (Err(failure), Err(other)) => prop_assert_eq!(failure.code, other.code),
            (whole, pieces) => prop_assert!(false, "{whole:?} in one, {pieces:?} in pieces"),
        }
    }

    #[test]
    fn a_chunked_body_is_put_together_again(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..10),
        size in 1..60_usize,
    ) {
        let mut bytes = CHUNKED.as_bytes().to_vec();
        for piece in &pieces {
            bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            bytes.extend_from_slice(piece);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        prop_assert_eq!(read(&bytes, size, false), Ok((200, pieces.concat(), true)));
    }
}
