//! That it finds what is there to be found, and keeps it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

/// A directory that vanishes with it, with one seed in it.
struct Place(std::path::PathBuf);

impl Place {
    fn new(name: &str, seed: &[u8]) -> Self {
        let dir = std::env::temp_dir().join(format!("lb-fuzz-{}-{name}", std::process::id()));
        std::fs::create_dir_all(dir.join("fuzz/x")).unwrap();
        std::fs::write(dir.join("fuzz/x/seed"), seed).unwrap();
        Self(dir)
    }

    fn fuzz(&self) -> Fuzz {
        Fuzz::new(self.0.to_str().unwrap(), "x")
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.join("fuzz/x")).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A parser with a fault that only three words in a row reach, and that says how far it came.
fn faulty(bytes: &[u8]) -> Seen {
    let reached = [&b"one"[..], b"two", b"three"].iter().take_while(|word| contains(bytes, word)).count();
    assert!(reached < 3, "reached");
    if reached > 0 { Seen::taken().of(&reached) } else { Seen::refused().of(&bytes.is_empty()) }
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

#[test]
fn a_fault_behind_words_is_found_and_its_input_is_kept_and_replayed() {
    let place = Place::new("fault", b"one");
    let fuzz = || place.fuzz().words(&[b"one", b"two", b"three"]);
    let found = || catch_unwind(AssertUnwindSafe(|| fuzz().run(faulty))).is_err();
    // Usually within milliseconds; another run goes on where none was found.
    assert!((0..10).any(|_| found()), "nothing was found");
    let files = place.files();
    assert!(files.len() == 2 && files[0].starts_with("broke-"), "{files:?}");
    let mut first = None;
    let replayed = catch_unwind(AssertUnwindSafe(|| {
        fuzz().run(|bytes| {
            first.get_or_insert_with(|| bytes.to_vec());
            faulty(bytes)
        });
    }));
    let kept = std::fs::read(place.0.join("fuzz/x").join(&files[0])).unwrap();
    assert!(replayed.is_err() && first == Some(kept), "what broke comes first");
}

#[test]
fn a_target_that_refuses_everything_fails() {
    let place = Place::new("vacuous", b"one");
    let ran = catch_unwind(AssertUnwindSafe(|| place.fuzz().run(|_| Seen::refused().of(&0))));
    assert!(ran.is_err());
}

#[test]
fn what_is_shortened_still_does_the_same() {
    let long = [&[b'x'; 777][..], b"one", &[b'y'; 500], b"two", &[b'z'; 99]].concat();
    let does = |bytes: &[u8]| contains(bytes, b"one") && contains(bytes, b"two");
    assert_eq!(mutate::shorten(&long, does), b"onetwo");
}

#[test]
fn pieces_are_the_whole() {
    for length in 0..400 {
        let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
        assert_eq!(pieces_of(&bytes).concat(), bytes);
        assert_eq!(pieces_of(&bytes), pieces_of(&bytes), "the same each time");
    }
}

#[test]
fn every_mutation_stays_within_bounds() {
    let mut rng = Rng::with_seed(1);
    let others = [Vec::new(), b"a\nb\n12".to_vec()];
    for round in 0..200_000 {
        let mut bytes = if round % 3 == 0 { Vec::new() } else { others[round % 2].clone() };
        mutate::once(&mut rng, &mut bytes, if round % 2 == 0 { &[] } else { &[b"word"] }, &others);
        assert!(bytes.len() < 200_000);
    }
}
