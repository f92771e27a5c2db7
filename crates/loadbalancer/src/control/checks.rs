//! What the checks of one backend have found, for whoever asks why it is up or down; and the metrics of all checks.

use lb_core::api::{AdminState, BackendState, Checks, ReasonCode};
use lb_core::check::Explained;
use lb_core::health::HealthPolicy;
use lb_core::metrics::text::Page;

use super::board::{Board, Place};
use super::metrics::Row;

impl Board {
    /// The last results of a backend, and what they say.
    pub(super) fn checks(&self, policy: &HealthPolicy, place: Place, now_ms: u64) -> Checks {
        let entry = &self.pools[place.0].entries[place.1];
        let ejected = match entry.state() {
            BackendState::Ejected => entry.standing.ejections.words_at(self.now_ms()),
            _ => None,
        };
        let known = Explained {
            admin: entry.admin,
            health: entry.health.health(),
            reason: &entry.health_words,
            since_unix_ms: match entry.admin {
                AdminState::Maintenance => entry.since_unix_ms,
                _ => entry.health_since_unix_ms,
            },
            ejected: ejected.as_deref(),
            next_unix_ms: entry.next_unix_ms,
            streak: entry.health.streak(),
            needed: entry.health.needed(policy),
        };
        Checks {
            pool: self.pools[place.0].name.to_string(),
            backend: entry.backend.spec.name.clone(),
            explanation: entry.history.explain(now_ms, &known),
            admin: entry.admin,
            health: known.health,
            state: entry.state(),
            since_unix_ms: entry.since_unix_ms,
            now_unix_ms: now_ms,
            next_unix_ms: entry.next_unix_ms,
            last_passed_unix_ms: entry.history.last_passed_unix_ms(),
            results: entry.history.results().cloned().collect(),
        }
    }
}

/// Failures by class, and the time that checks take.
pub(super) fn metrics(page: &mut Page, rows: &[Row<'_>]) {
    page.family("lb_health_check_failures_total", "counter", "Active checks that failed, by class.");
    for row in rows {
        for (class, count) in row.entry.history.failures() {
            let labels = [("pool", row.pool), ("backend", row.name), ("class", ReasonCode::as_str(class))];
            page.sample("lb_health_check_failures_total", &labels, count);
        }
    }
    page.family("lb_health_check_duration_seconds", "summary", "Whole time of active checks, passed or failed.");
    for row in rows {
        let (took, count) = row.entry.history.time_spent();
        let labels = [("pool", row.pool), ("backend", row.name)];
        page.sample("lb_health_check_duration_seconds_sum", &labels, took.as_secs_f64());
        page.sample("lb_health_check_duration_seconds_count", &labels, count);
    }
    let help = "Checks that could not be made for want of descriptors, ports or memory of our own.";
    page.family("lb_health_checks_not_tried_total", "counter", help);
    for row in rows {
        let labels = [("pool", row.pool), ("backend", row.name)];
        page.sample("lb_health_checks_not_tried_total", &labels, row.entry.history.not_tried());
    }
}
