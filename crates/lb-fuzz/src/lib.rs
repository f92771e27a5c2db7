//! Fuzzing of our parsers as plain tests: a corpus in git is replayed, then mutated for a while, and whatever breaks an
//! assertion is put into the corpus, so that the next run begins with it.
//!
//! # Why not one of the known fuzzers
//! cargo-fuzz (libFuzzer) needs a nightly compiler and a C++ runtime; the test command has the stable one. bolero runs
//! on stable, but then its engine is a random generator without coverage and without mutations of the corpus, and it
//! (0.13.7, with this workspace's lock file) brings second versions of rand, rand_core, getrandom, winnow and
//! toml_datetime and holds indexmap back at an old one, which our rule against duplicates refuses. What is left to do
//! without instrumentation is small, and here once: mutations that know the words of a grammar, kept when the parser
//! *says* something new.
//!
//! # What takes the place of coverage
//! A target names what an input came to ([`Seen`]): the reason of a refusal, the kind of what was read. An input with a
//! name that no other had is kept and mutated further. Parsers that say precisely why they refuse show their branches
//! this way; a target that lumps them together finds less.
//!
//! # What it promises
//! * The corpus is replayed first, whatever the budget, 0 too.
//! * An input alone decides what its check does ([`seed_of`] for cuts and choices): a finding can be replayed.
//! * A check that does not end within `hang::LONGEST` is a finding too: its input is kept, the process ends.
//! * A target whose inputs are nearly all refused, or nearly all taken, fails: it tests nothing.
//!
//! # Variables
//! `LB_FUZZ_SECONDS`: of mutating for each target; `USUALLY` without it. `LB_FUZZ_SEED`: another run than the usual one, or one again. `LB_FUZZ_KEEP`:
//! when set, shortens what was found to be new and writes it into the corpus.

mod corpus;
mod hang;
mod mutate;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use corpus::Corpus;
use fastrand::Rng;
use hang::Watch;

/// For everybody's `cargo test`: enough to find what a change breaks plainly. `cargo xtask test` gives more.
const USUALLY: Duration = Duration::from_secs(2);

/// Without `LB_FUZZ_SEED`: a test command says the same of the same commit. Whoever looks for more gives another.
const SEED: u64 = 1;

/// Inputs kept in memory; beyond, a new one replaces an old one.
const MOST_KEPT: usize = 4096;

/// Inputs written into a corpus are no longer than this: a person should be able to read them.
const LONGEST_WRITTEN: usize = 4096;

/// Of all inputs, at least one in so many must be taken, and one in so many refused.
const AT_LEAST_ONE_IN: u64 = 200;

/// What an input came to, in names. Two inputs that a person would tell apart should have a different name, two that
/// differ only in their bytes the same.
#[derive(Debug)]
pub struct Seen {
    taken: bool,
    names: Vec<u64>,
}

impl Seen {
    /// It was read.
    pub fn taken() -> Self {
        Self { taken: true, names: Vec::new() }
    }

    /// It was refused.
    pub fn refused() -> Self {
        Self { taken: false, names: Vec::new() }
    }

    /// One more name.
    #[must_use]
    pub fn of(mut self, name: &impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        (self.taken, name).hash(&mut hasher);
        self.names.push(hasher.finish());
        self
    }
}

/// A target.
#[derive(Debug)]
pub struct Fuzz {
    corpus: Corpus,
    words: Vec<&'static [u8]>,
    seeds: Vec<Vec<u8>>,
    longest: usize,
    takes_all: bool,
}

impl Fuzz {
    /// The target `name`, whose corpus lies in `fuzz/NAME/` below `crate_dir` (`env!("CARGO_MANIFEST_DIR")`).
    pub fn new(crate_dir: &str, name: &str) -> Self {
        let corpus = Corpus::new(crate_dir, name);
        Self { corpus, words: Vec::new(), seeds: Vec::new(), longest: 16 * 1024, takes_all: false }
    }

    /// What the grammar is made of.
    #[must_use]
    pub fn words(mut self, words: &[&'static [u8]]) -> Self {
        self.words.extend_from_slice(words);
        self
    }

    /// Inputs to begin with, besides the files.
    #[must_use]
    pub fn seeds<'a>(mut self, seeds: impl IntoIterator<Item = &'a [u8]>) -> Self {
        self.seeds.extend(seeds.into_iter().map(<[u8]>::to_vec));
        self
    }

    /// Bytes of an input at most; 16 KiB unless said.
    #[must_use]
    pub fn longest(mut self, longest: usize) -> Self {
        self.longest = longest;
        self
    }

    /// Nothing can be refused: what is tested is writing.
    #[must_use]
    pub fn takes_all(mut self) -> Self {
        self.takes_all = true;
        self
    }

    /// So many changed inputs, without checking anything: for what is fed in another way. The same for the same `seed`.
    ///
    /// # Panics
    /// When there is no corpus.
    pub fn mutants(&self, seed: u64, count: usize) -> Vec<Vec<u8>> {
        let kept = self.inputs();
        let mut rng = Rng::with_seed(seed);
        (0..count).map(|_| self.mutant(&mut rng, &kept)).collect()
    }

    fn mutant(&self, rng: &mut Rng, kept: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = kept[rng.usize(..kept.len())].clone();
        // Mostly one change: what was read before it is mostly still read behind it.
        for _ in 0..=rng.u8(..).trailing_zeros().min(4) {
            mutate::once(rng, &mut bytes, &self.words, kept);
        }
        bytes.truncate(self.longest);
        bytes
    }

    fn inputs(&self) -> Vec<Vec<u8>> {
        let mut inputs = self.corpus.read();
        inputs.extend(self.seeds.iter().cloned());
        assert!(!inputs.is_empty(), "no corpus at {}", self.corpus.dir().display());
        inputs
    }

    /// Replays the corpus, then mutates it until the time is up. `check` panics when a promise is broken.
    ///
    /// # Panics
    /// When `check` does; when there is no corpus, a variable is no number, or the inputs test nothing.
    pub fn run(self, mut check: impl FnMut(&[u8]) -> Seen) {
        let budget = number("LB_FUZZ_SECONDS").map_or(USUALLY, Duration::from_secs);
        let seed = number("LB_FUZZ_SEED").unwrap_or(SEED);
        let keeps = std::env::var_os("LB_FUZZ_KEEP").is_some();
        println!("{}: seed {seed}", self.corpus.name());
        let mut kept = self.inputs();
        let watch = Watch::start(self.corpus.clone());
        let mut tried = |bytes: &[u8]| {
            watch.begins(bytes);
            let trial = Trial { corpus: &self.corpus, bytes };
            let seen = check(bytes);
            drop(trial);
            watch.ended();
            seen
        };
        let mut known: HashSet<u64> = HashSet::new();
        for bytes in &kept {
            known.extend(tried(bytes).names);
        }
        let (replayed, before) = (kept.len(), known.len());
        let mut rng = Rng::with_seed(seed);
        let (mut runs, mut taken, mut news, started) = (0_u64, 0_u64, Vec::new(), Instant::now());
        while started.elapsed() < budget {
            let bytes = self.mutant(&mut rng, &kept);
            let seen = tried(&bytes);
            runs += 1;
            taken += u64::from(seen.taken);
            // Not `any`: all names must become known.
            if seen.names.iter().filter(|name| known.insert(**name)).count() > 0 {
                news.push(bytes.clone());
                if kept.len() < MOST_KEPT {
                    kept.push(bytes);
                } else {
                    let old = rng.usize(replayed..MOST_KEPT);
                    kept[old] = bytes;
                }
            }
        }
        println!("{replayed} replayed, {runs} more, {taken} taken, {before} names at first, {} now", known.len());
        if keeps {
            let corpus = kept.into_iter().take(replayed).map(|bytes| tried(&bytes).names);
            self.write_new(corpus.flatten().collect(), news, &mut tried);
        }
        let refused = runs - taken;
        if runs > 1000 && !self.takes_all {
            assert!(taken * AT_LEAST_ONE_IN > runs, "only {taken} of {runs} inputs were taken");
            assert!(refused * AT_LEAST_ONE_IN > runs, "only {refused} of {runs} inputs were refused");
        }
    }

    /// Writes, of what was found, what still has a name that no shorter one has, as short as it can be had.
    fn write_new(&self, mut known: HashSet<u64>, mut news: Vec<Vec<u8>>, tried: &mut impl FnMut(&[u8]) -> Seen) {
        news.sort_by_key(Vec::len);
        for bytes in news.iter().filter(|bytes| bytes.len() <= LONGEST_WRITTEN) {
            let wanted: Vec<u64> = tried(bytes).names.into_iter().filter(|name| !known.contains(name)).collect();
            if wanted.is_empty() {
                continue;
            }
            let short = mutate::shorten(bytes, |shorter| {
                let names = tried(shorter).names;
                wanted.iter().all(|name| names.contains(name))
            });
            self.corpus.write("found", &short);
            known.extend(tried(&short).names);
        }
    }
}

/// Keeps the input when its check breaks.
struct Trial<'a> {
    corpus: &'a Corpus,
    bytes: &'a [u8],
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.corpus.keep("broke", self.bytes);
        }
    }
}

/// A number that these bytes always give: for choices that a check makes besides them.
pub fn seed_of(bytes: &[u8]) -> u64 {
    // FNV-1a. The standard library's hasher may change with the compiler, and file names with it.
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Places to cut `bytes` at, in any order: mostly a few, and everywhere in some short inputs.
pub fn cuts_of(bytes: &[u8]) -> Vec<usize> {
    let mut rng = Rng::with_seed(seed_of(bytes));
    if bytes.len() < 300 && rng.u8(..16) == 0 {
        (0..bytes.len()).collect()
    } else {
        (0..rng.usize(..5)).map(|_| rng.usize(..=bytes.len())).collect()
    }
}

/// `bytes` in the pieces that [`cuts_of`] makes of them; some may be empty.
pub fn pieces_of(bytes: &[u8]) -> Vec<&[u8]> {
    let mut cuts = cuts_of(bytes);
    cuts.push(bytes.len());
    cuts.sort_unstable();
    let mut from = 0;
    cuts.into_iter().map(|to| &bytes[std::mem::replace(&mut from, to)..to]).collect()
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[cfg(test)]
mod tests;
