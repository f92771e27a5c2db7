//! The admin token: given by the operator, or made at start and kept in a file that only this user can read.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use lb_core::api::{TOKEN_FILE_MODE, runtime_dir, token_file_name};

use crate::config::TokenSource;

/// The bearer token of `/v1`.
pub(crate) struct Token {
    secret: String,
    /// The file we made; removed at the end.
    file: Option<PathBuf>,
}

/// The token file cannot be made.
#[derive(Debug)]
pub(crate) struct TokenError {
    path: PathBuf,
    source: io::Error,
}

impl std::fmt::Display for TokenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path.display();
        write!(f, "cannot keep the admin token in {path}: {}; set ADMIN_TOKEN or ADMIN_TOKEN_FILE instead", self.source)
    }
}

impl std::error::Error for TokenError {}

impl Token {
    /// Takes the operator's token, or makes one for the admin listener at `port`.
    ///
    /// # Errors
    /// The file cannot be written, or the directory belongs to somebody else.
    pub(crate) fn establish(source: &TokenSource, port: u16) -> Result<Self, TokenError> {
        match source {
            TokenSource::Given(secret) => Ok(Self { secret: secret.clone(), file: None }),
            TokenSource::Made => {
                let own = fs::metadata("/proc/self").map_or(0, |self_| self_.uid());
                let dir = runtime_dir(|name| std::env::var(name).ok(), own, std::env::temp_dir());
                let path = dir.join(token_file_name(port));
                let error = |source| TokenError { path: path.clone(), source };
                let secret = make().map_err(error)?;
                keep(&dir, &path, own, &secret).map_err(error)?;
                Ok(Self { secret, file: Some(path) })
            }
        }
    }

    /// Whether `given` is it; takes as long for every wrong one of the same length.
    pub(super) fn is(&self, given: &[u8]) -> bool {
        let own = self.secret.as_bytes();
        own.len() == given.len() && own.iter().zip(given).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }

    /// Where a person finds it.
    pub(crate) fn whereabouts(&self) -> String {
        match &self.file {
            Some(path) => format!("in {}", path.display()),
            None => "the one given as ADMIN_TOKEN or ADMIN_TOKEN_FILE".to_owned(),
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if let Some(path) = &self.file {
            // Only if it is still ours: another balancer on the same port may have come after us.
            if fs::read_to_string(path).is_ok_and(|text| text == self.secret) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// 256 bits from the kernel.
fn make() -> io::Result<String> {
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Written beside and renamed, so that a reader sees the old token or the new one, never half of one.
fn keep(dir: &Path, path: &Path, own: u32, secret: &str) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    // Somebody else's directory in /tmp, or a link to one, would hand the token over.
    let found = fs::symlink_metadata(dir)?;
    if !found.is_dir() || found.uid() != own || found.mode() & 0o022 != 0 {
        return Err(io::Error::other("others can write to its directory"));
    }
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    // What a former process of our number left there may have another mode, or be a link.
    let _ = fs::remove_file(&beside);
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(TOKEN_FILE_MODE)
        .open(&beside)
        .and_then(|mut file| file.write_all(secret.as_bytes()))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_token_is_taken() {
        let token = Token { secret: "0123456789abcdef".to_owned(), file: None };
        assert!(token.is(b"0123456789abcdef"));
        for wrong in [&b""[..], b"0123456789abcde", b"0123456789abcdeg", b"0123456789abcdef0"] {
            assert!(!token.is(wrong));
        }
        assert_eq!(make().unwrap().len(), 64);
        assert_ne!(make().unwrap(), make().unwrap());
    }
}
