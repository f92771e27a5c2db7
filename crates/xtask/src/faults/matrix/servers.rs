//! Faults of servers: they refuse, reset, close, fail, and restart.

use std::thread::sleep;
use std::time::Duration;

use super::super::ledger::{Answer, Asked, End};
use super::super::origin::Mode;
use super::super::rig::{CLIENTS, ORIGINS, Wishes};
use super::super::trial::{Told, Trial};
use crate::Error;

/// The first origin in `mode` for the fault's time.
fn first_in(trial: &mut Trial<'_>, mode: Mode) -> Result<Told, Error> {
    trial.under_load(Wishes::default(), |trial, rig, _| {
        rig.origins[0].order(mode)?;
        sleep(trial.fault_time());
        rig.origins[0].order(Mode::Serve)
    })
}

pub(super) fn refuses(trial: &mut Trial<'_>) -> Result<(), Error> {
    let told = first_in(trial, Mode::Refuse)?;
    trial.demand_none_failed(&told.asked, true);
    Ok(())
}

pub(super) fn resets_fresh(trial: &mut Trial<'_>) -> Result<(), Error> {
    let told = first_in(trial, Mode::ResetFresh)?;
    // A POST that was written before the reset came may have been read: it must fail, and say so.
    trial.demand_none_failed(&told.asked, false);
    Ok(())
}

/// The longest that a connection may be idle in fault 7.
const MOST_IDLE_MS: u64 = 50;

/// POSTs that may meet the moment in which all servers close what is idle for the first time: one in eight clients.
const MOST_AT_ONCE: usize = CLIENTS / 8;

pub(super) fn closes_idle(trial: &mut Trial<'_>) -> Result<(), Error> {
    let mut changed_us = 0;
    let told = trial.under_load(Wishes::default(), |trial, rig, _| {
        changed_us = rig.epoch.elapsed().as_micros() as u64;
        rig.order_all(Mode::CloseIdle { most_ms: MOST_IDLE_MS })?;
        sleep(trial.fault_time());
        rig.order_all(Mode::Serve)
    })?;
    trial.demand_none_failed(&told.asked, false);
    // Nobody can know that a server has changed its ways before it has closed one: what crosses those first closes is
    // lost, and told apart. From then on it must be known.
    let first = changed_us..changed_us + 1000 * MOST_IDLE_MS;
    let is_first = |asked: &&Asked| first.contains(&(asked.at_us + asked.took_us));
    let (at_once, later): (Vec<&Asked>, Vec<&Asked>) =
        told.asked.iter().filter(|asked| asked.post && !asked.is_well()).partition(is_first);
    let (at_once, later) = (at_once.len(), later.len());
    trial.report.demand(later == 0, || format!("{later} POSTs failed to a close that could be known of"));
    trial.report.demand(at_once <= MOST_AT_ONCE, || format!("{at_once} POSTs failed to the first closes"));
    if at_once > 0 {
        trial.report.note(format!("{at_once} POSTs crossed the first closes, within {MOST_IDLE_MS} ms"));
    }
    // Worse: the reset comes when the request has been read. Then nobody knows whether a POST was executed.
    let told = first_in(trial, Mode::LateReset)?;
    trial.demand_none_failed(&told.asked, false);
    Ok(())
}

pub(super) fn fails(trial: &mut Trial<'_>) -> Result<(), Error> {
    let told = first_in(trial, Mode::Fail)?;
    // The first 60 % are for noticing; with 5 errors in a row that takes milliseconds.
    let late: Vec<bool> = told.during(0.6, 1.0).map(|asked| asked.is_well()).collect();
    let well = late.iter().filter(|well| **well).count() as f64 / late.len().max(1) as f64;
    let time = trial.fault_time();
    trial.report.demand(well >= 0.999, || {
        format!("{:.1} % went well after {time:?} of one server in three failing", well * 100.0)
    });
    let failed = told.asked.iter().filter(|asked| !asked.is_well()).count();
    trial.report.note(format!("{failed} requests got the 503 of the failing server"));
    Ok(())
}

pub(super) fn all_down(trial: &mut Trial<'_>) -> Result<(), Error> {
    let told = trial.under_load(Wishes::default(), |trial, rig, _| {
        rig.order_all(Mode::Refuse)?;
        sleep(trial.fault_time());
        rig.order_all(Mode::Serve)
    })?;
    let is_503 = |end: &End| matches!(end, End::Answered(Answer { status: 503, id: None, .. }));
    let late: Vec<_> = told.during(0.6, 1.0).collect();
    trial.demand_felt(!late.is_empty() && late.iter().all(|asked| !asked.is_well()));
    let others = late.iter().filter(|asked| !is_503(&asked.end)).count();
    trial.report.demand(others == 0, || format!("{others} of {} were not answered with 503", late.len()));
    // 10 ms is the aim; this machine is shared, so the demand is that nobody waits for anything.
    let slow = late.iter().filter(|asked| asked.took_us > 100_000).count();
    trial.demand_time(slow == 0, || format!("{slow} of {} waited for more than 100 ms for their 503", late.len()));
    Ok(())
}

pub(super) fn restarts(trial: &mut Trial<'_>) -> Result<(), Error> {
    let told = trial.under_load(Wishes::default(), |_, rig, _| {
        for turn in 0..2 * ORIGINS {
            let origin = &mut rig.origins[turn % ORIGINS];
            if turn % 2 == 0 {
                origin.stop()?;
            } else {
                origin.kill();
            }
            sleep(Duration::from_millis(100));
            origin.begin()?;
            // Rolling: the next one goes when this one is back and was found to be.
            sleep(Duration::from_millis(600));
        }
        Ok(())
    })?;
    trial.demand_none_failed(&told.asked, false);
    let posts = told.asked.iter().filter(|asked| asked.post && !asked.is_well()).count();
    trial.report.note(format!("{posts} POSTs failed that were under way when their server was killed"));
    Ok(())
}
