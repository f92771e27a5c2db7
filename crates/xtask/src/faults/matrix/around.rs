//! Faults around the proxy: a full disk, a panic inside it.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::super::ledger::{Line, Log, check};
use super::super::rig::Wishes;
use super::super::surroundings::SmallDisk;
use super::super::trial::{Depth, Trial};
use crate::Error;
use crate::workspace::{Workspace, cargo};

/// Filled but for room for some hundred lines, so that the log meets the end soon.
const FILLED: usize = 960 << 10;

/// A worker hands its lines over ten times a second.
const LINES_OUT: Duration = Duration::from_millis(500);

/// For the last lines to be written, or counted as lost.
const COUNTED_WITHIN: Duration = Duration::from_secs(4);

pub(super) fn full_disk(trial: &mut Trial<'_>) -> Result<(), Error> {
    if !trial.is_ours() {
        trial.not_here("it does not write its log to a disk by itself".to_owned());
        return Ok(());
    }
    let disk = match SmallDisk::mount(&trial.ground.dir, "1m") {
        Ok(disk) => disk,
        Err(reason) => {
            trial.not_here(reason);
            return Ok(());
        }
    };
    fs::write(disk.path.join("filler"), vec![0; FILLED]).map_err(|e| Error::Failed(format!("a small disk: {e}")))?;
    let rig = super::super::rig::Rig::start(
        trial.ground,
        trial.contender,
        Wishes { log: Some(disk.path.join("access.log")), ..Wishes::default() },
    )?;
    // By which it was found ready are requests, too: their lines must be out before there is no room.
    sleep(LINES_OUT);
    let load = rig.load(rig.plan(Some(trial.per_s)))?;
    sleep(2 * trial.fault_time());
    let asked = load.stop();
    rig.rests();
    let deadline = Instant::now() + COUNTED_WITHIN;
    let (own, counted) = loop {
        let counted = rig.proxy.metric("lb_access_log_lines_dropped_total").unwrap_or_default();
        let text = fs::read_to_string(&rig.log).unwrap_or_default();
        let lines = text.lines().filter_map(|line| Line::parse(line).ok());
        let own = lines.filter(|line| line.id.is_some_and(|id| id.run == rig.run)).count();
        if counted == (asked.len() - own) as f64 || Instant::now() > deadline {
            break (own, counted);
        }
        sleep(Duration::from_millis(50));
    };
    trial.demand_felt(own < asked.len());
    trial.demand_none_failed(&asked, true);
    // Lines are dropped on purpose: the rest of the books must agree without them.
    let findings = check(&asked, &rig.executed()?, Log::Absent);
    let examples = findings.examples.join("; ");
    trial.report.demand(findings.is_sound(), || format!("the books do not agree: {examples}"));
    trial.report.findings.add(findings);
    let lost = (asked.len() - own) as f64;
    trial.report.demand(counted == lost, || format!("{lost} lines were lost, and {counted} are counted"));
    trial.report.note(format!("{own} of {} lines fit on the disk", asked.len()));
    trial.demand_alive(&rig);
    drop(rig);
    Ok(())
}

/// Nothing makes the shipped program panic from outside, so this is the one fault that is not run against it: a test of
/// its own makes the same code panic in a process of its own.
pub(super) fn panic(trial: &mut Trial<'_>) -> Result<(), Error> {
    if !trial.is_ours() {
        trial.not_here("nothing makes it panic".to_owned());
        return Ok(());
    }
    if trial.depth == Depth::Short {
        trial.not_here("a part of the unit tests: a_panic_in_a_workers_task_costs_one_connection".to_owned());
        return Ok(());
    }
    let workspace = Workspace::find()?;
    let mut test: Command = cargo();
    test.args(["test", "--quiet", "--package", "loadbalancer", "--test", "panic"]).current_dir(&workspace.root);
    let output = test.output().map_err(|e| Error::Failed(format!("cannot run cargo test: {e}")))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && said.contains("2 passed");
    trial.report.demand(passed, || format!("the test of a panic failed: {}", said.trim().replace('\n', " | ")));
    trial.report.note("by its test, not in the rig".to_owned());
    Ok(())
}
