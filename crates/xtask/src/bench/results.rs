//! What was measured, as it is kept in JSON, and what follows from it. Pure.

use serde::{Deserialize, Serialize};

use super::contender::Contender;

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Results {
    pub(super) date: String,
    pub(super) machine: Machine,
    pub(super) rounds: u32,
    pub(super) seconds: u32,
    /// Proxy and version.
    pub(super) versions: Vec<(String, String)>,
    pub(super) works: Vec<WorkResult>,
    pub(super) checks: Vec<CheckResult>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// Load average before the run: above 1, others were at work.
    pub(crate) load_before: f64,
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct WorkResult {
    pub(super) work: String,
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) target: f64,
    pub(super) series: Vec<Series>,
}

/// The measurements of one proxy at one work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Series {
    pub(super) proxy: String,
    pub(super) samples: Vec<Sample>,
    /// Why there is no figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) failed: Option<String>,
}

/// One measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sample {
    /// In the work's unit; less is better.
    pub(super) figure: f64,
    /// How many requests, messages or connections it comes from.
    pub(super) count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) per_s: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) user_us: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) kernel_us: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) p50_us: Option<f64>,
    /// The 99th percentile of the median turn, where the figure is that of a calmer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) median_p99_us: Option<f64>,
    /// That of all requests of all turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) all_p99_us: Option<f64>,
    /// How late the open-loop sender was, 99th percentile of the turn that the figure is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) late_p99_us: Option<f64>,
    /// Where the rate depends on what a proxy can do: the share of its core that it used while that was found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fast_busy: Option<f64>,
}

/// A property of ours alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct CheckResult {
    pub(super) check: String,
    pub(super) name: String,
    pub(super) pairs: Vec<Pair>,
    /// The same of the peers, where it can be asked of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) peers: Vec<PeerPairs>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) failed: Option<String>,
}

/// What a check has found of a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct PeerPairs {
    pub(super) peer: String,
    pub(super) pairs: Vec<Pair>,
}

/// µs of CPU per request, without and with what must not cost much.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Pair {
    pub(super) base: f64,
    pub(super) changed: f64,
}

/// One beside another, round by round: the two of a round were measured within seconds of each other, so a machine that is
/// slower for a minute is slower for both.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Comparison {
    /// The median of what each round says.
    pub(super) ratio: f64,
    /// The least and the most that a round says.
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Series {
    pub(super) fn is(&self, contender: Contender) -> bool {
        self.proxy == contender.name()
    }

    /// `None` if there is none, or one measurement failed.
    pub(super) fn median(&self) -> Option<f64> {
        if self.failed.is_some() { None } else { median(self.samples.iter().map(|sample| sample.figure)) }
    }

    /// This one ÷ `other`. `None` unless both have figures.
    fn beside(&self, other: &Self) -> Option<Comparison> {
        if self.failed.is_some() || other.failed.is_some() {
            return None;
        }
        // In the order of rounds, one each.
        let ratios = || self.samples.iter().zip(&other.samples).map(|(this, other)| this.figure / other.figure);
        let (ratio, (low, high)) = (median(ratios())?, spread(ratios()));
        Some(Comparison { ratio, low, high })
    }

    /// Least and most.
    pub(super) fn spread(&self) -> (f64, f64) {
        spread(self.samples.iter().map(|sample| sample.figure))
    }

    /// The share of its core that the proxy used. Clearly below 1, the load was the limit: the proxy then looks for work more
    /// often than it finds much, and pays for that.
    pub(super) fn busy(&self) -> Option<f64> {
        self.median_of(|sample| Some(sample.per_s? * (sample.user_us? + sample.kernel_us?) / 1e6))
    }

    pub(super) fn median_of(&self, part: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        median(self.samples.iter().filter_map(part))
    }
}

impl WorkResult {
    /// Ours beside the best of the peers that set the target; `None` unless ours and a peer have a figure.
    pub(super) fn comparison(&self) -> Option<Comparison> {
        self.beside_best(self.ours()?)
    }

    /// `series` beside NGINX or HAProxy, whichever it looks worse beside.
    pub(super) fn beside_best(&self, series: &Series) -> Option<Comparison> {
        let peers = self.series.iter().filter(|peer| peer.is(Contender::Nginx) || peer.is(Contender::Haproxy));
        peers.filter_map(|peer| series.beside(peer)).max_by(|a, b| a.ratio.total_cmp(&b.ratio))
    }

    pub(super) fn is_met(&self) -> Option<bool> {
        self.comparison().map(|comparison| comparison.ratio <= self.target)
    }

    /// Every proxy that is cheaper than ours here.
    pub(super) fn winners(&self) -> Vec<&str> {
        let is_dearer_than = |peer: &&Series| {
            let beside = self.ours().and_then(|ours| ours.beside(peer));
            beside.is_some_and(|comparison| comparison.ratio > 1.0)
        };
        self.series.iter().filter(is_dearer_than).map(|series| series.proxy.as_str()).collect()
    }

    fn ours(&self) -> Option<&Series> {
        self.series.iter().find(|series| series.is(Contender::Loadbalancer))
    }
}

impl CheckResult {
    /// Median and spread of what `figure` makes of each pair: the two of a pair were measured side by side.
    pub(super) fn of_pairs(&self, figure: impl Fn(&Pair) -> f64) -> Option<(f64, (f64, f64))> {
        let median = if self.failed.is_some() { None } else { median(self.pairs.iter().map(&figure)) };
        median.map(|median| (median, spread(self.pairs.iter().map(figure))))
    }

    /// Where the pairs of a peer go.
    pub(super) fn of_peer(&mut self, peer: &str) -> &mut Vec<Pair> {
        let at = self.peers.iter().position(|known| known.peer == peer).unwrap_or_else(|| {
            self.peers.push(PeerPairs { peer: peer.to_owned(), pairs: vec![] });
            self.peers.len() - 1
        });
        &mut self.peers[at].pairs
    }

    /// The medians of what `figure` makes of the peers' pairs.
    pub(super) fn of_peers(&self, figure: impl Fn(&Pair) -> f64) -> Vec<(&str, f64)> {
        let of = |peer: &PeerPairs| median(peer.pairs.iter().map(&figure));
        self.peers.iter().filter_map(|peer| Some((peer.peer.as_str(), of(peer)?))).collect()
    }
}

pub(super) fn median(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let low = figures.get(figures.len().saturating_sub(1) / 2)?;
    let high = figures.get(figures.len() / 2)?;
    Some(f64::midpoint(*low, *high))
}

fn spread(figures: impl Iterator<Item = f64>) -> (f64, f64) {
    figures.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), figure| (low.min(figure), high.max(figure)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn series(proxy: &str, figures: &[f64]) -> Series {
        let sample = |figure: &f64| Sample {
            figure: *figure,
            count: 10,
            per_s: Some(1000.0),
            user_us: Some(figure - 10.0),
            kernel_us: Some(10.0),
            ..Sample::default()
        };
        Series { proxy: proxy.to_owned(), samples: figures.iter().map(sample).collect(), failed: None }
    }

    pub(in super::super) fn results() -> Results {
        let work = WorkResult {
            work: "reply-128".to_owned(),
            name: "128 B reply, 64 connections".to_owned(),
            unit: "µs/request".to_owned(),
            target: 0.95,
            series: vec![
                series("loadbalancer", &[12.0, 14.0, 13.0]),
                series("nginx", &[16.0, 15.0, 18.0]),
                series("haproxy", &[26.0, 27.0, 28.0]),
                Series { failed: Some("it | broke".to_owned()), ..series("caddy", &[1.0]) },
            ],
        };
        let check = CheckResult {
            check: "idle-8000".to_owned(),
            name: "8,000 idle connections besides".to_owned(),
            pairs: vec![Pair { base: 10.0, changed: 10.2 }, Pair { base: 10.0, changed: 10.3 }],
            peers: vec![],
            failed: None,
        };
        Results {
            date: "2026-01-02".to_owned(),
            machine: Machine { cpu: "Test CPU".to_owned(), cores: 2, kernel: "6.1".to_owned(), load_before: 0.1 },
            rounds: 3,
            seconds: 5,
            versions: vec![("loadbalancer".to_owned(), "0.1.0".to_owned()), ("nginx".to_owned(), "1.22.1".to_owned())],
            works: vec![work],
            checks: vec![check],
        }
    }

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
        assert_eq!(median([].into_iter()), None);
    }

    #[test]
    fn ours_is_compared_with_the_best_peer_that_did_not_fail() {
        let mut work = results().works.remove(0);
        let expected = Comparison { ratio: 12.0 / 16.0, low: 13.0 / 18.0, high: 14.0 / 15.0 };
        assert_eq!(work.comparison(), Some(expected), "round by round, and not of medians or extremes");
        assert_eq!(work.is_met(), Some(true));
        work.target = 0.74;
        assert_eq!(work.is_met(), Some(false));
        work.series[1].failed = Some("gone".to_owned());
        assert_eq!(work.comparison().map(|comparison| comparison.ratio), Some(13.0 / 28.0));
        work.series[2].failed = Some("gone".to_owned());
        assert_eq!((work.comparison(), work.is_met()), (None, None));
    }

    #[test]
    fn whoever_is_cheaper_is_named() {
        let mut work = results().works.remove(0);
        assert_eq!(work.winners(), [""; 0], "who failed wins nothing");
        // By the rounds: the machine was slow in the second.
        work.series[1] = series("nginx", &[11.0, 90.0, 12.9]);
        assert_eq!(work.winners(), ["nginx"]);
    }

    #[test]
    fn a_busy_proxy_uses_all_of_its_core() {
        // 1,000 a second for 20, 25 and 30 µs each.
        assert_eq!(series("nginx", &[20.0, 30.0, 25.0]).busy(), Some(0.025));
        let mut memory = series("nginx", &[1.0]);
        memory.samples[0].per_s = None;
        assert_eq!(memory.busy(), None);
    }

    #[test]
    fn a_pair_counts_as_one_measurement() {
        let mut check = results().checks.remove(0);
        let (change, (low, high)) = check.of_pairs(|pair| pair.changed - pair.base).unwrap();
        for (figure, expected) in [(change, 0.25), (low, 0.2), (high, 0.3)] {
            assert!((figure - expected).abs() < 1e-9, "{figure}");
        }
        check.failed = Some("gone".to_owned());
        assert_eq!(check.of_pairs(|pair| pair.base), None);
    }

    #[test]
    fn json_keeps_everything() {
        let results = results();
        let text = serde_json::to_string(&results).unwrap();
        assert_eq!(serde_json::from_str::<Results>(&text).unwrap(), results);
    }
}
