//! What can be said on the command line and by environment variables. No meaning here: [`crate::Config`] gives it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser};

use crate::guard::AllowedHost;
use crate::logging::LogFormat;
use crate::target::{AdminUrl, DEFAULT_ADMIN_PORT, LoadBalancerUrl};

/// The project's own port for the page.
const DEFAULT_PORT: u16 = 8090;
/// Nobody but this machine: the page has controls and no login.
const DEFAULT_BIND: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Where a load balancer that was started without options listens.
const DEFAULT_LOAD_BALANCER: &str = "http://localhost:8080";

/// A live web page for the load balancer: rates, errors, latency, each backend's state and why, and controls for them
#[derive(Debug, Parser)]
#[command(
    name = "dashboard",
    version,
    max_term_width = 100,
    after_help = "Environment only:\n  ADMIN_TOKEN  token of the load balancer's admin API (not an option: others \
                  could read it in the process list)\n  RUST_LOG     log filter; wins over --log-level"
)]
pub struct Options {
    /// Port of the page; 0 takes a free one
    #[arg(long, env = "DASHBOARD_PORT", value_name = "PORT", default_value_t = DEFAULT_PORT,
          value_parser = |text: &str| port(text, "--port or DASHBOARD_PORT"))]
    pub port: u16,

    /// Address the page listens on; beyond loopback only with --allow-remote
    #[arg(long, env = "DASHBOARD_BIND", value_name = "IP", default_value_t = DEFAULT_BIND, value_parser = bind)]
    pub bind: IpAddr,

    /// The load balancer; its admin API is looked for on the same host
    #[arg(long, env = "LOAD_BALANCER_URL", value_name = "URL", default_value = DEFAULT_LOAD_BALANCER)]
    pub load_balancer_url: LoadBalancerUrl,

    /// Port of the admin API on the load balancer's host
    #[arg(long, env = "ADMIN_PORT", value_name = "PORT", default_value_t = DEFAULT_ADMIN_PORT,
          value_parser = |text: &str| port(text, "--admin-port or ADMIN_PORT"))]
    pub admin_port: u16,

    /// The admin API in full, instead of --load-balancer-url and --admin-port
    #[arg(long, env = "ADMIN_URL", value_name = "URL")]
    pub admin_url: Option<AdminUrl>,

    /// File with the admin token [default: the one a load balancer of the same user made]
    #[arg(long, env = "ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,

    /// More names the page may be asked for by, as HOST, HOST:PORT, or https://HOST behind a proxy with TLS
    #[arg(long = "allowed-host", env = "DASHBOARD_ALLOWED_HOSTS", value_name = "HOST", value_delimiter = ',')]
    pub allowed_hosts: Vec<AllowedHost>,

    /// Allow --bind beyond loopback: whoever reaches the page can take backends out, it has no login
    #[arg(long, env = "DASHBOARD_ALLOW_REMOTE")]
    pub allow_remote: bool,

    /// How log lines look
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", value_enum, default_value = "auto")]
    pub log_format: LogFormat,

    /// What is logged, such as info, debug or dashboard=trace
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

impl Options {
    /// Reads the process's arguments and environment; ends the process with help or with what is wrong (exit 2).
    pub fn from_environment() -> Self {
        let matches = without_empty_variables(command()).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// The command line, for help texts and the table of options.
pub fn command() -> clap::Command {
    Options::command()
}

/// A variable that is set but empty counts as unset.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |arg: &clap::Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    command.mut_args(|arg| if is_empty(&arg) { arg.env(None) } else { arg })
}

fn port(text: &str, names: &str) -> Result<u16, String> {
    text.trim().parse().map_err(|_| format!("expected a port number from 0 to 65535 ({names})"))
}

fn bind(text: &str) -> Result<IpAddr, String> {
    let expected = "expected an IP address such as 127.0.0.1 or ::1 (--bind or DASHBOARD_BIND)";
    text.trim().parse().map_err(|_| expected.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(args: &[&str]) -> String {
        command().try_get_matches_from([&["dashboard"], args].concat()).unwrap_err().to_string()
    }

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn a_wrong_value_is_named_with_its_option_its_variable_and_what_was_expected() {
        for (args, parts) in [
            (["--port", "abc"], ["'abc'", "--port", "DASHBOARD_PORT", "0 to 65535"]),
            (["--port", "70000"], ["'70000'", "--port", "DASHBOARD_PORT", "0 to 65535"]),
            (["--bind", "localhost"], ["'localhost'", "--bind", "DASHBOARD_BIND", "127.0.0.1"]),
            (["--admin-port", "x"], ["'x'", "--admin-port", "ADMIN_PORT", "0 to 65535"]),
            (["--load-balancer-url", "lb"], ["'lb'", "--load-balancer-url", "LOAD_BALANCER_URL", "http://HOST"]),
            (["--admin-url", "https://lb"], ["'https://lb'", "--admin-url", "ADMIN_URL", "plain http only"]),
            (["--allowed-host", "a b"], ["'a b'", "--allowed-host", "DASHBOARD_ALLOWED_HOSTS", "HOST"]),
        ] {
            let error = refusal(&args);
            for part in parts {
                assert!(error.contains(part), "{args:?}: no {part:?} in {error}");
            }
        }
    }

    #[test]
    fn the_token_is_no_option() {
        assert!(refusal(&["--admin-token", "x"]).contains("unexpected argument"));
    }
}
