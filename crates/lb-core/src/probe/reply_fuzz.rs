//! Answers to checks, fed with anything: the same outcome whatever the pieces, bounded memory, and words that a person
//! can be shown.

use lb_fuzz::{Fuzz, Seen as Came, pieces_of, seed_of};

use super::tests::Seen;
use super::*;

const WORDS: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 204 No Content\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.0 ",
    b"HTTP/1.1 ",
    b"HTTP/2 ",
    b"200",
    b"101",
    b"103",
    b"304",
    b"599",
    b"600",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b"\0",
    b"\xff",
    b":",
    b",",
    b";",
    b"Content-Length: ",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"gzip, ",
    b"Connection: close\r\n",
    b"keep-alive",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"ffffffffffffffff",
    b"10000000000000000",
    b"1048576",
    b"1048577",
    b"X: y\r\n",
    b" folded\r\n",
    b"\x15\x03",
    b"\x16\x03\x01",
];

/// What came of it: status and whether it may be followed by another, or the class and the words of its failure.
type Outcome = Result<(u16, bool), (ReasonCode, String)>;

fn read(pieces: &[&[u8]], to_head: bool) -> (Outcome, Vec<u8>) {
    let (mut reply, mut seen) = (Reply::new(to_head), Seen::default());
    let mut outcome = None;
    for (at, piece) in pieces.iter().enumerate() {
        match reply.feed(piece, &mut seen) {
            Ok(Progress::Done { reusable }) => {
                let behind = pieces[at + 1..].iter().any(|piece| !piece.is_empty());
                outcome = Some(Ok(reusable && !behind));
            }
            Ok(Progress::More) => {}
            Err(failure) => outcome = Some(Err(failure)),
        }
        assert!(reply.head.capacity() <= 2 * MOST_HEAD + 2, "{} bytes are kept", reply.head.capacity());
        assert!(reply.place().len() < 80);
        if outcome.is_some() {
            break;
        }
    }
    let outcome = outcome.unwrap_or_else(|| match reply.end() {
        Ok(Progress::Done { reusable }) => Ok(reusable),
        Ok(Progress::More) => panic!("an end is an end"),
        Err(failure) => Err(failure),
    });
    let outcome = outcome.map(|reusable| (seen.status.expect("a status before the end"), reusable));
    (outcome.map_err(|failure| (failure.code, failure.words)), seen.body)
}

#[test]
fn fuzz_check_answer() {
    let fuzz = Fuzz::new(env!("CARGO_MANIFEST_DIR"), "check_answer").words(WORDS).longest(40_000);
    fuzz.run(|bytes| {
        let to_head = seed_of(bytes).is_multiple_of(8);
        let (outcome, body) = read(&[bytes], to_head);
        let (in_pieces, body_in_pieces) = read(&pieces_of(bytes), to_head);
        match (&outcome, &in_pieces) {
            (Ok(outcome), Ok(in_pieces)) => assert_eq!((outcome, &body), (in_pieces, &body_in_pieces)),
            // Which of two faults is met first may depend on the pieces, the class never does.
            (Err((code, _)), Err((in_pieces, _))) => assert_eq!(code, in_pieces),
            (outcome, in_pieces) => panic!("{outcome:?} at once, {in_pieces:?} in pieces"),
        }
        assert!(body.len() as u64 <= MOST_BODY);
        match outcome {
            Ok((status, reusable)) => {
                assert!((200..=599).contains(&status));
                assert!(body.is_empty() || !(to_head || status == 204 || status == 304), "{status} has no body");
                Came::taken().of(&(status == 200, reusable, body.len().min(1)))
            }
            Err((code, words)) => {
                assert!(ReasonCode::CHECK_FAILURES.contains(&code), "{code:?} is no class of a check's failure");
                assert!(words.len() < 200 && !words.is_empty(), "{words}");
                assert!(words.is_ascii() && !words.contains(|c: char| c.is_ascii_control()), "{words:?}");
                let words: String = words.chars().filter(|c| !c.is_ascii_digit()).collect();
                Came::refused().of(&words.split('"').next().map(str::to_owned))
            }
        }
    });
}
