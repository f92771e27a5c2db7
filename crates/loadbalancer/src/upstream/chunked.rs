//! The chunked coding of RFC 9112 §7.1, read strictly: sizes are 1 to 16 hex digits, lines end in CRLF, extensions
//! are bounded and never forwarded, and nothing is repaired. What comes out depends on the bytes alone, never on the
//! pieces they arrive in.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::fields::{Class, class};
use super::head::has_bare_lf;

/// A size line with its extensions. An extension means nothing to us; RFC 9112 §7.1.1 asks for a limit, and no use of
/// extensions comes near this one.
const MOST_LINE_BYTES: usize = 1024;

/// Extensions of a whole body: a chunk of one byte with an extension each would cost a thousand times what it carries
/// (CVE-2023-39326). hyper's bound.
const MOST_EXTENSION_BYTES: usize = 16 * 1024;

/// The trailer section.
const MOST_TRAILER_BYTES: usize = 16 * 1024;
const MOST_TRAILERS: usize = 64;

/// Where in the coding the next byte stands.
#[derive(Debug, Default)]
enum State {
    #[default]
    Size,
    Data(u64),
    /// The CRLF behind a chunk's data.
    DataEnd,
    Trailers,
    Done,
}

/// A decoder fed with whatever has arrived.
#[derive(Debug, Default)]
pub(super) struct ChunkDecoder {
    state: State,
    /// Bytes of extensions so far.
    extensions: usize,
    /// Fields named by `Connection`: they end here as trailers too (RFC 9110 §7.6.1).
    named: Vec<HeaderName>,
}

/// What came off the front.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// More must arrive first.
    NeedMore,
    Data(Bytes),
    /// The end, with the trailer section.
    End(HeaderMap),
}

impl ChunkDecoder {
    /// A decoder that leaves out trailers that the head's `Connection` has named.
    pub(super) fn without(named: Vec<HeaderName>) -> Self {
        Self { named, ..Self::default() }
    }

    /// Takes the next piece off the front of `received`.
    ///
    /// # Errors
    /// Why it is not valid.
    pub(super) fn decode(&mut self, received: &mut BytesMut) -> Result<Decoded, &'static str> {
        loop {
            match self.state {
                State::Size => {
                    let Some(line) = take_line(received, MOST_LINE_BYTES)? else { return Ok(Decoded::NeedMore) };
                    let (size, extension) = chunk_size(&line)?;
                    self.extensions += extension;
                    if self.extensions > MOST_EXTENSION_BYTES {
                        return Err("too many chunk extensions");
                    }
                    self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                }
                State::Data(left) => {
                    if received.is_empty() {
                        return Ok(Decoded::NeedMore);
                    }
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(received.len());
                    let left = left - here as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Decoded::Data(received.split_to(here).freeze()));
                }
                State::DataEnd => {
                    // RFC 9112 §7.1: a chunk is exactly as long as it says.
                    if !b"\r\n".starts_with(&received[..received.len().min(2)]) {
                        return Err("chunk data is not followed by CRLF");
                    }
                    if received.len() < 2 {
                        return Ok(Decoded::NeedMore);
                    }
                    received.advance(2);
                    self.state = State::Size;
                }
                State::Trailers => {
                    let Some(mut trailers) = take_trailers(received)? else { return Ok(Decoded::NeedMore) };
                    for name in &self.named {
                        trailers.remove(name);
                    }
                    self.state = State::Done;
                    return Ok(Decoded::End(trailers));
                }
                State::Done => return Ok(Decoded::End(HeaderMap::new())),
            }
        }
    }
}

/// A line of at most `most` bytes without its CRLF, or `None` when it is not all there. A bare CR or LF is refused
/// (RFC 9112 §2.2: what some take for a line's end and others for data is how messages are smuggled).
fn take_line(received: &mut BytesMut, most: usize) -> Result<Option<BytesMut>, &'static str> {
    let window = &received[..received.len().min(most + 2)];
    match window.iter().position(|b| *b == b'\n') {
        None if window.len() == most + 2 => Err("chunk line too long"),
        None => Ok(None),
        Some(at) if at == 0 || window[at - 1] != b'\r' => Err("bare LF in the chunked coding"),
        Some(at) => {
            let mut line = received.split_to(at + 1);
            line.truncate(at - 1);
            if line.contains(&b'\r') { Err("bare CR in the chunked coding") } else { Ok(Some(line)) }
        }
    }
}

/// The size, and the length of the extension behind it. RFC 9112 §7.1: 1*HEXDIG, and nothing before, between or behind; 16
/// of them cannot overflow. §7.1.1: blanks may only come before an extension's semicolon; extensions are ignored up to the
/// line's end; a quoted string cannot hold a CR or LF, so that end is never in doubt.
fn chunk_size(line: &[u8]) -> Result<(u64, usize), &'static str> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    if digits == 0 || digits > 16 {
        return Err("invalid chunk size");
    }
    let blanks = line[digits..].iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    let extension = &line[digits + blanks..];
    // RFC 9110 §5.6.4: of the control characters only HTAB.
    let visible = |b: &u8| *b == b'\t' || (b' '..=b'~').contains(b) || *b >= 0x80;
    match extension.first() {
        None if blanks > 0 => return Err("blanks behind a chunk size"),
        Some(first) if *first != b';' || !extension.iter().all(visible) => return Err("invalid chunk extension"),
        _ => {}
    }
    let size = line[..digits]
        .iter()
        .fold(0_u64, |size, digit| size << 4 | u64::from(char::from(*digit).to_digit(16).unwrap_or_default()));
    Ok((size, extension.len()))
}

/// The trailer section up to its empty line (RFC 9112 §7.1.2). Syntax is that of the head: no folding (§5.2), no blank
/// before the colon (§5.1), no control characters.
fn take_trailers(received: &mut BytesMut) -> Result<Option<HeaderMap>, &'static str> {
    if received.starts_with(b"\r\n") {
        received.advance(2);
        return Ok(Some(HeaderMap::new()));
    }
    let mut fields = [httparse::EMPTY_HEADER; MOST_TRAILERS];
    let (length, trailers) = match httparse::parse_headers(received, &mut fields) {
        Ok(httparse::Status::Complete((length, fields))) => {
            let mut trailers = HeaderMap::with_capacity(fields.len());
            for field in fields {
                let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| "invalid trailer name")?;
                // RFC 9110 §6.5.1: framing, routing and authentication have no place behind the body.
                if may_trail(&name) {
                    let value = HeaderValue::from_bytes(field.value).map_err(|_| "invalid trailer value")?;
                    trailers.append(name, value);
                }
            }
            // The bound holds also when all of it arrives at once.
            if length > MOST_TRAILER_BYTES {
                return Err("trailers too large");
            }
            if has_bare_lf(&received[..length]) {
                return Err("bare LF in the trailers");
            }
            (length, trailers)
        }
        Ok(httparse::Status::Partial) if received.len() > MOST_TRAILER_BYTES => return Err("trailers too large"),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err("malformed trailers"),
    };
    received.advance(length);
    Ok(Some(trailers))
}

/// Fields that may stand in a trailer section. RFC 9110 §6.5.1: not those about framing, routing, request modifiers,
/// authentication, response control or how content is processed. Nor those that we write ourselves or that say who the
/// client is: backends that merge trailers into the head would believe them.
pub(super) fn may_trail(name: &HeaderName) -> bool {
    let word = name.as_str();
    class(word.as_bytes()) == Class::Ordinary
        && !matches!(
            word,
            "content-type"
                | "content-encoding"
                | "content-range"
                | "trailer"
                | "pragma"
                | "range"
                | "if-match"
                | "if-none-match"
                | "if-modified-since"
                | "if-unmodified-since"
                | "if-range"
                | "authorization"
                | "www-authenticate"
                | "cookie"
                | "set-cookie"
                | "age"
                | "cache-control"
                | "expires"
                | "date"
                | "location"
                | "retry-after"
                | "vary"
                | "warning"
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, Option<HeaderMap>, usize), &'static str> {
        let (mut decoder, mut received, mut body) = (ChunkDecoder::default(), BytesMut::new(), Vec::new());
        for piece in pieces {
            received.extend_from_slice(piece);
            loop {
                match decoder.decode(&mut received)? {
                    Decoded::NeedMore => break,
                    Decoded::Data(data) => body.extend_from_slice(&data),
                    Decoded::End(trailers) => return Ok((body, Some(trailers), received.len())),
                }
            }
        }
        Ok((body, None, received.len()))
    }

    #[test]
    fn a_body_with_extension_and_trailer() {
        let (body, trailers, left) =
            decode(&[b"4;x=\"y\"\r\nwiki\r\n00A\r\n0123456789\r\n0\r\nX-Sum: 9\r\nContent-Length: 3\r\n\r\nnext"])
                .unwrap();
        assert_eq!((body.as_slice(), left), (&b"wiki0123456789"[..], 4));
        let trailers = trailers.unwrap();
        assert_eq!((trailers.len(), &trailers["x-sum"]), (1, &HeaderValue::from_static("9")));
    }

    #[test]
    fn anything_else_is_refused() {
        for wrong in [
            &b"\r\n"[..],
            b"g\r\n",
            b"0x4\r\nwiki",
            b"+4\r\n",
            b"-4\r\n",
            b" 4\r\n",
            b"4_0\r\n",
            b"4\nwiki",
            b"4\r\rwiki\n",
            b"11111111111111111\r\n",
            b"4 x\r\n",
            b"4;a\x01\r\n",
            b"4\r\nwikiX\r\n",
            b"4\r\nwiki\n0\r\n",
            b"0\r\nBad Name: 1\r\n\r\n",
        ] {
            assert!(decode(&[wrong]).is_err(), "{:?}", String::from_utf8_lossy(wrong));
        }
        assert!(decode(&[&[b'1'; 2000][..]]).is_err());
        assert!(decode(&[b"4;", &[b'x'; 2000][..]]).is_err());
    }

    proptest! {
        #[test]
        fn the_pieces_it_arrives_in_do_not_matter(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len())).collect();
            at.push(wire.len());
            at.sort_unstable();
            let mut from = 0;
            let pieces: Vec<&[u8]> = at.iter().map(|to| { let piece = &wire[from..*to]; from = *to; piece }).collect();
            let (body, trailers, left) = decode(&pieces).unwrap();
            prop_assert_eq!(body, chunks.concat());
            prop_assert!(trailers.is_some() && left == 0);
        }
    }
}
