//! What one run of one fault comes to. Pure.

use serde::{Deserialize, Serialize};

use super::counts::Counts;
use super::ledger::{Asked, Findings};

/// One run.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    pub(super) findings: Findings,
    /// Each demand that was not met.
    pub(super) failures: Vec<String>,
    /// Why it could not be run on this machine, or with this proxy.
    pub(super) not_here: Option<String>,
    /// What else is worth knowing.
    pub(super) notes: Vec<String>,
}

impl Report {
    /// Notes a failure unless the demand is met.
    pub(super) fn demand(&mut self, is_met: bool, words: impl FnOnce() -> String) {
        if !is_met {
            self.failures.push(words());
        }
    }

    pub(super) fn note(&mut self, words: String) {
        self.notes.push(words);
    }
}

/// All runs of one fault with one proxy, as it is kept in JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Series {
    pub(super) proxy: String,
    pub(super) runs: u32,
    /// In which every demand was met.
    pub(super) passed: u32,
    pub(super) requests: u64,
    #[serde(flatten)]
    pub(super) counts: Counts,
    /// The first few demands that were not met.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) failures: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) notes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) not_here: Option<String>,
}

/// Failures and notes that are kept of each series.
const KEPT: usize = 6;

impl Series {
    pub(super) fn add(&mut self, report: Report) {
        if let Some(reason) = report.not_here {
            self.not_here = Some(reason);
            return;
        }
        let findings = report.findings;
        self.runs += 1;
        self.passed += u32::from(report.failures.is_empty());
        self.requests += findings.asked;
        self.counts.add(&Counts::from(&findings));
        for (kept, new) in [(&mut self.failures, report.failures), (&mut self.notes, report.notes)] {
            let room = KEPT.saturating_sub(kept.len());
            kept.extend(new.into_iter().take(room));
        }
    }

    pub(super) fn has_passed(&self) -> bool {
        self.not_here.is_some() || self.passed == self.runs
    }
}

/// The 99th percentile of how long requests took, in microseconds, among those begun within the time; 0 for none.
pub(super) fn p99_us(asked: &[Asked], from_us: u64, to_us: u64) -> u64 {
    let mut times: Vec<u64> =
        asked.iter().filter(|asked| (from_us..to_us).contains(&asked.at_us)).map(|asked| asked.took_us).collect();
    times.sort_unstable();
    times.get((times.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::ledger::{End, Why};
    use super::*;

    #[test]
    fn a_series_counts_what_its_runs_found() {
        let mut series = Series::default();
        let findings = Findings { asked: 10, failed_post: 2, ..Findings::default() };
        let mut bad = Report { findings, ..Report::default() };
        bad.demand(true, || "met".to_owned());
        bad.demand(false, || "2 POSTs failed".to_owned());
        series.add(bad.clone());
        bad.failures.clear();
        series.add(bad);
        assert_eq!((series.runs, series.passed, series.requests, series.counts.failed_post), (2, 1, 20, 4));
        assert_eq!(series.failures, ["2 POSTs failed"]);
        assert!(!series.has_passed());
        series.add(Report { not_here: Some("no nft".to_owned()), ..Report::default() });
        assert_eq!(series.runs, 2);
    }

    #[test]
    fn the_99th_percentile_is_of_the_time_asked_for() {
        let asked = |n: u64| Asked {
            number: n,
            post: false,
            hash: 0,
            at_us: n,
            took_us: n,
            end: End::Failed(Why::Connect, None),
        };
        let all: Vec<Asked> = (0..200).map(asked).collect();
        assert_eq!([p99_us(&all, 0, 101), p99_us(&all, 0, 200), p99_us(&all, 300, 400)], [99, 197, 0]);
    }
}
