//! Flags and variables: a clap command made from the table of options, lowered to [`Raw`].

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::options::{Kind, OPTIONS};
use super::parse::split_backends;
use super::raw::{Given, Origin, Raw};
use super::wait::{self, WaitDrained};

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Run,
    /// Only check this file.
    Check(PathBuf),
    /// Only ask another balancer.
    WaitDrained(WaitDrained),
}

const ABOUT: &str = "An HTTP load balancer: exact round robin, health checks, safe timeouts, nothing lost on shutdown";

const AFTER: &str = "ADMIN_TOKEN, a variable only, is the bearer token of the admin API; without it one is made at each start.\n\
    A flag wins over its variable, a variable over the file, the file over the default.\n\
    Exit codes: 0 done, 1 failed while running, 2 wrong flag or variable, 69 cannot bind, 78 bad configuration.";

/// The command line.
pub fn command() -> Command {
    let config = Arg::new("config")
        .long("config")
        .env("LB_CONFIG")
        .value_name("FILE")
        .help("TOML file that can say everything below, and more");
    let check = Command::new("check")
        .about("Check a configuration file, report every problem, and do nothing else")
        .arg(Arg::new("file").value_name("FILE").required(true));
    let mut command = Command::new("loadbalancer")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(AFTER)
        .max_term_width(110)
        // A script that adds a flag to a command line that has it already means the last one.
        .args_override_self(true)
        .subcommand(check)
        .subcommand(wait::command())
        .arg(config);
    for option in OPTIONS.iter().filter(|option| option.flag.is_some() || option.variable.is_some()) {
        let list = matches!(option.kind, Kind::Backends | Kind::Networks);
        let default = if option.default.is_empty() { String::new() } else { format!(" [default: {}]", option.default) };
        let mut arg = Arg::new(option.name())
            .value_name(option.kind.placeholder())
            .help(format!("{}{default}", option.help))
            .help_heading(option.heading)
            .allow_hyphen_values(true)
            .action(if list { ArgAction::Append } else { ArgAction::Set });
        match option.flag {
            Some(flag) => arg = arg.long(flag),
            // Variable only: clap needs a flag to list it under, and a secret must not stand in `ps`.
            None => continue,
        }
        if let Some(variable) = option.variable {
            arg = arg.env(variable).hide_env_values(true);
        }
        command = command.arg(arg);
    }
    command
}

/// Lowers parsed arguments, and `var` for options that are variables only.
pub(super) fn lower(matches: &ArgMatches, var: impl Fn(&str) -> Option<String>) -> (Verb, Option<Given>, Raw) {
    let mut raw = Raw::default();
    for option in OPTIONS {
        let given = match option.flag {
            Some(flag) => from_matches(matches, option.name(), flag, option.variable),
            None => option.variable.and_then(|variable| {
                Some(Given::one(var(variable).filter(|text| !text.is_empty())?, Origin::Variable(variable.to_owned())))
            }),
        };
        let Some(mut given) = given else { continue };
        if matches!(option.kind, Kind::Backends) {
            given = split(given, split_backends);
        } else if matches!(option.kind, Kind::Networks) {
            let commas = |text: &str| text.split(',').map(|part| part.trim().to_owned()).collect();
            given = split(given, commas);
        }
        raw.values.insert(option.name(), given);
    }
    let config = from_matches(matches, "config", "config", Some("LB_CONFIG"));
    let verb = match matches.subcommand() {
        Some(("wait-drained", wait)) => Verb::WaitDrained(wait::lower(wait, var)),
        Some(("check", check)) => Verb::Check(check.get_one::<String>("file").map(PathBuf::from).unwrap_or_default()),
        _ => Verb::Run,
    };
    (verb, config, raw)
}

/// An environment variable that is set but empty counts as unset, except `BACKENDS`: whoever names the servers and
/// names none has made a mistake that must not end in talking to the default ones.
fn from_matches(matches: &ArgMatches, id: &str, flag: &str, variable: Option<&str>) -> Option<Given> {
    let origin = match matches.value_source(id)? {
        ValueSource::EnvVariable => Origin::Variable(variable.unwrap_or_default().to_owned()),
        _ => Origin::Flag(flag.to_owned()),
    };
    let texts: Vec<_> = matches.get_many::<String>(id)?.map(|text| (text.clone(), origin.clone())).collect();
    let unset = matches!(origin, Origin::Variable(_)) && texts.iter().all(|(text, _)| text.is_empty());
    if unset && variable != Some("BACKENDS") {
        return None;
    }
    Some(Given { texts, origin })
}

fn split(given: Given, separate: impl Fn(&str) -> Vec<String>) -> Given {
    let texts = given.texts.into_iter().flat_map(|(text, origin)| {
        separate(&text).into_iter().map(move |part| (part, origin.clone())).collect::<Vec<_>>()
    });
    Given { texts: texts.collect(), origin: given.origin }
}
