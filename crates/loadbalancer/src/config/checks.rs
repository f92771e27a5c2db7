//! How backends are checked: what is sent, what is expected, and how many are checked at once. The intervals are in
//! [`HealthPolicy`](lb_core::health::HealthPolicy).

use lb_core::check::{CheckKind, CheckMethod, HttpCheck, Statuses};
use lb_core::health::HealthPolicy;

use super::parse;
use super::validate::Judge;

/// The longest target of a check, and the longest text that is looked for: what a person would type.
const MOST_TARGET: usize = 1024;
const MOST_TEXT: usize = 256;

/// The checks of all backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckConfig {
    pub kind: CheckKind,
    /// The port that is checked; `None` is the one that requests go to.
    pub port: Option<u16>,
    /// Backends that are checked at once, at least 1.
    pub concurrency: usize,
    /// Whether a connection is kept for the next check.
    pub reuse: bool,
}

/// Options that mean nothing to a check that only connects.
const HTTP_ONLY: [&str; 6] =
    ["health.method", "health.path", "health.host", "health.statuses", "health.body", "health.reuse"];

impl Judge<'_> {
    pub(super) fn checks(&mut self) -> CheckConfig {
        let http = self.text("health.kind", |text| ["tcp", "http"].contains(&text)) == "http";
        let method = self.text("health.method", |text| CheckMethod::ALL.iter().any(|method| method.as_str() == text));
        let method = CheckMethod::ALL.into_iter().find(|known| known.as_str() == method).unwrap_or(CheckMethod::Get);
        let some = |text: String| (!text.is_empty()).then_some(text);
        let check = HttpCheck {
            method,
            target: self.text("health.path", is_target),
            host: some(self.text("health.host", |text| text.is_empty() || is_host(text))),
            statuses: self.good_statuses(),
            text: some(self.text("health.body", |text| text.len() <= MOST_TEXT)),
        };
        let reuse = self.value("health.reuse", parse::switch).unwrap_or_default();
        if !http {
            self.only_http();
        } else if check.method == CheckMethod::Head && check.text.is_some() {
            let words = "cannot be found with health.method HEAD, whose answers have no body; use GET, or leave it out";
            self.refuse_given("health.body", words);
        }
        CheckConfig {
            kind: if http { CheckKind::Http(check) } else { CheckKind::Tcp },
            port: Some(self.count("health.port") as u16).filter(|port| *port != 0),
            concurrency: self.count("health.concurrency") as usize,
            reuse: http && reuse,
        }
    }

    /// Whoever shortens one interval alone does not mean checks to slow down in another state.
    pub(super) fn intervals(&mut self, health: &mut HealthPolicy) {
        let (fast_given, down_given) = (self.is_given("health.fast_interval"), self.is_given("health.down_interval"));
        if !down_given {
            health.down_interval = health.down_interval.min(health.interval);
        }
        if !fast_given {
            health.fast_interval = health.fast_interval.min(health.interval).min(health.down_interval);
        } else if !down_given {
            health.down_interval = health.down_interval.max(health.fast_interval);
        }
        if health.fast_interval > health.interval {
            self.refuse_given("health.fast_interval", "is longer than health.interval; expected at most as long");
        } else if health.fast_interval > health.down_interval {
            let words = "is shorter than health.fast_interval; expected at least as long";
            self.refuse_given("health.down_interval", words);
        }
    }

    fn good_statuses(&mut self) -> Statuses {
        let given = self.value("health.statuses", |text| text.parse().ok());
        given.unwrap_or_else(|| "200".parse().expect("a status is a set of statuses"))
    }

    /// Whoever says what to ask for over HTTP expects that it is asked for.
    fn only_http(&mut self) {
        for key in HTTP_ONLY {
            // A file may spell every default out.
            if self.is_changed(key) {
                let words = "has no meaning while health.kind is tcp; set health.kind to http, or leave it out";
                self.refuse_given(key, words);
            }
        }
    }
}

/// RFC 9112 §3.2.1: origin form, without what would end or split the request line.
fn is_target(text: &str) -> bool {
    text.starts_with('/') && text.len() <= MOST_TARGET && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
}

/// A name or address, perhaps with a port: what fits into a `Host` field (RFC 9110 §7.2).
fn is_host(text: &str) -> bool {
    text.len() <= 255 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{parse_with, problems};
    use super::*;

    #[test]
    fn a_check_is_a_connection_unless_somebody_says_more() {
        let config = parse_with(&[], &[]).unwrap();
        assert_eq!((config.checks.kind, config.checks.port, config.checks.reuse), (CheckKind::Tcp, None, false));
        let args = ["--check-kind", "http", "--check-path", "/health?deep=1", "--check-port", "9000"];
        let checks = parse_with(&args, &[]).unwrap().checks;
        let CheckKind::Http(check) = checks.kind else { panic!("not http") };
        assert_eq!((check.target.as_str(), check.statuses.to_string().as_str()), ("/health?deep=1", "200-399"));
        assert_eq!((checks.port, check.host, check.text, check.method), (Some(9000), None, None, CheckMethod::Get));
    }

    #[test]
    fn an_interval_that_is_shortened_alone_takes_the_shorter_ones_along() {
        let intervals = |args: &[&str]| {
            let health = parse_with(args, &[]).unwrap().health;
            [health.interval, health.fast_interval, health.down_interval].map(|interval| interval.as_millis())
        };
        assert_eq!(intervals(&[]), [5000, 1000, 5000]);
        assert_eq!(intervals(&["--check-interval", "200ms"]), [200, 200, 200]);
        assert_eq!(intervals(&["--check-interval", "60s"]), [60_000, 1000, 5000]);
        assert_eq!(intervals(&["--check-interval", "60s", "--check-fast-interval", "9s"]), [60_000, 9000, 9000]);
    }

    #[test]
    fn what_a_check_cannot_be_is_refused_and_both_keys_are_named() {
        for (file, words) in [
            ("path = \"/x\"", ["health.path", "health.kind"]),
            ("method = \"HEAD\"", ["health.method", "health.kind"]),
            ("host = \"a\"", ["health.host", "health.kind"]),
            ("statuses = \"200\"", ["health.statuses", "health.kind"]),
            ("body = \"ok\"", ["health.body", "health.kind"]),
            ("reuse = true", ["health.reuse", "health.kind"]),
            ("kind = \"http\"\nmethod = \"HEAD\"\nbody = \"ok\"", ["health.body", "health.method"]),
            ("interval = \"1s\"\nfast_interval = \"2s\"", ["health.fast_interval", "health.interval"]),
            ("fast_interval = \"2s\"\ndown_interval = \"1s\"", ["health.fast_interval", "health.down_interval"]),
        ] {
            let found = problems(&format!("[health]\n{file}\n"));
            assert!(found.lines().count() == 2 && words.iter().all(|word| found.contains(word)), "{file}: {found}");
        }
        assert!(parse_with(&["--config", "/dev/null", "--check-kind", "tcp"], &[]).is_ok());
    }

    #[test]
    fn values_that_would_break_a_request_are_refused() {
        for file in [
            "kind = \"udp\"",
            "kind = \"http\"\npath = \"health\"",
            "kind = \"http\"\npath = \"/a b\"",
            "kind = \"http\"\npath = \"/a\\r\\nX: y\"",
            "kind = \"http\"\nhost = \"a\\r\\nX: y\"",
            "kind = \"http\"\nmethod = \"POST\"",
            "kind = \"http\"\nstatuses = \"2xx\"",
            "rise = 0",
            "fall = 0",
            "concurrency = 0",
            "port = 65536",
        ] {
            let found = problems(&format!("[health]\n{file}\n"));
            assert!(found.contains("expected"), "{file}: {found}");
        }
    }
}
