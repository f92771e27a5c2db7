//! Proxies that run side by side and are loaded in turn, for a moment each, again and again: a machine whose speed
//! changes from second to second, or that stands still for some milliseconds, is as slow for all of them. Between its
//! turns a proxy has nothing to do.

use std::time::Duration;

use super::contender::{Contender, Origin, Proxy};
use super::generator::{Clients, Generator, Plan, quantile_us};
use super::measure::{Ground, cost_sample};
use super::proc::{CpuTime, cpu_time, run_time_us};
use super::results::{Sample, median};
use super::work::Http;
use crate::Error;

/// Turns with messages that each proxy has for each second of a measurement, and how long one is.
const CHATS_PER_S: u32 = 20;
const CHAT: Duration = Duration::from_millis(100);

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

    /// What all turns together say.
    fn sample(self) -> Result<Sample, Error>;
}

/// CPU time per message through tunnels that stay.
pub(super) fn tunnels(
    ground: &Ground<'_>,
    contenders: &[Contender],
    connections: usize,
    bytes: usize,
) -> Vec<Result<Sample, Error>> {
    in_turn(&ground.echoes, contenders, ground.seconds * CHATS_PER_S, |contender| {
        let proxy = contender.start(&ground.setup(Origin::Echoes))?;
        let mut clients = Clients::websocket(proxy.port, connections, bytes).map_err(Error::Failed)?;
        ground.echoes.load(&mut clients, Plan::closed(WARM_UP)).map_err(Error::Failed)?;
        let before = cpu_time(proxy.pid())?;
        Ok(Tunnels { proxy, clients, before, messages: 0, rates: vec![], costs_us: vec![] })
    })
}

/// The 99th percentile of latency at a share of what each proxy can do.
pub(super) fn latencies(
    ground: &Ground<'_>,
    contenders: &[Contender],
    load: &Http,
    share: f64,
) -> Vec<Result<Sample, Error>> {
    in_turn(&ground.replies, contenders, ground.seconds * PACED_PER_S, |contender| {
        let proxy = contender.start(&ground.setup(Origin::Replies))?;
        let mut clients = Clients::http(proxy.port, load).map_err(Error::Failed)?;
        ground.replies.load(&mut clients, Plan::closed(WARM_UP)).map_err(Error::Failed)?;
        Ok(Paced { _proxy: proxy, clients, share, rates: vec![], p99s_us: vec![], lates_us: vec![], latencies: vec![] })
    })
}

/// Starts all, then loads one after the other. One that fails has no more turns.
fn in_turn<S: Subject>(
    generator: &Generator,
    contenders: &[Contender],
    turns: u32,
    start: impl Fn(Contender) -> Result<S, Error>,
) -> Vec<Result<Sample, Error>> {
    let mut subjects: Vec<Result<S, Error>> = contenders.iter().map(|contender| start(*contender)).collect();
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
    subjects.into_iter().map(|subject| subject.and_then(Subject::sample)).collect()
}

struct Tunnels {
    proxy: Proxy,
    clients: Clients,
    before: CpuTime,
    messages: u64,
    rates: Vec<f64>,
    /// Of each turn.
    costs_us: Vec<f64>,
}

impl Subject for Tunnels {
    fn turn(&mut self, generator: &Generator) -> Result<(), Error> {
        let before_us = run_time_us(self.proxy.pid())?;
        let outcome = generator.load(&mut self.clients, Plan::closed(CHAT)).map_err(Error::Failed)?;
        let took_us = run_time_us(self.proxy.pid())? - before_us;
        self.costs_us.push(took_us / outcome.answered as f64);
        self.messages += outcome.answered;
        self.rates.push(outcome.per_s);
        Ok(())
    }

    /// Of the median turn. User code and kernel have the parts that they have in all turns together: that clock is too coarse
    /// for one.
    fn sample(self) -> Result<Sample, Error> {
        let figure = median(self.costs_us.into_iter()).unwrap_or_default();
        let (user, kernel) = cpu_time(self.proxy.pid())?.per(self.before, self.messages)?;
        let user_us = figure * user / (user + kernel);
        let per_s = median(self.rates.into_iter());
        Ok(Sample { per_s, ..cost_sample(self.messages, user_us, figure - user_us) })
    }
}

struct Paced {
    /// Held for its drop, which ends it.
    _proxy: Proxy,
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

    fn sample(mut self) -> Result<Sample, Error> {
        Ok(Sample {
            figure: median(self.p99s_us.into_iter()).unwrap_or_default(),
            late_p99_us: median(self.lates_us.into_iter()),
            all_p99_us: Some(quantile_us(&mut self.latencies, 0.99)),
            count: self.latencies.len() as u64,
            per_s: median(self.rates.into_iter()),
            p50_us: Some(quantile_us(&mut self.latencies, 0.50)),
            ..Sample::default()
        })
    }
}
