//! Proxies that run side by side and are loaded in turn, for a moment each, again and again: a machine whose speed
//! changes from second to second, or that stands still for some milliseconds, is as slow for all of them. Between its
//! turns a proxy has nothing to do.

use std::time::Duration;

use super::contender::{Contender, Origin};
use super::generator::{Clients, Generator, Plan, quantile_us};
use super::measure::{Ground, cost_sample};
use super::proc::{CpuTime, Of, cpu_time, run_time_us};
use super::results::{Pair, Sample, median};
use super::work::{Http, SMALL_REPLIES};
use crate::Error;

/// Turns as fast as it goes that each proxy has for each second of a measurement, and how long one is.
const FAST_PER_S: u32 = 20;
const FAST: Duration = Duration::from_millis(100);

/// Turns with requests at a fixed rate for each second of a measurement. They are many and short, because it is the median
/// turn that counts, and a turn in which the machine stood still for 2 ms says nothing else.
const PACED_PER_S: u32 = 30;
const PACED: Duration = Duration::from_millis(100);

/// How long such a turn first asks as fast as it goes, to see how fast that is: the rate depends on it.
const MOST: Duration = Duration::from_millis(60);

/// So that what is measured is not the first.
const WARM_UP: Duration = Duration::from_millis(500);

/// A proxy that is loaded now and then.
trait Subject: Sized {
    fn turn(&mut self, generator: &Generator) -> Result<(), Error>;
}

/// CPU time per message through tunnels that stay.
pub(super) fn tunnels(
    ground: &Ground<'_>,
    contenders: &[Contender],
    connections: usize,
    bytes: usize,
) -> Vec<Result<Sample, Error>> {
    let start = |contender: &Contender| {
        let proxy = contender.start(&ground.setup(Origin::Echoes))?;
        let clients = Clients::websocket(proxy.port, connections, bytes).map_err(Error::Failed)?;
        let before = cpu_time(proxy.pid())?;
        Ok((Fast::new(&ground.echoes, proxy.pid(), Of::Process, clients)?, (before, proxy)))
    };
    let subjects = in_turn(&ground.echoes, contenders.iter().map(start), ground.seconds * FAST_PER_S);
    subjects.into_iter().map(|subject| subject.and_then(|(fast, (before, _proxy))| fast.sample(before))).collect()
}

/// One that runs, and what of it is charged.
#[derive(Clone, Copy)]
pub(super) struct Running {
    pub(super) port: u16,
    pub(super) pid: u32,
    pub(super) of: Of,
}

/// CPU time per small reply of two that differ in what must not cost much, and how many requests each has answered.
pub(super) fn pair(
    generator: &Generator,
    seconds: u32,
    base: Running,
    changed: Running,
) -> Result<(Pair, [u64; 2]), Error> {
    let start = |running: Running| {
        let clients = Clients::http(running.port, &SMALL_REPLIES).map_err(Error::Failed)?;
        Fast::new(generator, running.pid, running.of, clients)
    };
    let both = in_turn(generator, [base, changed].into_iter().map(start), seconds * FAST_PER_S);
    let [base, changed] = <[_; 2]>::try_from(both).map_err(|_| Error::Failed("two were started".to_owned()))?;
    let (base, changed) = (base?, changed?);
    let answered = [&base, &changed].map(|fast| fast.answered);
    Ok((Pair { base: base.cost_us(), changed: changed.cost_us() }, answered))
}

/// The 99th percentile of latency at a share of what each proxy can do.
pub(super) fn latencies(
    ground: &Ground<'_>,
    contenders: &[Contender],
    load: &Http,
    share: f64,
) -> Vec<Result<Sample, Error>> {
    let start = |contender: &Contender| {
        let proxy = contender.start(&ground.setup(Origin::Replies))?;
        let mut clients = Clients::http(proxy.port, load).map_err(Error::Failed)?;
        ground.replies.load(&mut clients, Plan::closed(WARM_UP)).map_err(Error::Failed)?;
        Ok((Paced { clients, share, rates: vec![], p99s_us: vec![], lates_us: vec![], latencies: vec![] }, proxy))
    };
    let subjects = in_turn(&ground.replies, contenders.iter().map(start), ground.seconds * PACED_PER_S);
    subjects.into_iter().map(|subject| subject.map(|(paced, _proxy)| paced.sample())).collect()
}

/// Loads one after the other, once all are started. One that fails has no more turns.
fn in_turn<S: Subject>(
    generator: &Generator,
    subjects: impl Iterator<Item = Result<S, Error>>,
    turns: u32,
) -> Vec<Result<S, Error>> {
    let mut subjects: Vec<Result<S, Error>> = subjects.collect();
    let count = subjects.len();
    for turn in 0..turns as usize {
        // Another one begins each time.
        for at in (0..count).map(|number| (turn + number) % count) {
            let Ok(subject) = &mut subjects[at] else { continue };
            if let Err(e) = subject.turn(generator) {
                subjects[at] = Err(e);
            }
        }
    }
    subjects
}

/// Asked as fast as it answers.
struct Fast {
    pid: u32,
    of: Of,
    clients: Clients,
    /// Also while it warmed up.
    answered: u64,
    rates: Vec<f64>,
    /// Of each turn.
    costs_us: Vec<f64>,
}

impl Fast {
    /// Warms it up.
    fn new(generator: &Generator, pid: u32, of: Of, mut clients: Clients) -> Result<Self, Error> {
        let answered = generator.load(&mut clients, Plan::closed(WARM_UP)).map_err(Error::Failed)?.answered;
        Ok(Self { pid, of, clients, answered, rates: vec![], costs_us: vec![] })
    }

    /// Of the median turn.
    fn cost_us(&self) -> f64 {
        median(self.costs_us.iter().copied()).unwrap_or_default()
    }

    /// User code and kernel have the parts that they have in all of the time since `before`: that clock is too coarse for
    /// one turn.
    fn sample(self, before: CpuTime) -> Result<Sample, Error> {
        let cost_us = self.cost_us();
        let (user, kernel) = cpu_time(self.pid)?.per(before, self.answered)?;
        let user_us = cost_us * user / (user + kernel);
        let per_s = median(self.rates.into_iter());
        Ok(Sample { per_s, ..cost_sample(self.answered, user_us, cost_us - user_us) })
    }
}

/// With what it has to keep alive.
impl<S: Subject, T> Subject for (S, T) {
    fn turn(&mut self, generator: &Generator) -> Result<(), Error> {
        self.0.turn(generator)
    }
}

impl Subject for Fast {
    fn turn(&mut self, generator: &Generator) -> Result<(), Error> {
        let before_us = run_time_us(self.pid, self.of)?;
        let outcome = generator.load(&mut self.clients, Plan::closed(FAST)).map_err(Error::Failed)?;
        let took_us = run_time_us(self.pid, self.of)? - before_us;
        self.costs_us.push(took_us / outcome.answered as f64);
        self.answered += outcome.answered;
        self.rates.push(outcome.per_s);
        Ok(())
    }
}

/// Asked at a share of what it can do.
struct Paced {
    clients: Clients,
    share: f64,
    rates: Vec<f64>,
    /// Of each turn.
    p99s_us: Vec<f64>,
    lates_us: Vec<f64>,
    /// Of all turns.
    latencies: Vec<Duration>,
}

impl Subject for Paced {
    /// What a proxy can do is measured anew each time: a rate that was 70 % of it can be all of it a second later.
    fn turn(&mut self, generator: &Generator) -> Result<(), Error> {
        let most_per_s = generator.load(&mut self.clients, Plan::closed(MOST)).map_err(Error::Failed)?.per_s;
        let per_s = self.share * most_per_s;
        let plan = Plan::open(per_s, PACED).map_err(Error::Failed)?;
        let mut outcome = generator.load(&mut self.clients, plan).map_err(Error::Failed)?;
        self.p99s_us.push(quantile_us(&mut outcome.latencies, 0.99));
        self.lates_us.push(quantile_us(&mut outcome.lateness, 0.99));
        self.rates.push(per_s);
        self.latencies.append(&mut outcome.latencies);
        Ok(())
    }
}

impl Paced {
    fn sample(mut self) -> Sample {
        Sample {
            figure: median(self.p99s_us.into_iter()).unwrap_or_default(),
            late_p99_us: median(self.lates_us.into_iter()),
            all_p99_us: Some(quantile_us(&mut self.latencies, 0.99)),
            count: self.latencies.len() as u64,
            per_s: median(self.rates.into_iter()),
            p50_us: Some(quantile_us(&mut self.latencies, 0.50)),
            ..Sample::default()
        }
    }
}
