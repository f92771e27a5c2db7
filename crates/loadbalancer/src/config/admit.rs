//! What may be under way at a time, who waits, and what happens when there is too much of everything.

use std::time::Duration;

use http::HeaderName;
use lb_core::gate::GateLimits;
use lb_core::rate::RatePolicy;

use super::Config;
use super::parse;
use super::validate::Judge;

/// Below this nothing could be served: at rest the balancer takes about 15 MiB, and half as much again in a rush.
const LEAST_MEMORY: u64 = 24 << 20;

/// Limits of what is taken in at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmitConfig {
    /// Requests under way, and how many may wait.
    pub gate: GateLimits,
    /// How long one may wait.
    pub queue_timeout: Duration,
    /// Connections to backends, all workers together; `None` is what descriptors carry, and never refuses.
    pub connections: Option<usize>,
    /// Bytes; `None` is what the system gives.
    pub memory: Option<u64>,
    /// `None` is no limit.
    pub rate: Option<RateConfig>,
}

/// How often one client may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateConfig {
    pub policy: RatePolicy,
    /// The field that says who asks, believed from trusted proxies only; `None` is the address.
    pub header: Option<HeaderName>,
    /// How many are remembered.
    pub clients: usize,
}

impl Judge<'_> {
    pub(super) fn admit(&mut self) -> AdmitConfig {
        let or_none = |limit: u64| (limit > 0).then_some(limit);
        let gate = GateLimits {
            requests: or_none(self.count("pool.max_requests")),
            requests_per_backend: or_none(self.count("pool.max_requests_per_backend")),
            queue: self.count("queue.length") as usize,
        };
        AdmitConfig {
            gate,
            queue_timeout: self.duration("queue.timeout"),
            connections: or_none(self.count("pool.max_connections")).map(|limit| limit as usize),
            memory: or_none(self.size("overload.memory")),
            rate: self.rate(),
        }
    }

    fn rate(&mut self) -> Option<RateConfig> {
        let requests = self.count("rate_limit.requests") as u32;
        let burst = self.count("rate_limit.burst") as u32;
        let policy = RatePolicy {
            requests,
            period: self.duration("rate_limit.period"),
            burst: if burst == 0 { requests } else { burst },
        };
        let header = self.text("rate_limit.header", |text| text.is_empty() || parse::is_token(text));
        let clients = self.count("rate_limit.clients") as usize;
        // A token is a valid name.
        let header = HeaderName::from_bytes(header.as_bytes()).ok();
        (requests > 0).then_some(RateConfig { policy, header, clients })
    }

    /// What only makes sense together.
    pub(super) fn admit_together(&mut self, config: &Config) {
        let gate = config.admit.gate;
        if gate.is_none() {
            for key in ["queue.length", "queue.timeout"] {
                self.only_with(
                    key,
                    "nothing is limited, so nothing ever waits; set pool.max_requests or \
                    pool.max_requests_per_backend too",
                );
            }
        }
        if gate.requests.zip(gate.requests_per_backend).is_some_and(|(pool, backend)| pool < backend) {
            let (_, given) = self.given("pool.max_requests");
            let words =
                "is less than pool.max_requests_per_backend, which could never be reached; expected at least as many";
            self.refuse(&given.origin, "pool.max_requests", gate.requests.map(|limit| limit.to_string()), words);
        }
        if config.admit.memory.is_some_and(|memory| memory < LEAST_MEMORY) {
            let (_, given) = self.given("overload.memory");
            let words =
                "is less than the balancer needs itself, everything would be refused; expected 0 or at least 24MiB";
            let value = given.texts.last().map(|(text, _)| text.clone());
            self.refuse(&given.origin, "overload.memory", value, words);
        }
        match &config.admit.rate {
            None => {
                for key in ["rate_limit.period", "rate_limit.burst", "rate_limit.header", "rate_limit.clients"] {
                    self.only_with(key, "nothing is limited without rate_limit.requests; set it too");
                }
            }
            Some(rate) if rate.header.is_some() && config.trusted_proxies.is_empty() => {
                self.only_with(
                    "rate_limit.header",
                    "is believed from trusted proxies only, and there is none; name them in \
                    proxy.trusted_proxies",
                );
            }
            Some(_) => {}
        }
    }

    /// Refuses `key` if somebody said anything but its default: a file may write down all of them.
    fn only_with(&mut self, key: &'static str, words: &str) {
        if self.is_changed(key) {
            self.refuse_given(key, words);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{file, parse_with};
    use super::*;

    fn with(text: &str) -> Result<AdmitConfig, String> {
        let (_guard, path) = file(text);
        parse_with(&["--config", &path], &[]).map(|config| config.admit).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_limited_unless_asked_for() {
        let admit = parse_with(&[], &[]).unwrap().admit;
        assert!(admit.gate.is_none() && admit.rate.is_none() && admit.connections.is_none() && admit.memory.is_none());
    }

    #[test]
    fn limits_come_from_flags_variables_and_the_pool() {
        let admit = with(
            "[[pool]]\nbackends = [\"a:1\"]\nmax_requests = 100\nmax_requests_per_backend = 10\n\
            max_connections = 50\n[queue]\nlength = 7\ntimeout = \"250ms\"\n",
        )
        .unwrap();
        assert_eq!(admit.gate, GateLimits { requests: Some(100), requests_per_backend: Some(10), queue: 7 });
        assert_eq!((admit.queue_timeout, admit.connections), (Duration::from_millis(250), Some(50)));
        let args = ["--max-requests", "5", "--rate-limit", "20", "--memory-limit", "64MiB"];
        let admit = parse_with(&args, &[("LB_MAX_REQUESTS_PER_BACKEND", "4")]).unwrap().admit;
        assert_eq!(admit.gate, GateLimits { requests: Some(5), requests_per_backend: Some(4), queue: 1024 });
        let rate = admit.rate.unwrap();
        assert_eq!(rate.policy, RatePolicy { requests: 20, period: Duration::from_secs(1), burst: 20 });
        assert_eq!((rate.header, admit.memory), (None, Some(64 << 20)));
    }

    #[test]
    fn what_cannot_work_names_both_keys() {
        for (text, words) in [
            ("[queue]\nlength = 5\n", ["queue.length: \"5\": nothing is limited", "pool.max_requests"]),
            ("[queue]\ntimeout = \"5s\"\n", ["queue.timeout: \"5s\": nothing is limited", "pool.max_requests"]),
            ("[queue]\ntimeout = \"0s\"\n", ["queue.timeout: \"0s\": expected a duration", "from 1ms"]),
            (
                "[[pool]]\nbackends = [\"a:1\"]\nmax_requests = 5\nmax_requests_per_backend = 6\n",
                ["pool.max_requests: \"5\": is less than", "pool.max_requests_per_backend"],
            ),
            ("[overload]\nmemory = \"1MiB\"\n", ["overload.memory: \"1MiB\"", "at least 24MiB"]),
            ("[rate_limit]\nburst = 5\n", ["rate_limit.burst: \"5\": nothing is limited", "rate_limit.requests"]),
            (
                "[rate_limit]\nrequests = 5\nheader = \"x-api-key\"\n",
                ["rate_limit.header: \"x-api-key\": is believed", "proxy.trusted_proxies"],
            ),
            ("[rate_limit]\nrequests = 5\nheader = \"a b\"\n", ["rate_limit.header: \"a b\"", "expected a word"]),
            (
                "[[pool]]\nmax_request = 5\n",
                ["pool.max_request: there is no such key", "did you mean pool.max_requests"],
            ),
        ] {
            let error = with(text).unwrap_err();
            for words in words {
                assert!(error.contains(words), "no {words:?} in {error}");
            }
        }
    }
}
