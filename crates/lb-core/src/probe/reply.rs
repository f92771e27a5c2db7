//! The answer to a request of our own, read strictly and in bounded memory: a head (RFC 9112 §4), then a body framed by
//! §6.3. Bytes go in as they come, the status and pieces of the body come out; no I/O and no clock.
//!
//! It takes what the proxy would take from a backend and refuses what that refuses: a check must not pass where
//! requests would fail. It keeps no more than `MOST_HEAD` bytes, however much is sent to it.

use crate::api::ReasonCode;
use crate::health::Failure;

use super::chunks::{Chunks, Found};

/// All heads of an answer together, interim ones too. A check's answer needs some hundred bytes.
const MOST_HEAD: usize = 16 * 1024;

/// More fields than this are refused; hyper's bound, as for proxied responses.
const MOST_FIELDS: usize = 100;

/// Interim responses before the final one, as for proxied responses.
const MOST_INTERIM: u32 = 8;

/// A longer body is refused: it is no answer to a check, and may never end.
pub(super) const MOST_BODY: u64 = 1 << 20;

/// Who looks at what comes out.
pub trait Judge {
    /// The status of the final response.
    ///
    /// # Errors
    /// It is not good enough; nothing more is read.
    fn status(&mut self, status: u16) -> Result<(), Failure>;

    /// The next piece of its body.
    ///
    /// # Errors
    /// It is not good enough; nothing more is read.
    fn body(&mut self, piece: &[u8]) -> Result<(), Failure>;
}

/// An answer under way.
#[derive(Debug)]
pub struct Reply {
    /// RFC 9112 §6.3: the answer to HEAD has no body, whatever its fields say.
    to_head: bool,
    head: Vec<u8>,
    /// Bytes of heads that are done with.
    interim: usize,
    /// How many of them were interim ones.
    interims: u32,
    state: State,
    body: u64,
    keep_alive: bool,
}

#[derive(Debug)]
enum State {
    Head,
    Length(u64),
    Chunked(Chunks),
    /// To the close of the connection.
    Close,
    Through,
}

/// How far an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    More,
    /// It is complete. `reusable`: another request may follow on the connection.
    Done {
        reusable: bool,
    },
}

impl Reply {
    /// An answer of which nothing has come, to a request whose method was HEAD if `to_head`.
    pub fn new(to_head: bool) -> Self {
        Self { to_head, head: Vec::new(), interim: 0, interims: 0, state: State::Head, body: 0, keep_alive: false }
    }

    /// Whether a byte of it has come.
    pub fn has_begun(&self) -> bool {
        self.interim > 0 || !self.head.is_empty() || !matches!(self.state, State::Head)
    }

    /// Takes in what came.
    ///
    /// # Errors
    /// It is not HTTP, does not end, or the judge does not like it.
    pub fn feed(&mut self, mut bytes: &[u8], judge: &mut impl Judge) -> Result<Progress, Failure> {
        while matches!(self.state, State::Head) {
            let Some(rest) = self.feed_head(bytes, judge)? else { return Ok(Progress::More) };
            bytes = rest;
        }
        self.feed_body(&mut bytes, judge)?;
        match self.state {
            // RFC 9112 §6.3: what comes behind an answer belongs to none.
            State::Through => Ok(Progress::Done { reusable: self.keep_alive && bytes.is_empty() }),
            _ => Ok(Progress::More),
        }
    }

    /// The other side has ended the connection.
    ///
    /// # Errors
    /// That was too early.
    pub fn end(&self) -> Result<Progress, Failure> {
        match &self.state {
            State::Through | State::Close => Ok(Progress::Done { reusable: false }),
            State::Head if !self.has_begun() => Err(closed("closed without an answer")),
            _ => Err(closed(&format!("closed {}", self.place()))),
        }
    }

    /// Where it stands, in words.
    pub fn place(&self) -> String {
        match &self.state {
            State::Head if !self.has_begun() => "before a byte of an answer".to_owned(),
            State::Head => format!("after {} bytes of the answer's head", self.interim + self.head.len()),
            State::Length(left) => format!("after {} of {} bytes of the body", self.body, self.body + left),
            _ => format!("after {} bytes of the body", self.body),
        }
    }

    /// Collects a head, and returns what is behind it once it is whole.
    fn feed_head<'a>(&mut self, bytes: &'a [u8], judge: &mut impl Judge) -> Result<Option<&'a [u8]>, Failure> {
        let before = self.head.len();
        self.head.extend_from_slice(bytes.get(..MOST_HEAD + 1 - self.interim - before).unwrap_or(bytes));
        refuse_early(&self.head)?;
        // The last bytes may complete an end that began in the piece before: looked at once more.
        let from = before.saturating_sub(3);
        let end = self.head[from..].windows(4).position(|window| window == b"\r\n\r\n").map(|at| from + at + 4);
        let Some(end) = end else {
            if has_bare_lf(&self.head[from..]) {
                return Err(bad("bare LF in the head"));
            }
            if self.interim + self.head.len() > MOST_HEAD {
                return Err(failure(
                    ReasonCode::TooLong,
                    format!("the answer's head is longer than {MOST_HEAD} bytes"),
                ));
            }
            return Ok(None);
        };
        let head: Vec<u8> = self.head.drain(..end).collect();
        self.head.clear();
        self.interim += head.len();
        let rest = bytes.get(end - before..).unwrap_or_default();
        let Some((status, framing)) = self.judge_head(&head)? else { return Ok(Some(rest)) };
        judge.status(status)?;
        self.state = match framing {
            State::Length(0) => State::Through,
            State::Length(length) if length > MOST_BODY => return Err(too_long()),
            framing => framing,
        };
        Ok(Some(rest))
    }

    /// Reads a whole head. `None` for an interim response, behind which another follows.
    fn judge_head(&mut self, head: &[u8]) -> Result<Option<(u16, State)>, Failure> {
        let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        match response.parse(head) {
            Ok(httparse::Status::Complete(length)) if length == head.len() && !has_bare_lf(head) => {}
            // Bytes behind an end with bare LF, or such an end inside.
            Ok(_) => return Err(bad("bare LF in the head")),
            Err(httparse::Error::TooManyHeaders) => return Err(bad("too many fields")),
            Err(error) => return Err(bad(&error.to_string())),
        }
        let status = response.code.unwrap_or_default();
        match status {
            // RFC 9110 §15.2.2: nobody offered to switch.
            101 => return Err(bad("101, which was not asked for")),
            100..=199 if self.interims == MOST_INTERIM => return Err(bad("too many interim responses")),
            100..=199 => {
                self.interims += 1;
                return Ok(None);
            }
            200..=599 => {}
            _ => return Err(bad(&format!("status {status} does not exist"))),
        }
        let framing = self.framing(status, response.version == Some(0), response.headers)?;
        Ok(Some((status, framing)))
    }

    /// RFC 9112 §6.3, in its order.
    fn framing(&mut self, status: u16, old: bool, fields: &[httparse::Header<'_>]) -> Result<State, Failure> {
        let all = |name: &'static str| {
            fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
        };
        self.keep_alive = !old && !all("connection").any(|value| has_token(value, "close"));
        let mut lengths = all("content-length").map(length);
        let length = lengths.next().transpose()?;
        if lengths.next().is_some() {
            return Err(bad("more than one length"));
        }
        let mut codings = all("transfer-encoding");
        let chunked = match (codings.next(), codings.next()) {
            (None, _) => false,
            _ if length.is_some() || old => return Err(bad("Transfer-Encoding where it must not be")),
            (Some(only), None) if only.trim_ascii().eq_ignore_ascii_case(b"chunked") => true,
            _ => return Err(bad("a transfer coding that was not asked for")),
        };
        if self.to_head || status == 204 || status == 304 {
            return Ok(State::Through);
        }
        if chunked {
            return Ok(State::Chunked(Chunks::default()));
        }
        Ok(length.map_or(State::Close, State::Length))
    }

    fn feed_body(&mut self, bytes: &mut &[u8], judge: &mut impl Judge) -> Result<(), Failure> {
        loop {
            let piece = match &mut self.state {
                State::Head | State::Through => return Ok(()),
                State::Close => std::mem::take(bytes),
                State::Length(left) => {
                    let now = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    let (piece, rest) = bytes.split_at(now);
                    (*bytes, *left) = (rest, *left - now as u64);
                    if *left == 0 {
                        self.state = State::Through;
                    }
                    piece
                }
                State::Chunked(chunks) => match chunks.next(bytes).map_err(bad)? {
                    Found::Data(piece) => piece,
                    Found::More => return Ok(()),
                    Found::End => {
                        self.state = State::Through;
                        return Ok(());
                    }
                },
            };
            if piece.is_empty() {
                return Ok(());
            }
            self.body += piece.len() as u64;
            if self.body > MOST_BODY {
                return Err(too_long());
            }
            judge.body(piece)?;
        }
    }
}

/// What can be told from the first bytes already is not waited for.
fn refuse_early(head: &[u8]) -> Result<(), Failure> {
    const BEGINNING: &[u8] = b"HTTP/1.";
    match head {
        // A TLS record: an alert, or a handshake (RFC 8446 §5.1).
        [0x15 | 0x16, 3, ..] => {
            let words = "the answer is TLS; checks and requests are sent in plain HTTP".to_owned();
            Err(failure(ReasonCode::TlsResponse, words))
        }
        [0x15 | 0x16] => Ok(()),
        _ if head.iter().zip(BEGINNING).all(|(byte, expected)| byte == expected) => Ok(()),
        _ => {
            let begins = &head[..head.len().min(16)];
            Err(Failure { seen: format!(", \"{}\"", begins.escape_ascii()), ..bad("it does not begin as such") })
        }
    }
}

/// The first byte of a head is an `H`, so pairs suffice.
fn has_bare_lf(head: &[u8]) -> bool {
    head.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r')
}

fn has_token(value: &[u8], token: &str) -> bool {
    value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// RFC 9110 §8.6: digits only. What is too long for a file is, as for proxied responses, for anything.
fn length(value: &[u8]) -> Result<u64, Failure> {
    let text = std::str::from_utf8(value.trim_ascii()).ok().filter(|text| !text.is_empty());
    let digits = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|text| text.parse().ok()).filter(|length| i64::try_from(*length).is_ok());
    number.ok_or_else(|| bad("a length that is no number"))
}

pub(super) fn failure(code: ReasonCode, words: String) -> Failure {
    Failure::new(code, words)
}

fn bad(words: &str) -> Failure {
    failure(ReasonCode::BadResponse, format!("the answer is not valid HTTP: {words}"))
}

fn closed(words: &str) -> Failure {
    failure(ReasonCode::Closed, words.to_owned())
}

fn too_long() -> Failure {
    let words = format!("the answer's body is longer than {} KiB; a check needs a short one", MOST_BODY >> 10);
    failure(ReasonCode::TooLong, words)
}

#[cfg(test)]
#[path = "reply_fuzz.rs"]
mod fuzz;
#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
