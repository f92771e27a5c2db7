//! The campaign: very many requests at half of what goes, while the backends are restarted, half of them by SIGKILL.
//!
//! In slices: after each everything comes to rest, the three books are read, and new ones are begun. So the books stay
//! small however long it takes, and a finding is near its cause.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::client::Load;
use super::counts::Counts;
use super::ledger::Findings;
use super::rig::{ORIGINS, Rig, Wishes};
use super::surroundings::Ground;
use super::trial::words;
use crate::bench::contender::Contender;
use crate::bench::proc::resident_bytes;
use crate::{Error, say};

/// Requests whose books are read together: some 100 MB of log.
const SLICE: u64 = 250_000;

/// How long a restarted backend is away.
const AWAY: Duration = Duration::from_millis(150);

/// Between restarts at least, so that checks see each server come back before the next one goes.
const APART: Duration = Duration::from_millis(700);

/// Memory at the end may differ so much from that after the first slices.
const FLAT: f64 = 0.05;

/// Slices after which memory is expected to be what it stays.
const WARM_UP: usize = 2;

/// Whoever serves fewer than this many a second has stopped.
const LEAST_PER_S: u64 = 50;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Campaign {
    pub(super) proxy: String,
    pub(super) requests: u64,
    pub(super) seconds: u64,
    pub(super) restarts: u32,
    #[serde(flatten)]
    pub(super) counts: Counts,
    /// Resident memory of the proxy after each slice.
    pub(super) resident: Vec<u64>,
    /// Demands that were not met.
    pub(super) failures: Vec<String>,
}

/// What is asked for.
pub(super) struct Size {
    pub(super) requests: u64,
    pub(super) restarts: u32,
    /// Ends it early.
    pub(super) at_most: Option<Duration>,
}

pub(super) fn run(ground: &Ground, contender: Contender, per_s: f64, size: &Size) -> Result<Campaign, Error> {
    let mut rig = Rig::start(ground, contender, Wishes::default())?;
    let started = Instant::now();
    // At least three slices: memory has to be seen to stay.
    let slice = SLICE.min(size.requests.div_ceil(WARM_UP as u64 + 3)).max(1);
    let slices = size.requests.div_ceil(slice);
    let (mut restarts, mut findings, mut resident) = (0, Findings::default(), vec![]);
    let mut failures = vec![];
    for number in 0..slices {
        if size.at_most.is_some_and(|most| started.elapsed() >= most) {
            break;
        }
        let due = (u64::from(size.restarts) * (number + 1) / slices) as u32;
        let load = rig.load(rig.plan(Some(per_s)))?;
        restart_while(&mut rig, &load, slice, &mut restarts, due)?;
        let asked = load.stop();
        let found = rig.settle(&asked)?;
        if !found.reasons.is_empty() {
            say(&format!("  failed: {}", found.why()));
        }
        if let Some(first) = asked.iter().find(|asked| !asked.post && !asked.is_well()) {
            failures.push(format!("slice {number}: {}", words(first)));
        }
        resident.push(resident_bytes(rig.proxy.pid())?);
        findings.add(found);
        say(&format!(
            "{:12} {} requests, {restarts} restarts, {} GET and {} POST failed, {} twice, {} mixed up, {} hung, {} \
             unexplained, {:.1} MiB",
            contender.name(),
            findings.asked,
            findings.failed_get,
            findings.failed_post,
            findings.doubled,
            findings.mixed_up + findings.invented,
            findings.hung,
            findings.unexplained,
            resident.last().copied().unwrap_or_default() as f64 / (1u64 << 20) as f64
        ));
        rig.turn_page(&asked)?;
    }
    if !findings.is_sound() {
        failures.push(format!("the books do not agree: {}", findings.examples.join("; ")));
    }
    failures.extend(not_flat(&resident));
    Ok(Campaign {
        proxy: contender.name().to_owned(),
        requests: findings.asked,
        seconds: started.elapsed().as_secs(),
        restarts,
        counts: Counts::from(&findings),
        resident,
        failures,
    })
}

/// Until the load has asked as much as it should, and as many backends were restarted: each other one is killed.
fn restart_while(rig: &mut Rig, load: &Load, requests: u64, done: &mut u32, due: u32) -> Result<(), Error> {
    let (started, first) = (Instant::now(), *done);
    let limit = Duration::from_secs(30 + requests / LEAST_PER_S);
    while (load.asked() < requests || *done < due) && started.elapsed() < limit {
        // Evenly over the slice.
        let turn = u64::from(*done - first) * requests / u64::from((due - first).max(1));
        if *done >= due || load.asked() < turn {
            sleep(Duration::from_millis(10));
            continue;
        }
        let origin = &mut rig.origins[*done as usize % ORIGINS];
        if done.is_multiple_of(2) {
            origin.kill();
        } else {
            origin.stop()?;
        }
        sleep(AWAY);
        origin.begin()?;
        *done += 1;
        sleep(APART);
    }
    Ok(())
}

/// What is wrong with how memory went.
fn not_flat(resident: &[u64]) -> Option<String> {
    let warm = *resident.get(WARM_UP - 1)?;
    let last = *resident.last()?;
    let change = last as f64 / warm as f64 - 1.0;
    (change.abs() > FLAT).then(|| format!("resident memory changed by {:+.1} % after the warm-up", change * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_flat_when_it_stays_as_after_the_warm_up() {
        assert_eq!(not_flat(&[50, 100, 130, 104]), None);
        assert_eq!(not_flat(&[50, 100, 106]).as_deref(), Some("resident memory changed by +6.0 % after the warm-up"));
        assert!(not_flat(&[50, 100, 90]).is_some());
        assert_eq!(not_flat(&[50]), None);
    }
}
