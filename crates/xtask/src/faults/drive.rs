//! Runs the chosen faults against the chosen proxies, and says how each went.

use std::time::Duration;

use super::matrix::{FAULTS, Fault, Kind};
use super::report::{Report, Series};
use super::results::{Matrix, MatrixRow, Setting};
use super::rig::{Rig, Wishes};
use super::surroundings::Ground;
use super::trial::{Depth, Trial, rate};
use crate::bench::contender::Contender;
use crate::{Error, say};

/// What the proxies can do at most is measured for this long.
const MEASURED_FOR: Duration = Duration::from_millis(500);
const MEASUREMENTS: usize = 3;

/// With less than half of this some faults would meet no request.
const LEAST_PER_S: f64 = 1000.0;

/// Most requests per second of the short form: the test command shares its machine, and its subject is right and
/// wrong, not speed.
const SHORT_PER_S: f64 = 3000.0;

pub(super) struct Choice {
    /// Everything, if empty.
    pub(super) only: Vec<u8>,
    pub(super) depth: Depth,
    pub(super) repeats: u32,
}

/// The results, and every demand that ours did not meet.
pub(super) fn matrix(
    ground: &Ground,
    contenders: &[Contender],
    setting: Setting,
    choice: &Choice,
) -> Result<(Matrix, Vec<String>), Error> {
    let chosen: Vec<&Fault> =
        FAULTS.iter().filter(|fault| choice.only.is_empty() || choice.only.contains(&fault.number)).collect();
    let row = |fault: &&Fault| MatrixRow {
        number: fault.number,
        name: fault.name.to_owned(),
        demand: fault.demand.to_owned(),
        series: vec![],
    };
    let mut rows: Vec<MatrixRow> = chosen.iter().map(row).collect();
    let (mut per_s, mut failed) = (vec![], vec![]);
    for contender in contenders {
        let half = half_of_maximum(ground, *contender)?;
        let half = if choice.depth == Depth::Short { half.min(SHORT_PER_S) } else { half };
        say(&format!("{}: {half:.0} requests/s", contender.name()));
        per_s.push((contender.name().to_owned(), half));
        for (fault, row) in chosen.iter().zip(&mut rows) {
            let series = repeat(ground, *contender, fault, half, choice);
            say(&line(fault, &series));
            if *contender == Contender::Loadbalancer && !series.has_passed() {
                failed.push(format!("{} {}: {}", fault.number, fault.name, series.failures.join("; ")));
            }
            row.series.push(series);
        }
    }
    Ok((Matrix { setting, per_s, rows }, failed))
}

/// Of this proxy in this rig, with everybody on the same cores. A proxy that fails here would fail anywhere.
pub(super) fn half_of_maximum(ground: &Ground, contender: Contender) -> Result<f64, Error> {
    let rig = Rig::start(ground, contender, Wishes::default())?;
    let load = rig.load(rig.plan(None))?;
    std::thread::sleep(MEASURED_FOR / 4);
    // The best of some, because whatever disturbs makes it less.
    let most = (0..MEASUREMENTS).map(|_| rate(&load, MEASURED_FOR)).fold(LEAST_PER_S, f64::max);
    let asked = load.stop();
    let findings = rig.settle(&asked)?;
    if findings.is_sound() && findings.failed_get + findings.failed_post == 0 {
        return Ok(most / 2.0);
    }
    Err(Error::Failed(format!("{} fails without any fault: {findings:?}", contender.name())))
}

fn repeat(ground: &Ground, contender: Contender, fault: &Fault, per_s: f64, choice: &Choice) -> Series {
    let mut series = Series { proxy: contender.name().to_owned(), ..Series::default() };
    let run = match fault.kind {
        Kind::Runs(run) => run,
        Kind::Later(why) => {
            series.not_here = Some(format!("later: {why}"));
            return series;
        }
    };
    for _ in 0..choice.repeats {
        let mut trial = Trial { ground, contender, per_s, depth: choice.depth, report: Report::default() };
        if let Err(e) = run(&mut trial) {
            trial.report.failures.push(e.to_string());
        }
        series.add(trial.report);
        if series.not_here.is_some() {
            break;
        }
    }
    series
}

fn line(fault: &Fault, series: &Series) -> String {
    let head = format!("{:12} {:2} {:44}", series.proxy, fault.number, fault.name);
    if let Some(reason) = &series.not_here {
        return format!("{head} not run: {reason}");
    }
    let verdict = if series.has_passed() { "ok" } else { "FAILED" };
    let mut text = format!(
        "{head} {verdict:6} {}/{} runs, {} requests, {} GET and {} POST failed, {} retried",
        series.passed,
        series.runs,
        series.requests,
        series.counts.failed_get,
        series.counts.failed_post,
        series.counts.retried
    );
    let fates = series.counts.fates();
    if !fates.is_empty() {
        text.push_str("\n                  ");
        text.push_str(&fates);
    }
    for words in series.failures.iter().map(|words| format!("!! {words}")).chain(series.notes.iter().take(2).cloned()) {
        text.push_str("\n                  ");
        text.extend(words.chars().take(500));
    }
    text
}
