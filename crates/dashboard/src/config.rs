//! The validated configuration: what [`Options`] mean, or why they cannot be meant.

use std::fmt;
use std::net::IpAddr;

use crate::guard::HostPolicy;
use crate::options::Options;
use crate::target::AdminUrl;
use crate::token::TokenSource;

/// Everything the program needs to know.
#[derive(Debug)]
pub struct Config {
    pub(crate) bind: IpAddr,
    pub(crate) port: u16,
    pub(crate) admin: AdminUrl,
    pub(crate) token: TokenSource,
    pub(crate) hosts: HostPolicy,
}

/// Why options that are right each for itself do not work together.
#[derive(Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// An address that others reach, without the word that this is meant.
    Remote(IpAddr),
    /// Two tokens.
    Token(&'static str),
}

impl ConfigError {
    /// `EX_CONFIG`: a restart will not help.
    pub const fn exit_code(&self) -> u8 {
        78
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote(address) => write!(
                f,
                "refusing to listen on {address} (--bind or DASHBOARD_BIND): that is beyond this machine, and the page \
                 has controls but no login yet\n  expected a loopback address such as 127.0.0.1; to open it to \
                 everybody who reaches {address} all the same, add --allow-remote or DASHBOARD_ALLOW_REMOTE=true"
            ),
            Self::Token(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// # Errors
    /// When the options contradict each other or open the page to others by accident.
    pub fn new(options: Options, var: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        if !options.bind.is_loopback() && !options.allow_remote {
            return Err(ConfigError::Remote(options.bind));
        }
        let admin =
            options.admin_url.unwrap_or_else(|| AdminUrl::beside(&options.load_balancer_url, options.admin_port));
        let token = TokenSource::new(options.admin_token_file, admin.port(), var).map_err(ConfigError::Token)?;
        let hosts = HostPolicy::new(options.bind, options.allowed_hosts);
        Ok(Self { bind: options.bind, port: options.port, admin, token, hosts })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn config(args: &[&str]) -> Result<Config, ConfigError> {
        Config::new(Options::parse_from([&["dashboard"], args].concat()), |_| None)
    }

    #[test]
    fn listening_beyond_loopback_needs_to_be_meant() {
        for open in ["0.0.0.0", "::", "10.0.0.7"] {
            let error = config(&["--bind", open]).unwrap_err();
            assert_eq!(error.exit_code(), 78);
            for part in [open, "no login", "--allow-remote", "DASHBOARD_ALLOW_REMOTE=true"] {
                assert!(error.to_string().contains(part), "{error}");
            }
            assert!(config(&["--bind", open, "--allow-remote"]).is_ok());
        }
        assert!(config(&["--bind", "::1"]).is_ok());
        assert!(config(&["--bind", "127.0.0.2"]).is_ok());
    }

    #[test]
    fn the_admin_url_wins_over_the_load_balancers_url() {
        assert_eq!(config(&[]).unwrap().admin.to_string(), "http://localhost:8089");
        let beside = config(&["--load-balancer-url", "http://lb:80", "--admin-port", "9"]).unwrap();
        assert_eq!(beside.admin.to_string(), "http://lb:9");
        let full = config(&["--load-balancer-url", "http://lb:80", "--admin-url", "http://other:7/x"]).unwrap();
        assert_eq!(full.admin.to_string(), "http://other:7/x");
    }
}
