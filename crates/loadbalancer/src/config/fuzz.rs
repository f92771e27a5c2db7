//! Configuration fed with anything, from all its sources at once.
//!
//! An input is a file's text, then perhaps a line `#! args` and an argument on each line, then perhaps a line `#! vars`
//! and a `NAME=value` on each. The file is not read from a disk: `e2e` does that with the real program.

use std::fmt::Write as _;
use std::time::Duration;

use lb_core::backend::{MAX_BACKENDS, MAX_WEIGHT};
use lb_fuzz::{Fuzz, Seen};

use super::options::{Kind, OPTIONS};
use super::raw::Raw;
use super::tests::{command_without_environment, variables};
use super::*;

const FILE: &str = "fuzz.toml";

/// Nearly a secret: must never be shown.
const SHORTEST_SECRET: usize = 8;

const WORDS: &[&[u8]] = &[
    b"[",
    b"]",
    b"[[pool]]\n",
    b"{",
    b"}",
    b"=",
    b" = ",
    b"\"",
    b"'",
    b"\"\"\"",
    b"\\u0000",
    b"\\n",
    b"\\",
    b"#",
    b",",
    b".",
    b"\n",
    b"\r\n",
    b"\0",
    b"\xff",
    b"\xc3\xa4",
    b"\xe2\x82\xac",
    b"true",
    b"false",
    b"[]",
    b"{}",
    b"-1",
    b"1e400",
    b"nan",
    b"1979-05-27",
    b"500ms",
    b"10s",
    b"1h",
    b"0s",
    b"8KiB",
    b"1TiB",
    b"http",
    b"tcp",
    b"close",
    b"v2",
    b"5xx",
    b"\n#! args\n",
    b"\n#! vars\n",
    b"--port\n",
    b"--backend\n",
    b"BACKENDS=",
    b"ADMIN_TOKEN=",
    b"127.0.0.1",
    b"::1",
    b"[::1]:80",
    b"a:1",
    b",weight=2",
    b",name=a",
    b"10.0.0.0/8",
    b"200-299",
    b"address",
    b"weight",
    b"name",
    b"policy",
    b"backends",
];

/// What an input says.
struct Said {
    file: String,
    args: Vec<String>,
    vars: Vec<(String, String)>,
}

impl Said {
    fn new(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut said = Self { file: String::new(), args: Vec::new(), vars: Vec::new() };
        let mut part = 0;
        for line in text.split_inclusive('\n') {
            let plain = line.trim_end_matches('\n');
            match (plain, part) {
                ("#! args", _) => part = 1,
                ("#! vars", _) => part = 2,
                (_, 0) => said.file.push_str(line),
                (_, 1) => said.args.push(plain.to_owned()),
                _ => {
                    let (name, value) = plain.split_once('=').unwrap_or((plain, ""));
                    said.vars.push((name.to_owned(), value.to_owned()));
                }
            }
        }
        said
    }

    /// As the program does it, except that nothing is read from disk or environment.
    fn lower(
        &self,
        command: &mut clap::Command,
        silent: &clap::ArgMatches,
    ) -> Result<(Raw, Vec<Problem>), clap::Error> {
        // Most of an input's time, and most inputs have no arguments.
        let matches = if self.args.is_empty() {
            silent.clone()
        } else {
            command
                .try_get_matches_from_mut(std::iter::once("loadbalancer").chain(self.args.iter().map(String::as_str)))?
        };
        let var = |name: &str| self.vars.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let (_, _, mut typed) = cli::lower(&matches, var);
        variables(&mut typed, var);
        let (file, problems) = file::lower(FILE, &self.file);
        Ok((typed.or(file), problems))
    }
}

#[test]
fn fuzz_configuration() {
    let mut command = command_without_environment();
    let silent = command.try_get_matches_from_mut(["loadbalancer"]).unwrap();
    let keys: Vec<&'static [u8]> = OPTIONS.iter().map(|option| option.key.as_bytes()).collect();
    let names = OPTIONS.iter().filter_map(|option| option.key.rsplit('.').next()).map(str::as_bytes);
    let keys: Vec<&'static [u8]> = keys.into_iter().chain(names).collect();
    let fuzz = Fuzz::new(env!("CARGO_MANIFEST_DIR"), "configuration").words(WORDS).words(&keys).longest(4096);
    fuzz.run(|bytes| {
        let said = Said::new(bytes);
        let Ok((raw, found)) = said.lower(&mut command, &silent) else { return Seen::refused().of(&"usage") };
        let whole = found.is_empty();
        match finish(raw.clone(), found) {
            Ok(config) => {
                assert!(whole, "a file with problems is not good");
                bounds(&config);
                said_again(&raw, &config);
                raw.values.keys().fold(Seen::taken(), |seen, key| seen.of(key))
            }
            Err(error) => {
                told(&said, &error);
                error.problems.iter().fold(Seen::refused(), |seen, problem| {
                    let known = OPTIONS.iter().any(|option| option.name() == problem.key);
                    let key = if known { problem.key.as_str() } else { "?" };
                    // Which kind of wrong; what was written stands behind it.
                    let words: String = problem.words.chars().take(8).take_while(char::is_ascii_alphabetic).collect();
                    seen.of(&(key, words))
                })
            }
        }
    });
}

/// Each problem is one line that a terminal shows as it is, says who said it and names the key; the exit code follows.
fn told(said: &Said, error: &ConfigError) {
    let text = error.to_string();
    let lines: Vec<&str> = text.strip_suffix('\n').unwrap().split('\n').collect();
    assert_eq!(lines.len(), error.problems.len() + 1, "a problem is a line: {text:?}");
    assert!(!error.problems.is_empty(), "refused without a reason");
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "a terminal takes it for a command: {text:?}");
    for (line, problem) in lines[1..].iter().zip(&error.problems) {
        assert!(line.starts_with("  ") && !problem.words.is_empty(), "{line:?}");
        match &problem.origin {
            Origin::Flag(flag) => assert!(line.contains(&format!("flag --{flag}")), "{line:?}"),
            Origin::Variable(variable) => assert!(line.contains(variable), "{line:?}"),
            Origin::File(file, at, column) => {
                assert!(line.contains(&format!("{file}:{at}:{column}")), "{line:?}");
                // Behind the last line is where a text that ends too early has its fault.
                let lines: Vec<&str> = said.file.split('\n').collect();
                assert!((1..=lines.len()).contains(at), "{line:?} of {} lines", lines.len());
                assert!((1..=lines[at - 1].chars().count() + 1).contains(column), "{line:?}");
            }
            Origin::Default => {}
        }
        if problem.wrong == Wrong::Meaning {
            assert!(OPTIONS.iter().any(|option| option.name() == problem.key), "{line:?} names no option");
        }
        let syntax = matches!(problem.origin, Origin::File(..)) && problem.key.is_empty();
        assert!(syntax || line.contains(&shown(&problem.key)), "{line:?} does not name {:?}", problem.key);
    }
    let typed = |p: &Problem| p.wrong == Wrong::Value && matches!(p.origin, Origin::Flag(_) | Origin::Variable(_));
    assert_eq!(error.exit_code() == 2, error.problems.iter().all(typed));
    assert!(matches!(error.exit_code(), 2 | 78));
    let secret = said.vars.iter().find(|(name, _)| name == "ADMIN_TOKEN").map(|(_, value)| value.as_str());
    if let Some(secret) = secret.filter(|secret| secret.len() >= SHORTEST_SECRET && said.is_only_in_vars(secret)) {
        assert!(!text.contains(secret), "the token is shown");
    }
}

impl Said {
    fn is_only_in_vars(&self, secret: &str) -> bool {
        let elsewhere = self.vars.iter().filter(|(name, _)| name != "ADMIN_TOKEN").map(|(_, value)| value);
        !self.file.contains(secret)
            && !elsewhere.chain(&self.args).any(|text| text.contains(secret))
            && !OPTIONS.iter().any(|option| option.help.contains(secret) || option.name().contains(secret))
            && !"the token must be at least visible characters variable problems in the configuration".contains(secret)
    }
}

/// A key as a message shows it.
fn shown(key: &str) -> String {
    key.escape_debug().to_string()
}

/// What everything behind the configuration relies on.
fn bounds(config: &Config) {
    let Config { pool, timeouts, health, rotation, attempts, limits, .. } = config;
    assert!((1..=MAX_BACKENDS).contains(&pool.backends.len()));
    for (at, backend) in pool.backends.iter().enumerate() {
        assert!((1..=MAX_WEIGHT).contains(&backend.weight) && backend.address.port != 0, "{backend:?}");
        let twin = |other: &BackendSpec| other.name == backend.name || other.address == backend.address;
        assert!(!pool.backends[at + 1..].iter().any(twin), "{backend:?} stands twice");
        // As it is shown it can be said again.
        let said = format!("{},weight={},name={}", backend.address, backend.weight, backend.name);
        assert_eq!(parse::backend(&said).as_ref(), Ok(backend));
    }
    assert!(
        (1..=256).contains(&config.workers) || config.workers == std::thread::available_parallelism().unwrap().get()
    );
    assert!(health.rise >= 1 && health.fall >= 1 && (0.0..=1.0).contains(&health.jitter));
    assert!(health.fast_interval <= health.interval && health.fast_interval <= health.down_interval);
    assert!(!health.fast_interval.is_zero() && !health.timeout.is_zero());
    let waits =
        [timeouts.client_head, timeouts.keep_alive, timeouts.connect, timeouts.response_head, timeouts.body_stall];
    assert!(waits.iter().all(|wait| *wait >= Duration::from_millis(1)), "{timeouts:?}");
    if let Some(per_try) = attempts.per_try {
        assert!(per_try <= timeouts.response_head && attempts.request.is_none_or(|request| per_try <= request));
    }
    assert!(attempts.statuses.is_empty() || config.retry.max > 0);
    assert!(rotation.outlier.max_ejected_percent + rotation.panic_percent <= 100 || rotation.outlier.is_off());
    assert!((1024..=1 << 20).contains(&limits.head) && limits.target < 64 << 10 && limits.fields >= 8);
    assert!(config.port == 0 || config.port != config.admin.port || config.bind != config.admin.bind);
    assert!(config.admin.bind.is_loopback() || matches!(config.admin.token, TokenSource::Given(_)));
    assert!(config.admit.memory.is_none_or(|memory| memory >= 24 << 20));
}

/// What flags, variables and a file say together, one file can say alone, with the same outcome.
fn said_again(raw: &Raw, config: &Config) {
    let text = written(raw);
    let (mut again, problems) = file::lower(FILE, &text);
    assert_eq!(problems, [], "{text}");
    if let Some(token) = raw.values.get("ADMIN_TOKEN") {
        again.values.insert("ADMIN_TOKEN", token.clone());
    }
    let flagged = raw.values.get("admin.token_file").filter(|given| matches!(given.origin, Origin::Flag(_)));
    if let Some(flagged) = flagged {
        // Only as a flag it is stronger than the variable.
        again.values.insert("admin.token_file", flagged.clone());
    }
    let mut other = finish(again, problems).unwrap_or_else(|error| panic!("{error}{text}"));
    let named = raw.values.get("proxy.via").and_then(|given| given.texts.last());
    if named.is_none_or(|(name, _)| name.trim().is_empty()) {
        // Each time another.
        other.via.clone_from(&config.via);
    }
    assert_eq!(format!("{other:?}"), format!("{config:?}"), "{text}");
}

/// As a file.
fn written(raw: &Raw) -> String {
    let quoted = |text: &str| {
        let mut quoted = String::from("\"");
        for c in text.chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                c if c.is_control() => write!(quoted, "\\u{:04x}", u32::from(c)).unwrap(),
                c => quoted.push(c),
            }
        }
        quoted + "\""
    };
    let value = |given: &Given, is_list: bool| match &given.texts[..] {
        [(text, _)] if !is_list => quoted(text),
        texts => format!("[{}]", texts.iter().map(|(text, _)| quoted(text)).collect::<Vec<_>>().join(", ")),
    };
    let (mut tables, mut pool) = (String::new(), String::new());
    for (key, given) in &raw.values {
        let kind = OPTIONS.iter().find(|option| option.name() == *key).unwrap().kind;
        match key.split_once('.') {
            Some(("pool", name)) => {
                writeln!(pool, "{name} = {}", value(given, matches!(kind, Kind::Backends))).unwrap()
            }
            Some((table, name)) => writeln!(tables, "{table}.{name} = {}", value(given, false)).unwrap(),
            None => {}
        }
    }
    if let Some(given) = &raw.pool_name {
        writeln!(pool, "name = {}", value(given, false)).unwrap();
    }
    if pool.is_empty() { tables } else { format!("{tables}[[pool]]\n{pool}") }
}
