//! `/metrics`: the counters in the Prometheus text format, version 0.0.4.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{BOUNDS_US, CLASSES, Injected, Metrics, process};

/// What the counters do not know.
pub(crate) struct Facts<'a> {
    pub(crate) name: &'a str,
    pub(crate) ready: bool,
}

/// Call once at start: the start time of the process is when this was first called.
pub(crate) fn mark_start() {
    process::started();
}

impl Metrics {
    pub(crate) fn render(&self, facts: &Facts<'_>) -> String {
        let mut page = Page(String::with_capacity(4096));
        self.render_requests(&mut page);
        self.render_connections(&mut page);
        page.family("server_faults_total", "counter", "Faults injected on purpose.");
        for (kind, count) in Injected::KINDS.iter().zip(&self.injected) {
            page.sample(&format!("server_faults_total{{kind=\"{kind}\"}}"), load(count));
        }
        page.single("server_ready", "gauge", "1 while /readyz answers 200.", u8::from(facts.ready));
        // The name is checked at start: it has nothing that would have to be escaped.
        let build = format!("server_build_info{{name=\"{}\",version=\"{}\"}}", facts.name, env!("CARGO_PKG_VERSION"));
        page.family("server_build_info", "gauge", "Always 1; the labels say what runs.");
        page.sample(&build, 1);
        render_process(&mut page);
        page.0
    }

    fn render_requests(&self, page: &mut Page) {
        page.family(
            "server_requests_total",
            "counter",
            "Requests that ended, by class of the answer; aborted: the connection ended before there was one.",
        );
        for (class, count) in CLASSES.iter().zip(&self.requests) {
            page.sample(&format!("server_requests_total{{class=\"{class}\"}}"), load(count));
        }
        page.single("server_requests_in_flight", "gauge", "Requests being answered.", self.in_flight());
        let name = "server_response_time_seconds";
        page.family(name, "histogram", "From the end of a request's head to the end of its answer.");
        let mut below = 0;
        for (bound_us, count) in BOUNDS_US.iter().zip(&self.times) {
            below += load(count);
            page.sample(&format!("{name}_bucket{{le=\"{}\"}}", seconds(*bound_us)), below);
        }
        below += load(&self.times[BOUNDS_US.len()]);
        page.sample(&format!("{name}_bucket{{le=\"+Inf\"}}"), below);
        page.sample(&format!("{name}_sum"), seconds(load(&self.times_sum_us)));
        page.sample(&format!("{name}_count"), below);
    }

    fn render_connections(&self, page: &mut Page) {
        let (received, sent) = (load(&self.received_bytes), load(&self.sent_bytes));
        page.single("server_received_bytes_total", "counter", "Bytes read from connections.", received);
        page.single("server_sent_bytes_total", "counter", "Bytes written to connections.", sent);
        page.single("server_connections_total", "counter", "Connections accepted.", load(&self.connections));
        page.single("server_connections_open", "gauge", "Connections open.", self.open_connections());
    }
}

fn render_process(page: &mut Page) {
    let started = process::started();
    page.single("process_start_time_seconds", "gauge", "Start, in seconds since 1970.", started);
    if let Some(cpu) = process::cpu_seconds() {
        page.single("process_cpu_seconds_total", "counter", "User and system CPU time.", cpu);
    }
    if let Some(resident) = process::resident_bytes() {
        page.single("process_resident_memory_bytes", "gauge", "Resident memory.", resident);
    }
    if let Some(fds) = process::open_fds() {
        page.single("process_open_fds", "gauge", "Open file descriptors.", fds);
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Microseconds as seconds, exactly.
fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(&format!("# HELP {name} {help}"));
        self.line(&format!("# TYPE {name} {kind}"));
    }

    fn sample(&mut self, series: &str, value: impl Display) {
        write!(self.0, "{series} {value}").expect("a String takes every write");
        self.0.push('\n');
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, value);
    }

    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn requests_fall_into_their_class_and_bucket() {
        let metrics = Metrics::default();
        for (status, took_us) in
            [(Some(204), 100), (Some(302), 101), (Some(404), 2_500), (Some(500), 70_000_000), (None, 5)]
        {
            metrics.request_began();
            metrics.request_ended(status, Duration::from_micros(took_us));
        }
        metrics.request_began();
        metrics.injected(Injected::ResetMid);
        let page = metrics.render(&Facts { name: "a", ready: true });
        for line in [
            "server_requests_total{class=\"2xx\"} 1",
            "server_requests_total{class=\"3xx\"} 1",
            "server_requests_total{class=\"4xx\"} 1",
            "server_requests_total{class=\"5xx\"} 1",
            "server_requests_total{class=\"aborted\"} 1",
            "server_requests_in_flight 1",
            "server_response_time_seconds_bucket{le=\"0.0001\"} 1",
            "server_response_time_seconds_bucket{le=\"0.00025\"} 2",
            "server_response_time_seconds_bucket{le=\"0.0025\"} 3",
            "server_response_time_seconds_bucket{le=\"60\"} 3",
            "server_response_time_seconds_bucket{le=\"+Inf\"} 4",
            "server_response_time_seconds_sum 70.002701",
            "server_response_time_seconds_count 4",
            "server_faults_total{kind=\"reset_mid\"} 1",
            "server_ready 1",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
    }
}
