//! Faults of answers: cut, dripped, lied about, late.

use std::thread::sleep;
use std::time::Duration;

use super::super::ledger::{End, Why};
use super::super::origin::{How, Mode, PLACES, Place};
use super::super::report::p99_us;
use super::super::rig::{CLIENTS, ORIGINS, Wishes};
use super::super::trial::Trial;
use crate::Error;
use crate::bench::proc::resident_bytes;

/// Latency of every server where one becomes ten times slower.
const USUAL_MS: u64 = 10;

/// The 99th percentile of all requests beside such a server, against that without.
const MOST_TIMES: u64 = 3;

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
    let mut marks_us = [0; 3];
    // Half of what the clients could ask for if nothing but the servers took time.
    let usual_per_s = trial.per_s;
    trial.per_s = usual_per_s.min(CLIENTS as f64 * 500.0 / USUAL_MS as f64);
    let wishes = Wishes { by_load: true, ..Wishes::default() };
    let told = trial.under_load(wishes, |trial, rig, _| {
        let now_us = |rig: &super::super::rig::Rig| rig.epoch.elapsed().as_micros() as u64;
        rig.order_all(Mode::Slow { ms: USUAL_MS })?;
        // What was asked before is answered as before.
        sleep(trial.fault_time() / 4);
        marks_us[0] = now_us(rig);
        sleep(trial.fault_time());
        marks_us[1] = now_us(rig);
        rig.origins[0].order(Mode::Slow { ms: 10 * USUAL_MS })?;
        // Until its first slow answer is there nobody can know: long enough for those to be less than one in a hundred.
        sleep(4 * trial.fault_time());
        marks_us[2] = now_us(rig);
        // And one that stands still for a moment: as long as a response may take, nobody may notice but by waiting.
        rig.order_all(Mode::Serve)?;
        rig.origins[1].pause(true)?;
        sleep(STANDSTILL);
        rig.origins[1].pause(false)
    })?;
    trial.per_s = usual_per_s;
    trial.demand_none_failed(&told.asked, true);
    let [alike_us, slow_us, end_us] = marks_us;
    let (before, during) = (p99_us(&told.asked, alike_us, slow_us), p99_us(&told.asked, slow_us, end_us));
    // All requests from the first one on that could meet it, those included by which it is found out.
    let slow = told.asked.iter().filter(|asked| (slow_us..end_us).contains(&asked.at_us));
    let met = slow.clone().filter(|asked| asked.took_us >= 10 * USUAL_MS * 1000).count();
    trial.demand_felt(met > 0);
    trial.report.note(format!(
        "p99 {:.1} ms while all took {USUAL_MS} ms, {:.1} ms beside one of {} ms, which {met} of {} requests met",
        before as f64 / 1000.0,
        during as f64 / 1000.0,
        10 * USUAL_MS,
        slow.count()
    ));
    trial.demand_time(during <= MOST_TIMES * before, || {
        format!("p99 went from {} to {} ms, more than {MOST_TIMES}-fold", before / 1000, during / 1000)
    });
    Ok(())
}
