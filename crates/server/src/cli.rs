//! Options: flag over environment variable over default. Every wrong one is reported, under the name it was given by.
//!
//! clap knows the options and their help; the values are read here, because its messages name the flag even when
//! the value came from a variable, and because a variable that is set but empty has to count as unset.

use std::ffi::OsString;
use std::net::IpAddr;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use crate::duration;
use crate::faults::{Faults, GRAMMAR};
use crate::logging::{Format, Level};
use crate::name::{self, Name};
use crate::routes::ROUTES;

/// The first of the load balancer's default backends.
const PORT: &str = "8081";
/// As the load balancer's: longer than most requests, shorter than the 40 s that the unit file gives a stop.
const DRAIN: &str = "30s";
/// A stop that takes longer is a server that does not stop.
const DRAIN_MAX: Duration = Duration::from_secs(3600);
const LOG_FORMAT: &str = "auto";
const LOG_LEVEL: &str = "info";

/// What the server was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// 0 takes any free port.
    pub port: u16,
    /// `None` is every interface, IPv6 and IPv4.
    pub bind: Option<IpAddr>,
    /// `None` is `server-` and the port.
    pub name: Option<Name>,
    /// `None` when there is no switch for faults at all.
    pub faults: Option<Faults>,
    pub drain: Duration,
    pub log_format: Format,
    pub log_level: Level,
}

/// The options as clap knows them.
pub fn command() -> Command {
    Command::new("server")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A small HTTP server with switchable faults: the backend to test a load balancer against")
        .after_help("Every option can also be given by its variable. --help says more, with all paths and faults.")
        .after_long_help(format!(
            "Paths:\n  {}\n\nFaults are {}\n\nExit codes: 0 stopped, 1 stopped by a second signal or broken, \
             2 wrong option, 69 cannot listen.",
            ROUTES.replace('\n', "\n  "),
            GRAMMAR
        ))
        .next_help_heading("Listening")
        .args([
            option("port", "SERVER_PORT", "PORT", "TCP port, 0 to 65535; 0 takes any free one").default_value(PORT),
            option("bind", "SERVER_BIND", "IP", "Address to listen on [default: all interfaces, IPv6 and IPv4]"),
        ])
        .next_help_heading("Behaviour")
        .args([
            option("name", "SERVER_NAME", "NAME", "Name in answers and X-Served-By [default: server-PORT]")
                .long_help(format!("Name in answers and X-Served-By: {} [default: server-PORT]", name::EXPECTED)),
            option("faults", "SERVER_FAULTS", "FAULTS", "Faults to inject; also lets /admin/faults switch them")
                .long_help(
                    "Faults to inject, such as latency=50ms,error=10% (all below). Giving it, even as none, also lets \
                     /admin/faults switch them while the server runs [default: no faults, and no switch]",
                )
                .num_args(0..=1)
                .default_missing_value("none"),
            option("drain", "SERVER_DRAIN", "TIME", "Longest wait for requests in flight at a stop, 0s to 1h")
                .long_help(
                    "After SIGTERM or SIGINT, wait this long for requests in flight: a whole number with a unit (500ms, \
                     30s, 5m), at most 1h. Then the rest is cut. A second signal cuts at once",
                )
                .default_value(DRAIN),
        ])
        .next_help_heading("Logging")
        .args([
            option("log-format", "LOG_FORMAT", "FORMAT", "auto (text on a terminal, else JSON), text or json")
                .default_value(LOG_FORMAT),
            option("log-level", "RUST_LOG", "LEVEL", "error, warn, info, debug, trace, or tracing directives")
                .default_value(LOG_LEVEL),
        ])
}

/// Reads the command line (with the program's name first) and the environment.
///
/// # Errors
/// A message for the person and exit code 2; help and version come this way too, with exit code 0. Use its `exit`.
pub fn parse<A: Into<OsString> + Clone>(arguments: impl IntoIterator<Item = A>) -> Result<Config, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(arguments)?;
    read(&matches).map_err(|problems| command.error(ErrorKind::ValueValidation, problems.join("\nerror: ")))
}

fn read(matches: &ArgMatches) -> Result<Config, Vec<String>> {
    let mut problems = Vec::new();
    let port =
        value(matches, "port", &mut problems, |text| text.parse().map_err(|_| "a port number, 0 to 65535".to_owned()));
    let bind = value(matches, "bind", &mut problems, |text| {
        text.parse().map_err(|_| "an IP address such as 127.0.0.1 or ::1 (without it, all interfaces)".to_owned())
    });
    let name = value(matches, "name", &mut problems, |text| Name::parse(text).map_err(str::to_owned));
    let faults = value(matches, "faults", &mut problems, |text| {
        text.parse::<Faults>().map_err(|wrong| format!("faults, but {wrong}; --help has the grammar"))
    });
    let drain = value(matches, "drain", &mut problems, drain);
    let log_format = value(matches, "log-format", &mut problems, |text| Format::parse(text).map_err(str::to_owned));
    let log_level = value(matches, "log-level", &mut problems, Level::parse);
    match (port, drain, log_format, log_level) {
        (Some(port), Some(drain), Some(log_format), Some(log_level)) if problems.is_empty() => {
            Ok(Config { port, bind, name, faults, drain, log_format, log_level })
        }
        _ => Err(problems),
    }
}

fn drain(text: &str) -> Result<Duration, String> {
    let drain = duration::parse(text).map_err(str::to_owned)?;
    if drain > DRAIN_MAX {
        return Err("at most 1h".to_owned());
    }
    Ok(drain)
}

/// The value of one option, or `None` when there is none or it is wrong, which is then among the `problems`.
fn value<T>(
    matches: &ArgMatches,
    id: &str,
    problems: &mut Vec<String>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    let text = matches.get_one::<String>(id)?;
    let by_variable = matches.value_source(id) == Some(ValueSource::EnvVariable);
    let text = if by_variable && text.is_empty() { default(id)? } else { text.as_str() };
    match parse(text) {
        Ok(value) => Some(value),
        Err(expected) => {
            let given = if by_variable { variable(id) } else { format!("--{id}") };
            problems.push(format!("{given}={text}: expected {expected}"));
            None
        }
    }
}

fn default(id: &str) -> Option<&'static str> {
    match id {
        "port" => Some(PORT),
        "drain" => Some(DRAIN),
        "log-format" => Some(LOG_FORMAT),
        "log-level" => Some(LOG_LEVEL),
        _ => None,
    }
}

fn variable(id: &str) -> String {
    let command = command();
    let variable = command.get_arguments().find(|arg| arg.get_id() == id).and_then(Arg::get_env);
    variable.map_or_else(|| id.to_owned(), |variable| variable.to_string_lossy().into_owned())
}

fn option(id: &'static str, variable: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(id).long(id).env(variable).hide_env_values(true).value_name(value).help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(arguments: &[&str]) -> Result<Config, String> {
        parse([&["server"], arguments].concat()).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_are_valid() {
        let config = given(&[]).expect("defaults");
        assert_eq!((config.port, config.bind, config.name, config.faults), (8081, None, None, None));
        assert_eq!(config.drain, Duration::from_secs(30));
        command().debug_assert();
    }

    #[test]
    fn every_option_is_read() {
        let config = given(&[
            "--port",
            "0",
            "--bind",
            "::1",
            "--name",
            "blue",
            "--faults",
            "error=10%",
            "--drain",
            "5s",
            "--log-format",
            "json",
            "--log-level",
            "debug",
        ])
        .expect("valid");
        assert_eq!((config.port, config.bind), (0, Some("::1".parse().expect("valid"))));
        assert_eq!(config.name.expect("given").as_str(), "blue");
        assert_eq!(config.faults.expect("given").to_string(), "error=10%");
        assert_eq!((config.drain, config.log_format), (Duration::from_secs(5), Format::Json));
    }

    #[test]
    fn faults_need_no_value() {
        for arguments in [&["--faults"][..], &["--faults", "none"], &["--faults", "--port", "1"]] {
            assert_eq!(given(arguments).expect("valid").faults, Some(Faults::default()), "{arguments:?}");
        }
    }

    #[test]
    fn all_problems_are_reported_with_value_and_expectation() {
        let error =
            given(&["--port", "70000", "--bind", "localhost", "--drain", "30", "--faults", "x"]).expect_err("wrong");
        for part in [
            "--port=70000: expected a port number",
            "--bind=localhost: expected an IP",
            "--drain=30: expected",
            "x is no fault",
        ] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
    }
}
