//! Faults from the clients' side: they go away, they flood, and the proxy itself is told to go.

use std::io::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::super::client::{Aborted, abort_many};
use super::super::ledger::{Deed, End, Why};
use super::super::rig::{Rig, Wishes};
use super::super::server::signal;
use super::super::trial::{Depth, Trial, words};
use crate::Error;
use crate::bench::contender::Contender;
use crate::bench::http;

/// An origin must notice within this that nobody waits for it any more.
const NOTICED_WITHIN: Duration = Duration::from_secs(1);

/// Ours waits for 30 s at most; what is under way here takes milliseconds.
const DRAINED_WITHIN: Duration = Duration::from_secs(10);

/// Numbers of requests that are given up: far from those of the load.
const ABORTED_FROM: u64 = 1 << 40;

pub(super) fn abort(trial: &mut Trial<'_>) -> Result<(), Error> {
    let count = if trial.depth == Depth::Short { 20 } else { 60 };
    let mut aborted = vec![];
    let told = trial.under_load(Wishes::default(), |trial, rig, _| {
        aborted = abort_many(rig.proxy.port, rig.run, ABORTED_FROM, count).map_err(Error::Failed)?;
        sleep(NOTICED_WITHIN);
        demand_noticed(trial, rig, &aborted)
    })?;
    trial.demand_none_failed(&told.asked, true);
    if trial.is_ours() {
        // Their lines were written a second before the last of the load's.
        let lines = told.rig.lines(&told.asked)?;
        let says_so = |number: u64| {
            let mut own = lines.iter().filter(|line| line.id.is_some_and(|id| id.number == number));
            own.next().is_some_and(|line| !line.complete)
        };
        let silent = aborted.iter().filter(|aborted| !says_so(aborted.number)).count();
        trial
            .report
            .demand(silent == 0, || format!("{silent} requests were given up, and their log lines do not say so"));
    }
    Ok(())
}

fn demand_noticed(trial: &mut Trial<'_>, rig: &Rig, aborted: &[Aborted]) -> Result<(), Error> {
    let executed = rig.executed()?;
    let deeds = |number: u64| executed.iter().filter(move |record| record.id.number == number);
    for aborted in aborted {
        let number = aborted.number - ABORTED_FROM;
        if aborted.in_request {
            let whole = deeds(aborted.number).any(|record| record.deed == Deed::Whole);
            trial.report.demand(!whole, || format!("request {number} broke off, and was executed as if it were whole"));
        }
        let wanted = if aborted.in_request { Deed::Broken } else { Deed::Unheard };
        let noticed = deeds(aborted.number).find(|record| record.deed == wanted);
        // What was never begun at an origin need not be ended there.
        let begun = !aborted.in_request || deeds(aborted.number).next().is_some();
        let late = noticed.map(|record| record.at_us.saturating_sub(aborted.at_us));
        let limit = NOTICED_WITHIN.as_micros() as u64;
        trial.report.demand(!begun || late.is_some_and(|late| late <= limit), || {
            format!("the server of given-up request {number} did not notice within {NOTICED_WITHIN:?} ({late:?})")
        });
    }
    Ok(())
}

pub(super) fn terminate(trial: &mut Trial<'_>) -> Result<(), Error> {
    let mut rig = Rig::start(trial.ground, trial.contender, Wishes::default())?;
    let load = rig.load(rig.plan(Some(trial.per_s)))?;
    sleep(trial.fault_time() / 2);
    let graceful = match trial.contender {
        Contender::Haproxy => "USR1",
        Contender::Nginx => "QUIT",
        Contender::Loadbalancer | Contender::Caddy => "TERM",
    };
    let started = Instant::now();
    signal(rig.proxy.pid(), graceful)?;
    let mut ended = None;
    while ended.is_none() && started.elapsed() < DRAINED_WITHIN {
        sleep(Duration::from_millis(10));
        ended = rig.proxy.ended();
    }
    let took = started.elapsed();
    let asked = load.stop();
    trial.report.demand(ended.is_some_and(|status| status.success()), || match ended {
        Some(status) => format!("it ended with {status}"),
        None => format!("it did not end within {DRAINED_WITHIN:?}"),
    });
    // Who finds nobody listening any more was not accepted.
    let lost: Vec<_> =
        asked.iter().filter(|asked| !asked.is_well() && !matches!(asked.end, End::Failed(Why::Connect, _))).collect();
    let (count, first) = (lost.len(), lost.first().map(|asked| words(asked)).unwrap_or_default());
    trial.report.demand(lost.is_empty(), || format!("{count} requests were accepted and lost, the first: {first}"));
    trial.report.note(format!("it ended after {} ms", took.as_millis()));
    trial.settle(&rig, &asked)
}

pub(super) fn admin_flood(trial: &mut Trial<'_>) -> Result<(), Error> {
    if !trial.is_ours() {
        trial.not_here("its control socket is not for a network".to_owned());
        return Ok(());
    }
    let count = if trial.depth == Depth::Short { 2000 } else { 10_000 };
    let mut opened = 0;
    let told = trial.under_load(Wishes::default(), |trial, rig, _| {
        let mut held = vec![];
        let deadline = Instant::now() + 4 * trial.fault_time();
        while held.len() < count && Instant::now() < deadline {
            // The kernel refuses when nobody accepts; that is what a flood is to meet.
            let address = std::net::SocketAddr::from(([127, 0, 0, 1], rig.proxy.admin_port));
            let Ok(mut stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) else {
                break;
            };
            let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
            held.push(stream);
        }
        opened = held.len();
        sleep(trial.fault_time());
        drop(held);
        Ok(())
    })?;
    trial.demand_none_failed(&told.asked, true);
    trial.demand_alive(&told.rig);
    let (before, during) = (told.p99_before_us(), told.p99_during_us());
    trial.report.note(format!("{opened} connections; p99 {before} µs before, {during} µs during the flood"));
    // A tenth is the aim on a quiet machine; here a flood takes the cores that the clients run on.
    trial.demand_time(during < before * 11 / 10 || during < before + 100_000, || {
        format!("p99 went from {before} to {during} µs")
    });
    let answers = http::connect(told.rig.proxy.admin_port).is_ok();
    trial.report.demand(answers, || "the admin API does not accept any more".to_owned());
    Ok(())
}
