use std::collections::HashMap;
use std::io::Write as _;

use super::*;

pub(super) fn parse_with(args: &[&str], env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let env: HashMap<String, String> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let matches = command_without_environment().try_get_matches_from([&["loadbalancer"], args].concat()).unwrap();
    let (_, config_file, mut typed) = cli::lower(&matches, |name| env.get(name).cloned());
    variables(&mut typed, |name| env.get(name).cloned());
    let mut problems = Vec::new();
    let file = config_file.map(|given| read_file(&given, &mut problems)).unwrap_or_default();
    finish(typed.or(file), problems)
}

/// clap reads the real environment only; here variables come from `var`.
pub(super) fn variables(typed: &mut Raw, var: impl Fn(&str) -> Option<String>) {
    for option in options::OPTIONS {
        if let Some((variable, text)) = option.variable.and_then(|name| Some((name, var(name)?))) {
            let origin = Origin::Variable(variable.to_owned());
            let texts = match option.kind {
                options::Kind::Backends => parse::split_backends(&text),
                _ => vec![text],
            };
            let texts = texts.into_iter().map(|text| (text, origin.clone())).collect();
            typed.values.entry(option.name()).or_insert(Given { texts, origin });
        }
    }
}

/// What is wrong with a file of this text.
pub(super) fn problems(text: &str) -> String {
    let (_guard, path) = file(text);
    parse_with(&["--config", &path], &[]).unwrap_err().to_string()
}

pub(super) fn command_without_environment() -> clap::Command {
    command().mut_args(|arg| arg.env(None))
}

pub(super) fn file(text: &str) -> (tempfile::Path, String) {
    tempfile::write(text)
}

/// Files that vanish with their guard; a crate for this would be one more to build.
pub(super) mod tempfile {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    pub(in crate::config) struct Path(PathBuf);

    impl Drop for Path {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    pub(in super::super) fn write(text: &str) -> (Path, String) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("lb-config-{}-{}.toml", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        (Path(path.clone()), path.display().to_string())
    }
}

#[test]
fn nothing_said_gives_the_defaults_of_the_quick_start() {
    let config = parse_with(&[], &[]).unwrap();
    assert_eq!((config.port, config.admin.port), (8080, 8089));
    assert!(config.bind.is_unspecified() && config.admin.bind.is_loopback());
    let names: Vec<&str> = config.pool.backends.iter().map(|b| b.name.as_str()).collect();
    assert_eq!(names, ["127.0.0.1:8081", "127.0.0.1:8082", "127.0.0.1:8083"]);
    assert!(config.workers >= 1);
}

#[test]
fn every_default_of_the_table_is_valid_and_every_key_is_unique() {
    let mut names = std::collections::HashSet::new();
    for option in options::OPTIONS {
        assert!(names.insert(option.name()), "{} stands twice", option.name());
        assert!(!option.help.is_empty() && !option.reason.is_empty(), "{} is not explained", option.name());
    }
    parse_with(&[], &[]).unwrap();
}

#[test]
fn a_flag_wins_over_a_variable_and_a_variable_over_the_file() {
    let (_guard, path) = file("[proxy]\nport = 1\nworkers = 3\n[timeouts]\nconnect = \"7s\"\n");
    let config = parse_with(&["--config", &path, "--port", "3"], &[("PROXY_PORT", "2"), ("LB_WORKERS", "5")]).unwrap();
    assert_eq!((config.port, config.workers, config.timeouts.connect), (3, 5, Duration::from_secs(7)));
}

#[test]
fn a_file_can_say_everything_that_has_a_key() {
    let mut text = String::new();
    let mut sections: Vec<(&str, String)> = Vec::new();
    for option in options::OPTIONS.iter().filter(|o| !o.key.is_empty() && o.key != "pool.backends") {
        let (section, key) = option.key.split_once('.').unwrap();
        // Those of a pool stand in its own brackets, at the end.
        let section = if section == "pool" { "[pool]" } else { section };
        if option.default.is_empty() {
            continue;
        }
        let bare = matches!(option.kind, options::Kind::Port | options::Kind::Count(..) | options::Kind::Share);
        let value = if bare { option.default.to_owned() } else { format!("{:?}", option.default) };
        match sections.iter_mut().find(|(name, _)| *name == section) {
            Some((_, lines)) => lines.push_str(&format!("{key} = {value}\n")),
            None => sections.push((section, format!("{key} = {value}\n"))),
        }
    }
    // The rest of the pool's keys follow.
    sections.sort_by_key(|(section, _)| *section == "[pool]");
    for (section, lines) in sections {
        text.push_str(&format!("[{section}]\n{lines}"));
    }
    text.push_str(
        "name = \"web\"\n\
         backends = [\"a:1\", { address = \"b:2\", weight = 3, name = \"bee\" }]\n",
    );
    let (_guard, path) = file(&text);
    let config = parse_with(&["--config", &path], &[]).unwrap();
    assert_eq!(config.pool.name, "web");
    assert_eq!((config.pool.backends[1].name.as_str(), config.pool.backends[1].weight), ("bee", 3));
}

#[test]
fn every_problem_is_reported_with_its_place_value_and_what_was_expected() {
    let (_guard, path) = file(
        "[proxy]\nport = 70000\nprot = 1\n\n[timeouts]\nconnect = \"2 parsecs\"\n\
         [[pool]]\nbackends = [\"a:1\", \"b\", \"a:1\"]\n[helth]\nrise = 1\n",
    );
    let error = parse_with(&["--config", &path, "--workers", "many"], &[("ADMIN_PORT", "x")]).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.exit_code(), 78);
    for expected in [
        "8 problems",
        &format!("{path}:2:8: proxy.port: \"70000\": expected a port number from 0 to 65535"),
        &format!("{path}:3:1: proxy.prot: there is no such key; did you mean proxy.port?"),
        &format!("{path}:6:11: timeouts.connect: \"2 parsecs\": expected a duration with its unit"),
        &format!("{path}:8:20: pool.backends: \"b\": \"b\" has no port"),
        &format!("{path}:8:25: pool.backends: \"a:1\": the address is given twice, first by {path}:8:13"),
        "did you mean health.rise?",
        "flag --workers: proxy.workers: \"many\": expected a whole number from 0 to 256",
    ] {
        assert!(text.contains(expected), "no {expected:?} in:\n{text}");
    }
    assert!(text.contains("variable ADMIN_PORT: admin.port: \"x\""), "{text}");
}

#[test]
fn a_wrong_variable_alone_is_a_usage_error_and_what_it_means_is_configuration() {
    let code = |args: &[&str], env: &[(&str, &str)]| parse_with(args, env).unwrap_err().exit_code();
    assert_eq!(code(&[], &[("PROXY_PORT", "abc")]), 2);
    assert_eq!(code(&["--check-rise", "0"], &[]), 2);
    assert_eq!(code(&[], &[("BACKENDS", ",")]), 78);
    assert_eq!(code(&["--backend", "a:1", "--backend", "a:1"], &[]), 78);
    assert_eq!(code(&["--config", "/nonexistent/lb.toml"], &[]), 78);
    assert_eq!(code(&["--admin-bind", "0.0.0.0"], &[]), 78);
}

#[test]
fn a_secret_is_never_shown() {
    let error = parse_with(&[], &[("ADMIN_TOKEN", "hunter2")]).unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");
    let config = parse_with(&["--admin-bind", "0.0.0.0"], &[("ADMIN_TOKEN", "0123456789abcdef")]).unwrap();
    assert!(!format!("{config:?}").contains("0123456789abcdef"));
}

#[test]
fn broken_toml_is_a_problem_with_a_place() {
    let (_guard, path) = file("[proxy\nport = 1\n");
    let error = parse_with(&["--config", &path], &[]).unwrap_err();
    assert!(error.to_string().contains(&format!("{path}:1:")), "{error}");
}

#[test]
fn a_list_where_one_value_belongs_is_refused() {
    let (_guard, path) = file("[proxy]\nport = []\nworkers = [1, 2]\n[timeouts]\nconnect = []\n");
    let text = parse_with(&["--config", &path], &[]).unwrap_err().to_string();
    assert!(text.contains("3 problems") && text.contains(":2:8: proxy.port: is a list; expected a port"), "{text}");
}

#[test]
fn a_token_file_named_by_a_flag_wins_over_the_variable() {
    let (_guard, path) = file("fedcba9876543210\n");
    let env = [("ADMIN_TOKEN", "0123456789abcdef")];
    let token = |args: &[&str]| match parse_with(args, &env).unwrap().admin.token {
        TokenSource::Given(token) => token,
        TokenSource::Made => panic!("a token was given"),
    };
    assert_eq!(token(&["--admin-token-file", &path]), "fedcba9876543210");
    assert_eq!(token(&[]), "0123456789abcdef");
}

#[test]
fn one_server_in_two_spellings_and_the_balancer_itself_are_refused() {
    for args in [
        &["--backend", "[::1]:80", "--backend", "[0::1]:80"][..],
        &["--port", "8081", "--backend", "127.0.0.1:8081"],
        &["--bind", "::1", "--backend", "[::1]:8080"],
    ] {
        assert_eq!(parse_with(args, &[]).unwrap_err().exit_code(), 78, "{args:?}");
    }
}

#[test]
fn networks_may_be_a_list_or_stand_between_commas() {
    let (_guard, path) = file("[proxy]\ntrusted_proxies = [\"10.0.0.0/8, 192.0.2.1\", \"::1\"]\n");
    assert_eq!(parse_with(&["--config", &path], &[]).unwrap().trusted_proxies.len(), 3);
}

#[test]
fn limits_of_zero_are_none_and_a_version_is_one_of_two() {
    let config = parse_with(&[], &[]).unwrap();
    assert_eq!(config.admission, AdmissionConfig { connections: None, connections_per_client: None });
    assert_eq!((config.upstream.proxy_protocol, config.proxy_protocol_from.len()), (None, 0));
    let env = [("LB_MAX_CONNECTIONS", "7"), ("LB_MAX_CONNECTIONS_PER_CLIENT", "3")];
    let args = ["--upstream-proxy-protocol", "v2", "--proxy-protocol-from", "10.0.0.0/8", "--max-connections", "9"];
    let config = parse_with(&args, &env).unwrap();
    assert_eq!(config.admission, AdmissionConfig { connections: Some(9), connections_per_client: Some(3) });
    assert_eq!((config.upstream.proxy_protocol, config.proxy_protocol_from.len()), (Some(ProxyVersion::V2), 1));
    let error = parse_with(&["--upstream-proxy-protocol", "v3"], &[]).unwrap_err().to_string();
    assert!(error.contains("expected one of off, v1, v2"), "{error}");
}
