//! One run of one fault: load before, during and after it, the three books, and the demands that hold for every fault.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::client::Load;
use super::ledger::{Asked, End, Why};
use super::report::{Report, p99_us};
use super::rig::{Rig, Wishes};
use super::surroundings::Ground;
use crate::Error;
use crate::bench::contender::Contender;
use crate::bench::machine;

/// The fault is over, and what is served is what was served before, within this.
const RECOVERED_WITHIN: Duration = Duration::from_secs(5);
const RECOVERED_SHARE: f64 = 0.95;

/// In the short form: the machine of a test command does other things, too, and serves less for no fault of the proxy.
const RECOVERED_SHARE_SHORT: f64 = 0.5;
const RECOVERY_WINDOW: Duration = Duration::from_millis(250);

/// This rig alone keeps all cores busy, with clients, origins and proxy: some two tasks for each.
const BUSY_PER_CORE: f64 = 3.0;

/// How thorough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// Each fault once, as a part of the test command.
    Short,
    Usual,
}

/// One run.
pub(super) struct Trial<'a> {
    pub(super) ground: &'a Ground,
    pub(super) contender: Contender,
    /// Requests per second: half of what this proxy can do in this rig.
    pub(super) per_s: f64,
    pub(super) depth: Depth,
    pub(super) report: Report,
}

/// What came of it.
pub(super) struct Told {
    pub(super) rig: Rig,
    pub(super) asked: Vec<Asked>,
    /// When the fault was there, since the rig's epoch.
    pub(super) from_us: u64,
    pub(super) to_us: u64,
}

impl Told {
    pub(super) fn p99_before_us(&self) -> u64 {
        p99_us(&self.asked, 0, self.from_us)
    }

    pub(super) fn p99_during_us(&self) -> u64 {
        p99_us(&self.asked, self.from_us, self.to_us)
    }

    /// Requests that were begun in this part of the fault's time, from 0 to 1.
    pub(super) fn during(&self, from: f64, to: f64) -> impl Iterator<Item = &Asked> {
        let at = |share: f64| self.from_us + ((self.to_us - self.from_us) as f64 * share) as u64;
        let (from, to) = (at(from), at(to));
        self.asked.iter().filter(move |asked| (from..to).contains(&asked.at_us))
    }
}

impl Trial<'_> {
    pub(super) fn is_ours(&self) -> bool {
        self.contender == Contender::Loadbalancer
    }

    /// How long a fault is there.
    pub(super) fn fault_time(&self) -> Duration {
        Duration::from_millis(1500)
    }

    fn lead_time(&self) -> Duration {
        Duration::from_millis(if self.depth == Depth::Short { 500 } else { 1000 })
    }

    /// Runs `fault` under load: it begins, waits, and heals. Demands what holds for every fault.
    pub(super) fn under_load(
        &mut self,
        wishes: Wishes,
        fault: impl FnOnce(&mut Self, &mut Rig, &Load) -> Result<(), Error>,
    ) -> Result<Told, Error> {
        let mut rig = Rig::start(self.ground, self.contender, wishes)?;
        let load = rig.load(rig.plan(Some(self.per_s)))?;
        let since = |rig: &Rig| rig.epoch.elapsed().as_micros() as u64;
        // The first requests open connections and fill caches.
        sleep(self.lead_time() / 2);
        let before = rate(&load, self.lead_time());
        let from_us = since(&rig);
        let done = fault(self, &mut rig, &load);
        let to_us = since(&rig);
        let recovered = if done.is_ok() { self.recovery(&load, before) } else { None };
        let asked = load.stop();
        done?;
        let percent = self.recovered_share() * 100.0;
        // However busy the machine is, something must be served.
        let served = asked.iter().any(|asked| asked.at_us >= to_us && asked.is_well());
        self.report.demand(served, || "nothing is served any more".to_owned());
        self.demand_time(recovered.is_some(), || {
            format!("not back at {percent:.0} % of {before:.0}/s within {RECOVERED_WITHIN:?}")
        });
        self.settle(&rig, &asked)?;
        Ok(Told { rig, asked, from_us, to_us })
    }

    fn recovered_share(&self) -> f64 {
        if self.depth == Depth::Short { RECOVERED_SHARE_SHORT } else { RECOVERED_SHARE }
    }

    /// Time until the load goes as well as before.
    fn recovery(&self, load: &Load, before: f64) -> Option<Duration> {
        // More than is asked for cannot be served again for sure: clients that were late have caught up before.
        let wanted = before.min(self.per_s) * self.recovered_share();
        let started = Instant::now();
        while started.elapsed() < RECOVERED_WITHIN {
            if rate(load, RECOVERY_WINDOW) >= wanted {
                return Some(started.elapsed());
            }
        }
        None
    }

    /// Reads the books and demands that they are sound, and that the proxy lives and did not panic.
    pub(super) fn settle(&mut self, rig: &Rig, asked: &[Asked]) -> Result<(), Error> {
        let findings = rig.settle(asked)?;
        if !findings.reasons.is_empty() {
            self.report.note(format!("failed: {}", findings.why()));
        }
        let examples = findings.examples.join("; ");
        self.report.demand(findings.is_sound(), || format!("the books do not agree: {examples}"));
        self.report.findings.add(findings);
        let said = fs::read_to_string(&rig.proxy.said).unwrap_or_default();
        let panic = said.lines().find(|line| line.contains("panicked at")).map(str::to_owned);
        self.report.demand(panic.is_none(), || format!("a panic: {}", panic.unwrap_or_default()));
        Ok(())
    }

    pub(super) fn demand_alive(&mut self, rig: &Rig) {
        self.report.demand(rig.proxy.lives(), || "the proxy died".to_owned());
    }

    /// Demands that no request failed; `post`: also no POST.
    pub(super) fn demand_none_failed(&mut self, asked: &[Asked], post: bool) {
        let failed: Vec<&Asked> = asked.iter().filter(|asked| !asked.is_well() && (post || !asked.post)).collect();
        let count = failed.len();
        let what = if post { "requests" } else { "GETs" };
        let first = failed.first().map(|asked| words(asked)).unwrap_or_default();
        self.report.demand(failed.is_empty(), || format!("{count} {what} failed, the first: {first}"));
    }

    /// A demand on time or rate: on a machine that others keep busy it is noted instead, because it would say more of
    /// them than of the proxy.
    pub(super) fn demand_time(&mut self, is_met: bool, words: impl FnOnce() -> String) {
        let load = machine::machine(0).load_before;
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        if !is_met && load > BUSY_PER_CORE * cores {
            self.report.note(format!("not judged, for the machine is busy (load {load}): {}", words()));
        } else {
            self.report.demand(is_met, words);
        }
    }

    /// Demands that a fault was felt at all: one that was not proves nothing.
    pub(super) fn demand_felt(&mut self, felt: bool) {
        self.report.demand(felt, || "nobody felt the fault: this run proves nothing".to_owned());
    }

    /// This fault cannot be had.
    pub(super) fn not_here(&mut self, reason: String) {
        self.report.not_here = Some(reason);
    }
}

/// A request and its end, in words.
pub(super) fn words(asked: &Asked) -> String {
    let method = if asked.post { "POST" } else { "GET" };
    let end = match asked.end {
        End::Answered(answer) => format!("answered {}", answer.status),
        End::Failed(Why::Connect, _) => "refused".to_owned(),
        End::Failed(why, status) => format!("{why:?} ({status:?})").to_lowercase(),
    };
    let ms = asked.took_us as f64 / 1000.0;
    format!("{method} {} at {} ms, {end} after {ms:.1} ms", asked.number, asked.at_us / 1000)
}

/// Requests per second that go well, measured for `time`.
pub(super) fn rate(load: &Load, time: Duration) -> f64 {
    let (before, started) = (load.well(), Instant::now());
    sleep(time);
    (load.well() - before) as f64 / started.elapsed().as_secs_f64()
}
