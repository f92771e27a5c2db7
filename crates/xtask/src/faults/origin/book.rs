//! The origin's part of the ledger: a line for each request that it executed, written before it is answered.
//!
//! One `write` per line and no buffer, so that nothing that a client can have seen is lost when the origin is killed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::super::ident::Id;
use super::super::ledger::{Deed, Executed};

pub(super) struct Book {
    file: File,
    origin: u8,
}

/// A request that is being read. If its connection goes before anything of it was entered, its future is dropped, and
/// that it was here is entered then: nobody but the origin can know.
pub(super) struct InHand<'a> {
    book: &'a Book,
    id: Id,
    post: bool,
    entered: bool,
}

impl<'a> InHand<'a> {
    pub(super) fn new(book: &'a Book, id: Id, post: bool) -> Self {
        Self { book, id, post, entered: false }
    }

    /// # Errors
    /// As of [`Book::enter`].
    pub(super) fn enter(&mut self, deed: Deed, hash: u64) -> io::Result<()> {
        self.entered = true;
        self.book.enter(self.id, deed, self.post, hash)
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        if !self.entered {
            let _ = self.book.enter(self.id, Deed::Broken, self.post, 0);
        }
    }
}

impl Book {
    pub(super) fn open(path: &Path, origin: u8) -> io::Result<Self> {
        Ok(Self { file: OpenOptions::new().create(true).append(true).open(path)?, origin })
    }

    /// # Errors
    /// When it cannot be written; the request must not be answered then.
    pub(super) fn enter(&self, id: Id, deed: Deed, post: bool, hash: u64) -> io::Result<()> {
        let at_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        let record = Executed { id, deed, post, hash, at_us, origin: self.origin };
        (&self.file).write_all(format!("{record}\n").as_bytes())
    }
}
