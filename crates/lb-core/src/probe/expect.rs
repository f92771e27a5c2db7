//! What is expected of a check's answer: its status, and a text near the beginning of its body.

use crate::api::ReasonCode;
use crate::check::HttpCheck;
use crate::health::Failure;

use super::reply::{Judge, failure};

/// A text must appear within so many bytes of a body: a page of status stands there in whole, and the search is cheap.
const TEXT_WITHIN: usize = 64 * 1024;

/// So much of a wrong body is shown, for a person to see what it is.
const SHOWN: usize = 40;

/// What one answer has shown so far.
#[derive(Debug)]
pub(super) struct Expectation<'a> {
    check: &'a HttpCheck,
    pub status: Option<u16>,
    found: bool,
    /// Of the body, so many bytes have been searched.
    searched: usize,
    /// The end of what was searched, in which the text may have begun.
    tail: Vec<u8>,
    beginning: Vec<u8>,
}

impl<'a> Expectation<'a> {
    pub(super) fn new(check: &'a HttpCheck) -> Self {
        let found = check.text.is_none();
        Self { check, status: None, found, searched: 0, tail: Vec::new(), beginning: Vec::new() }
    }

    /// The answer is complete.
    pub(super) fn judge(&self) -> Result<(), Failure> {
        let Some(text) = self.check.text.as_ref().filter(|_| !self.found) else { return Ok(()) };
        let place = match self.searched {
            TEXT_WITHIN.. => format!("in the first {} KiB of the body", TEXT_WITHIN >> 10),
            _ => "in the body".to_owned(),
        };
        let seen = match self.beginning.is_empty() {
            true => ", which is empty".to_owned(),
            false => format!(", which begins with \"{}\"", self.beginning.escape_ascii()),
        };
        Err(Failure { seen, ..failure(ReasonCode::WrongBody, format!("{text:?} is not {place}")) })
    }
}

impl Judge for Expectation<'_> {
    fn status(&mut self, status: u16) -> Result<(), Failure> {
        self.status = Some(status);
        if self.check.statuses.contains(status) {
            return Ok(());
        }
        let words = format!("status {status} instead of {}", self.check.statuses);
        Err(failure(ReasonCode::WrongStatus, words))
    }

    fn body(&mut self, piece: &[u8]) -> Result<(), Failure> {
        let Some(text) = self.check.text.as_ref().filter(|_| !self.found) else { return Ok(()) };
        let room = SHOWN - self.beginning.len();
        self.beginning.extend_from_slice(&piece[..piece.len().min(room)]);
        let piece = &piece[..piece.len().min(TEXT_WITHIN - self.searched)];
        self.searched += piece.len();
        self.tail.extend_from_slice(piece);
        self.found = self.tail.windows(text.len()).any(|window| window == text.as_bytes());
        let keep = (text.len() - 1).min(self.tail.len());
        self.tail.drain(..self.tail.len() - keep);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::check::CheckMethod;

    fn check(text: &str) -> HttpCheck {
        HttpCheck {
            method: CheckMethod::Get,
            target: "/".to_owned(),
            host: None,
            statuses: "200-299".parse().unwrap(),
            text: Some(text.to_owned()),
        }
    }

    fn found(text: &str, pieces: &[&[u8]]) -> Result<(), String> {
        let check = check(text);
        let mut expectation = Expectation::new(&check);
        pieces.iter().for_each(|piece| expectation.body(piece).unwrap());
        expectation.judge().map_err(|failure| failure.in_full())
    }

    #[test]
    fn a_wrong_body_is_shown() {
        let words = found("ok", &[b"<html>\n", &[b'x'; 1000]]).unwrap_err();
        assert!(words.starts_with("\"ok\" is not in the body, which begins with \"<html>\\nxxx"), "{words}");
        assert!(words.len() < 120);
        assert_eq!(found("ok", &[]).unwrap_err(), "\"ok\" is not in the body, which is empty");
        let check = check("ok");
        let mut expectation = Expectation::new(&check);
        expectation.body(b"a secret").unwrap();
        assert_eq!(expectation.judge().unwrap_err().words, "\"ok\" is not in the body", "no word of it for clients");
    }

    #[test]
    fn a_text_behind_the_first_part_does_not_count_and_nothing_is_kept_of_it() {
        let check = check("needle");
        let mut expectation = Expectation::new(&check);
        for _ in 0..TEXT_WITHIN / 1024 {
            expectation.body(&[b'x'; 1024]).unwrap();
            assert!(expectation.tail.len() < "needle".len());
        }
        expectation.body(b"needle").unwrap();
        assert!(expectation.judge().unwrap_err().words.contains("first 64 KiB"));
    }

    proptest! {
        #[test]
        fn a_text_is_found_however_the_body_is_cut(
            body in "[ab]{0,60}",
            text in "[ab]{1,5}",
            cuts in proptest::collection::vec(0..60_usize, 0..6),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(body.len())).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|pair| &body.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(found(&text, &pieces).is_ok(), body.contains(&text));
        }
    }
}
