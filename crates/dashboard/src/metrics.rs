//! The dashboard's few figures about itself, as Prometheus text. The load balancer's own are at its `/metrics`.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counted with relaxed order: each number stands for itself.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) browsers: AtomicU64,
    pub(crate) browsers_skipped: AtomicU64,
    pub(crate) balancer_losses: AtomicU64,
    pub(crate) refused_requests: AtomicU64,
    pub(crate) actions_done: AtomicU64,
    pub(crate) actions_failed: AtomicU64,
}

impl Metrics {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn render(&self, balancer_reachable: bool) -> String {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let up = u64::from(balancer_reachable);
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, values: &[(&str, u64)]| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in values {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let version = concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}");
        family("dashboard_build_info", "gauge", "Which version this is.", &[(version, 1)]);
        family("dashboard_balancer_up", "gauge", "Whether news comes from the load balancer.", &[("", up)]);
        let losses = &[("", read(&self.balancer_losses))];
        family("dashboard_balancer_losses_total", "counter", "How often the load balancer was lost.", losses);
        family("dashboard_browsers", "gauge", "Pages that are watching.", &[("", read(&self.browsers))]);
        let skipped = &[("", read(&self.browsers_skipped))];
        family("dashboard_browsers_skipped_total", "counter", "Slow pages moved on to a fresh snapshot.", skipped);
        let refused = &[("", read(&self.refused_requests))];
        family("dashboard_refused_requests_total", "counter", "Requests refused for Host or Origin.", refused);
        let actions =
            &[("{result=\"done\"}", read(&self.actions_done)), ("{result=\"failed\"}", read(&self.actions_failed))];
        family("dashboard_actions_total", "counter", "State changes that were asked for.", actions);
        text
    }
}
