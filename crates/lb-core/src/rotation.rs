//! Who of a pool is in rotation, and with which share: what ejection ([`outlier`](crate::outlier)) and slow start
//! ([`slow_start`]) make of the operator's wishes and of health, under the rule that a pool is never
//! left without anybody.
//!
//! # Beside the checks
//! A backend is out for one reason at a time. Connects that fail are told to [`health`](crate::health), which takes a
//! backend down after a few and brings it back by checks; that ends an ejection, since the checks now see what is wrong.
//! Ejection is for what checks do not see: connections are taken, requests fail. An operator's wish ends it too: who
//! says drain, maintenance, or ready again has looked. Where checks look at another port they do not see either whether
//! connections are taken: failed connects are left to ejection then. Else a dead port behind a good check would be taken
//! down by the one and brought back by the other, over and over, and never for longer.
//!
//! # Promises
//! Outside panic only those are in rotation that the operator wants, that are up, and that are not ejected. At most
//! [`most_ejected`] are ejected, never the last one, and no ejection begins that would begin a panic. When others go and
//! that comes to be broken, the ejected come back early, the one whose time is up next first.
//!
//! Pure. One owner, the control task: it calls [`Rotation::settle`] after whatever may have changed, and again at
//! [`Rotation::next_turn_ms`].

use std::time::Duration;

use crate::api::{AdminState, Health, ReasonCode};
use crate::outlier::{Cause, Ejections, OutlierPolicy, Tally, most_ejected, outliers};
use crate::{panic, slow_start};

/// The settings of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationPolicy {
    /// When backends are ejected.
    pub outlier: OutlierPolicy,
    /// Percentage of ready backends below which the pool panics; 0 is never.
    pub panic_percent: u32,
    /// Whether checks look at another port than requests go to: then connects of requests that fail are errors in a row
    /// like others, and a refused check says nothing in a panic.
    pub checks_elsewhere: bool,
    /// How long a backend that comes in takes to get its whole share; zero is no time.
    pub slow_start: Duration,
}

impl RotationPolicy {
    /// When the pool panics, and who serves then.
    pub fn panic_rule(&self) -> panic::Rule {
        panic::Rule { percent: self.panic_percent, checks_elsewhere: self.checks_elsewhere }
    }
}

/// A backend of the pool, as its owner keeps it.
pub trait Member {
    /// What the operator wants.
    fn admin(&self) -> AdminState;
    /// What checks say.
    fn health(&self) -> Health;
    /// Why.
    fn health_code(&self) -> ReasonCode;
    /// What is kept here about it.
    fn standing(&self) -> &Standing;
    /// As [`Self::standing`].
    fn standing_mut(&mut self) -> &mut Standing;

    /// Whether it is in rotation as long as there is no panic.
    fn is_in(&self) -> bool {
        self.admin() == AdminState::Ready && self.health() == Health::Up && !self.standing().is_ejected()
    }
}

/// What is kept about one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its ejections.
    pub ejections: Ejections,
    /// When it came into rotation; `None` while it is out.
    in_since_ms: Option<u64>,
    /// Tenths of its share; see [`slow_start`]. 0 is one that was never in.
    tenths: u32,
    /// Whether it takes requests for a panic, as of the last [`Rotation::settle`].
    in_panic: bool,
    /// Percentage of its share as it works out beside the others.
    percent: u32,
    /// Its tally when the last interval ended.
    reading: Tally,
}

impl Standing {
    /// Whether it is ejected.
    pub fn is_ejected(&self) -> bool {
        self.ejections.until_ms().is_some()
    }

    /// Its share in tenths, for [`slow_start::scaled`].
    pub fn tenths(&self) -> u32 {
        self.tenths
    }

    /// Percentage of its share that it gets beside the others: below 100 it is starting slowly.
    pub fn percent(&self) -> u32 {
        self.percent
    }
}

/// Something that happened to the backend at a place, for the event list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Index among the members.
    pub at: usize,
    /// What.
    pub what: Happening,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It was ejected; words are in its standing.
    Ejected,
    /// Its ejection is over.
    Returned(Return),
    /// It came into rotation, for whatever reason. Its streak of errors and its tally begin anew.
    CameIn,
}

/// Why an ejection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// Its time was up.
    TimeUp,
    /// Too few others are left.
    Needed,
    /// Checks have taken it down, or the operator out: that holds it now.
    Overtaken,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default)]
struct Census {
    /// That the operator wants in rotation.
    wanted: usize,
    /// In rotation.
    ready: usize,
    /// Not checked yet.
    unknown: usize,
    ejected: usize,
}

/// A pool's rotation.
#[derive(Clone, Debug)]
pub struct Rotation {
    policy: RotationPolicy,
    /// Whether every backend has had its first result: from then on newcomers start slowly.
    started: bool,
    next_step_ms: Option<u64>,
    sweep_began_ms: u64,
    withheld: u64,
    changed: bool,
}

impl Rotation {
    /// A pool at its start.
    pub fn new(policy: RotationPolicy, now_ms: u64) -> Self {
        Self { policy, started: false, next_step_ms: None, sweep_began_ms: now_ms, withheld: 0, changed: true }
    }

    /// The settings.
    pub fn policy(&self) -> &RotationPolicy {
        &self.policy
    }

    /// Every backend has had its first result. Those that came in until now have their whole share: they all began
    /// together, and the first request finds A, B, C.
    pub fn started(&mut self) {
        self.started = true;
    }

    /// How often an ejection was due and did not take place, for the sake of the pool.
    pub fn withheld(&self) -> u64 {
        self.withheld
    }

    /// Whether anything that a snapshot shows has changed since this was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// When [`Self::settle`] or [`Self::sweep`] is next due, if nothing else happens.
    pub fn next_turn_ms<M: Member>(&self, members: &[M]) -> Option<u64> {
        let ends = members.iter().filter_map(|member| member.standing().ejections.until_ms());
        ends.chain(self.next_step_ms).chain(self.next_sweep_ms()).min()
    }

    fn next_sweep_ms(&self) -> Option<u64> {
        let outlier = &self.policy.outlier;
        (!outlier.is_off()).then(|| self.sweep_began_ms.saturating_add(outlier.interval.as_millis() as u64))
    }

    /// Whether an interval has ended.
    pub fn is_sweep_due(&self, now_ms: u64) -> bool {
        self.next_sweep_ms().is_some_and(|at| at <= now_ms)
    }

    /// Puts in order what time and changes of the members' states have brought.
    pub fn settle<M: Member>(&mut self, members: &mut [M], now_ms: u64) -> Vec<News> {
        let mut news = Vec::new();
        for (at, member) in members.iter_mut().enumerate() {
            let Some(until_ms) = member.standing().ejections.until_ms() else { continue };
            let overtaken = member.admin() != AdminState::Ready || member.health() != Health::Up;
            if overtaken || until_ms <= now_ms {
                member.standing_mut().ejections.end();
                let why = if overtaken { Return::Overtaken } else { Return::TimeUp };
                news.push(News { at, what: Happening::Returned(why) });
            }
        }
        self.keep_enough(members, &mut news);
        self.note_comings_and_goings(members, now_ms, &mut news);
        self.note_panic(members);
        self.step(members, now_ms);
        self.changed |= !news.is_empty();
        news
    }

    /// Others have gone: the bounds of [`most_ejected`], and that somebody is in rotation, hold all the same.
    fn keep_enough<M: Member>(&self, members: &mut [M], news: &mut Vec<News>) {
        loop {
            let count = census(members);
            let most = most_ejected(self.policy.outlier.max_ejected_percent, count.wanted);
            if count.ejected <= most && (count.ready > 0 || count.ejected == 0) {
                return;
            }
            let ejected = members.iter().enumerate();
            let ejected = ejected.filter_map(|(at, member)| Some((member.standing().ejections.until_ms()?, at)));
            let Some((_, at)) = ejected.min() else { return };
            members[at].standing_mut().ejections.end();
            news.push(News { at, what: Happening::Returned(Return::Needed) });
        }
    }

    fn note_comings_and_goings<M: Member>(&mut self, members: &mut [M], now_ms: u64, news: &mut Vec<News>) {
        for (at, member) in members.iter_mut().enumerate() {
            let is_in = member.is_in();
            let standing = member.standing_mut();
            if is_in == standing.in_since_ms.is_some() {
                continue;
            }
            self.changed = true;
            standing.in_since_ms = is_in.then_some(now_ms);
            if is_in {
                // Slow starts are for the comfort of the one that returns. One that the pool takes back early is
                // needed whole, and one that served in a panic had its whole share a moment ago.
                let needed = news.contains(&News { at, what: Happening::Returned(Return::Needed) });
                let slowly = self.started && !self.policy.slow_start.is_zero() && !needed && !standing.in_panic;
                standing.tenths = if slowly { 1 } else { slow_start::WHOLE };
                news.push(News { at, what: Happening::CameIn });
            }
        }
    }

    /// Who serves for a panic, and that nobody is spared in one.
    fn note_panic<M: Member>(&self, members: &mut [M]) {
        let (count, rule) = (census(members), self.policy.panic_rule());
        let below = panic::is_below(rule.percent, count.ready + count.unknown, count.wanted);
        let serves = |member: &M| {
            below && member.admin() == AdminState::Ready && rule.may_serve(member.health(), member.health_code())
        };
        for member in members.iter_mut() {
            let (serves, is_in) = (serves(member), member.is_in());
            let standing = member.standing_mut();
            standing.in_panic = serves;
            if serves && is_in {
                standing.tenths = slow_start::WHOLE;
            }
        }
    }

    /// Shares grow on one grid for all, so that a window costs at most [`slow_start::WHOLE`] steps however many start.
    fn step<M: Member>(&mut self, members: &mut [M], now_ms: u64) {
        if self.next_step_ms.is_some_and(|at| at <= now_ms) {
            self.next_step_ms = None;
            for standing in members.iter_mut().filter(|member| member.is_in()).map(Member::standing_mut) {
                let elapsed_ms = now_ms.saturating_sub(standing.in_since_ms.unwrap_or(now_ms));
                standing.tenths = standing.tenths.max(slow_start::share(self.policy.slow_start, elapsed_ms));
            }
        }
        let starting = |member: &M| member.is_in() && member.standing().tenths < slow_start::WHOLE;
        if !members.iter().any(starting) {
            self.next_step_ms = None;
        } else if self.next_step_ms.is_none() {
            self.next_step_ms = Some(now_ms.saturating_add(slow_start::step_ms(self.policy.slow_start)));
        }
        let shares = members.iter().filter(|member| member.is_in()).map(|member| member.standing().tenths);
        let most = shares.max().unwrap_or(slow_start::WHOLE).max(1);
        for member in members.iter_mut() {
            let is_in = member.is_in();
            let standing = member.standing_mut();
            let percent = if is_in { standing.tenths * 100 / most } else { 0 };
            self.changed |= std::mem::replace(&mut standing.percent, percent) != percent;
        }
    }

    /// A worker has seen as many errors in a row as eject. `random` is uniform in 0..1.
    pub fn suspect<M: Member>(&mut self, members: &mut [M], at: usize, now_ms: u64, random: f64) -> Vec<News> {
        let words = format!("{} errors in a row", self.policy.outlier.consecutive);
        self.eject(members, at, Cause::ConsecutiveErrors, words, now_ms, random).into_iter().collect()
    }

    /// An interval has ended; `tallies` are the members' now. `random` gives numbers uniform in 0..1.
    pub fn sweep<M: Member>(
        &mut self,
        members: &mut [M],
        tallies: &[Tally],
        now_ms: u64,
        mut random: impl FnMut() -> f64,
    ) -> Vec<News> {
        let mut judged = Vec::with_capacity(members.len());
        for (member, tally) in members.iter_mut().zip(tallies) {
            let is_in = member.is_in();
            let standing = member.standing_mut();
            let since = tally.since(&std::mem::replace(&mut standing.reading, *tally));
            let all_along = is_in && standing.in_since_ms.is_some_and(|since_ms| since_ms <= self.sweep_began_ms);
            judged.push(all_along.then_some(since));
        }
        self.sweep_began_ms = now_ms;
        let found = outliers(&self.policy.outlier, &judged);
        for (at, member) in members.iter_mut().enumerate() {
            if judged[at].is_some() && found.iter().all(|outlier| outlier.at != at) {
                member.standing_mut().ejections.forgive_one();
            }
        }
        let eject = |outlier: crate::outlier::Outlier| {
            self.eject(members, outlier.at, outlier.cause, outlier.words, now_ms, random())
        };
        found.into_iter().filter_map(eject).collect()
    }

    /// Begins an ejection unless the backend is out anyway, or the pool needs it.
    fn eject<M: Member>(
        &mut self,
        members: &mut [M],
        at: usize,
        cause: Cause,
        words: String,
        now_ms: u64,
        random: f64,
    ) -> Option<News> {
        if !members[at].is_in() {
            return None;
        }
        let (count, outlier) = (census(members), &self.policy.outlier);
        let left = count.ready - 1;
        if count.ejected >= most_ejected(outlier.max_ejected_percent, count.wanted)
            || left == 0
            || panic::is_below(self.policy.panic_percent, left + count.unknown, count.wanted)
        {
            self.withheld += 1;
            return None;
        }
        let standing = members[at].standing_mut();
        standing.ejections.begin(outlier, cause, words, now_ms, random);
        standing.in_since_ms = None;
        self.changed = true;
        Some(News { at, what: Happening::Ejected })
    }

    /// The operator says that a backend is ready: ends its ejection, if there is one.
    pub fn pardon<M: Member>(&mut self, members: &mut [M], at: usize) -> bool {
        let ejections = &mut members[at].standing_mut().ejections;
        let was_out = ejections.until_ms().is_some();
        ejections.end();
        self.changed |= was_out;
        was_out
    }
}

fn census<M: Member>(members: &[M]) -> Census {
    let mut count = Census::default();
    for member in members.iter().filter(|member| member.admin() == AdminState::Ready) {
        count.wanted += 1;
        count.ready += usize::from(member.is_in());
        count.unknown += usize::from(member.health() == Health::Unknown);
        count.ejected += usize::from(member.standing().is_ejected());
    }
    count
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
