//! Who is in rotation: `outlier.*`, `panic.threshold` and `slow_start.*`. A detection that is switched off comes out as
//! limits of 0, so that nothing behind this asks twice.

use lb_core::outlier::{ErrorAnswers, FEWEST_HOSTS, OutlierPolicy};
use lb_core::panic;
use lb_core::rotation::RotationPolicy;

use super::parse;
use super::validate::Judge;

/// What means nothing without detection.
const TUNES: [&str; 10] = [
    "outlier.consecutive",
    "outlier.errors",
    "outlier.interval",
    "outlier.success_rate_hosts",
    "outlier.success_rate_requests",
    "outlier.failure_percent",
    "outlier.failure_requests",
    "outlier.max_ejected",
    "outlier.base_time",
    "outlier.max_time",
];

impl Judge<'_> {
    pub(super) fn rotation(&mut self) -> RotationPolicy {
        let detects = self.value("outlier.detection", parse::switch).unwrap_or(true);
        let limit = |count: u64| if detects { count } else { 0 };
        let outlier = OutlierPolicy {
            consecutive: limit(self.count("outlier.consecutive")) as u32,
            errors: match self.text("outlier.errors", |text| ["gateway", "5xx"].contains(&text)).as_str() {
                "5xx" => ErrorAnswers::Server,
                _ => ErrorAnswers::Gateway,
            },
            interval: self.duration("outlier.interval"),
            success_rate_hosts: limit(self.count("outlier.success_rate_hosts")) as u32,
            success_rate_requests: self.count("outlier.success_rate_requests"),
            failure_percent: limit(self.count("outlier.failure_percent")) as u32,
            failure_requests: self.count("outlier.failure_requests"),
            max_ejected_percent: self.count("outlier.max_ejected") as u32,
            base_time: self.duration("outlier.base_time"),
            max_time: self.duration("outlier.max_time"),
        };
        let mut policy = RotationPolicy {
            outlier,
            panic_percent: self.count("panic.threshold") as u32,
            // Seen only with pool and checks beside it.
            checks_elsewhere: false,
            slow_start: self.duration("slow_start.window"),
        };
        // Whoever sets one of the two alone does not mean the other's default to contradict it.
        if !self.is_given("outlier.max_ejected") {
            let most = 100_u32.saturating_sub(policy.panic_percent).max(1);
            policy.outlier.max_ejected_percent = policy.outlier.max_ejected_percent.min(most);
        } else if !self.is_given("panic.threshold") {
            let most = 100_u32.saturating_sub(policy.outlier.max_ejected_percent);
            policy.panic_percent = policy.panic_percent.min(most);
        }
        // A first ejection that lasts longer than the default longest one is meant.
        if !self.is_given("outlier.max_time") {
            policy.outlier.max_time = policy.outlier.max_time.max(policy.outlier.base_time);
        }
        if detects {
            self.ejections_can_happen(&policy);
        } else {
            self.nothing_to_tune();
        }
        policy
    }

    /// Whoever says what ejects, with detection off, believes that something does.
    fn nothing_to_tune(&mut self) {
        for key in TUNES {
            // A file may spell every default out.
            if self.is_changed(key) {
                self.refuse_given(
                    key,
                    "has no meaning while outlier.detection is off; switch it on, or leave this out",
                );
            }
        }
    }

    /// Settings that are fine each and make no sense together.
    fn ejections_can_happen(&mut self, policy: &RotationPolicy) {
        let outlier = &policy.outlier;
        if outlier.max_ejected_percent == 0 {
            self.refuse_given("outlier.max_ejected", "is 0 with outlier.detection on: nothing could be ejected; switch outlier.detection off, or allow 1 to 100");
        }
        if outlier.is_off() {
            let words = "is on, but outlier.consecutive, outlier.success_rate_hosts and outlier.failure_percent are all 0; \
                         give one of them a limit, or switch it off";
            self.refuse_given("outlier.detection", words);
        }
        if (1..FEWEST_HOSTS).contains(&outlier.success_rate_hosts) {
            let words = format!(
                "is below {FEWEST_HOSTS}: among fewer backends none can stand out by 1.9 standard deviations; expected 0 (off) or at least {FEWEST_HOSTS}"
            );
            self.refuse_given("outlier.success_rate_hosts", &words);
        }
        if outlier.max_time < outlier.base_time {
            self.refuse_given("outlier.max_time", "is shorter than outlier.base_time; expected at least as long");
        }
        let (_, backends) = self.given("pool.backends");
        let backends = backends.texts.len();
        // One alone is never ejected, whatever is set.
        if backends > 1 && panic::is_below(policy.panic_percent, backends - 1, backends) {
            let words = format!(
                "leaves nothing to outlier.detection: one of {backends} backends less would begin a panic, so none would ever be ejected; expected at most {}, or outlier.detection off",
                100 * (backends - 1) / backends
            );
            self.refuse_given("panic.threshold", &words);
        }
        let both = self.is_given("outlier.max_ejected") && self.is_given("panic.threshold");
        if both && outlier.max_ejected_percent + policy.panic_percent > 100 {
            let words = format!(
                "and panic.threshold ({}) are more than 100 together: ejections would begin a panic, which takes them back; lower one of them",
                policy.panic_percent
            );
            self.refuse_given("outlier.max_ejected", &words);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::tests::{file, parse_with};

    fn refusals(text: &str) -> String {
        let (_guard, path) = file(text);
        parse_with(&["--config", &path], &[]).unwrap_err().to_string()
    }

    #[test]
    fn all_of_it_is_on_by_default() {
        let policy = parse_with(&[], &[]).unwrap().rotation;
        assert_eq!((policy.outlier.consecutive, policy.outlier.errors), (5, ErrorAnswers::Gateway));
        assert_eq!((policy.outlier.success_rate_hosts, policy.outlier.failure_percent), (5, 85));
        assert_eq!((policy.outlier.max_ejected_percent, policy.panic_percent), (50, 30));
        assert_eq!((policy.outlier.base_time, policy.slow_start), (Duration::from_secs(10), Duration::from_secs(5)));
    }

    #[test]
    fn checks_look_elsewhere_when_their_port_is_not_that_of_requests() {
        let elsewhere = |args: &[&str]| parse_with(args, &[]).unwrap().rotation.checks_elsewhere;
        assert!(!elsewhere(&[]) && elsewhere(&["--check-port", "9000"]));
        assert!(!elsewhere(&["--backend", "a:9000", "--check-port", "9000"]));
    }

    #[test]
    fn each_part_can_be_switched_off() {
        let off = ["--outlier-detection", "off", "--panic-threshold", "0", "--slow-start", "0s"];
        let policy = parse_with(&off, &[]).unwrap().rotation;
        assert!(policy.outlier.is_off() && policy.panic_percent == 0 && policy.slow_start.is_zero());
        // A file may spell defaults out.
        let (_guard, path) = file("[outlier]\ndetection = false\nmax_ejected = 50\n[panic]\nthreshold = 100\n");
        parse_with(&["--config", &path], &[]).unwrap();
    }

    #[test]
    fn a_default_gives_way_to_what_is_given() {
        let policy = parse_with(&["--panic-threshold", "60"], &[]).unwrap().rotation;
        assert_eq!((policy.panic_percent, policy.outlier.max_ejected_percent), (60, 40));
        let (_guard, path) = file("[outlier]\nmax_ejected = 90\n");
        let policy = parse_with(&["--config", &path], &[]).unwrap().rotation;
        assert_eq!((policy.panic_percent, policy.outlier.max_ejected_percent), (10, 90));
    }

    #[test]
    fn a_first_ejection_longer_than_the_default_longest_takes_that_along() {
        let (_guard, path) = file("[outlier]\nbase_time = \"10m\"\n");
        let outlier = parse_with(&["--config", &path], &[]).unwrap().rotation.outlier;
        assert_eq!((outlier.base_time, outlier.max_time), (Duration::from_secs(600), Duration::from_secs(600)));
    }

    #[test]
    fn what_tunes_a_detection_that_is_off_is_refused() {
        let values = ["9", "\"5xx\"", "\"1s\"", "9", "9", "9", "9", "9", "\"1s\"", "\"900s\""];
        for (key, value) in TUNES.iter().zip(values) {
            let name = key.strip_prefix("outlier.").unwrap();
            let found = refusals(&format!("[outlier]\ndetection = false\n{name} = {value}\n"));
            assert!(found.contains(key) && found.contains("while outlier.detection is off"), "{key}: {found}");
        }
    }

    #[test]
    fn a_threshold_that_leaves_nothing_to_eject_is_refused_for_so_many_backends() {
        let refused = |backends: &[&str], threshold: &str| {
            let backends = backends.iter().flat_map(|backend| ["--backend", backend]);
            let args: Vec<&str> = backends.chain(["--panic-threshold", threshold]).collect();
            parse_with(&args, &[]).err().map(|error| error.to_string())
        };
        let two = ["a:1", "b:1"];
        let words = refused(&two, "51").unwrap();
        assert!(words.contains("panic.threshold") && words.contains("outlier.detection"), "{words}");
        assert!(words.contains("at most 50"), "{words}");
        assert_eq!((refused(&two, "50"), refused(&two[..1], "100")), (None, None));
        assert!(refused(&["a:1", "b:1", "c:1"], "67").is_some() && refused(&["a:1", "b:1", "c:1"], "66").is_none());
    }

    #[test]
    fn impossible_settings_name_both_keys() {
        for (text, words) in [
            ("[outlier]\ninterval = \"0s\"\n", "outlier.interval: \"0s\": expected a duration"),
            ("[outlier]\nbase_time = \"0s\"\n", "outlier.base_time: \"0s\": expected a duration"),
            ("[outlier]\nmax_ejected = 0\n", "outlier.max_ejected: \"0\": is 0 with outlier.detection on"),
            ("[outlier]\nmax_ejected = 101\n", "outlier.max_ejected: \"101\": expected a whole number from 0 to 100"),
            (
                "[outlier]\nmax_ejected = 80\n[panic]\nthreshold = 30\n",
                "outlier.max_ejected: \"80\": and panic.threshold (30) are more than 100",
            ),
            ("[outlier]\nmax_time = \"5s\"\n", "outlier.max_time: \"5s\": is shorter than outlier.base_time"),
            ("[outlier]\nsuccess_rate_hosts = 4\n", "outlier.success_rate_hosts: \"4\": is below 5"),
            ("[outlier]\nerrors = \"4xx\"\n", "outlier.errors: \"4xx\": expected one of gateway, 5xx"),
            (
                "[outlier]\nconsecutive = 0\nsuccess_rate_hosts = 0\nfailure_percent = 0\n",
                "outlier.detection: \"true\": is on, but outlier.consecutive, outlier.success_rate_hosts and",
            ),
            ("[panic]\nthreshold = 101\n", "panic.threshold: \"101\": expected a whole number from 0 to 100"),
            ("[slow_start]\nwindow = \"2h\"\n", "slow_start.window: \"2h\": expected a duration"),
        ] {
            let error = refusals(text);
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
