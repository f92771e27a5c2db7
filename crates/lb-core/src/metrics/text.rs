//! The Prometheus text format, version 0.0.4: families, label escaping and histograms. No metric of ours is named
//! here; those names stand where the numbers are.

use std::fmt::{Display, Write as _};

use super::Counts;

/// The `Content-Type` of the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of metrics under construction.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

/// Label names and values, in the order they are printed.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page {
    /// Begins a family: its help and type. `kind` is `counter`, `gauge` or `histogram`. Samples follow.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One sample.
    pub fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl Display) {
        self.text.push_str(name);
        self.labels(labels, None);
        let _ = writeln!(self.text, " {value}");
    }

    /// A histogram: buckets, sum and count.
    pub fn histogram(&mut self, name: &str, labels: Labels<'_>, counts: &Counts) {
        let count = counts.count();
        let bucket = |page: &mut Self, bound: &str, below: u64| {
            page.text.push_str(name);
            page.text.push_str("_bucket");
            page.labels(labels, Some(bound));
            let _ = writeln!(page.text, " {below}");
        };
        for (bound, below) in counts.cumulative() {
            bucket(self, &bound.to_string(), below);
        }
        bucket(self, "+Inf", count);
        self.sample(&format!("{name}_sum"), labels, counts.sum_seconds());
        self.sample(&format!("{name}_count"), labels, count);
    }

    /// The finished text.
    pub fn finish(self) -> String {
        self.text
    }

    fn labels(&mut self, labels: Labels<'_>, bound: Option<&str>) {
        let mut separator = '{';
        for (name, value) in labels.iter().copied().chain(bound.map(|bound| ("le", bound))) {
            self.text.push(separator);
            separator = ',';
            let _ = write!(self.text, "{name}=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        if separator == ',' {
            self.text.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::Histogram;

    #[test]
    fn samples_are_escaped_and_histograms_are_cumulative() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_micros(100));
        let mut counts = Counts::default();
        counts.add(&histogram);
        let mut page = Page::default();
        page.family("a_total", "counter", "Help.");
        page.sample("a_total", &[("name", "x\"\\\n")], 3);
        page.sample("b", &[], 1.5);
        page.histogram("h_seconds", &[("k", "v")], &counts);
        let text = page.finish();
        assert!(
            text.starts_with("# HELP a_total Help.\n# TYPE a_total counter\na_total{name=\"x\\\"\\\\\\n\"} 3\nb 1.5\n")
        );
        assert!(text.contains("h_seconds_bucket{k=\"v\",le=\"0.000064\"} 0\n"), "{text}");
        assert!(text.contains("h_seconds_bucket{k=\"v\",le=\"0.000128\"} 1\n"), "{text}");
        assert!(text.contains("h_seconds_bucket{k=\"v\",le=\"+Inf\"} 1\n"));
        assert!(text.ends_with("h_seconds_sum{k=\"v\"} 0.0001\nh_seconds_count{k=\"v\"} 1\n"), "{text}");
    }
}
