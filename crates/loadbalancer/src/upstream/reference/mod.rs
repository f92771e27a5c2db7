//! Our codec against a reference parser: hyper's client reads what backends send us, hyper's server reads what we send
//! them, and both must understand the same. Ours may be stricter, never laxer.
//!
//! Everything here is test code. [`ours`] feeds the codec without a connection, [`hyper_reads_response`] and
//! [`hyper_serves`] run hyper over bytes in memory, [`loopback`] puts an [`Exchange`](super::Exchange) on a real socket.

mod corpus;
mod fuzz;
mod injection;
mod loopback;
mod memory;
mod replay;
mod requests;
mod responses;

use bytes::BytesMut;
use http::{HeaderMap, Method};

use super::body::Piece;
use super::encode::named_by_connection;
use super::fields::is_hop_by_hop;
use super::head::{BodyFraming, Parsed, parse};
use memory::hyper_reads_response;
pub(crate) use memory::hyper_serves;

/// Most that our codec may hold back while it waits for more: a head, which is larger than a size line and trailers.
const MOST_KEPT_BACK: usize = 64 * 1024;

/// A message as a reader understood it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
    /// Whether another message may follow on the connection.
    pub keep_alive: bool,
}

/// What a reader made of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All of a message, and how many bytes were not part of it.
    Whole(Message, usize),
    /// Not a message, or not all of one; with a head if that much was understood, and why it is none.
    Broken(Option<(u16, HeaderMap)>, &'static str),
    /// More must arrive first.
    Waiting,
}

/// Reads a response with our codec, fed with one piece after the other; `closed` when the connection closes behind
/// the last one.
pub(super) fn ours(pieces: &[&[u8]], method: &Method, closed: bool) -> Verdict {
    ours_offering(pieces, method, None, closed)
}

/// As [`ours`], to a request that offered to switch to a protocol. A switch counts as a whole message.
pub(super) fn ours_offering(pieces: &[&[u8]], method: &Method, offered: Option<&str>, closed: bool) -> Verdict {
    let mut received = BytesMut::new();
    let mut head = None;
    let mut body = Vec::new();
    let mut trailers = HeaderMap::new();
    for (at, piece) in pieces.iter().enumerate() {
        assert!(received.len() <= MOST_KEPT_BACK, "{} bytes are kept back", received.len());
        received.extend_from_slice(piece);
        while head.is_none() && !received.is_empty() {
            match parse(&mut received, method, offered) {
                Ok(Parsed::Partial) => break,
                Ok(Parsed::Interim(_)) => {}
                Ok(Parsed::Switched(found) | Parsed::Final(found)) => head = Some(found),
                Err(why) => return Verdict::Broken(None, why),
            }
        }
        let Some(head) = &mut head else { continue };
        let (status, headers) = (head.status.as_u16(), head.headers.clone());
        loop {
            match head.framing.take(&mut received) {
                Err(why) => return Verdict::Broken(Some((status, headers)), why),
                Ok(Piece::NeedMore) => break,
                Ok(Piece::Frame(frame)) => match frame.into_data() {
                    Ok(data) => body.extend_from_slice(&data),
                    Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
                },
                Ok(Piece::End) => {
                    let rest = received.len() + pieces[at + 1..].iter().map(|piece| piece.len()).sum::<usize>();
                    let keep_alive = head.keep_alive;
                    return Verdict::Whole(Message { status, headers, body, trailers, keep_alive }, rest);
                }
            }
        }
    }
    match head {
        _ if !closed => Verdict::Waiting,
        None => Verdict::Broken(None, "closed inside the head"),
        Some(mut head) => {
            let (status, headers) = (head.status.as_u16(), head.headers);
            match head.framing.close() {
                Err(_) => Verdict::Broken(Some((status, headers)), "closed inside the body"),
                Ok(()) => {
                    assert!(matches!(head.framing, BodyFraming::None));
                    Verdict::Whole(Message { status, headers, body, trailers, keep_alive: false }, 0)
                }
            }
        }
    }
}

/// What hyper has understood and we do not pass on: fields about the connection.
pub(super) fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let named = named_by_connection(headers);
    let passes = |name: &str| name == "proxy-authenticate" || !is_hop_by_hop(name);
    let kept = headers.iter().filter(|(name, _)| passes(name.as_str()) && !named.contains(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Asserts what must hold for any bytes a backend may send: the pieces do not matter, and where we understand a
/// message, hyper understands the same one, with the same end.
pub(super) fn check_response(bytes: &[u8], cuts: &[usize], method: &Method) -> Verdict {
    let verdict = ours(&[bytes], method, true);
    let pieces = split(bytes, cuts);
    same_verdict(&ours(&pieces, method, true), &verdict);
    let offered = Some("websocket");
    same_verdict(&ours_offering(&pieces, method, offered, true), &ours_offering(&[bytes], method, offered, true));
    match &verdict {
        Verdict::Waiting => unreachable!("the connection is closed"),
        Verdict::Broken(None, _) => {}
        Verdict::Broken(Some((status, headers)), _) => {
            // The head has gone to the client: hyper must have seen the same one.
            match hyper_reads_response(bytes, method, true) {
                Verdict::Broken(Some((theirs, fields)), _) => same_head((*status, headers), (theirs, &fields)),
                Verdict::Whole(theirs, _) => same_head((*status, headers), (theirs.status, &theirs.headers)),
                other => panic!("hyper: {other:?}"),
            }
        }
        Verdict::Whole(message, rest) => {
            let whole = &bytes[..bytes.len() - rest];
            check_whole(whole, message, method);
        }
    }
    verdict
}

/// `whole` is one message to us, to the byte; so it must be to hyper.
fn check_whole(whole: &[u8], message: &Message, method: &Method) {
    match hyper_reads_response(whole, method, true) {
        Verdict::Whole(theirs, _) => {
            same_head((message.status, &message.headers), (theirs.status, &theirs.headers));
            assert_eq!(message.body, theirs.body);
            for (name, value) in &message.trailers {
                assert!(theirs.trailers.get_all(name).iter().any(|theirs| theirs == value), "trailer {name}");
            }
        }
        other => panic!("hyper: {other:?}"),
    }
    // Does it end by itself, and exactly here?
    if ours(&[whole], method, false) == Verdict::Waiting {
        assert!(!message.keep_alive, "kept, but ends only with the connection");
        return;
    }
    match hyper_reads_response(whole, method, false) {
        Verdict::Whole(theirs, _) => {
            assert!(theirs.keep_alive || !message.keep_alive, "we would keep a connection that hyper closes");
        }
        other => panic!("hyper, with the connection open: {other:?}"),
    }
    let short = &whole[..whole.len() - 1];
    assert_eq!(ours(&[short], method, false), Verdict::Waiting);
    assert!(!matches!(hyper_reads_response(short, method, false), Verdict::Whole(..)), "hyper was through earlier");
}

/// Which of two faults is met first may depend on the pieces.
fn same_verdict(in_pieces: &Verdict, at_once: &Verdict) {
    match (in_pieces, at_once) {
        (Verdict::Broken(in_pieces, _), Verdict::Broken(at_once, _)) => assert_eq!(in_pieces, at_once),
        (in_pieces, at_once) => assert_eq!(in_pieces, at_once),
    }
}

fn same_head(ours: (u16, &HeaderMap), theirs: (u16, &HeaderMap)) {
    assert_eq!(ours.0, theirs.0);
    assert_eq!(*ours.1, end_to_end(theirs.1));
}

/// `bytes` cut at `cuts`, which need not be in order.
pub(super) fn split<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| (*cut).min(bytes.len())).collect();
    cuts.push(bytes.len());
    cuts.sort_unstable();
    let mut from = 0;
    cuts.into_iter().map(|to| &bytes[std::mem::replace(&mut from, to)..to]).collect()
}
