//! The admin token: given by the operator, or found in the file that a load balancer of the same user made.
//!
//! The file is read anew for every request, because each start of the load balancer makes a new token. It is sent to
//! the load balancer and goes nowhere else: its type cannot be printed.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use hyper::header::HeaderValue;
use lb_core::api::{runtime_dir, token_file_name};

/// A longer file is not a token, whatever it is.
const LONGEST: u64 = 4096;

/// Where the token comes from.
#[derive(Clone)]
pub(crate) enum TokenSource {
    /// `ADMIN_TOKEN`.
    Given(String),
    /// `ADMIN_TOKEN_FILE` or `--admin-token-file`.
    File(PathBuf),
    /// Where a load balancer of the same user keeps the one it made.
    Found(PathBuf),
}

impl TokenSource {
    /// # Errors
    /// When both a token and a file are given: which one is meant?
    pub(crate) fn new(
        file: Option<PathBuf>,
        admin_port: u16,
        var: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, &'static str> {
        let given = var("ADMIN_TOKEN").map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        match (given, file) {
            (Some(_), Some(_)) => Err("both ADMIN_TOKEN and a token file are given (--admin-token-file or \
                                       ADMIN_TOKEN_FILE); expected one of them"),
            (Some(token), None) => Ok(Self::Given(token)),
            (None, Some(file)) => Ok(Self::File(file)),
            (None, None) => {
                let dir = runtime_dir(var, own_uid(), std::env::temp_dir());
                Ok(Self::Found(dir.join(token_file_name(admin_port))))
            }
        }
    }

    /// The value of the `Authorization` field, marked so that no log prints it.
    ///
    /// # Errors
    /// When there is no usable token, in words for the page; never with anything of its content.
    pub(crate) fn authorization(&self) -> Result<HeaderValue, String> {
        let token = match self {
            Self::Given(token) => token.clone(),
            Self::File(path) | Self::Found(path) => {
                read(path).map_err(|error| format!("cannot read the admin token from {}: {error}", path.display()))?
            }
        };
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| format!("the admin token from {} holds characters that no token has", self.origin()))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// What a person can do when the token is missing or refused.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Given(_) => "give the load balancer and the dashboard the same ADMIN_TOKEN".to_owned(),
            Self::File(path) => format!("is {} the token of this load balancer?", path.display()),
            Self::Found(path) => format!(
                "{} is where a load balancer of the same user keeps its token; \
                 for another one set ADMIN_TOKEN_FILE or ADMIN_TOKEN",
                path.display()
            ),
        }
    }

    fn origin(&self) -> String {
        match self {
            Self::Given(_) => "ADMIN_TOKEN".to_owned(),
            Self::File(path) | Self::Found(path) => path.display().to_string(),
        }
    }
}

/// Never the token itself.
impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokenSource").field(&self.origin()).finish()
    }
}

fn read(path: &PathBuf) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    let token = text.trim();
    if token.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty"));
    }
    Ok(token.to_owned())
}

/// `/proc/self` belongs to the effective user. Without it nobody is root, and the temporary directory is looked at.
fn own_uid() -> u32 {
    std::fs::metadata("/proc/self").map_or(u32::MAX, |metadata| metadata.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn the_operators_token_wins_over_the_found_one() {
        let given = TokenSource::new(None, 8089, |name| (name == "ADMIN_TOKEN").then(|| " s3cret\n".to_owned()));
        let value = given.unwrap().authorization().unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer s3cret");
        assert!(value.is_sensitive());
    }

    #[test]
    fn two_tokens_are_refused() {
        let both = TokenSource::new(Some("/x".into()), 8089, |name| (name == "ADMIN_TOKEN").then(|| "t".to_owned()));
        assert!(both.unwrap_err().contains("expected one"));
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let source = TokenSource::new(Some("/x".into()), 8089, |name| (name == "ADMIN_TOKEN").then(String::new));
        assert!(matches!(source, Ok(TokenSource::File(_))));
    }

    #[test]
    fn the_file_of_the_same_user_is_found_by_the_admin_port() {
        let var = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| "/run/user/7".to_owned());
        let Ok(TokenSource::Found(path)) = TokenSource::new(None, 9999, var) else { panic!("not found") };
        assert_eq!(path, PathBuf::from("/run/user/7/loadbalancer/admin-9999.token"));
    }

    #[test]
    fn the_file_is_read_anew_each_time() {
        let path = std::env::temp_dir().join(format!("dashboard-token-{}", std::process::id()));
        let source = TokenSource::new(Some(path.clone()), 8089, none).unwrap();
        assert!(source.authorization().unwrap_err().contains("cannot read the admin token from"));
        for token in ["first", "second"] {
            std::fs::write(&path, format!("{token}\n")).unwrap();
            assert_eq!(source.authorization().unwrap().to_str().unwrap(), format!("Bearer {token}"));
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(source.authorization().unwrap_err().contains("empty"));
        std::fs::write(&path, "a\nb").unwrap();
        assert!(!source.authorization().unwrap_err().contains("a\nb"));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn debug_output_hides_the_token() {
        assert!(!format!("{:?}", TokenSource::Given("s3cret".to_owned())).contains("s3cret"));
    }
}
