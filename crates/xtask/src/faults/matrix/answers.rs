//! Faults of answers: cut, dripped, lied about, late.

use std::thread::sleep;
use std::time::Duration;

use super::super::ledger::{End, Why};
use super::super::origin::{How, Mode, PLACES, Place};
use super::super::rig::{ORIGINS, Wishes};
use super::super::trial::Trial;
use crate::Error;
use crate::bench::proc::resident_bytes;

/// Latency of every server where one becomes ten times slower.
const USUAL_MS: u64 = 10;

/// How long a server's world is stopped: a long collection of garbage, or a move of its machine.
const STANDSTILL: Duration = Duration::from_millis(700);

/// One mode after the other, each time with another origin: one that fails for long is left alone by a good proxy.
fn one_by_one(trial: &mut Trial<'_>, modes: &[Mode]) -> Result<super::super::trial::Told, Error> {
    let each = (trial.fault_time() * 2 / modes.len() as u32).max(Duration::from_millis(250));
    trial.under_load(Wishes::default(), |_, rig, _| {
        for (turn, mode) in modes.iter().enumerate() {
            let origin = &mut rig.origins[turn % ORIGINS];
            origin.order(*mode)?;
            sleep(each);
            origin.order(Mode::Serve)?;
        }
        Ok(())
    })
}

pub(super) fn cut(trial: &mut Trial<'_>) -> Result<(), Error> {
    // Bodies first: cut heads alone would show nothing of what this is about.
    let modes: Vec<Mode> = PLACES
        .into_iter()
        .rev()
        .flat_map(|place| [How::Close, How::Reset].map(|how| Mode::Cut { place, how }))
        // The orderly end of a connection is the end of such a body: nobody can know that there should be more.
        .filter(|mode| *mode != Mode::Cut { place: Place::Close, how: How::Close })
        .collect();
    let told = one_by_one(trial, &modes)?;
    let cut = told.asked.iter().filter(|asked| matches!(asked.end, End::Failed(Why::Cut, Some(200)))).count();
    trial.demand_felt(cut > 0);
    trial.report.note(format!("{cut} answers were cut after their head, and were seen to be"));
    Ok(())
}

pub(super) fn lies(trial: &mut Trial<'_>) -> Result<(), Error> {
    let told = one_by_one(trial, &[Mode::LieLong, Mode::LieShort, Mode::Extra, Mode::Early])?;
    let failed = told.asked.iter().filter(|asked| !asked.is_well()).count();
    trial.demand_felt(failed > 0);
    trial.report.note(format!("{failed} requests failed that met a lie"));
    Ok(())
}

pub(super) fn drip(trial: &mut Trial<'_>) -> Result<(), Error> {
    let mut memory = (0, 0);
    let told = trial.under_load(Wishes::default(), |trial, rig, _| {
        memory.0 = resident_bytes(rig.proxy.pid())?;
        // A few clients are held; if it were every answer, all would be.
        rig.origins[0].order(Mode::Drip { one_in: (trial.per_s / 20.0) as u64 + 1 })?;
        sleep(trial.fault_time());
        memory.1 = resident_bytes(rig.proxy.pid())?;
        rig.origins[0].order(Mode::Serve)
    })?;
    trial.demand_none_failed(&told.asked, true);
    let (before, during) = (told.p99_before_us(), p99_of_others(&told));
    // A percentage means nothing below what a busy machine adds by itself.
    trial.demand_time(during < before * 6 / 5 || during < before + 100_000, || {
        format!("p99 of the others went from {before} to {during} µs")
    });
    trial.report.demand(memory.1 < memory.0 + memory.0 / 4 + (4 << 20), || {
        format!("resident memory went from {} to {} bytes", memory.0, memory.1)
    });
    Ok(())
}

/// Of the requests that were not held for a second at least.
fn p99_of_others(told: &super::super::trial::Told) -> u64 {
    let mut times: Vec<u64> =
        told.during(0.0, 1.0).map(|asked| asked.took_us).filter(|took_us| *took_us < 900_000).collect();
    times.sort_unstable();
    times.get((times.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}

pub(super) fn herd(trial: &mut Trial<'_>) -> Result<(), Error> {
    let told = trial.under_load(Wishes::default(), |trial, rig, _| {
        rig.order_all(Mode::Slow { ms: USUAL_MS })?;
        sleep(trial.fault_time() / 2);
        rig.origins[0].order(Mode::Slow { ms: 10 * USUAL_MS })?;
        sleep(trial.fault_time());
        // And one that stands still for a moment: as long as a response may take, nobody may notice but by waiting.
        rig.order_all(Mode::Serve)?;
        rig.origins[1].pause(true)?;
        sleep(STANDSTILL);
        rig.origins[1].pause(false)
    })?;
    trial.demand_none_failed(&told.asked, true);
    let p99 = |from, to| {
        let mut times: Vec<u64> = told.during(from, to).map(|asked| asked.took_us).collect();
        times.sort_unstable();
        times.get((times.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default() as f64
    };
    // A quarter of the time all are alike, then one is slower, and the last quarter it stands still.
    let times = p99(0.35, 0.7) / p99(0.0, 0.2).max(1.0);
    trial.report.note(format!("p99 grew {times:.1}-fold; 3-fold takes a policy that sees load, which is not here yet"));
    Ok(())
}
