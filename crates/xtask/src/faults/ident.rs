//! What makes a request and its answer one of a kind: an id, bytes that follow from it, and a hash of bytes.
//!
//! An answer's body follows from the id of its request, so an answer that belongs to another request is seen to, even
//! when its length is right.

use std::fmt;

/// One request of one run, written as a UUID is: the run's number and the request's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id {
    pub(super) run: u64,
    pub(super) number: u64,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (run, number) = (self.run, self.number);
        let (high, low) = (run >> 32, (run >> 16) & 0xffff);
        write!(f, "{high:08x}-{low:04x}-{:04x}-{:04x}-{:012x}", run & 0xffff, number >> 48, number & 0xffff_ffff_ffff)
    }
}

impl Id {
    /// As it was written; `None` if anything is different.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let groups: Vec<&str> = text.split('-').collect();
        let lengths = [8, 4, 4, 4, 12];
        if groups.len() != lengths.len() || groups.iter().zip(lengths).any(|(group, length)| group.len() != length) {
            return None;
        }
        let group = |at: usize| u64::from_str_radix(groups[at], 16).ok();
        let run = group(0)? << 32 | group(1)? << 16 | group(2)?;
        Some(Self { run, number: group(3)? << 48 | group(4)? })
    }
}

/// A generator of numbers that look random and are the same for the same seed (SplitMix64: Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Below `bound`, which is above 0. The bias is below 2⁻³² for the bounds here.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Which of a request's two bodies.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Request,
    Response,
}

/// Appends the `length` bytes that belong to this id and side.
pub(super) fn fill(out: &mut Vec<u8>, id: Id, side: Side, length: usize) {
    let mut numbers = Numbers::new(id.run ^ mix(id.number) ^ side as u64);
    let end = out.len() + length;
    out.reserve(length + 8);
    while out.len() < end {
        // Letters, so that a dump can be read.
        let letters = numbers.next().to_le_bytes().map(|byte| b'a' + byte % 16);
        out.extend_from_slice(&letters);
    }
    out.truncate(end);
}

/// A hash against accidents, not against an adversary: eight bytes at a time, and the length.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut state = mix(bytes.len() as u64 + 1);
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let word = u64::from_le_bytes(word.try_into().expect("chunks of eight bytes are eight bytes"));
        state = (state ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25).rotate_left(29);
    }
    for byte in words.remainder() {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x9fb2_1c65_1e98_df25).rotate_left(29);
    }
    mix(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written() {
        for id in [Id { run: 0, number: 0 }, Id { run: u64::MAX, number: u64::MAX }, Id { run: 1 << 40, number: 77 }] {
            let text = id.to_string();
            assert_eq!((text.len(), Id::parse(&text)), (36, Some(id)), "{text}");
        }
        for wrong in ["", "00000000-0000-0000-0000-00000000000", "g0000000-0000-0000-0000-000000000000"] {
            assert_eq!(Id::parse(wrong), None);
        }
    }

    #[test]
    fn every_request_has_bytes_of_its_own() {
        let hash_of = |number, side, length| {
            let mut bytes = Vec::new();
            fill(&mut bytes, Id { run: 7, number }, side, length);
            hash(&bytes)
        };
        let mut seen = std::collections::HashSet::new();
        for number in 0..1000 {
            assert!(seen.insert(hash_of(number, Side::Response, 20)));
            assert!(seen.insert(hash_of(number, Side::Request, 20)));
        }
        assert_eq!(hash_of(1, Side::Request, 20), hash_of(1, Side::Request, 20));
    }

    #[test]
    fn any_change_changes_the_hash() {
        let bytes = vec![b'x'; 19];
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_ne!(hash(&changed), hash(&bytes), "{at}");
        }
        assert_ne!(hash(&bytes[..18]), hash(&bytes));
        assert_ne!(hash(b""), hash(b"\0"));
    }
}
