//! Mutations of probes: of a seed and a number, the same bytes on every machine and in every run.

use fastrand::Rng;

use crate::probes::corpus::{Probe, http11probe, ours};

/// What is put in: bytes that mean something to a reader of HTTP, or look as if they did.
const BYTES: &[u8] = b"\r\n\t \0:;,\"'\\/?#%=+-_.@*019afAFxX\x0b\x0c\x1b\x7f\x80\xa0\xff\xc3(){}[]<>|";

/// Ends of lines and what could be taken for one.
const LINE_ENDS: [&[u8]; 9] = [b"\n", b"\r", b"\n\r", b"\r\r\n", b"\r\n\r\n", b"\r\n ", b"\r\n\t", b" \r\n", b"\0\r\n"];

const FIELDS: [&str; 28] = [
    "Content-Length: 0",
    "Content-Length: 5",
    "content-length: 00005",
    "Content-Length: +5",
    "Content-Length: 5, 5",
    "Content-Length : 5",
    "Transfer-Encoding: chunked",
    "transfer-encoding: Chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding:\x0bchunked",
    "Transfer_Encoding: chunked",
    "Host: other.example",
    "Host: a, b",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: content-length, x-request-id",
    "Connection: x-request-id, via",
    "X-Request-Id: mine",
    "X_Request_Id: mine",
    "Expect: 100-continue",
    "Expect: x",
    "Upgrade: websocket",
    "Upgrade: h2c",
    "Trailer: X-Request-Id",
    "Max-Forwards: 0",
    "Keep-Alive: timeout=1",
    "TE: trailers",
];

const CHUNK_SIZES: [&str; 16] = [
    "0",
    "00",
    "5",
    "05",
    "0x5",
    "-1",
    "+5",
    "5 ",
    " 5",
    "5;a=b",
    "5;",
    "ffffffffffffffff",
    "10000000000000005",
    "A",
    "5\t",
    "1;\n",
];

/// Larger probes are mutated seldom: their size is what they are about, and bytes are what a run consists of.
const USUAL_SIZE: usize = 2048;

/// What mutations are made of.
pub(crate) struct Mutator {
    seed: u64,
    /// Those that are answered by the origin as they are.
    good: Vec<Vec<u8>>,
    all: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
}

impl Mutator {
    pub(crate) fn new(seed: u64) -> Self {
        let is_good = |probe: &Probe| probe.columns.len() > 2 && probe.columns[1].split(' ').all(|s| s == "200");
        let (good, other): (Vec<_>, Vec<_>) = ours().into_iter().chain(http11probe()).partition(is_good);
        let bytes = |probes: Vec<Probe>| probes.into_iter().map(|probe| probe.bytes).collect::<Vec<_>>();
        let (good, other) = (bytes(good), bytes(other));
        let (all, large) = good.iter().chain(&other).cloned().partition(|bytes| bytes.len() <= USUAL_SIZE);
        let good = good.into_iter().filter(|bytes| bytes.len() <= USUAL_SIZE).collect();
        Self { seed, good, all, large }
    }

    /// Mutation `number`.
    pub(crate) fn mutation(&self, number: u64) -> Vec<u8> {
        // An odd factor keeps the seeds of all numbers apart.
        let mut rng = Rng::with_seed(self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut mark = 0;
        let mut marked = |rng: &mut Rng, bytes: &[u8]| {
            mark += 1;
            with_mark(bytes, &format!("{number}-{mark}-{:08x}", rng.u32(..)))
        };
        let mut bytes = Vec::new();
        // Some are several requests one behind the other, all of them as they should be.
        for _ in 0..[1, 1, 1, 1, 2, 3][rng.usize(..6)] {
            let base = self.base(&mut rng);
            bytes.extend(marked(&mut rng, base));
        }
        for _ in 0..[0, 1, 1, 1, 1, 2, 2, 3, 5][rng.usize(..9)] {
            self.mutate(&mut rng, &mut bytes);
        }
        if rng.bool() {
            bytes.extend(marked(&mut rng, b"GET / HTTP/1.1\r\nHost: tail\r\n\r\n"));
        }
        bytes
    }

    fn base(&self, rng: &mut Rng) -> &[u8] {
        let probes = match rng.u32(..1000) {
            0 => &self.large,
            1..700 => &self.good,
            _ => &self.all,
        };
        &probes[rng.usize(..probes.len())]
    }

    fn mutate(&self, rng: &mut Rng, bytes: &mut Vec<u8>) {
        let (from, to) = stretch(rng, bytes.len());
        let byte = BYTES[rng.usize(..BYTES.len())];
        match rng.u32(..17) {
            0 => flip_bit(rng, bytes),
            1 => bytes[from] = byte,
            2 => bytes.insert(from, byte),
            3 => drop(bytes.drain(from..from + 1)),
            4 => drop(bytes.splice(from..from, bytes[from..to].to_vec())),
            5 => drop(bytes.drain(from..to)),
            6 => edit_lines(rng, bytes, |lines, at, _| lines.insert(at, lines[at].clone())),
            7 => edit_lines(rng, bytes, |lines, at, _| drop(lines.remove(at))),
            8 => edit_lines(rng, bytes, |lines, at, other| lines.swap(at, other)),
            9 | 10 => {
                let field = FIELDS[rng.usize(..FIELDS.len())].as_bytes().to_vec();
                // Behind the first line: before it there are no fields.
                edit_lines(rng, bytes, |lines, at, _| lines.insert(at.max(1), field.clone()));
            }
            11 => {
                let other = self.base(rng);
                let (start, _) = stretch(rng, other.len());
                bytes.truncate(from);
                bytes.extend_from_slice(&other[start..]);
            }
            12 => {
                let end = LINE_ENDS[rng.usize(..LINE_ENDS.len())];
                replace_one(rng, bytes, b"\r\n", end);
            }
            13 => replace_chunk_size(rng, bytes),
            14 => bytes[from..to].iter_mut().for_each(|b| {
                if b.is_ascii_alphabetic() {
                    *b ^= 0x20
                }
            }),
            15 => {
                let blank: &[u8] = [&b": "[..], b" :", b":\t", b":", b":  ", b": \t "][rng.usize(..6)];
                replace_one(rng, bytes, b": ", blank);
            }
            _ => replace_digit(rng, bytes),
        }
        if bytes.is_empty() {
            bytes.push(byte);
        }
    }
}

/// `bytes` with `mark` in their first target, where there is one.
fn with_mark(bytes: &[u8], mark: &str) -> Vec<u8> {
    match bytes.windows(3).position(|window| window == b" / ") {
        Some(at) => [&bytes[..at + 2], mark.as_bytes(), &bytes[at + 2..]].concat(),
        None => bytes.to_vec(),
    }
}

/// A part that is not empty, most often a short one.
fn stretch(rng: &mut Rng, length: usize) -> (usize, usize) {
    let from = rng.usize(..length);
    let most = if rng.u32(..4) == 0 { length } else { 12 };
    (from, (from + 1 + rng.usize(..most)).min(length))
}

fn flip_bit(rng: &mut Rng, bytes: &mut [u8]) {
    let at = rng.usize(..bytes.len());
    bytes[at] ^= 1 << rng.u32(..8);
}

/// Calls `edit` with the lines and the numbers of two of them.
fn edit_lines(rng: &mut Rng, bytes: &mut Vec<u8>, edit: impl FnOnce(&mut Vec<Vec<u8>>, usize, usize)) {
    let mut lines = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some(at) = rest.windows(2).position(|window| window == b"\r\n") {
        lines.push(rest[..at].to_vec());
        rest = &rest[at + 2..];
    }
    lines.push(rest.to_vec());
    let (one, other) = (rng.usize(..lines.len()), rng.usize(..lines.len()));
    edit(&mut lines, one, other);
    *bytes = lines.join(&b"\r\n"[..]);
}

fn replace_one(rng: &mut Rng, bytes: &mut Vec<u8>, what: &[u8], with: &[u8]) {
    let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(what)).collect();
    if !places.is_empty() {
        let at = places[rng.usize(..places.len())];
        bytes.splice(at..at + what.len(), with.iter().copied());
    }
}

/// Replaces a line that is a hexadecimal number.
fn replace_chunk_size(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let size = CHUNK_SIZES[rng.usize(..CHUNK_SIZES.len())].as_bytes().to_vec();
    edit_lines(rng, bytes, |lines, at, _| {
        let is_size = |line: &&mut Vec<u8>| !line.is_empty() && line.iter().all(u8::is_ascii_hexdigit);
        let count = lines.iter_mut().filter(is_size).count();
        if let Some(line) = lines.iter_mut().filter(is_size).nth(at % count.max(1)) {
            *line = size;
        }
    });
}

fn replace_digit(rng: &mut Rng, bytes: &mut [u8]) {
    let digits: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at].is_ascii_digit()).collect();
    if !digits.is_empty() {
        bytes[digits[rng.usize(..digits.len())]] = b"0123456789"[rng.usize(..10)];
    }
}

#[test]
fn a_number_always_gives_the_same_bytes_and_another_gives_others() {
    let (one, same, other) = (Mutator::new(7), Mutator::new(7), Mutator::new(8));
    let all = |mutator: &Mutator| (0..2000).map(|number| mutator.mutation(number)).collect::<Vec<_>>();
    assert_eq!(all(&one), all(&same));
    assert_ne!(all(&one), all(&other));
    let different: std::collections::HashSet<_> = all(&one).into_iter().collect();
    assert!(different.len() > 1990, "{} different of 2000", different.len());
}
