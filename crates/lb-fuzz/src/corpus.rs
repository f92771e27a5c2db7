//! A target's inputs as files: read in the order of their names, one file each, any bytes.

use std::path::{Path, PathBuf};

use crate::seed_of;

/// A directory of inputs.
#[derive(Clone, Debug)]
pub(crate) struct Corpus {
    dir: PathBuf,
    name: String,
}

impl Corpus {
    pub(crate) fn new(crate_dir: &str, name: &str) -> Self {
        Self { dir: Path::new(crate_dir).join("fuzz").join(name), name: name.to_owned() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// All of it; nothing if there is none.
    pub(crate) fn read(&self) -> Vec<Vec<u8>> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let read = |path: PathBuf| std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        paths.into_iter().map(read).collect()
    }

    /// Writes an input under a name that its bytes decide. Where it now lies.
    pub(crate) fn write(&self, what: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.join(format!("{what}-{:016x}", seed_of(bytes)));
        let written = std::fs::create_dir_all(&self.dir).and_then(|()| std::fs::write(&path, bytes));
        if let Err(error) = written {
            // The input is printed too; a checkout that cannot be written to loses nothing else.
            eprintln!("{} cannot be written: {error}", path.display());
        }
        path
    }

    /// Keeps an input that broke something, and says which it was.
    pub(crate) fn keep(&self, what: &str, bytes: &[u8]) {
        let path = self.write(what, bytes);
        let (start, end) = bytes.split_at(bytes.len().min(4000));
        eprintln!("{}: {what} on {}, which is\nb\"{}\"", self.name, path.display(), start.escape_ascii());
        if !end.is_empty() {
            eprintln!("and {} bytes more", end.len());
        }
    }
}
