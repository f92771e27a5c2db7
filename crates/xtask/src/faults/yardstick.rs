//! The yardstick: three origins that each break in a way of their own, all the time, and as much load as goes.
//!
//! One closes idle connections after 1–20 ms, one resets bursts of fresh connections, one vanishes for 200 ms of each
//! second. 32 clients, half GET, half POST with bodies to 70 KB. What counts is failed, executed twice, mixed up, and
//! how much was served meanwhile.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::counts::Counts;
use super::origin::Mode;
use super::rig::{Rig, Wishes};
use super::surroundings::Ground;
use crate::bench::contender::Contender;
use crate::{Error, say};

pub(super) const CLIENTS: usize = 32;
const BODY: u64 = 70 << 10;

/// 57,000 of each, as in the run that set the mark.
pub(super) const REQUESTS: u64 = 114_000;

/// Whoever serves fewer than this many a second has stopped.
const LEAST_PER_S: u64 = 50;

/// One run of one proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) proxy: String,
    pub(super) gets: u64,
    pub(super) posts: u64,
    #[serde(flatten)]
    pub(super) counts: Counts,
    /// Requests that went well.
    pub(super) per_s: f64,
}

pub(super) fn run(ground: &Ground, contender: Contender, requests: u64) -> Result<Row, Error> {
    let mut rig = Rig::start(ground, contender, Wishes { pinned: true, steady: true, ..Wishes::default() })?;
    for (origin, mode) in rig.origins.iter_mut().zip([Mode::CloseIdle { most_ms: 20 }, Mode::ResetBursts, Mode::Vanish])
    {
        origin.order(mode)?;
    }
    let mut plan = rig.plan(None);
    plan.clients = CLIENTS;
    plan.body = BODY;
    let started = Instant::now();
    let load = rig.load(plan)?;
    let limit = Duration::from_secs(10 + requests / LEAST_PER_S);
    while load.asked() < requests && started.elapsed() < limit {
        sleep(Duration::from_millis(20));
    }
    let took = started.elapsed();
    let well = load.well();
    let asked = load.stop();
    // At rest, so that the books are not written while they are read.
    rig.order_all(Mode::Serve)?;
    let findings = rig.settle(&asked)?;
    for example in &findings.examples {
        say(&format!("  {example}"));
    }
    if let Some(first) = asked.iter().find(|asked| !asked.is_well()) {
        say(&format!("  the first that failed: {}", super::trial::words(first)));
    }
    if !findings.reasons.is_empty() {
        say(&format!("  failed: {}", findings.why()));
    }
    let posts = asked.iter().filter(|asked| asked.post).count() as u64;
    Ok(Row {
        proxy: contender.name().to_owned(),
        gets: findings.asked - posts,
        posts,
        counts: Counts::from(&findings),
        per_s: well as f64 / took.as_secs_f64(),
    })
}

pub(super) fn line(row: &Row) -> String {
    let counts = &row.counts;
    let fates = match counts.fates() {
        fates if fates.is_empty() => fates,
        fates => format!("; {fates}"),
    };
    format!(
        "{:12} {} of {} GETs and {} of {} POSTs failed, {} executed twice, {} mixed up, {} hung, {} unexplained, {} \
         retried, {:.0}/s{fates}",
        row.proxy,
        counts.failed_get,
        row.gets,
        counts.failed_post,
        row.posts,
        counts.doubled,
        counts.mixed_up,
        counts.hung,
        counts.unexplained,
        counts.retried,
        row.per_s
    )
}
