//! The command line of `loadbalancer wait-drained`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use super::parse;

const AFTER: &str = "Exit codes: 0 safe to stop, 1 not within the timeout, 2 wrong usage, 3 nobody asked it to drain, \
                     4 no such backend,\n69 the balancer cannot be asked, 77 the token is missing or refused.\n\
                     The bearer token is in the file that --admin-token-file names, else it is ADMIN_TOKEN, a variable \
                     only, else in the file that ADMIN_TOKEN_FILE names,\nelse, for a balancer of the same user on this \
                     machine, in the file that it keeps.";

/// Where a balancer that was started without options has it.
const DEFAULT_ADMIN: &str = "http://127.0.0.1:8089";

/// A deploy that waits for longer waits for ever.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// Whom to ask, and about what.
#[derive(Clone, PartialEq, Eq)]
pub struct WaitDrained {
    pub pool: String,
    pub backend: String,
    pub timeout: Duration,
    pub admin: AdminAddress,
    /// `ADMIN_TOKEN`.
    pub token: Option<String>,
    pub token_file: Option<PathBuf>,
}

impl fmt::Debug for WaitDrained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the token.
        f.debug_struct("WaitDrained")
            .field("backend", &self.backend)
            .field("admin", &self.admin)
            .finish_non_exhaustive()
    }
}

/// Where an admin API is: plain HTTP, and the path it is mounted under, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminAddress {
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
    pub path: String,
}

impl AdminAddress {
    /// As it stands in a `Host` field.
    pub(crate) fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.path)
    }
}

pub(super) fn command() -> Command {
    let arg = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    Command::new("wait-drained")
        .about("Wait until a backend of a running balancer is drained and safe to stop, for scripts that deploy")
        .after_help(AFTER)
        .args_override_self(true)
        .arg(arg("pool", "NAME").default_value("default").help("The pool that the backend is in"))
        .arg(arg("backend", "NAME").required(true).help("The backend, by its name"))
        .arg(
            arg("timeout", "DURATION")
                .default_value("60s")
                .value_parser(|text: &str| {
                    let most = |time: &Duration| *time <= LONGEST_TIMEOUT;
                    parse::duration(text)
                        .filter(most)
                        .ok_or("expected a duration such as 500ms, 60s or 5m, at most 24h")
                })
                .help("How long to wait at most, up to 24h; 0s only looks"),
        )
        .arg(
            arg("admin-url", "URL")
                .env("ADMIN_URL")
                .default_value(DEFAULT_ADMIN)
                .value_parser(address)
                .help("The balancer's admin API"),
        )
        .arg(
            arg("admin-token-file", "FILE")
                .env("ADMIN_TOKEN_FILE")
                // An empty variable is none; a parser of paths would refuse it.
                .value_parser(OsStringValueParser::new().map(PathBuf::from))
                .help("File that holds the bearer token"),
        )
}

/// What was asked for. `var` is the environment.
pub(super) fn lower(matches: &ArgMatches, var: impl Fn(&str) -> Option<String>) -> WaitDrained {
    let file = matches.get_one::<PathBuf>("admin-token-file").filter(|path| !path.as_os_str().is_empty()).cloned();
    // What was typed for this call wins over what stands in the environment of all calls.
    let typed = file.is_some() && matches.value_source("admin-token-file") == Some(ValueSource::CommandLine);
    let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
    WaitDrained {
        pool: text("pool"),
        backend: text("backend"),
        timeout: matches.get_one("timeout").copied().unwrap_or_default(),
        admin: matches.get_one("admin-url").cloned().expect("it has a default"),
        token: var("ADMIN_TOKEN").filter(|token| !token.trim().is_empty() && !typed),
        token_file: file,
    }
}

/// `http://HOST[:PORT][/PATH]`.
pub(super) fn address(text: &str) -> Result<AdminAddress, String> {
    let expected = "expected http://HOST[:PORT][/PATH], such as http://localhost:8089";
    // A variable that is set but empty counts as unset.
    let text = if text.is_empty() { DEFAULT_ADMIN } else { text };
    let url: http::Uri = text.parse().map_err(|_| format!("not a URL; {expected}"))?;
    let authority = url.authority().ok_or_else(|| format!("it names no host; {expected}"))?;
    if url.scheme_str() != Some("http") || authority.as_str().contains('@') || url.query().is_some() {
        return Err(format!("the admin API is spoken to over plain http, without user or query; {expected}"));
    }
    // `Uri` takes any digits for a port, and then says that there is none.
    let port = match authority.as_str().rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
        None => 80,
        Some(_) => authority.port_u16().ok_or_else(|| format!("the port is no number from 0 to 65535; {expected}"))?,
    };
    let host = authority.host();
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    // RFC 3986 §3.2.2: what stands in brackets is an IPv6 address.
    if bracketed.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_err()) {
        return Err(format!("what stands in brackets is no IPv6 address; {expected}"));
    }
    let host = bracketed.unwrap_or(host).to_owned();
    if host.is_empty() || host.contains(['[', ']']) {
        return Err(format!("it names no host; {expected}"));
    }
    Ok(AdminAddress { host, port, path: url.path().trim_end_matches('/').to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_in_full_or_refused_with_what_was_expected() {
        let shown = |text: &str| address(text).unwrap().to_string();
        assert_eq!(shown("http://[::1]:9000/lb/"), "http://[::1]:9000/lb");
        assert_eq!(shown("http://lb"), "http://lb:80");
        assert_eq!(shown(""), DEFAULT_ADMIN);
        for wrong in ["localhost", "localhost:8089", "https://lb", "http://u:p@lb", "http://lb:99999", "http://lb/?x=1"]
        {
            assert!(address(wrong).unwrap_err().contains("expected http://HOST"), "{wrong}");
        }
    }

    #[test]
    fn the_token_is_never_shown() {
        let matches = command().mut_args(|arg| arg.env(None)).get_matches_from(["wait-drained", "--backend", "b"]);
        let asked = lower(&matches, |name| (name == "ADMIN_TOKEN").then(|| "hunter2".to_owned()));
        assert_eq!((asked.pool.as_str(), asked.timeout), ("default", Duration::from_secs(60)));
        assert_eq!(asked.token.as_deref(), Some("hunter2"));
        assert!(!format!("{asked:?}").contains("hunter2"));
    }

    fn parsed(args: &[&str]) -> Result<ArgMatches, clap::Error> {
        let args = [&["wait-drained", "--backend", "b"], args].concat();
        command().mut_args(|arg| arg.env(None)).try_get_matches_from(args)
    }

    #[test]
    fn a_file_that_is_typed_wins_over_a_token_in_the_environment() {
        let matches = parsed(&["--admin-token-file", "/x"]).unwrap();
        let asked = lower(&matches, |_| Some("hunter2".to_owned()));
        assert_eq!((asked.token, asked.token_file), (None, Some("/x".into())));
        let asked = lower(&parsed(&["--admin-token-file", ""]).unwrap(), |_| Some("hunter2".to_owned()));
        assert_eq!((asked.token.as_deref(), asked.token_file), (Some("hunter2"), None));
    }

    #[test]
    fn a_timeout_is_a_day_at_most() {
        assert!(parsed(&["--timeout", "24h"]).is_ok());
        for timeout in ["25h", "18446744073709551615s", "-1s"] {
            assert!(parsed(&["--timeout", timeout]).is_err(), "{timeout}");
        }
    }
}
