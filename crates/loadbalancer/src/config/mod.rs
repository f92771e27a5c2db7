//! Configuration: flag > environment > file > default, all lowered to one raw form, then validated once into
//! [`Config`]. Every problem is reported, not just the first. Nothing downstream sees anything but [`Config`].

mod admit;
mod attempts;
mod checks;
mod cli;
mod drain;
mod file;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod fuzz_values;
mod options;
mod parse;
mod policy;
mod raw;
mod rotation;
#[cfg(test)]
mod tests;
mod validate;
mod wait;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use lb_core::backend::BackendSpec;
use lb_core::health::HealthPolicy;
use lb_core::policy::PolicyKind;
use lb_core::rotation::RotationPolicy;

pub use admit::{AdmitConfig, RateConfig};
pub use attempts::AttemptConfig;
pub use checks::CheckConfig;
pub use cli::command;
pub use drain::DrainConfig;
pub use options::options_markdown;
pub(crate) use parse::duration;
use raw::{Given, Origin, Problem, Raw, Wrong};
pub use wait::{AdminAddress, WaitDrained};

/// Everything the load balancer needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub bind: IpAddr,
    pub port: u16,
    /// At least 1.
    pub workers: usize,
    /// Peers whose forwarding headers are kept.
    pub trusted_proxies: Vec<IpNet>,
    /// Peers that must begin a connection with a PROXY protocol header.
    pub proxy_protocol_from: Vec<IpNet>,
    pub admission: AdmissionConfig,
    /// Pseudonym in `Via`, which tells this process from others.
    pub via: String,
    /// Protocols that may be switched to.
    pub upgrades: Vec<String>,
    /// Whether a client's end of sending ends its request.
    pub abort_on_close: bool,
    /// Whether our error replies name backends and reasons.
    pub explain_errors: bool,
    pub pool: PoolConfig,
    pub timeouts: Timeouts,
    pub limits: Limits,
    pub admit: AdmitConfig,
    pub health: HealthPolicy,
    pub rotation: RotationPolicy,
    pub checks: CheckConfig,
    pub drain: DrainConfig,
    pub retry: RetryConfig,
    pub attempts: AttemptConfig,
    pub upstream: UpstreamConfig,
    pub admin: AdminConfig,
    pub log: LogConfig,
}

/// A pool as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    pub name: String,
    pub policy: PolicyKind,
    /// 1 to [`MAX_BACKENDS`](lb_core::backend::MAX_BACKENDS), names and addresses all different.
    pub backends: Vec<BackendSpec>,
}

/// How long is waited for what; see the table of options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub client_head: Duration,
    pub keep_alive: Duration,
    pub connect: Duration,
    pub response_head: Duration,
    pub body_stall: Duration,
    pub expect_continue: Duration,
    pub tunnel: Duration,
    pub drain: Duration,
}

/// What a client may ask for at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head.
    pub head: usize,
    /// Fields of a head.
    pub fields: usize,
    /// Bytes of a target.
    pub target: usize,
    /// Bytes of a body; `u64::MAX` is no limit.
    pub body: u64,
    /// `u64::MAX` is no limit.
    pub requests_per_connection: u64,
    /// Bytes per second; 0 is no limit.
    pub min_body_rate: u64,
}

/// How many client connections are taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionConfig {
    /// All workers together; `None` is what the limit of descriptors carries.
    pub connections: Option<usize>,
    /// Of one client address; `None` is no limit.
    pub connections_per_client: Option<u32>,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    V1,
    V2,
}

/// How often a request may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryConfig {
    pub max: u32,
    pub max_connect: u32,
    pub percent: u32,
    /// For the whole process; workers share it out.
    pub reserve: u32,
}

/// Connections to backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    pub max_idle: usize,
    pub idle_timeout: Duration,
    pub refresh: Duration,
    /// With which version of the PROXY protocol a connection begins, if any.
    pub proxy_protocol: Option<ProxyVersion>,
}

/// The admin API's listener.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    pub bind: IpAddr,
    pub port: u16,
    pub token: TokenSource,
}

/// Where the admin token comes from.
#[derive(Clone)]
pub enum TokenSource {
    /// Made at start and kept in the runtime directory.
    Made,
    /// The operator's.
    Given(String),
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Made => "Made",
            Self::Given(_) => "Given(…)",
        })
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    pub filter: String,
    pub format: LogFormat,
    pub access: AccessLog,
}

/// Where the line per request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    Off,
    StandardOutput,
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Auto,
    Text,
    Json,
}

impl fmt::Display for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("(off)"),
            Self::StandardOutput => f.write_str("on standard output"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What the command line asked for, checked.
#[derive(Debug)]
pub enum Command {
    Run(Box<Config>),
    /// The file is good.
    Checked(PathBuf),
    /// Ask a running balancer.
    WaitDrained(WaitDrained),
}

/// What is wrong with the configuration.
#[derive(Debug)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// 2 when every problem is a wrong flag or variable, else 78 (`EX_CONFIG`).
    pub fn exit_code(&self) -> u8 {
        let typed = |problem: &Problem| {
            problem.wrong == Wrong::Value && matches!(problem.origin, Origin::Flag(_) | Origin::Variable(_))
        };
        if self.problems.iter().all(typed) { 2 } else { 78 }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        writeln!(f, "{count} {} in the configuration", if count == 1 { "problem" } else { "problems" })?;
        for problem in &self.problems {
            writeln!(f, "  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Reads arguments, `var` (the environment) and the file they name.
///
/// # Errors
/// Outer: clap's, for `--help`, `--version` and wrong usage. Inner: every problem found.
pub fn parse(
    args: impl IntoIterator<Item = std::ffi::OsString>,
    var: impl Fn(&str) -> Option<String>,
) -> Result<Result<Command, ConfigError>, clap::Error> {
    let matches = command().try_get_matches_from(args)?;
    let (verb, config_file, typed) = cli::lower(&matches, &var);
    Ok(match verb {
        cli::Verb::Check(path) => check_file(path, typed),
        // Nothing of this process's own configuration matters to another's.
        cli::Verb::WaitDrained(asked) => Ok(Command::WaitDrained(asked)),
        cli::Verb::Run => {
            let mut problems = Vec::new();
            let file = config_file.map(|given| read_file(&given, &mut problems)).unwrap_or_default();
            finish(typed.or(file), problems).map(|config| Command::Run(Box::new(config)))
        }
    })
}

/// Only the file is judged; whether there is a token for it cannot be a matter of the file.
fn check_file(path: PathBuf, mut typed: Raw) -> Result<Command, ConfigError> {
    let mut problems = Vec::new();
    let given = Given::one(path.display().to_string(), Origin::Default);
    typed.values.retain(|key, _| ["ADMIN_TOKEN", "admin.token_file"].contains(key));
    let raw = typed.or(read_file(&given, &mut problems));
    finish(raw, problems).map(|_| Command::Checked(path))
}

fn read_file(given: &Given, problems: &mut Vec<Problem>) -> Raw {
    let Some((path, origin)) = given.texts.first() else { return Raw::default() };
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let (raw, found) = file::lower(path, &text);
            problems.extend(found);
            raw
        }
        Err(error) => {
            // A file that cannot be read is bad configuration (78), whoever named it.
            let origin = match origin {
                Origin::Default => Origin::File(path.clone(), 1, 1),
                named => named.clone(),
            };
            let words = format!("cannot be read: {error}");
            let value = Some(path.clone());
            problems.push(Problem { wrong: Wrong::Meaning, origin, key: String::new(), value, words });
            Raw::default()
        }
    }
}

fn finish(raw: Raw, problems: Vec<Problem>) -> Result<Config, ConfigError> {
    let (config, problems) = validate::validate(&raw, problems);
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(ConfigError { problems }),
    }
}
