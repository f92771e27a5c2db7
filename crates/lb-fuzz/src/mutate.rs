//! One small change of an input, and the opposite: as little of one as still does the same.

use fastrand::Rng;

/// Where numbers break.
const NUMBERS: &[&str] = &[
    "0",
    "00",
    "1",
    "-1",
    "+1",
    "7",
    "99",
    "100",
    "199",
    "200",
    "255",
    "256",
    "599",
    "600",
    "1024",
    "65535",
    "65536",
    "86400",
    "86401",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e9",
    "0.1",
    "1.5",
    "0x10",
    "1_000",
    "inf",
    "nan",
];

/// Changes `bytes` in one place. `others` is what may be crossed with it; not empty.
pub(crate) fn once(rng: &mut Rng, bytes: &mut Vec<u8>, words: &[&[u8]], others: &[Vec<u8>]) {
    let at = rng.usize(..=bytes.len());
    let to = (at + rng.usize(..16)).min(bytes.len());
    match rng.u8(..12) {
        0 if at < bytes.len() => bytes[at] = rng.u8(..),
        1 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
        2 => bytes.insert(at, rng.u8(..)),
        3 => drop(bytes.drain(at..to)),
        4 if rng.u8(..4) == 0 => bytes.truncate(at),
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
        7 => number(rng, bytes, at),
        8 => {
            // A line from elsewhere, in front of the line that begins at or after `at`.
            let other = &others[rng.usize(..others.len())];
            let lines: Vec<&[u8]> = other.split_inclusive(|byte| *byte == b'\n').collect();
            if !lines.is_empty() {
                let start = bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| at + end + 1);
                bytes.splice(start..start, lines[rng.usize(..lines.len())].iter().copied());
            }
        }
        _ if !words.is_empty() => {
            let word = words[rng.usize(..words.len())];
            let until = if rng.bool() { at } else { (at + word.len()).min(bytes.len()) };
            bytes.splice(at..until, word.iter().copied());
        }
        _ => bytes.insert(at, rng.u8(b' '..0x7f)),
    }
}

/// Puts another number in the place of the next one.
fn number(rng: &mut Rng, bytes: &mut Vec<u8>, at: usize) {
    let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit).map(|digits| at + digits) else { return };
    let end = bytes[start..].iter().position(|byte| !byte.is_ascii_digit()).map_or(bytes.len(), |end| start + end);
    bytes.splice(start..end, NUMBERS[rng.usize(..NUMBERS.len())].bytes());
}

/// `bytes` without what it can do without: pieces of halving size are left out as long as it `still_does` the same.
pub(crate) fn shorten(bytes: &[u8], mut still_does: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let mut short = bytes.to_vec();
    let mut size = short.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < short.len() {
            let mut without = short.clone();
            without.drain(at..(at + size).min(short.len()));
            if still_does(&without) {
                short = without;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    short
}
