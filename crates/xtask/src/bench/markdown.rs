//! Results as the blocks of the README and of the document on benchmarks. Pure.

use super::contender::Contender;
use super::machine;
use super::report::{Judged, judge, met, number, percent, ratio};
use super::results::{Results, Sample, Series, WorkResult};

/// The README's: ratios, the figures behind them, and where a peer wins.
pub(super) fn summary(results: &Results) -> String {
    let mut text = table(results, |work, series| match series.median() {
        Some(median) => figure(&work.unit, median),
        None => "failed".to_owned(),
    });
    text.push_str(&format!("\n{}{}\n", losses(results), busy(results)));
    text.push_str(&format!(
        "\n{}, medians of {} rounds, {} on Linux {}, {}. µs are CPU time, user and kernel, one worker on one core.\n",
        versions(results),
        results.rounds,
        results.machine.cpu,
        results.machine.kernel,
        results.date
    ));
    text
}

/// The document's: with spreads, parts, and what was checked of ours alone.
pub(super) fn details(results: &Results) -> String {
    let machine = &results.machine;
    let mut text = format!(
        "Measured {} on {} ({} cores, Linux {}, load average before: {:.2}): {} rounds of {} s each; {}.\n\n",
        results.date,
        machine.cpu,
        machine.cores,
        machine.kernel,
        machine.load_before,
        results.rounds,
        results.seconds,
        versions(results)
    );
    text.push_str(&table(results, |work, series| match (series.median(), &series.failed) {
        (Some(median), _) => {
            let (low, high) = series.spread();
            let range = format!("{} to {}", figure(&work.unit, low), figure(&work.unit, high));
            format!("{} ({range})", figure(&work.unit, median))
        }
        (None, Some(reason)) => format!("failed: {}", cell(reason)),
        (None, None) => "–".to_owned(),
    }));
    text.push_str(&format!("\n{}{}\n{}{}", losses(results), busy(results), lateness(results), stalls(results)));
    text.push_str("\n| user + kernel, µs (of its core) | ");
    text.push_str(&columns(results).map(|proxy| format!("{proxy} |")).collect::<Vec<_>>().join(" "));
    text.push_str(&format!("\n|---|{}\n", "---:|".repeat(columns(results).count())));
    for work in results.works.iter().filter(|work| work.unit.starts_with("µs/")) {
        let cells: Vec<String> = columns(results).map(|proxy| parts(work, proxy)).collect();
        text.push_str(&format!("| {} | {} |\n", work.name, cells.join(" | ")));
    }
    text.push_str("\n| ours alone | change | target | |\n|---|---:|---:|---|\n");
    for check in &results.checks {
        let Judged { figure, target, verdict } = judge(check);
        text.push_str(&format!("| {} | {figure} | {target} | {} |\n", check.name, cell(&verdict)));
    }
    text
}

/// `text` with what is between the two marks replaced.
///
/// # Errors
/// When a mark is missing.
pub(crate) fn with_block(text: &str, mark: &str, block: &str) -> Result<String, String> {
    let (start, end) = (format!("<!-- {mark} -->\n"), format!("<!-- /{mark} -->"));
    let (before, rest) = text.split_once(&start).ok_or_else(|| format!("there is no line {}", start.trim()))?;
    let (_, after) = rest.split_once(&end).ok_or_else(|| format!("there is no {end} after {}", start.trim()))?;
    Ok(format!("{before}{start}{}\n{end}{after}", block.trim_end()))
}

fn table(results: &Results, show: impl Fn(&WorkResult, &Series) -> String) -> String {
    let heads: Vec<String> = columns(results).map(|proxy| format!("{proxy} |")).collect();
    let mut text = format!(
        "| | {} ours ÷ best of NGINX and HAProxy | target | |\n|---|{}---:|---:|---|\n",
        heads.join(" "),
        "---:|".repeat(heads.len())
    );
    for work in &results.works {
        let find = |proxy: &str| work.series.iter().find(|series| series.proxy == proxy);
        let cells: Vec<String> = columns(results)
            .map(|proxy| find(proxy).map_or_else(|| "–".to_owned(), |series| show(work, series)))
            .collect();
        let (compared, verdict) = match (work.comparison(), work.is_met()) {
            (Some(comparison), Some(is_met)) => {
                let shown = ratio(comparison.ratio, work.target);
                (format!("**{shown}** ({:.2}–{:.2})", comparison.low, comparison.high), met(is_met))
            }
            _ => ("–".to_owned(), "not compared"),
        };
        let cells = cells.join(" | ");
        text.push_str(&format!("| {} | {cells} | {compared} | ≤ {:.2} | {verdict} |\n", work.name, work.target));
    }
    text
}

/// The proxies that were measured, in their order.
fn columns(results: &Results) -> impl Iterator<Item = &'static str> {
    let is_there =
        |contender: &Contender| results.works.iter().flat_map(|work| &work.series).any(|series| series.is(*contender));
    Contender::ALL.into_iter().filter(is_there).map(Contender::name)
}

/// A figure with its unit, as a person would say it.
fn figure(unit: &str, figure: f64) -> String {
    match unit {
        "bytes" => format!("{:.1} KiB", figure / 1024.0),
        _ => format!("{} µs", number(figure)),
    }
}

fn parts(work: &WorkResult, proxy: &str) -> String {
    let series = work.series.iter().find(|series| series.proxy == proxy && series.failed.is_none());
    let parts = series.and_then(|series| {
        let (user, kernel) = (series.median_of(|sample| sample.user_us)?, series.median_of(|sample| sample.kernel_us)?);
        Some(format!("{} + {} ({})", number(user), number(kernel), percent(series.busy()?)))
    });
    parts.unwrap_or_else(|| "–".to_owned())
}

fn losses(results: &Results) -> String {
    let losses: Vec<String> = results
        .works
        .iter()
        .filter(|work| !work.winners().is_empty())
        .map(|work| format!("{} ({})", work.name, work.winners().join(", ")))
        .collect();
    if losses.is_empty() {
        "No peer is ahead of ours in any row.".to_owned()
    } else {
        format!("A peer is ahead of ours at: {}.", losses.join("; "))
    }
}

fn busy(results: &Results) -> String {
    machine::warning(&results.machine).map(|warning| format!(" But {warning}.")).unwrap_or_default()
}

/// How far the open-loop figures can be believed.
fn lateness(results: &Results) -> String {
    let samples = results.works.iter().flat_map(|work| &work.series).flat_map(|series| &series.samples);
    match samples.filter_map(|sample| sample.late_p99_us).max_by(f64::total_cmp) {
        Some(most) => {
            format!(
                "\nIn the turns that count the generator itself was late by at most {} (p99).\n",
                figure("µs", most)
            )
        }
        None => String::new(),
    }
}

/// What the latency of calm turns leaves out, and what a proxy's own maximum was the maximum of.
fn stalls(results: &Results) -> String {
    let each = |part: fn(&Sample) -> Option<f64>, words: fn(f64) -> String| {
        let with = |series: &Series| {
            let median = series.median_of(part).filter(|_| series.failed.is_none())?;
            Some(format!("{} {}", series.proxy, words(median)))
        };
        results.works.iter().flat_map(|work| &work.series).filter_map(with).collect::<Vec<_>>().join(", ")
    };
    let us = |us| figure("µs", us);
    let said = [
        ("p99 of the median turn", each(|sample| sample.median_p99_us, us)),
        (
            "p99 of all requests of a round, turns in which the machine stood still included",
            each(|sample| sample.all_p99_us, us),
        ),
        (
            "Share of its core that a proxy used while its own maximum was found",
            each(|sample| sample.fast_busy, percent),
        ),
    ];
    said.iter().filter(|(_, each)| !each.is_empty()).map(|(what, each)| format!("\n{what}: {each}.\n")).collect()
}

fn versions(results: &Results) -> String {
    let versions: Vec<String> = results.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    versions.join(", ")
}

/// Text that does not end a cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::{results, series};

    #[test]
    fn the_summary_has_ratio_target_and_verdict() {
        let expected = "\
| | loadbalancer | nginx | haproxy | caddy | ours ÷ best of NGINX and HAProxy | target | |
|---|---:|---:|---:|---:|---:|---:|---|
| 128 B reply, 64 connections | 13.00 µs | 16.00 µs | 27.00 µs | failed | **0.75** (0.72–0.93) | ≤ 0.95 | met |

No peer is ahead of ours in any row.

loadbalancer 0.1.0, nginx 1.22.1, medians of 3 rounds, Test CPU on Linux 6.1, 2026-01-02. µs are CPU time, user and \
                        kernel, one worker on one core.
";
        assert_eq!(summary(&results()), expected);
    }

    #[test]
    fn the_details_have_spreads_parts_checks_and_reasons() {
        let text = details(&results());
        for wanted in [
            "3 rounds of 5 s each",
            "| 13.00 µs (12.00 µs to 14.00 µs) |",
            "| failed: it \\| broke |",
            "| 128 B reply, 64 connections | 3.00 + 10.00 (1 %) | 6.00 + 10.00 (2 %) | 17.00 + 10.00 (3 %) | – |",
            "| 8,000 idle connections besides | +2.5 % (+2.0 % to +3.0 %) | < 5 % | met |",
        ] {
            assert!(text.contains(wanted), "{wanted} in\n{text}");
        }
    }

    #[test]
    fn a_peer_that_wins_is_named() {
        let mut results = results();
        results.works[0].series[1] = series("nginx", &[11.0, 13.0, 12.0]);
        assert!(summary(&results).contains("A peer is ahead of ours at: 128 B reply, 64 connections (nginx)."));
        assert!(summary(&results).contains("| missed |"));
    }

    #[test]
    fn noise_is_called_noise() {
        let mut results = results();
        assert!(!summary(&results).contains("noise") && !details(&results).contains("late by"));
        assert!(!details(&results).contains("stood still"));
        results.machine.load_before = 7.5;
        results.works[0].series[0].samples[1].late_p99_us = Some(61.0);
        for text in [summary(&results), details(&results)] {
            assert!(text.contains("But this machine was busy (load average 7.5)"), "{text}");
        }
        assert!(details(&results).contains("late by at most 61.00 µs (p99)"));
    }

    #[test]
    fn what_calm_turns_leave_out_is_said() {
        let mut results = results();
        for (sample, us) in results.works[0].series[1].samples.iter_mut().zip([900.0, 700.0, 800.0]) {
            sample.all_p99_us = Some(us);
            sample.median_p99_us = Some(us / 4.0);
            sample.fast_busy = Some(us / 1000.0);
        }
        for wanted in [
            "p99 of the median turn: nginx 200 µs.\n",
            "the machine stood still included: nginx 800 µs.\n",
            "while its own maximum was found: nginx 80 %.\n",
        ] {
            assert!(details(&results).contains(wanted), "{wanted}");
        }
        results.works[0].series[1].failed = Some("gone".to_owned());
        assert!(!details(&results).contains("stood still"));
    }

    #[test]
    fn only_the_block_is_replaced() {
        let text = "before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n";
        assert_eq!(with_block(text, "bench", "new\n").unwrap(), text.replace("old", "new"));
        assert!(with_block("before\n<!-- bench -->\n", "bench", "new").is_err());
        assert!(with_block("before\n", "bench", "new").is_err());
    }

    #[test]
    fn memory_is_in_kib() {
        assert_eq!(figure("bytes", 5120.0), "5.0 KiB");
        assert_eq!(figure("µs", 512.4), "512 µs");
    }
}
