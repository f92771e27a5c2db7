use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn faults(text: &str) -> Faults {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn the_whole_grammar_is_read() {
    let read = faults("latency=50ms, jitter=20ms,error=10%,hang=1%,reset-before=0.5%,reset-mid=1.125%,refuse=30s");
    let expected = Faults {
        latency: Duration::from_millis(50),
        jitter: Duration::from_millis(20),
        error: Rate(10_000),
        hang: Rate(1_000),
        reset_before: Rate(500),
        reset_mid: Rate(1_125),
        refuse: Some(Duration::from_secs(30)),
    };
    assert_eq!(read, expected);
    assert_eq!(faults("none"), Faults::default());
    assert_eq!(faults("refuse").refuse(), Some(REFUSE_DEFAULT));
}

#[test]
fn what_is_wrong_is_named_with_what_was_expected() {
    for (text, words) in [
        ("", &["empty part", "latency"][..]),
        ("latency=50ms,", &["empty part"]),
        ("slow=1s", &["slow is no fault", "latency, jitter"]),
        ("none,error=1%", &["none is no fault"]),
        ("error", &["error has no value", "error=10%"]),
        ("error=10", &["error=10", "percentage"]),
        ("error=101%", &["error=101%", "0% to 100%"]),
        ("error=0.0001%", &["error=0.0001%", "three decimals"]),
        ("error=1e2%", &["error=1e2%"]),
        ("error=.5%", &["error=.5%"]),
        ("error=5.%", &["error=5.%"]),
        ("latency", &["latency has no value"]),
        ("latency=50", &["latency=50", "with a unit"]),
        ("latency=2m", &["latency=2m", "0ms to 1m"]),
        ("jitter=20ms", &["jitter=20ms", "at most the latency", "0ms"]),
        ("refuse=0s", &["refuse=0s", "1ms to 1h"]),
        ("refuse=2h", &["refuse=2h", "1ms to 1h"]),
        ("error=1%,error=2%", &["error is given twice"]),
        ("error=60%,hang=41%", &["add up to 101%", "at most 100%"]),
    ] {
        let error = text.parse::<Faults>().expect_err(text).to_string();
        for word in words {
            assert!(error.contains(word), "{text:?}: {word:?} is not in {error:?}");
        }
    }
}

#[test]
fn json_is_the_same_grammar() {
    let object = json!({"latency": "1s", "error": "100%", "refuse": true, "hang": null, "jitter": "0ms"});
    assert_eq!(from_json(&object), Ok(faults("latency=1s,error=100%,refuse")));
    assert_eq!(from_json(&json!({})), Ok(Faults::default()));
    for (object, word) in
        [(json!({"error": 10}), "error=10"), (json!(["error"]), "JSON object"), (json!({"x": "1%"}), "x is no")]
    {
        let error = from_json(&object).expect_err("wrong").to_string();
        assert!(error.contains(word), "{object}: {error}");
    }
}

#[test]
fn a_rate_of_100_percent_is_every_request() {
    let mut rng = fastrand::Rng::with_seed(1);
    for (text, fate) in [
        ("error=100%", Fate::Error),
        ("hang=100%", Fate::Hang),
        ("reset-before=100%", Fate::ResetBefore),
        ("reset-mid=100%", Fate::ResetMid),
        ("latency=1ms", Fate::Answer),
    ] {
        let faults = faults(text);
        assert!((0..100_000).all(|_| faults.draw(&mut rng).fate == fate), "{text}");
    }
}

#[test]
fn rates_are_met() {
    const DRAWS: u32 = 100_000;
    let faults = faults("error=10%,hang=1%,reset-before=2%,reset-mid=5%");
    let mut rng = fastrand::Rng::with_seed(7);
    let mut drawn = HashMap::new();
    for _ in 0..DRAWS {
        *drawn.entry(format!("{:?}", faults.draw(&mut rng).fate)).or_insert(0u32) += 1;
    }
    for (fate, percent) in [("Error", 10.0), ("Hang", 1.0), ("ResetBefore", 2.0), ("ResetMid", 5.0), ("Answer", 82.0)] {
        let share = f64::from(drawn[fate]) * 100.0 / f64::from(DRAWS);
        assert!((share - percent).abs() < 0.4, "{fate}: {share} % instead of {percent} %");
    }
}

#[test]
fn latency_stays_within_its_jitter_and_uses_it() {
    let faults = faults("latency=50ms,jitter=20ms");
    let mut rng = fastrand::Rng::with_seed(3);
    let delays: Vec<Duration> = (0..10_000).map(|_| faults.draw(&mut rng).delay).collect();
    let (least, most) = (delays.iter().min().expect("not empty"), delays.iter().max().expect("not empty"));
    assert!((Duration::from_millis(30)..Duration::from_millis(31)).contains(least), "{least:?}");
    assert!((Duration::from_millis(69)..=Duration::from_millis(70)).contains(most), "{most:?}");
}

#[test]
fn only_refuse_leaves_requests_alone() {
    assert!(!faults("refuse").touches_requests());
    assert!(!faults("none").touches_requests());
    assert!(faults("refuse,error=1%").touches_requests());
}

proptest! {
    #[test]
    fn what_is_shown_reads_back(
        latency_ms in 0u64..=60_000,
        jitter_share in 0u64..=100,
        rates in prop::array::uniform4(0u32..=25_000),
        refuse_ms in prop::option::of(1u64..=3_600_000),
    ) {
        let faults = Faults {
            latency: Duration::from_millis(latency_ms),
            jitter: Duration::from_millis(latency_ms * jitter_share / 100),
            error: Rate(rates[0]),
            hang: Rate(rates[1]),
            reset_before: Rate(rates[2]),
            reset_mid: Rate(rates[3]),
            refuse: refuse_ms.map(Duration::from_millis),
        };
        prop_assert_eq!(faults.to_string().parse(), Ok(faults.clone()));
        prop_assert_eq!(from_json(&faults.to_json()), Ok(faults));
    }

    #[test]
    fn no_text_panics(text in ".{0,60}") {
        let _ = text.parse::<Faults>();
    }
}
