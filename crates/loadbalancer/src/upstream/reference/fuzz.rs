//! The codec fed with anything: no panic, nothing held back beyond its bound, the same verdict whatever the pieces, and
//! never a message that hyper does not understand the same way.
//!
//! A mutating fuzzer over the corpus that keeps what makes the codec say something new. Runs for [`USUALLY`] in the test
//! command; `LB_FUZZ_SECONDS=36000 cargo nextest run --release -p loadbalancer fuzz --no-capture` runs it for hours, and
//! `LB_FUZZ_SEED` repeats a run. A finding prints its input: it belongs into `corpus.rs`.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use fastrand::Rng;
use http::Method;

use super::corpus::{NO_BODY, NO_HEAD, VALID};
use super::{Verdict, check_response};

const USUALLY: Duration = Duration::from_secs(20);

/// Inputs kept; beyond, a new one replaces an old one.
const MOST_KEPT: usize = 4096;

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

/// Says which input it was when the check of it fails.
struct Trial<'a>(&'a [u8], &'a [usize], &'a Method);

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (start, end) = self.0.split_at(self.0.len().min(4000));
            eprintln!("{} cut at {:?} broke on\nb\"{}\" and {} more", self.2, self.1, start.escape_ascii(), end.len());
        }
    }
}

fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
    let at = rng.usize(..=bytes.len());
    let to = (at + rng.usize(..16)).min(bytes.len());
    match rng.u8(..9) {
        0 if at < bytes.len() => bytes[at] = rng.u8(..),
        1 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
        2 => bytes.insert(at, rng.u8(..)),
        3 => drop(bytes.drain(at..to)),
        4 => bytes.truncate(at),
        5 => {
            let slice = bytes[at..to].to_vec();
            let times = if rng.u8(..64) == 0 { rng.usize(..8192) } else { rng.usize(..4) };
            bytes.splice(at..at, slice.repeat(times));
        }
        6 => {
            let other = &others[rng.usize(..others.len())];
            let from = rng.usize(..=other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => {
            let word = WORDS[rng.usize(..WORDS.len())];
            let until = if rng.bool() { at } else { (at + word.len()).min(bytes.len()) };
            bytes.splice(at..until, word.iter().copied());
        }
    }
    bytes.truncate(300_000);
}

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
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let budget = number("LB_FUZZ_SECONDS").map_or(USUALLY, Duration::from_secs);
    let seed = number("LB_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let broken = NO_HEAD.iter().chain(NO_BODY).map(|(bytes, _)| *bytes);
    let mut kept: Vec<Vec<u8>> = VALID.iter().copied().chain(broken).map(<[u8]>::to_vec).collect();
    let mut seen = HashSet::new();
    let (mut runs, mut whole, started) = (0_u64, 0_u64, Instant::now());
    while started.elapsed() < budget {
        let mut bytes = kept[rng.usize(..kept.len())].clone();
        for _ in 0..=rng.u8(..4) {
            mutate(&mut rng, &mut bytes, &kept);
        }
        let method = if rng.u8(..8) == 0 { Method::HEAD } else { Method::GET };
        // Cut everywhere, if it is short enough for that.
        let cuts: Vec<usize> = if bytes.len() < 300 && rng.u8(..16) == 0 {
            (0..bytes.len()).collect()
        } else {
            (0..rng.usize(..5)).map(|_| rng.usize(..=bytes.len())).collect()
        };
        let trial = Trial(&bytes, &cuts, &method);
        let verdict = check_response(&bytes, &cuts, &method);
        drop(trial);
        runs += 1;
        whole += u64::from(matches!(verdict, Verdict::Whole(..)));
        if seen.insert(kind(&verdict)) && bytes.len() < 20_000 {
            if kept.len() < MOST_KEPT {
                kept.push(bytes);
            } else {
                let old = rng.usize(..kept.len());
                kept[old] = bytes;
            }
        }
    }
    println!("{runs} inputs, {whole} of them whole messages, {} kinds of verdict", seen.len());
    // A fuzzer whose inputs are all refused at the first byte tests nothing.
    assert!(whole * 20 > runs && whole < runs, "{whole} of {runs} inputs were messages");
}
