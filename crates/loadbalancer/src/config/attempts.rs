//! How often, how long and with what kept a request is tried: what goes beyond the counts of `retry.*`.

use std::time::Duration;

use http::StatusCode;

use super::validate::Judge;
use super::{Config, parse};

/// Statuses that may be repeated: errors. Anything else is an answer.
const ERRORS: std::ops::RangeInclusive<u16> = 400..=599;

/// What attempts may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptConfig {
    /// For a request as a whole, from its arrival to the end of its response; `None` is no limit.
    pub request: Option<Duration>,
    /// For one try, up to the response head; `None` is no limit.
    pub per_try: Option<Duration>,
    /// Most bytes of a request body that are kept for a repeat.
    pub buffer: usize,
    /// Statuses after which an idempotent request is repeated.
    pub statuses: Vec<StatusCode>,
    /// Whether clients are told how many attempts there were.
    pub shown: bool,
}

impl Judge<'_> {
    /// Reads them.
    pub(super) fn attempts(&mut self) -> AttemptConfig {
        let or_none = |limit: Duration| (limit > Duration::ZERO).then_some(limit);
        AttemptConfig {
            request: or_none(self.duration("timeouts.request")),
            per_try: or_none(self.duration("timeouts.try")),
            buffer: self.size("retry.buffer") as usize,
            statuses: self.errors("retry.statuses"),
            shown: self.value("retry.show_attempts", parse::switch).unwrap_or_default(),
        }
    }

    fn errors(&mut self, name: &str) -> Vec<StatusCode> {
        let (option, given) = self.given(name);
        let mut statuses = Vec::new();
        let parts =
            given.texts.iter().flat_map(|(text, origin)| text.split(',').map(move |part| (part.trim(), origin)));
        for (text, origin) in parts.filter(|(text, _)| !text.is_empty()) {
            let number = text.parse().ok().filter(|number| ERRORS.contains(number));
            match number.and_then(|number| StatusCode::from_u16(number).ok()) {
                Some(status) if statuses.contains(&status) => {}
                Some(status) => statuses.push(status),
                None => {
                    let words = format!("expected {}", option.kind.expected());
                    self.problem(origin, name, Some(text.to_owned()), words);
                }
            }
        }
        statuses
    }

    /// What only shows when values are seen together.
    pub(super) fn attempts_together(&mut self, config: &Config) {
        let AttemptConfig { request, per_try, statuses, .. } = &config.attempts;
        if let (Some(request), Some(per_try)) = (request, per_try)
            && per_try > request
        {
            self.clash("timeouts.try", *per_try, "timeouts.request", *request);
        }
        if let Some(per_try) = per_try
            && *per_try > config.timeouts.response_head
        {
            self.clash("timeouts.try", *per_try, "timeouts.response_head", config.timeouts.response_head);
        }
        if !statuses.is_empty() && config.retry.max == 0 {
            let (_, given) = self.given("retry.statuses");
            let value = given.texts.last().map(|(text, _)| text.clone());
            let words = "names what to repeat, but retry.max is 0: nothing that was sent is ever repeated; expected \
                         retry.max of at least 1, or no statuses";
            self.refuse(&given.origin, "retry.statuses", value, words);
        }
    }

    /// A time that can never pass before another has ended everything.
    fn clash(&mut self, key: &str, long: Duration, other: &str, short: Duration) {
        let (_, given) = self.given(key);
        let words = format!(
            "is longer than {other} ({}), which would always come first; expected at most as long",
            parse::words(short)
        );
        self.refuse(&given.origin, key, Some(parse::words(long)), words);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse_with;
    use super::*;

    fn config(text: &str) -> Result<Config, String> {
        let (_guard, path) = super::super::tests::file(text);
        parse_with(&["--config", &path], &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn by_default_there_are_no_deadlines_and_only_broken_attempts_are_repeated() {
        let config = parse_with(&[], &[]).unwrap();
        let expected =
            AttemptConfig { request: None, per_try: None, buffer: 65_536, statuses: Vec::new(), shown: false };
        assert_eq!(config.attempts, expected);
    }

    #[test]
    fn all_of_it_can_be_said() {
        let text = "[timeouts]\nrequest = \"10s\"\ntry = \"2s\"\n[retry]\nbuffer = \"1KiB\"\nstatuses = [\"503\", 502, 503]\n\
                    show_attempts = true\n";
        let attempts = config(text).unwrap().attempts;
        assert_eq!((attempts.request, attempts.per_try), (Some(Duration::from_secs(10)), Some(Duration::from_secs(2))));
        let statuses = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::BAD_GATEWAY];
        assert_eq!((attempts.buffer, &attempts.statuses[..], attempts.shown), (1024, &statuses[..], true));
    }

    #[test]
    fn what_cannot_work_together_is_told_with_both_keys() {
        for (text, keys) in [
            ("[timeouts]\nrequest = \"1s\"\ntry = \"2s\"\n", ["timeouts.try", "timeouts.request"]),
            ("[timeouts]\nresponse_head = \"1s\"\ntry = \"2s\"\n", ["timeouts.try", "timeouts.response_head"]),
            ("[retry]\nmax = 0\nstatuses = [\"503\"]\n", ["retry.statuses", "retry.max"]),
        ] {
            let error = config(text).unwrap_err();
            assert!(keys.iter().all(|key| error.contains(key)), "{error}");
        }
        assert!(config("[timeouts]\nrequest = \"1s\"\ntry = \"1s\"\n").is_ok(), "as long is possible");
    }

    #[test]
    fn only_errors_are_statuses_to_repeat() {
        for status in ["200", "399", "600", "5xx", "-1"] {
            let error = config(&format!("[retry]\nstatuses = [\"503\", \"{status}\"]\n")).unwrap_err();
            assert!(error.contains("retry.statuses") && error.contains(status), "{error}");
        }
    }
}
