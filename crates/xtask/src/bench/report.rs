//! Results for a terminal. Pure.

use super::results::{CheckResult, Pair, Results, Series, WorkResult};
use super::work::{Bound, CHECKS};

/// Everything that was measured: one block for each work, one line for each check.
pub(super) fn text(results: &Results) -> String {
    let (rounds, seconds) = (results.rounds, results.seconds);
    let mut text = format!("\none worker on one core, medians of {rounds} rounds of {seconds} s; less is better\n");
    for work in &results.works {
        text.push_str(&block(work));
    }
    for check in &results.checks {
        let Judged { figure, target, verdict } = judge(check);
        text.push_str(&format!("\n{}: {figure}, target {target}: {verdict}\n", check.name));
    }
    let versions: Vec<String> = results.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    text.push_str(&format!("\n{}\n", versions.join(", ")));
    text
}

fn block(work: &WorkResult) -> String {
    let verdict = match (work.is_met(), work.comparison()) {
        (Some(is_met), Some(comparison)) => format!(
            "{} (between {:.2} and {:.2}): {}",
            ratio(comparison.ratio, work.target),
            comparison.low,
            comparison.high,
            met(is_met)
        ),
        _ => "not compared".to_owned(),
    };
    let mut text = format!(
        "\n{}   target: {:.2} of the best of NGINX and HAProxy; {verdict}\n  {:14}{:>12}{:>8}{:>8}{:>20}{:>10}{:>7}{:>14}\n",
        work.name, work.target, "", work.unit, "user", "kernel", "min..max", "per s", "core", "to best peer"
    );
    for series in &work.series {
        text.push_str(&row(work, series));
    }
    text
}

fn row(work: &WorkResult, series: &Series) -> String {
    if let Some(reason) = &series.failed {
        return format!("  {:14}failed: {reason}\n", series.proxy);
    }
    let Some(median) = series.median() else { return String::new() };
    let (low, high) = series.spread();
    let or_dash =
        |figure: Option<f64>, digits: usize| figure.map_or_else(|| "-".to_owned(), |f| format!("{f:.digits$}"));
    format!(
        "  {:14}{:>12}{:>8}{:>8}{:>20}{:>10}{:>7}{:>14}\n",
        series.proxy,
        number(median),
        or_dash(series.median_of(|sample| sample.user_us), 2),
        or_dash(series.median_of(|sample| sample.kernel_us), 2),
        format!("{}..{}", number(low), number(high)),
        or_dash(series.median_of(|sample| sample.per_s), 0),
        series.busy().map_or_else(|| "-".to_owned(), percent),
        or_dash(work.beside_best(series).map(|comparison| comparison.ratio), 2),
    )
}

/// Three digits or more, with no more after the point than a measurement deserves.
pub(super) fn number(figure: f64) -> String {
    if figure < 100.0 { format!("{figure:.2}") } else { format!("{figure:.0}") }
}

/// In whole percent.
pub(super) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// With two digits after the point, or with three if two would hide on which side of the target it is.
pub(super) fn ratio(ratio: f64, target: f64) -> String {
    let two = format!("{ratio:.2}");
    let hides = two.parse().is_ok_and(|shown: f64| (shown <= target) != (ratio <= target));
    if hides { format!("{ratio:.3}") } else { two }
}

pub(super) const fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "missed" }
}

/// A check in words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Judged {
    /// Median with spread.
    pub(super) figure: String,
    pub(super) target: String,
    pub(super) verdict: String,
}

pub(super) fn judge(check: &CheckResult) -> Judged {
    let known = CHECKS.iter().find(|known| known.short == check.check);
    match known.map(|known| known.bound) {
        Some(Bound::Backends { percent, .. } | Bound::Idle { percent, .. }) => {
            let change = |pair: &Pair| (pair.changed / pair.base - 1.0) * 100.0;
            judge_by(check, format!("< {percent:.0} %"), change, |c| c < percent, |c| format!("{c:+.1} %"))
        }
        // CPU time is what counts: twice the cores, and each request for `changed` instead of `base`.
        Some(Bound::Workers { times }) => {
            let scale = |pair: &Pair| 2.0 * pair.base / pair.changed;
            judge_by(check, format!("≥ {times:.1} times"), scale, |t| t >= times, |t| format!("{t:.2} times"))
        }
        Some(Bound::AccessLog { us }) => {
            let cost = |pair: &Pair| pair.changed - pair.base;
            judge_by(check, format!("< {us:.0} µs"), cost, |c| c < us, |c| format!("{c:+.2} µs"))
        }
        None => judge_by(check, "–".to_owned(), |_| 0.0, |_| false, |_| "–".to_owned()),
    }
}

fn judge_by(
    check: &CheckResult,
    target: String,
    figure: impl Fn(&Pair) -> f64,
    is_met: impl Fn(f64) -> bool,
    words: impl Fn(f64) -> String,
) -> Judged {
    // Peers cost different amounts to begin with, so that shares alone would mislead.
    let cost = |pair: &Pair| pair.changed - pair.base;
    let peers = check.of_peers(&figure).into_iter().zip(check.of_peers(cost));
    let peers = peers.map(|((peer, median), (_, us))| format!("; {peer} {}, {us:+.2} µs", words(median)));
    let peers: String = peers.collect();
    let us = check.of_pairs(cost).filter(|_| !peers.is_empty()).map(|(us, _)| format!(", {us:+.2} µs"));
    let us = us.unwrap_or_default();
    match check.of_pairs(figure) {
        Some((median, (low, high))) => Judged {
            figure: format!("{} ({} to {}){us}{peers}", words(median), words(low), words(high)),
            target,
            verdict: met(is_met(median)).to_owned(),
        },
        None => {
            let reason = check.failed.as_deref().unwrap_or("not measured");
            Judged { figure: "–".to_owned(), target, verdict: format!("failed: {reason}") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    #[test]
    fn a_block_for_each_work_and_a_line_for_each_check() {
        let expected = "
one worker on one core, medians of 3 rounds of 5 s; less is better

128 B reply, 64 connections   target: 0.95 of the best of NGINX and HAProxy; 0.75 (between 0.72 and 0.93): met
                  µs/request    user  kernel            min..max     per s   core  to best peer
  loadbalancer         13.00    3.00   10.00        12.00..14.00      1000    1 %          0.75
  nginx                16.00    6.00   10.00        15.00..18.00      1000    2 %          1.00
  haproxy              27.00   17.00   10.00        26.00..28.00      1000    3 %          1.62
  caddy         failed: it | broke

8,000 idle connections besides: +2.5 % (+2.0 % to +3.0 %), target < 5 %: met

loadbalancer 0.1.0, nginx 1.22.1
";
        assert_eq!(text(&results()), expected);
    }

    #[test]
    fn each_check_has_its_own_measure() {
        let judged = |check: &str, pairs: &[(f64, f64)]| {
            let pairs = pairs.iter().map(|(base, changed)| Pair { base: *base, changed: *changed }).collect();
            judge(&CheckResult { check: check.to_owned(), name: String::new(), pairs, peers: vec![], failed: None })
        };
        let words = |figure: &str, target: &str, verdict: &str| Judged {
            figure: figure.to_owned(),
            target: target.to_owned(),
            verdict: verdict.to_owned(),
        };
        let expected = words("+5.0 % (+5.0 % to +5.0 %)", "< 5 %", "missed");
        assert_eq!(judged("backends-1000", &[(20.0, 21.0)]), expected);
        let expected = words("1.90 times (1.90 times to 2.00 times)", "≥ 1.9 times", "met");
        assert_eq!(judged("workers-2", &[(19.0, 20.0), (19.0, 20.0), (20.0, 20.0)]), expected);
        let expected = words("+0.50 µs (+0.50 µs to +0.50 µs)", "< 1 µs", "met");
        assert_eq!(judged("access-log", &[(19.0, 19.5)]), expected);
        assert_eq!(judged("access-log", &[(19.0, 20.0)]).verdict, "missed");
        assert_eq!(judged("idle-8000", &[]).verdict, "failed: not measured");
    }

    #[test]
    fn what_it_costs_the_peers_stands_beside_it() {
        let mut check = CheckResult {
            check: "backends-1000".to_owned(),
            name: String::new(),
            pairs: vec![Pair { base: 20.0, changed: 20.8 }],
            peers: vec![],
            failed: None,
        };
        for changed in [30.0, 31.0, 40.0] {
            check.of_peer("nginx").push(Pair { base: 20.0, changed });
        }
        check.of_peer("haproxy").push(Pair { base: 10.0, changed: 12.0 });
        let Judged { figure, verdict, .. } = judge(&check);
        assert_eq!(figure, "+4.0 % (+4.0 % to +4.0 %), +0.80 µs; nginx +55.0 %, +11.00 µs; haproxy +20.0 %, +2.00 µs");
        assert_eq!(verdict, "met");
    }

    #[test]
    fn two_digits_do_not_hide_a_miss() {
        for (figure, target, shown) in [
            (0.953, 0.95, "0.953"),
            (0.949, 0.95, "0.95"),
            (0.946, 0.95, "0.95"),
            (1.003, 1.0, "1.003"),
            (0.63, 0.8, "0.63"),
        ] {
            assert_eq!(ratio(figure, target), shown);
        }
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!([number(0.5), number(13.0), number(1234.5)], ["0.50", "13.00", "1234"]);
    }
}
