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

/// Memory has to be seen to stay: fewer would show no quarters.
const LEAST_SLICES: u64 = 8;

/// Memory in the last quarter may differ so much from that in the second.
const FLAT: f64 = 0.05;

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
    let slice = SLICE.min(size.requests.div_ceil(LEAST_SLICES)).max(1);
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
    let mut campaign = Campaign {
        proxy: contender.name().to_owned(),
        requests: findings.asked,
        seconds: started.elapsed().as_secs(),
        restarts,
        counts: Counts::from(&findings),
        resident,
        failures,
    };
    campaign.failures.extend(campaign.not_flat());
    Ok(campaign)
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

impl Campaign {
    /// Resident memory in the second quarter and in the last: medians, since a single look has what is under way just
    /// then in it, a tenth more or less. The first quarter is warming up.
    pub(super) fn memory(&self) -> Option<(u64, u64)> {
        let quarters = |from: usize, to: usize| {
            let last = self.resident.len().checked_sub(1)?;
            let (from, to) = (last * from / 4, (last * to / 4).max(last * from / 4));
            let mut looks = self.resident[from..=to].to_vec();
            looks.sort_unstable();
            looks.get(looks.len() / 2).copied()
        };
        Some((quarters(1, 2)?, quarters(3, 4)?))
    }

    /// What is wrong with how memory went.
    fn not_flat(&self) -> Option<String> {
        let (warm, last) = self.memory()?;
        let change = last as f64 / warm.max(1) as f64 - 1.0;
        (change.abs() > FLAT).then(|| format!("resident memory changed by {:+.1} % after the warm-up", change * 100.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_flat_when_it_stays_as_after_the_warm_up() {
        let campaign = |resident: &[u64]| Campaign { resident: resident.to_vec(), ..Campaign::default() };
        assert_eq!(campaign(&[50, 60, 100, 101, 102, 150, 104, 90, 105]).memory(), Some((101, 104)));
        assert_eq!(campaign(&[50, 60, 100, 101, 102, 150, 104, 90, 105]).not_flat(), None);
        let grows = campaign(&[100, 100, 106]);
        assert_eq!(grows.not_flat().as_deref(), Some("resident memory changed by +6.0 % after the warm-up"));
        assert!(campaign(&[50, 100, 100, 90, 90]).not_flat().is_some(), "less is not flat, either");
        assert_eq!(campaign(&[]).not_flat(), None);
    }
}
