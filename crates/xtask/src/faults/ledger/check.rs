//! Reads the three books side by side, once everything is at rest.
//!
//! What is asserted, in the order of the reliability plan: (a) every 2xx has an execution with an equal hash; (b) a
//! POST was executed at most once; (c) nobody got another's answer, or a part of one as if it were whole; (d) what was
//! accepted is completed or failed with a reason, once each; (e) every failure that a client saw has its line; (f) no
//! origin executed what the proxy does not know. The last three need the proxy's log.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::{Asked, Body, Deed, End, Executed, Line, Why};

/// Examples that are shown of each kind of violation: enough to look one up.
const EXAMPLES: usize = 3;

/// The proxy's own account.
#[derive(Clone, Copy)]
pub(in super::super) enum Log<'a> {
    /// Every request must have its line.
    Lines(&'a [Line]),
    /// It has none that could be read.
    Absent,
}

/// What had become at the origins of POSTs that failed for their clients. Those that were executed, or were being read,
/// when their server broke nobody may send again; those that no origin knows were lost unread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Fates {
    pub(in super::super) executed: u64,
    /// An origin had read the head at least.
    pub(in super::super) in_hand: u64,
    /// An origin that was not killed would have noted it.
    pub(in super::super) unread: u64,
}

impl Fates {
    pub(in super::super) fn add(&mut self, other: Self) {
        self.executed += other.executed;
        self.in_hand += other.in_hand;
        self.unread += other.unread;
    }
}

/// What the books say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Findings {
    pub(in super::super) asked: u64,
    pub(in super::super) failed_get: u64,
    pub(in super::super) failed_post: u64,
    pub(in super::super) fates: Fates,
    /// POSTs executed more than once.
    pub(in super::super) doubled: u64,
    /// Answers that are another's, or a part that looked whole.
    pub(in super::super) mixed_up: u64,
    pub(in super::super) hung: u64,
    /// 2xx without an execution, or with another body than the origin read.
    pub(in super::super) invented: u64,
    /// Requests without exactly one line, failures whose line gives no reason, executions without a line.
    pub(in super::super) unexplained: u64,
    /// Attempts beyond the first, by the log.
    pub(in super::super) retried: u64,
    /// What the log says of requests that failed: method, status, reason; and how often.
    pub(in super::super) reasons: BTreeMap<String, u64>,
    /// One for some of the above.
    pub(in super::super) examples: Vec<String>,
}

impl Findings {
    /// Whether nothing was lost, doubled, mixed up or left unexplained. A failure that is reported as one is not
    /// among these: whether it was allowed depends on the fault.
    pub(in super::super) const fn is_sound(&self) -> bool {
        self.doubled + self.mixed_up + self.hung + self.invented + self.unexplained == 0
    }

    /// The reasons, for a person.
    pub(in super::super) fn why(&self) -> String {
        let words = |(reason, count): (&String, &u64)| format!("{count} × {reason}");
        self.reasons.iter().map(words).collect::<Vec<_>>().join(", ")
    }

    fn note(&mut self, count: fn(&mut Self) -> &mut u64, words: impl FnOnce() -> String) {
        let count = count(self);
        *count += 1;
        if *count <= EXAMPLES as u64 {
            self.examples.push(words());
        }
    }

    /// Adds what another part of the same run found.
    pub(in super::super) fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.failed_get += other.failed_get;
        self.failed_post += other.failed_post;
        self.fates.add(other.fates);
        self.doubled += other.doubled;
        self.mixed_up += other.mixed_up;
        self.hung += other.hung;
        self.invented += other.invented;
        self.unexplained += other.unexplained;
        self.retried += other.retried;
        for (reason, count) in other.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
        let room = (4 * EXAMPLES).saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
    }
}

/// What origins did with one request.
#[derive(Default)]
struct Deeds {
    /// Hashes of the executions, the first few.
    hashes: [Option<u64>; 4],
    executions: usize,
    early: bool,
    post: bool,
}

/// Checks everything.
pub(in super::super) fn check(asked: &[Asked], executed: &[Executed], log: Log<'_>) -> Findings {
    let mut findings = Findings { asked: asked.len() as u64, ..Findings::default() };
    let deeds = by_number(executed);
    for asked in asked {
        check_answer(asked, deeds.get(&asked.number), &mut findings);
    }
    for (number, deeds) in deeds.iter().filter(|(_, deeds)| deeds.post && deeds.executions > 1) {
        findings.note(|f| &mut f.doubled, || format!("POST {number} was executed {} times", deeds.executions));
    }
    if let Log::Lines(lines) = log {
        check_lines(asked, &deeds, lines, &mut findings);
    }
    findings
}

fn by_number(executed: &[Executed]) -> HashMap<u64, Deeds> {
    let mut deeds: HashMap<u64, Deeds> = HashMap::with_capacity(executed.len());
    for record in executed {
        let of = deeds.entry(record.id.number).or_default();
        if !matches!(record.deed, Deed::Whole | Deed::Early) {
            continue;
        }
        if let Some(hash) = of.hashes.get_mut(of.executions) {
            *hash = Some(record.hash);
        }
        of.executions += 1;
        of.early |= record.deed == Deed::Early;
        of.post |= record.post;
    }
    deeds
}

fn check_answer(asked: &Asked, deeds: Option<&Deeds>, findings: &mut Findings) {
    let number = asked.number;
    if !asked.is_well() {
        *(if asked.post { &mut findings.failed_post } else { &mut findings.failed_get }) += 1;
        let fates = &mut findings.fates;
        match deeds {
            _ if !asked.post => {}
            Some(deeds) if deeds.executions > 0 => fates.executed += 1,
            Some(_) => fates.in_hand += 1,
            None => fates.unread += 1,
        }
    }
    let answer = match asked.end {
        End::Failed(Why::Hung, _) => {
            return findings.note(|f| &mut f.hung, || format!("{number} hung for {} ms", asked.took_us / 1000));
        }
        End::Failed(Why::Garbage, _) => {
            return findings.note(|f| &mut f.mixed_up, || format!("{number} got what is not HTTP"));
        }
        End::Failed(..) => return,
        End::Answered(answer) => answer,
    };
    let is_own_id = answer.id.is_some_and(|id| id.number == number);
    match (answer.id, answer.body) {
        (Some(id), _) if !is_own_id => {
            findings.note(|f| &mut f.mixed_up, || format!("{number} got the answer to {}", id.number));
        }
        (Some(_), Body::Wrong) => {
            findings.note(|f| &mut f.mixed_up, || format!("{number} got another body than its own"));
        }
        (Some(_), Body::Short) => {
            findings.note(|f| &mut f.mixed_up, || format!("{number} got a part of its answer that looked whole"));
        }
        _ => {}
    }
    if !(200..=299).contains(&answer.status) {
        return;
    }
    let hashes = deeds.map_or(&[][..], |deeds| &deeds.hashes);
    let early = deeds.is_some_and(|deeds| deeds.early);
    if !early && !hashes.contains(&Some(asked.hash)) {
        let words = if deeds.is_some_and(|deeds| deeds.executions > 0) {
            "another body was executed"
        } else {
            "nobody executed it"
        };
        findings.note(|f| &mut f.invented, || format!("{number} got {} and {words}", answer.status));
    } else if answer.heard.is_some_and(|heard| heard != asked.hash) {
        findings.note(|f| &mut f.invented, || format!("{number}: its origin says that it heard another body"));
    }
}

fn in_words(asked: &Asked, line: &Line) -> String {
    let method = if asked.post { "POST" } else { "GET" };
    let reason = if line.reason.is_empty() { "of the server" } else { &line.reason };
    let ended = if line.complete { "" } else { ", cut" };
    format!("{method} {} {reason}{ended}", line.status)
}

/// What a connection is answered of which nothing was read: its line has no number, since nobody knows what it would have asked.
const AT_THE_DOOR: [u16; 2] = [503, 429];

/// Whether a request without a line may be one that was turned away before it was read. Each such line explains one; the answer
/// may have been lost to the reset of a connection with bytes that nobody takes.
fn turned_away(lines: &mut [(u16, u64)], end: End) -> Option<u16> {
    let is_its = |status: u16| match end {
        End::Answered(answer) => answer.id.is_none() && answer.heard.is_none() && answer.status == status,
        End::Failed(Why::Dropped | Why::Cut, seen) => seen.is_none_or(|seen| seen == status),
        End::Failed(..) => false,
    };
    let (status, left) = lines.iter_mut().find(|(status, left)| *left > 0 && is_its(*status))?;
    *left -= 1;
    Some(*status)
}

fn check_lines(asked: &[Asked], deeds: &HashMap<u64, Deeds>, lines: &[Line], findings: &mut Findings) {
    let mut by_number: HashMap<u64, (&Line, u32)> = HashMap::with_capacity(lines.len());
    let mut at_the_door = AT_THE_DOOR.map(|status| (status, 0));
    for line in lines {
        findings.retried += u64::from(line.attempts.saturating_sub(1));
        if let Some(id) = line.id {
            by_number.entry(id.number).and_modify(|(_, count)| *count += 1).or_insert((line, 1));
        } else if let Some((_, count)) = at_the_door.iter_mut().find(|(status, _)| *status == line.status) {
            *count += 1;
        }
    }
    for asked in asked {
        let (number, line) = (asked.number, by_number.get(&asked.number));
        if let Some((_, count)) = line.filter(|(_, count)| *count > 1) {
            findings.note(|f| &mut f.unexplained, || format!("{number} has {count} log lines"));
        }
        if let Some((line, _)) = line.filter(|_| !asked.is_well()) {
            *findings.reasons.entry(in_words(asked, line)).or_default() += 1;
        }
        match (line, asked.end) {
            // It never reached the proxy.
            (None, End::Failed(Why::Connect, _)) => {}
            (None, end) => match turned_away(&mut at_the_door, end) {
                Some(status) => {
                    let method = if asked.post { "POST" } else { "GET" };
                    *findings.reasons.entry(format!("{method} {status} at the door")).or_default() += 1;
                }
                None => findings
                    .note(|f| &mut f.unexplained, || format!("{number} has no log line; the client saw {end:?}")),
            },
            (Some((line, _)), End::Answered(answer)) if line.status != answer.status => findings.note(
                |f| &mut f.unexplained,
                || format!("{number} got {}, and its log line says {}", answer.status, line.status),
            ),
            (Some((line, _)), End::Answered(_)) if !line.complete => findings.note(
                |f| &mut f.unexplained,
                || format!("{number} was answered wholly, and its log line says {}", line.ended),
            ),
            (Some((line, _)), End::Failed(..)) if !line.explains_a_failure() => findings.note(
                |f| &mut f.unexplained,
                || format!("{number} failed ({:?}), and its log line says that all went well", asked.end),
            ),
            _ => {}
        }
    }
    let executed = deeds.iter().filter(|(_, deeds)| deeds.executions > 0).map(|(number, _)| number);
    for number in executed.filter(|number| !by_number.contains_key(number)) {
        findings.note(|f| &mut f.unexplained, || format!("{number} was executed, and the proxy does not know it"));
    }
}
