//! From [`Raw`] to [`Config`]: every value against its option's kind, then what only makes sense together.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use lb_core::backend::{BackendSpec, MAX_BACKENDS};
use lb_core::health::HealthPolicy;

use super::options::{Kind, OPTIONS, Opt, by_key};
use super::parse;
use super::raw::{Given, Origin, Problem, Raw, Wrong};
use super::{
    AccessLog, AdminConfig, AdmissionConfig, Config, Limits, LogConfig, LogFormat, PoolConfig, ProxyVersion,
    RetryConfig, Timeouts, TokenSource, UpstreamConfig,
};

/// The name of the only pool unless the file says another.
const DEFAULT_POOL: &str = "default";

/// The shortest admin token taken: 16 characters of a hex token are 64 bits, beyond guessing over a network.
const SHORTEST_TOKEN: usize = 16;

/// Judges everything; a config comes back only if nothing is wrong.
pub(super) fn validate(raw: &Raw, problems: Vec<Problem>) -> (Option<Config>, Vec<Problem>) {
    let mut judge = Judge { raw, problems };
    let mut config = Config {
        bind: judge.address("proxy.bind"),
        port: judge.count("proxy.port") as u16,
        workers: match judge.count("proxy.workers") {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers as usize,
        },
        trusted_proxies: judge.networks("proxy.trusted_proxies"),
        proxy_protocol_from: judge.networks("proxy.proxy_protocol_from"),
        admission: judge.admission(),
        via: judge.via(),
        upgrades: judge.tokens("proxy.upgrades"),
        abort_on_close: judge.value("proxy.abort_on_close", parse::switch).unwrap_or_default(),
        explain_errors: judge.value("proxy.explain_errors", parse::switch).unwrap_or(true),
        pool: judge.pool(),
        timeouts: Timeouts {
            client_head: judge.duration("timeouts.client_head"),
            keep_alive: judge.duration("timeouts.keep_alive"),
            connect: judge.duration("timeouts.connect"),
            response_head: judge.duration("timeouts.response_head"),
            body_stall: judge.duration("timeouts.body_stall"),
            expect_continue: judge.duration("timeouts.expect_continue"),
            tunnel: judge.duration("timeouts.tunnel"),
            drain: judge.duration("timeouts.drain"),
        },
        limits: judge.limits(),
        admit: judge.admit(),
        health: HealthPolicy {
            interval: judge.duration("health.interval"),
            fast_interval: judge.duration("health.fast_interval"),
            down_interval: judge.duration("health.down_interval"),
            timeout: judge.duration("health.timeout"),
            rise: judge.count("health.rise") as u32,
            fall: judge.count("health.fall") as u32,
            jitter: judge
                .value("health.jitter", |text| text.parse().ok().filter(|share| (0.0..=1.0).contains(share)))
                .unwrap_or_default(),
        },
        rotation: judge.rotation(),
        checks: judge.checks(),
        drain: judge.drain(),
        retry: RetryConfig {
            max: judge.count("retry.max") as u32,
            max_connect: judge.count("retry.max_connect") as u32,
            percent: judge.count("retry.percent") as u32,
            reserve: judge.count("retry.reserve") as u32,
        },
        attempts: judge.attempts(),
        upstream: UpstreamConfig {
            max_idle: judge.count("upstream.max_idle") as usize,
            idle_timeout: judge.duration("upstream.idle_timeout"),
            refresh: judge.duration("discovery.refresh"),
            proxy_protocol: judge.proxy_version(),
        },
        admin: judge.admin(),
        log: LogConfig {
            filter: judge.text("log.level", is_log_filter),
            format: match judge.text("log.format", |text| ["auto", "text", "json"].contains(&text)).as_str() {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => LogFormat::Auto,
            },
            access: match judge.text("log.access", |_| true).as_str() {
                "" => AccessLog::Off,
                "-" => AccessLog::StandardOutput,
                path => AccessLog::File(path.into()),
            },
        },
    };
    let checks_elsewhere = |backend: &BackendSpec| config.checks.port.is_some_and(|port| port != backend.address.port);
    config.rotation.checks_elsewhere = config.pool.backends.iter().any(checks_elsewhere);
    judge.intervals(&mut config.health);
    judge.together(&config);
    judge.attempts_together(&config);
    judge.admit_together(&config);
    let problems = judge.problems;
    (problems.is_empty().then_some(config), problems)
}

pub(super) struct Judge<'a> {
    raw: &'a Raw,
    problems: Vec<Problem>,
}

impl Judge<'_> {
    /// The option, and what was given for it or its default.
    pub(super) fn given(&self, name: &str) -> (&'static Opt, Given) {
        let option = OPTIONS.iter().find(|option| option.name() == name).expect("every name asked for is in the table");
        let default = || {
            let texts = match option.kind {
                Kind::Backends => parse::split_backends(option.default),
                _ => vec![option.default.to_owned()],
            };
            let texts = texts.into_iter().map(|text| (text, Origin::Default)).collect();
            Given { texts, origin: Origin::Default }
        };
        (option, self.raw.values.get(option.name()).cloned().unwrap_or_else(default))
    }

    /// A value that cannot be read.
    pub(super) fn problem(&mut self, origin: &Origin, key: &str, value: Option<String>, words: impl Into<String>) {
        let (origin, key, words) = (origin.clone(), key.to_owned(), words.into());
        self.problems.push(Problem { wrong: Wrong::Value, origin, key, value, words });
    }

    /// Readable, but it cannot work.
    pub(super) fn refuse(&mut self, origin: &Origin, key: &str, value: Option<String>, words: impl Into<String>) {
        let (origin, key, words) = (origin.clone(), key.to_owned(), words.into());
        self.problems.push(Problem { wrong: Wrong::Meaning, origin, key, value, words });
    }

    /// Whether somebody gave this option.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.raw.values.contains_key(key)
    }

    /// Whether somebody gave something else than its default.
    pub(super) fn is_changed(&self, key: &str) -> bool {
        let (option, given) = self.given(key);
        given.texts.last().is_some_and(|(text, _)| text.trim() != option.default)
    }

    /// Refuses what was given for `key` for what stands beside it.
    pub(super) fn refuse_given(&mut self, key: &str, words: &str) {
        let (_, given) = self.given(key);
        let value = given.texts.last().map(|(text, _)| text.clone());
        self.refuse(&given.origin, key, value, words);
    }

    /// The last thing said, read by `read`; `None` after a problem was noted.
    pub(super) fn value<T>(&mut self, name: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let (option, given) = self.given(name);
        // Only a file can give a list where one value belongs, and only an empty one has no last value.
        let one = given.texts.last().filter(|_| given.texts.len() == 1 || !matches!(given.origin, Origin::File(..)));
        let Some((text, origin)) = one else {
            self.problem(&given.origin, name, None, format!("is a list; expected {}", option.kind.expected()));
            return None;
        };
        let value = read(text.trim());
        if value.is_none() {
            self.problem(origin, name, Some(text.clone()), format!("expected {}", option.kind.expected()));
        }
        value
    }

    pub(super) fn count(&mut self, name: &str) -> u64 {
        let (low, high) = match by_key(name).map(|option| option.kind) {
            Some(Kind::Count(low, high)) => (low, high),
            _ => (0, u64::from(u16::MAX)),
        };
        self.value(name, |text| text.parse().ok().filter(|n| (low..=high).contains(n))).unwrap_or_default()
    }

    pub(super) fn duration(&mut self, name: &str) -> Duration {
        let Some(Kind::Duration(low, high)) = by_key(name).map(|option| option.kind) else {
            return Duration::ZERO;
        };
        self.value(name, |text| parse::duration(text).filter(|d| (low..=high).contains(d))).unwrap_or_default()
    }

    pub(super) fn size(&mut self, name: &str) -> u64 {
        let Some(Kind::Size(low, high)) = by_key(name).map(|option| option.kind) else { return 0 };
        self.value(name, |text| parse::size(text).filter(|size| (low..=high).contains(size))).unwrap_or_default()
    }

    fn limits(&mut self) -> Limits {
        let or_none = |limit: u64| if limit == 0 { u64::MAX } else { limit };
        Limits {
            head: self.size("limits.head") as usize,
            fields: self.count("limits.fields") as usize,
            target: self.size("limits.target") as usize,
            body: or_none(self.size("limits.body")),
            requests_per_connection: or_none(self.count("limits.requests_per_connection")),
            min_body_rate: self.size("limits.min_body_rate"),
        }
    }

    /// What was given, else a name that no other process has.
    fn via(&mut self) -> String {
        let given = self.text("proxy.via", |text| text.is_empty() || parse::is_token(text));
        if given.is_empty() { format!("loadbalancer-{:08x}", fastrand::u32(..)) } else { given }
    }

    fn tokens(&mut self, name: &str) -> Vec<String> {
        let (option, given) = self.given(name);
        let mut tokens = Vec::new();
        let parts =
            given.texts.iter().flat_map(|(text, origin)| text.split(',').map(move |part| (part.trim(), origin)));
        for (text, origin) in parts.filter(|(text, _)| !text.is_empty()) {
            if parse::is_token(text) {
                tokens.push(text.to_ascii_lowercase());
            } else {
                let words = format!("expected {}", option.kind.expected());
                self.problem(origin, name, Some(text.to_owned()), words);
            }
        }
        tokens
    }

    fn address(&mut self, name: &str) -> IpAddr {
        self.value(name, |text| text.parse().ok()).unwrap_or(IpAddr::V6(Ipv6Addr::LOCALHOST))
    }

    pub(super) fn text(&mut self, name: &str, fits: impl Fn(&str) -> bool) -> String {
        self.value(name, |text| fits(text).then(|| text.to_owned())).unwrap_or_default()
    }

    fn networks(&mut self, name: &str) -> Vec<IpNet> {
        let (option, given) = self.given(name);
        let mut networks = Vec::new();
        let parts =
            given.texts.iter().flat_map(|(text, origin)| text.split(',').map(move |part| (part.trim(), origin)));
        for (text, origin) in parts.filter(|(text, _)| !text.is_empty()) {
            match parse::network(text) {
                Some(network) => networks.push(network),
                None => {
                    let words = format!("expected {}", option.kind.expected());
                    self.problem(origin, name, Some(text.to_owned()), words);
                }
            }
        }
        networks
    }

    fn pool(&mut self) -> PoolConfig {
        let name = self
            .pool_word(self.raw.pool_name.clone(), "pool.name", DEFAULT_POOL, |name| parse::backend_name(name).err());
        let policy = self.policy();
        let (_, given) = self.given("pool.backends");
        let mut backends: Vec<(BackendSpec, Origin)> = Vec::new();
        for (text, origin) in &given.texts {
            match parse::backend(text) {
                Ok(spec) => backends.push((spec, origin.clone())),
                Err(words) => {
                    let words = format!("{words}; expected {}", parse::BACKEND_EXPECTED);
                    self.problem(origin, "pool.backends", Some(text.clone()), words);
                }
            }
        }
        if given.texts.is_empty() {
            let words = format!("names no backend; expected {}", parse::BACKEND_EXPECTED);
            self.refuse(&given.origin, "pool.backends", Some(String::new()), words);
        } else if given.texts.len() > MAX_BACKENDS {
            let words = format!("{} backends; at most {MAX_BACKENDS} can be given", given.texts.len());
            self.refuse(&given.origin, "pool.backends", None, words);
        }
        self.twice(&backends);
        PoolConfig { name, policy, backends: backends.into_iter().map(|(spec, _)| spec).collect() }
    }

    fn pool_word(
        &mut self,
        given: Option<Given>,
        key: &str,
        default: &str,
        wrong: impl Fn(&str) -> Option<String>,
    ) -> String {
        let given = given.unwrap_or_else(|| Given::one(default, Origin::Default));
        let text = given.texts.into_iter().next_back().map(|(text, _)| text).unwrap_or_default();
        if let Some(words) = wrong(&text) {
            self.problem(&given.origin, key, Some(text.clone()), words);
        }
        text
    }

    /// The same server twice would get a double share in silence; the same name twice could not be addressed.
    fn twice(&mut self, backends: &[(BackendSpec, Origin)]) {
        let mut seen: HashMap<(&str, String), Origin> = HashMap::new();
        let mut found = Vec::new();
        for (spec, origin) in backends {
            let address = ("the address", spec.address.to_string());
            let name = ("the name", spec.name.clone());
            for (what, value) in [address, name] {
                if let Some(first) = seen.get(&(what, value.clone())) {
                    found.push((
                        origin.clone(),
                        value,
                        format!("{what} is given twice, first by {first}; use weight for a larger share"),
                    ));
                    break;
                }
                seen.insert((what, value), origin.clone());
            }
        }
        for (origin, value, words) in found {
            self.refuse(&origin, "pool.backends", Some(value), words);
        }
    }

    fn admission(&mut self) -> AdmissionConfig {
        let or_none = |limit: u64| (limit > 0).then_some(limit);
        AdmissionConfig {
            connections: or_none(self.count("limits.connections")).map(|limit| limit as usize),
            connections_per_client: or_none(self.count("limits.connections_per_client")).map(|limit| limit as u32),
        }
    }

    fn proxy_version(&mut self) -> Option<ProxyVersion> {
        match self.text("upstream.proxy_protocol", |text| ["off", "v1", "v2"].contains(&text)).as_str() {
            "v1" => Some(ProxyVersion::V1),
            "v2" => Some(ProxyVersion::V2),
            _ => None,
        }
    }

    fn admin(&mut self) -> AdminConfig {
        let (bind, port) = (self.address("admin.bind"), self.count("admin.port") as u16);
        let file = self.raw.values.get("admin.token_file").cloned();
        // The token itself can only be a variable, so a flag that names a file is stronger (flag > environment).
        let flagged = file.as_ref().is_some_and(|given| matches!(given.origin, Origin::Flag(_)));
        let variable = self.raw.values.get("ADMIN_TOKEN").filter(|_| !flagged).cloned();
        let token = match (variable, file) {
            (Some(given), _) => {
                self.token(given.texts.first().map(|(text, _)| text.clone()), &given.origin, "ADMIN_TOKEN")
            }
            (None, Some(given)) => {
                let path = given.texts.first().map(|(text, _)| text.clone()).unwrap_or_default();
                match std::fs::read_to_string(&path) {
                    Ok(text) => self.token(Some(text), &given.origin, "admin.token_file"),
                    Err(error) => {
                        let words = format!("cannot be read: {error}");
                        self.refuse(&given.origin, "admin.token_file", Some(path), words);
                        None
                    }
                }
            }
            (None, None) => None,
        };
        AdminConfig { bind, port, token: token.map_or(TokenSource::Made, TokenSource::Given) }
    }

    fn token(&mut self, text: Option<String>, origin: &Origin, key: &str) -> Option<String> {
        let token = text.unwrap_or_default().trim().to_owned();
        if token.len() < SHORTEST_TOKEN || !token.bytes().all(|b| b.is_ascii_graphic()) {
            self.problem(origin, key, None, format!("the token must be at least {SHORTEST_TOKEN} visible characters"));
            return None;
        }
        Some(token)
    }

    /// What only shows when values are seen together.
    fn together(&mut self, config: &Config) {
        if !config.admin.bind.is_loopback() && matches!(config.admin.token, TokenSource::Made) {
            let (_, given) = self.given("admin.bind");
            let words = "reaches beyond this machine and needs a token of yours: set ADMIN_TOKEN or ADMIN_TOKEN_FILE, \
                         or bind to 127.0.0.1";
            let value = given.texts.last().map(|(text, _)| text.clone());
            self.refuse(&given.origin, "admin.bind", value, words);
        }
        for backend in &config.pool.backends {
            let own = backend.address.host.parse::<IpAddr>().is_ok_and(|ip| ip == config.bind || ip.is_loopback())
                && (config.bind.is_loopback() || config.bind.is_unspecified());
            if own && config.port == backend.address.port {
                let (_, given) = self.given("pool.backends");
                let words = "is this balancer's own address: requests would go round for ever";
                self.refuse(&given.origin, "pool.backends", Some(backend.address.to_string()), words);
            }
        }
        let same = config.port != 0 && config.port == config.admin.port;
        if same
            && (config.bind == config.admin.bind || config.bind.is_unspecified() || config.admin.bind.is_unspecified())
        {
            let (_, given) = self.given("admin.port");
            self.refuse(
                &given.origin,
                "admin.port",
                Some(config.port.to_string()),
                "is the proxy's port too; expected another",
            );
        }
    }
}

fn is_log_filter(text: &str) -> bool {
    !text.is_empty() && tracing_subscriber::EnvFilter::try_new(text).is_ok()
}
