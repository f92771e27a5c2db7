//! The generated part of the document on faults, from the results. Pure, but for the files.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::campaign::Campaign;
use super::counts::Counts;
use super::report::Series;
use super::results::{CampaignRun, Matrix, MatrixRow, Results, Setting, Yardstick};
use crate::bench::markdown::with_block;
use crate::{Error, say};

/// Below the root of the repository.
const JSON: &str = "crates/loadbalancer/docs/faults.json";
const DOCUMENT: &str = "crates/loadbalancer/docs/faults.md";

/// The mark round the generated part.
const MARK: &str = "faults";

const OURS: &str = "loadbalancer";

/// Puts what was run now into the JSON, and all of that into the document.
pub(super) fn write(root: &Path, new: Results) -> Result<(), Error> {
    let json = root.join(JSON);
    let mut results = if json.exists() { Results::read(&json)? } else { Results::default() };
    results.update(new);
    results.write(&json)?;
    let file = root.join(DOCUMENT);
    let failed = |e: String| Error::Failed(format!("{}: {e}", file.display()));
    let text = fs::read_to_string(&file).map_err(|e| failed(e.to_string()))?;
    let text = with_block(&text, MARK, &block(&results)).map_err(failed)?;
    fs::write(&file, text).map_err(|e| failed(e.to_string()))?;
    say(&format!("written: {}", file.display()));
    Ok(())
}

fn block(results: &Results) -> String {
    let parts = [
        results.matrix.as_ref().map(matrix),
        results.yardstick.as_ref().map(yardstick),
        results.campaign.as_ref().map(campaign),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

fn setting(setting: &Setting) -> String {
    let versions: Vec<String> = setting.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let Setting { date, machine, seed, .. } = setting;
    let busy = if machine.load_before > 1.0 {
        format!(
            " The machine was busy (load average {}): times and rates are noise, counts are not.",
            machine.load_before
        )
    } else {
        String::new()
    };
    format!(
        "{}; {} cores of {}, Linux {}; {date}, seed {seed}.{busy}\n",
        versions.join(", "),
        machine.cores,
        machine.cpu,
        machine.kernel
    )
}

fn matrix(matrix: &Matrix) -> String {
    let proxies: Vec<&str> = matrix.per_s.iter().map(|(proxy, _)| proxy.as_str()).collect();
    let mut text =
        "## The matrix\n\nA cell says in how many runs every demand was met, and how many of all requests failed, \
                    GET + POST. A proxy or a fault that was not run the last time keeps its figures of before.\n\n"
            .to_owned();
    let _ = writeln!(text, "| # | fault | demanded | {} |", proxies.join(" | "));
    let _ = writeln!(text, "|---:|---|---|{}", "---|".repeat(proxies.len()));
    for row in &matrix.rows {
        let cells: Vec<String> = proxies.iter().map(|proxy| cell(row, proxy)).collect();
        let _ = writeln!(text, "| {} | {} | {} | {} |", row.number, row.name, row.demand, cells.join(" | "));
    }
    let rates: Vec<String> = matrix.per_s.iter().map(|(proxy, per_s)| format!("{proxy} {per_s:.0}/s")).collect();
    let _ = writeln!(text, "\nLoad, half of each one's maximum: {}. {}", rates.join(", "), setting(&matrix.setting));
    text.push_str(&wins(matrix));
    text.push_str(&unmet(matrix));
    text
}

fn of<'a>(row: &'a MatrixRow, proxy: &str) -> Option<&'a Series> {
    row.series.iter().find(|series| series.proxy == proxy)
}

fn cell(row: &MatrixRow, proxy: &str) -> String {
    let Some(series) = of(row, proxy) else { return "–".to_owned() };
    if let Some(reason) = &series.not_here {
        return escaped(reason);
    }
    let mut text = format!("{}/{}; ", series.passed, series.runs);
    let _ = write!(text, "{} + {} of {}", series.counts.failed_get, series.counts.failed_post, series.requests);
    for (count, words) in [
        (series.counts.doubled, "POSTs twice"),
        (series.counts.mixed_up, "mixed up"),
        (series.counts.hung, "hung"),
        (series.counts.unexplained, "unexplained"),
    ] {
        if count > 0 {
            let _ = write!(text, ", **{count} {words}**");
        }
    }
    if series.has_passed() { text } else { format!("**missed** {text}") }
}

/// Where a peer meets what ours does not, or fails fewer requests.
fn wins(matrix: &Matrix) -> String {
    let share = |series: &Series| series.counts.failed() as f64 / series.requests.max(1) as f64;
    let mut lines = vec![];
    for row in &matrix.rows {
        let Some(ours) = of(row, OURS).filter(|ours| ours.not_here.is_none() && ours.runs > 0) else { continue };
        let peers = row.series.iter().filter(|series| series.proxy != OURS && series.not_here.is_none());
        for peer in peers.filter(|peer| peer.runs > 0) {
            if peer.has_passed() && !ours.has_passed() {
                lines.push(format!("- {} ({}): {} meets the demand", row.number, row.name, peer.proxy));
            } else if share(peer) < share(ours) {
                let percent = |series| share(series) * 100.0;
                lines.push(format!(
                    "- {} ({}): {} failed {:.3} % of its requests, ours {:.3} %",
                    row.number,
                    row.name,
                    peer.proxy,
                    percent(peer),
                    percent(ours)
                ));
            }
        }
    }
    if lines.is_empty() { String::new() } else { format!("\nWhere a peer is ahead:\n\n{}\n", lines.join("\n")) }
}

fn unmet(matrix: &Matrix) -> String {
    let series = |row: &MatrixRow| of(row, OURS).filter(|series| !series.has_passed()).cloned();
    let lines: Vec<String> = matrix
        .rows
        .iter()
        .filter_map(|row| Some((row, series(row)?)))
        .map(|(row, series)| {
            let first = series.failures.first().map(|words| escaped(words)).unwrap_or_default();
            format!("- {} ({}): {}", row.number, row.name, first.chars().take(240).collect::<String>())
        })
        .collect();
    if lines.is_empty() { String::new() } else { format!("\nWhat ours missed:\n\n{}\n", lines.join("\n")) }
}

fn yardstick(yardstick: &Yardstick) -> String {
    let mut text = "## The yardstick\n\n| proxy | GETs failed | POSTs failed | executed twice | mixed up | hung | \
                    unexplained | requests/s |\n|---|---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for row in &yardstick.rows {
        let _ = writeln!(
            text,
            "| {} | {} of {} | {} of {} | {} | {} | {} | {} | {:.0} |",
            row.proxy,
            row.counts.failed_get,
            row.gets,
            row.counts.failed_post,
            row.posts,
            row.counts.doubled,
            row.counts.mixed_up,
            row.counts.hung,
            if row.proxy == OURS { row.counts.unexplained.to_string() } else { "–".to_owned() },
            row.per_s
        );
    }
    for row in yardstick.rows.iter().filter(|row| !row.counts.fates().is_empty()) {
        let _ = writeln!(text, "\n{}: {}.", row.proxy, row.counts.fates());
    }
    let _ = writeln!(text, "\n{}", setting(&yardstick.setting));
    text
}

fn campaign(run: &CampaignRun) -> String {
    let mut text = "## The campaign\n\n| proxy | requests | restarts | GETs failed | POSTs failed | executed twice | mixed \
                    up | hung | unexplained | memory, second quarter and last, MiB | time |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---|---:|\n"
        .to_owned();
    for campaign in &run.runs {
        let Campaign { proxy, requests, restarts, counts, .. } = campaign;
        let Counts { failed_get, failed_post, doubled, mixed_up, hung, .. } = counts;
        let mib = |bytes: u64| bytes as f64 / (1u64 << 20) as f64;
        let (warm, last) = campaign.memory().map_or((0.0, 0.0), |(warm, last)| (mib(warm), mib(last)));
        let _ = writeln!(
            text,
            "| {proxy} | {requests} | {restarts} | {failed_get} | {failed_post} | {doubled} | {mixed_up} | {hung} | {} | \
             {warm:.1} → {last:.1} | {} s |",
            counts.unexplained, campaign.seconds
        );
    }
    for campaign in &run.runs {
        let bound = 3.0 / campaign.requests.max(1) as f64;
        let counts = &campaign.counts;
        if counts.failed_get + counts.doubled + counts.mixed_up + counts.hung == 0 {
            let _ = writeln!(
                text,
                "\n{}: no idempotent request lost, no POST twice, nothing mixed up or hung in {} requests: with 95 % \
                 confidence less than {bound:.1e} of all.",
                campaign.proxy, campaign.requests
            );
        }
        for failure in &campaign.failures {
            let _ = writeln!(text, "\n{}: missed: {}", campaign.proxy, escaped(failure));
        }
    }
    let _ = writeln!(text, "\n{}", setting(&run.setting));
    text
}

/// As a cell of a table.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::super::ledger::Fates;
    use super::super::yardstick::Row;
    use super::*;
    use crate::bench::results::Machine;

    fn results() -> Results {
        let machine = Machine { cpu: "Test CPU".to_owned(), cores: 2, kernel: "6.1".to_owned(), load_before: 2.5 };
        let versions = vec![(OURS.to_owned(), "0.1.0".to_owned()), ("nginx".to_owned(), "1.22.1".to_owned())];
        let setting = Setting { date: "2026-01-02".to_owned(), machine, seed: 7, versions };
        let ours = Series {
            proxy: OURS.to_owned(),
            runs: 5,
            passed: 4,
            requests: 1000,
            counts: Counts { failed_post: 3, doubled: 1, ..Counts::default() },
            failures: vec!["one | missed".to_owned()],
            ..Series::default()
        };
        let peer = Series { passed: 5, counts: Counts::default(), proxy: "nginx".to_owned(), ..ours.clone() };
        let row = |number, series| MatrixRow { number, name: "it breaks".into(), demand: "nothing".into(), series };
        let later = Series { proxy: OURS.to_owned(), not_here: Some("later: no TLS".to_owned()), ..Series::default() };
        let fates = Some(Fates { executed: 2, in_hand: 1, unread: 0 });
        let hands = Counts { failed_post: 3, fates, ..Counts::default() };
        Results {
            matrix: Some(Matrix {
                setting: setting.clone(),
                per_s: vec![(OURS.to_owned(), 1000.0), ("nginx".to_owned(), 900.0)],
                rows: vec![row(1, vec![ours, peer]), row(16, vec![later])],
            }),
            yardstick: Some(Yardstick {
                setting: setting.clone(),
                rows: vec![Row { proxy: OURS.to_owned(), gets: 10, posts: 12, per_s: 99.6, counts: hands }],
            }),
            campaign: Some(CampaignRun {
                setting,
                runs: vec![Campaign {
                    proxy: OURS.to_owned(),
                    requests: 300_000,
                    resident: vec![1 << 20, 1 << 20, 1 << 20, 2 << 20, 2 << 20],
                    ..Campaign::default()
                }],
            }),
        }
    }

    #[test]
    fn everything_is_said_also_where_a_peer_is_ahead() {
        let text = block(&results());
        for wanted in [
            "| 1 | it breaks | nothing | **missed** 4/5; 0 + 3 of 1000, **1 POSTs twice** | 5/5; 0 + 0 of 1000 |",
            "| 16 | it breaks | nothing | later: no TLS | – |",
            "- 1 (it breaks): nginx meets the demand",
            "- 1 (it breaks): one \\| missed",
            "| loadbalancer | 0 of 10 | 3 of 12 | 0 | 0 | 0 | 0 | 100 |",
            "loadbalancer: of 3 POSTs that failed, their server had executed 2, had 1 in hand, and had not read 0.",
            "with 95 % confidence less than 1.0e-5 of all",
            "1.0 → 2.0",
            "seed 7. The machine was busy (load average 2.5)",
        ] {
            assert!(text.contains(wanted), "{wanted}\n in:\n{text}");
        }
    }

    #[test]
    fn what_was_not_run_again_stays() {
        let mut all = results();
        let new = Results { yardstick: None, campaign: None, ..results() };
        all.update(new);
        assert_eq!(all, results());
        all.update(Results::default());
        assert_eq!(all, results());
        let mut ours = results();
        let matrix = ours.matrix.as_mut().unwrap();
        matrix.per_s.retain(|(proxy, _)| proxy == OURS);
        matrix.rows.iter_mut().for_each(|row| row.series.retain(|series| series.proxy == OURS));
        assert_ne!(ours, results());
        all.update(ours);
        assert_eq!(all, results(), "a peer's figures stay beside ours");
        let mut one = results();
        one.matrix.as_mut().unwrap().rows.retain(|row| row.number == 16);
        all.update(one);
        assert_eq!(all, results(), "and those of other faults");
    }

    /// Nobody edits a figure by hand.
    #[test]
    fn the_document_says_what_the_last_runs_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let results = Results::read(&root.join(JSON)).unwrap();
        let text = fs::read_to_string(root.join(DOCUMENT)).unwrap();
        assert_eq!(with_block(&text, MARK, &block(&results)).unwrap(), text, "`cargo xtask faults --write` writes it");
    }
}
