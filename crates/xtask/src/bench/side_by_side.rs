//! Proxies that run side by side and are loaded in turn, for a moment each, again and again: a machine whose speed
//! changes from second to second, or that stands still for some milliseconds, is as slow for all of them. Between its
//! turns a proxy has nothing to do.

use std::time::{Duration, Instant};

use super::contender::{Contender, Origin};
use super::generator::{Clients, Generator, Pace, quantile_us};
use super::measure::{Ground, cost_sample, enough_descriptors};
use super::proc::{CpuTime, Of, cpu_time, run_time_us};
use super::results::{Pair, Sample, median};
use super::work::{Http, SMALL_REPLIES};
use crate::Error;

/// Turns as fast as it goes that each proxy has for each second of a measurement, and how long one is.
const FAST_PER_S: u32 = 10;
const FAST: Duration = Duration::from_millis(100);

/// After a turn, until a proxy sleeps: what it does after its last answer is its own, and the kernel does not tell of a
/// thread that runs how long it has.
const ASLEEP_AFTER: Duration = Duration::from_millis(2);

/// Turns with requests at a fixed rate for each second of a measurement. They are many and short: one in which the machine
/// stood still for 2 ms says nothing else, and of many there are enough without.
const PACED_PER_S: u32 = 30;
const PACED: Duration = Duration::from_millis(100);

/// How long such a turn first asks as fast as it goes, to see how fast that is: the rate depends on it.
const FIND_RATE: Duration = Duration::from_millis(60);

/// Which turn counts, of all in the order of their latency: some minutes the machine stands still in most of them, and the
/// median one says when.
const COUNTS: f64 = 0.25;

/// So that what is measured is not the first.
const WARM_UP: Duration = Duration::from_millis(500);

/// A proxy that is loaded now and then.
trait Subject {
    fn turn(&mut self) -> Result<(), Error>;
}

/// CPU time per small reply on connections that stay.
pub(super) fn replies(ground: &Ground<'_>, contenders: &[Contender], http: &Http) -> Vec<Result<Sample, Error>> {
    costs(ground, contenders, Origin::Replies, |port| {
        // One here and one there for each, and there for all proxies.
        enough_descriptors(2 * contenders.len() * http.connections)?;
        Clients::http(port, http)
    })
}

/// CPU time per message through tunnels that stay.
pub(super) fn tunnels(
    ground: &Ground<'_>,
    contenders: &[Contender],
    connections: usize,
    bytes: usize,
) -> Vec<Result<Sample, Error>> {
    costs(ground, contenders, Origin::Echoes, |port| Clients::websocket(port, connections, bytes))
}

fn costs(
    ground: &Ground<'_>,
    contenders: &[Contender],
    origin: Origin,
    connect: impl Fn(u16) -> Result<Clients, String>,
) -> Vec<Result<Sample, Error>> {
    let generator = if origin == Origin::Echoes { &ground.echoes } else { &ground.replies };
    let start = |contender: &Contender| {
        let proxy = contender.start(&ground.setup(origin))?;
        let clients = connect(proxy.port).map_err(Error::Failed)?;
        let fast = Fast::new(generator, proxy.pid(), Of::Process, clients)?;
        let before = cpu_time(proxy.pid())?;
        Ok(Kept { subject: fast, with: (before, proxy) })
    };
    let subjects = in_turn(contenders.iter().map(start), ground.seconds * FAST_PER_S);
    subjects.into_iter().map(|subject| subject.and_then(|fast| fast.subject.sample(fast.with.0))).collect()
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
    let both = in_turn([base, changed].into_iter().map(start), seconds * FAST_PER_S);
    let [base, changed] = <[_; 2]>::try_from(both).map_err(|_| Error::Failed("two were started".to_owned()))?;
    let (base, changed) = (base?, changed?);
    let answered = [&base, &changed].map(|fast| fast.warm_up + fast.answered);
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
        ground.replies.load(&mut clients, Pace::closed(WARM_UP)).map_err(Error::Failed)?;
        let generator = &ground.replies;
        let paced = Paced { generator, pid: proxy.pid(), clients, share, turns: vec![], latencies: vec![] };
        Ok(Kept { subject: paced, with: proxy })
    };
    let subjects = in_turn(contenders.iter().map(start), ground.seconds * PACED_PER_S);
    subjects.into_iter().map(|subject| subject.and_then(|paced| paced.subject.sample())).collect()
}

/// Loads one after the other, once all are started. One that fails has no more turns.
fn in_turn<S: Subject>(subjects: impl Iterator<Item = Result<S, Error>>, turns: u32) -> Vec<Result<S, Error>> {
    let mut subjects: Vec<Result<S, Error>> = subjects.collect();
    for turn in 0..turns as usize {
        for at in order(turn, subjects.len()) {
            let Ok(subject) = &mut subjects[at] else { continue };
            if let Err(e) = subject.turn() {
                subjects[at] = Err(e);
            }
        }
    }
    subjects
}

/// Another one begins each time, and every other time they come backwards, so that none always follows the same neighbour.
fn order(turn: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |number| {
        let number = (turn / 2 + number) % count;
        if turn.is_multiple_of(2) { number } else { count - 1 - number }
    })
}

/// A subject, with what must live as long.
struct Kept<S, T> {
    subject: S,
    with: T,
}

impl<S: Subject, T> Subject for Kept<S, T> {
    fn turn(&mut self) -> Result<(), Error> {
        self.subject.turn()
    }
}

/// Asked as fast as it answers.
struct Fast<'a> {
    generator: &'a Generator,
    pid: u32,
    of: Of,
    clients: Clients,
    /// Answered before anything counted.
    warm_up: u64,
    /// Of all turns.
    answered: u64,
    took_us: f64,
    rates: Vec<f64>,
}

impl<'a> Fast<'a> {
    /// Warms it up.
    fn new(generator: &'a Generator, pid: u32, of: Of, mut clients: Clients) -> Result<Self, Error> {
        let warm_up = generator.load(&mut clients, Pace::closed(WARM_UP)).map_err(Error::Failed)?.answered;
        Ok(Self { generator, pid, of, clients, warm_up, answered: 0, took_us: 0.0, rates: vec![] })
    }

    /// For each answer, in all turns.
    fn cost_us(&self) -> f64 {
        self.took_us / self.answered as f64
    }

    /// User code and kernel have the parts that they have in all of the time since `before`: that clock is too coarse for
    /// turns.
    fn sample(self, before: CpuTime) -> Result<Sample, Error> {
        let cost_us = self.cost_us();
        let (user, kernel) = cpu_time(self.pid)?.per(before, self.answered)?;
        let user_us = cost_us * user / (user + kernel);
        let per_s = median(self.rates.into_iter());
        Ok(Sample { per_s, ..cost_sample(self.answered, user_us, cost_us - user_us) })
    }
}

impl Subject for Fast<'_> {
    fn turn(&mut self) -> Result<(), Error> {
        let before_us = run_time_us(self.pid, self.of)?;
        let outcome = self.generator.load(&mut self.clients, Pace::closed(FAST)).map_err(Error::Failed)?;
        std::thread::sleep(ASLEEP_AFTER);
        let took_us = run_time_us(self.pid, self.of)? - before_us;
        if took_us <= 0.0 {
            return Err(Error::Failed(format!("{} answers took no CPU time", outcome.answered)));
        }
        self.took_us += took_us;
        self.answered += outcome.answered;
        self.rates.push(outcome.per_s);
        Ok(())
    }
}

/// Asked at a share of what it can do.
struct Paced<'a> {
    generator: &'a Generator,
    pid: u32,
    clients: Clients,
    share: f64,
    turns: Vec<PacedTurn>,
    /// Of all turns.
    latencies: Vec<Duration>,
}

#[derive(Clone, Copy)]
struct PacedTurn {
    p99_us: f64,
    /// Of the generator.
    late_p99_us: f64,
    per_s: f64,
    /// Share of its core that the proxy used while it was asked as fast as it answers.
    busy: f64,
}

impl Subject for Paced<'_> {
    /// What a proxy can do is measured anew each time: a rate that was 70 % of it can be all of it a second later.
    fn turn(&mut self) -> Result<(), Error> {
        let mut load = |pace| self.generator.load(&mut self.clients, pace).map_err(Error::Failed);
        let (began, before_us) = (Instant::now(), run_time_us(self.pid, Of::Process)?);
        let per_s = self.share * load(Pace::closed(FIND_RATE))?.per_s;
        let took_us = run_time_us(self.pid, Of::Process)? - before_us;
        let busy = took_us / (began.elapsed().as_secs_f64() * 1e6);
        let mut outcome = load(Pace::open(per_s, PACED).map_err(Error::Failed)?)?;
        self.turns.push(PacedTurn {
            p99_us: quantile_us(&mut outcome.latencies, 0.99),
            late_p99_us: quantile_us(&mut outcome.lateness, 0.99),
            per_s,
            busy,
        });
        self.latencies.append(&mut outcome.latencies);
        Ok(())
    }
}

impl Paced<'_> {
    fn sample(mut self) -> Result<Sample, Error> {
        let counts = counting(&mut self.turns).ok_or_else(|| Error::Failed("no request was answered".to_owned()))?;
        let middle = |part: fn(&PacedTurn) -> f64| median(self.turns.iter().map(part));
        Ok(Sample {
            figure: counts.p99_us,
            count: self.latencies.len() as u64,
            per_s: middle(|turn| turn.per_s),
            p50_us: Some(quantile_us(&mut self.latencies, 0.50)),
            median_p99_us: middle(|turn| turn.p99_us),
            all_p99_us: Some(quantile_us(&mut self.latencies, 0.99)),
            late_p99_us: Some(counts.late_p99_us),
            fast_busy: middle(|turn| turn.busy),
            ..Sample::default()
        })
    }
}

fn counting(turns: &mut [PacedTurn]) -> Option<PacedTurn> {
    turns.sort_by(|a, b| a.p99_us.total_cmp(&b.p99_us));
    turns.get((turns.len() as f64 * COUNTS) as usize).copied()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::bench::generator::Serves;

    struct Fake<'a> {
        name: char,
        lives: usize,
        turns: &'a RefCell<String>,
    }

    impl Subject for Fake<'_> {
        fn turn(&mut self) -> Result<(), Error> {
            self.turns.borrow_mut().push(self.name);
            self.lives = self.lives.checked_sub(1).ok_or_else(|| Error::Failed("gone".to_owned()))?;
            Ok(())
        }
    }

    #[test]
    fn all_have_their_turns_until_they_fail() {
        let turns = RefCell::default();
        let fake = |(name, lives)| Ok(Fake { name, lives, turns: &turns });
        let subjects = [('a', 9), ('b', 2), ('c', 9)].into_iter().map(fake);
        let subjects = in_turn(subjects.chain([Err(Error::Failed("never there".to_owned()))]), 6);
        assert_eq!(turns.borrow().as_str(), ["abc", "cba", "bca", "ca", "ca", "ac"].concat());
        let lives = subjects.into_iter().map(|subject| subject.map(|fake| fake.lives).map_err(|e| e.to_string()));
        let expected = [Ok(3), Err("gone".to_owned()), Ok(3), Err("never there".to_owned())];
        assert_eq!(lives.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn none_always_follows_the_same() {
        let mut followed = [[0; 4]; 4];
        let turns: Vec<usize> = (0..8).flat_map(|turn| order(turn, 4)).collect();
        for pair in turns.windows(2).filter(|pair| pair[0] != pair[1]) {
            followed[pair[1]][pair[0]] += 1;
        }
        for (at, after) in followed.iter().enumerate() {
            assert!(after.iter().filter(|times| **times > 0).count() >= 2, "{at}: {after:?}");
        }
    }

    #[test]
    fn a_machine_that_stands_still_in_most_turns_does_not_count() {
        let turn = |p99_us| PacedTurn { p99_us, late_p99_us: p99_us / 10.0, per_s: 1.0, busy: 1.0 };
        let mut turns = [5000.0, 130.0, 1000.0, 120.0, 900.0, 140.0, 110.0, 2000.0].map(turn);
        let counts = counting(&mut turns).unwrap();
        assert_eq!((counts.p99_us, counts.late_p99_us), (130.0, 13.0), "the third of eight, and its own lateness");
        assert!(counting(&mut []).is_none());
    }

    /// A generator is its own backend here: this process is the proxy.
    #[test]
    fn what_a_turn_took_is_counted_for_what_it_answered() {
        let generator = Generator::start(Serves::Replies(128), 1).unwrap();
        let port = generator.addresses[0].rsplit_once(':').unwrap().1.parse().unwrap();
        let running = Running { port, pid: std::process::id(), of: Of::Process };
        let (pair, answered) = pair(&generator, 1, running, running).unwrap();
        assert!(pair.base > 0.0 && pair.changed > 0.0, "{pair:?}");
        // Each answer of a core that is there alone takes 1 µs at least, and there were ten turns of 0.12 s, and 0.5 s.
        assert!(answered.iter().all(|answered| (1..2_000_000).contains(answered)), "{answered:?}");
    }
}
