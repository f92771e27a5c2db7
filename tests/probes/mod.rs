//! Raw requests against the real balancer: those of the Http11Probe project and many of our own. Beside the status, a
//! connection on which something was refused is closed and nothing behind it is read, and what reaches the origin is
//! what a strict reader finds in the bytes that were sent: the same requests, the same bodies, and no other.

pub(crate) mod answers;
pub(crate) mod conversation;
pub(crate) mod corpus;
pub(crate) mod outcome;
pub(crate) mod reading;
pub(crate) mod site;
pub(crate) mod witness;

use std::collections::BTreeMap;
use std::sync::Arc;

use corpus::Probe;
use outcome::{Outcome, Verdict, judge};
use site::{Exchange, Site};

/// Balancers that share the work: some probes wait for an answer that must not come.
const LANES: usize = 8;

/// Probes where a second choice is ours, and why.
const WARNINGS: [(&str, &str); 14] = [
    ("COMP-LEADING-CRLF", "RFC 9112 §2.2: a server SHOULD ignore at least one empty line before the request line"),
    ("COMP-ABSOLUTE-FORM", "RFC 9112 §3.2.2: a server MUST accept the absolute form"),
    ("COMP-METHOD-CASE", "RFC 9110 §9.1: methods are case-sensitive; whether `get` is one is the origin's to say"),
    (
        "COMP-GET-WITH-CL-BODY",
        "RFC 9110 §9.3.1: content in a GET has no meaning, but it may be there; it is framed and passed on",
    ),
    (
        "COMP-UPGRADE-INVALID-VER",
        "RFC 9110 §7.8: whether to switch protocols is the origin's decision, and it said 200",
    ),
    ("SMUG-EXPECT-100-CL", "RFC 9110 §10.1.1: a client need not wait for the 100"),
    (
        "SMUG-HEAD-CL-BODY",
        "RFC 9110 §9.3.2: content in a HEAD has no meaning, but it may be there; it is framed and passed on",
    ),
    ("SMUG-OPTIONS-CL-BODY", "RFC 9110 §9.3.7: OPTIONS may have content"),
    ("SMUG-ABSOLUTE-URI-HOST-MISMATCH", "RFC 9112 §3.2.2: Host is ignored and replaced by the target's authority"),
    (
        "SMUG-TRAILER-CL",
        "RFC 9110 §6.5.1: a trailer that is not allowed there is dropped, and never taken for a header",
    ),
    ("SMUG-TRAILER-AUTH", "RFC 9110 §6.5.1: as above"),
    ("SMUG-TRAILER-CONTENT-TYPE", "RFC 9110 §6.5.1: as above"),
    ("MAL-CL-TAB-BEFORE-VALUE", "RFC 9112 §5: white space before a value may be a tab, and is no part of it"),
    (
        "MAL-URL-PERCENT-CRLF",
        "RFC 9110 §7.7: a path is passed on as it is; percent-encoded it is no line break to anybody",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_probe_of_http11probe_passes_or_warns_for_a_reason() {
    let probes = corpus::http11probe();
    assert_eq!(probes.len(), 78);
    let tried = run(probes).await;
    let (mut figures, mut wrong) = (BTreeMap::<_, usize>::new(), Vec::new());
    for (probe, exchange) in &tried {
        let accepted = probe.columns[1].trim_end_matches(" (unscored)");
        let outcome = Outcome { status: exchange.statuses().first().copied(), closed: exchange.closed };
        let verdict = judge(accepted, outcome);
        *figures.entry(format!("{verdict:?}")).or_default() += 1;
        let explained = WARNINGS.iter().any(|(id, _)| *id == probe.id);
        match verdict {
            Verdict::Fail => wrong.push(format!("{}: {outcome:?}, not {accepted}", probe.id)),
            Verdict::Warn if !explained => wrong.push(format!("{}: {outcome:?}: a warning without a reason", probe.id)),
            Verdict::Pass if explained => wrong.push(format!("{}: it passes, the reason is out of date", probe.id)),
            _ => {}
        }
        wrong.extend(exchange.wrong.iter().map(|words| format!("{}: {words}", probe.id)));
    }
    println!("{figures:?}");
    assert!(wrong.is_empty(), "{figures:?}, {} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_probe_of_ours_has_exactly_the_stated_outcome() {
    let probes = corpus::ours();
    assert!(probes.len() > 500, "{}", probes.len());
    let tried = run(probes).await;
    let mut wrong = Vec::new();
    for (probe, exchange) in &tried {
        let mut words = exchange.wrong.clone();
        words.extend(wrong_statuses(probe, exchange));
        words.extend(wrong_reason(probe, exchange));
        words.extend(wrong_wire(probe, exchange));
        words.extend(undated(exchange));
        wrong.extend(words.iter().map(|words| format!("{} ({}): {words}", probe.id, probe.columns[0])));
    }
    assert!(wrong.is_empty(), "{} wrong of {}:\n{}", wrong.len(), tried.len(), wrong.join("\n"));
}

/// Sends all of them, each on connections of its own.
async fn run(probes: Vec<Probe>) -> Vec<(Probe, Exchange)> {
    let probes = Arc::new(probes);
    let lanes = (0..LANES).map(|lane| {
        let probes = Arc::clone(&probes);
        tokio::spawn(async move {
            let site = Site::start().await;
            let mut tried = Vec::new();
            for probe in probes.iter().skip(lane).step_by(LANES) {
                tried.push((probe.clone(), site.try_probe(probe).await));
            }
            site.finish().await;
            tried
        })
    });
    let mut tried = Vec::new();
    for lane in lanes.collect::<Vec<_>>() {
        tried.extend(lane.await.expect("a lane runs to its end"));
    }
    tried
}

/// The outcome is a list of statuses in order, each perhaps one of several, or `none`.
fn wrong_statuses(probe: &Probe, exchange: &Exchange) -> Option<String> {
    let (accepted, seen) = (probe.columns[1], exchange.statuses());
    let one = |accepted: &str, seen: u16| accepted.split('/').any(|status| status.parse() == Ok(seen));
    let fits = if seen.is_empty() {
        accepted.split('/').any(|status| status == "none")
    } else {
        let accepted: Vec<&str> = accepted.split(' ').collect();
        accepted.len() == seen.len() && accepted.iter().zip(&seen).all(|(accepted, seen)| one(accepted, *seen))
    };
    (!fits).then(|| format!("answers {seen:?}, not {accepted}"))
}

/// A refusal is counted once, by its reason; nothing else is.
fn wrong_reason(probe: &Probe, exchange: &Exchange) -> Option<String> {
    let (expected, counted) = (probe.columns[2], &exchange.reasons);
    let fits = match expected {
        _ if !exchange.refused() => counted.is_empty(),
        "?" => counted.values().sum::<u64>() == 1,
        reasons => counted.len() == 1 && reasons.split('/').any(|reason| counted.get(reason) == Some(&1)),
    };
    (!fits).then(|| format!("counted as {counted:?}, not {expected}"))
}

/// RFC 9110 §6.6.1: who has a clock says when a 4xx was said.
fn undated(exchange: &Exchange) -> Option<String> {
    let undated = exchange.answers.iter().find(|answer| {
        (400..500).contains(&answer.status) && answer.field("date").is_none_or(|date| !date.ends_with(" GMT"))
    });
    undated.map(|answer| format!("a {} without a Date", answer.status))
}

/// What the origin must, or must not, have got.
fn wrong_wire(probe: &Probe, exchange: &Exchange) -> Option<String> {
    let (kind, written) = probe.columns.get(3)?.split_once(':').expect("saw: or unseen:");
    let wanted = corpus::bytes(probe.id, written.trim_start());
    let there = reading::find(&exchange.wire, &wanted).is_some();
    let wire = || String::from_utf8_lossy(&exchange.wire).into_owned();
    match kind {
        "saw" if !there && !exchange.refused() => Some(format!("the origin did not see {written:?} in {:?}", wire())),
        "unseen" if there => Some(format!("the origin saw {written:?} in {:?}", wire())),
        _ => None,
    }
}
