//! Many measurements as one table, and as JSON. Pure.

use serde_json::{Value, json};

use super::contender::Contender;
use super::load::{Sample, Work};

/// The measurements of one proxy at one work.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) work: Work,
    pub(super) contender: Contender,
    pub(super) samples: Vec<Sample>,
}

impl Series {
    fn median(&self, figure: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().map(figure).collect())
    }
}

/// One block for each work.
pub(super) fn table(series: &[Series], rounds: u32, seconds: u32) -> String {
    let mut text = format!("\nCPU time per request, one core, medians of {rounds} rounds of {seconds} s\n");
    for block in series.chunk_by(|a, b| a.work == b.work) {
        let Some(first) = block.first() else { continue };
        let peers = block.iter().filter(|series| series.contender.is_peer());
        let best = peers.map(|series| series.median(Sample::cpu_us)).min_by(f64::total_cmp);
        text.push_str(&format!(
            "\n{}\n  {:14}{:>10}{:>8}{:>8}{:>16}{:>12}{:>14}\n",
            first.work.name, "", "µs/request", "user", "kernel", "min..max", "requests/s", "to best peer"
        ));
        for series in block {
            text.push_str(&row(series, best));
        }
    }
    text
}

fn row(series: &Series, best: Option<f64>) -> String {
    let costs = || series.samples.iter().map(Sample::cpu_us);
    let cost = series.median(Sample::cpu_us);
    let low = costs().min_by(f64::total_cmp).unwrap_or_default();
    let high = costs().max_by(f64::total_cmp).unwrap_or_default();
    let ratio = best.map_or_else(|| "-".to_owned(), |best| format!("{:.2}", cost / best));
    format!(
        "  {:14}{cost:>10.2}{:>8.2}{:>8.2}{:>16}{:>12.0}{ratio:>14}\n",
        series.contender.name(),
        series.median(|sample| sample.user_us),
        series.median(|sample| sample.sys_us),
        format!("{low:.2}..{high:.2}"),
        series.median(|sample| sample.requests_per_s),
    )
}

/// Everything that was measured.
pub(super) fn json(series: &[Series]) -> Value {
    let sample = |sample: &Sample| {
        json!({
            "requests": sample.requests,
            "requests_per_s": sample.requests_per_s,
            "user_us_per_request": sample.user_us,
            "kernel_us_per_request": sample.sys_us,
        })
    };
    let one = |series: &Series| {
        json!({
            "work": series.work.name,
            "bytes": series.work.bytes,
            "connections": series.work.connections,
            "proxy": series.contender.name(),
            "median_us_per_request": series.median(Sample::cpu_us),
            "rounds": series.samples.iter().map(sample).collect::<Vec<_>>(),
        })
    };
    series.iter().map(one).collect()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    match (figures.get(figures.len().saturating_sub(1) / 2), figures.get(figures.len() / 2)) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![]), 0.0);
    }

    #[test]
    fn each_work_is_compared_with_its_best_peer() {
        let work = Work { name: "small", path: "/", bytes: 1, connections: 1 };
        let sample = |user_us, sys_us| Sample { requests: 10, requests_per_s: 1000.0, user_us, sys_us };
        let series = [
            (Contender::Loadbalancer, vec![sample(2.0, 10.0), sample(4.0, 10.0), sample(3.0, 10.0)]),
            (Contender::Nginx, vec![sample(4.0, 12.0)]),
            (Contender::Haproxy, vec![sample(6.0, 20.0)]),
        ]
        .map(|(contender, samples)| Series { work, contender, samples });
        let expected = "
CPU time per request, one core, medians of 3 rounds of 5 s

small
                µs/request    user  kernel        min..max  requests/s  to best peer
  loadbalancer       13.00    3.00   10.00    12.00..14.00        1000          0.81
  nginx              16.00    4.00   12.00    16.00..16.00        1000          1.00
  haproxy            26.00    6.00   20.00    26.00..26.00        1000          1.62
";
        assert_eq!(table(&series, 3, 5), expected);
        assert_eq!(json(&series)[0]["median_us_per_request"], 13.0);
        assert!(table(&series[..1], 3, 5).contains("1000             -\n"), "no peer, no ratio");
    }
}
