//! What every connection shares: the name, the counters, readiness and the faults.

use std::sync::atomic::{AtomicBool, Ordering};

use hyper::header::HeaderValue;

use crate::faults::control::FaultControl;
use crate::metrics::Metrics;
use crate::name::Name;

pub(crate) struct App {
    name: Name,
    pub(crate) metrics: Metrics,
    /// Present only when the server was started with `--faults`.
    pub(crate) faults: Option<FaultControl>,
    /// Written by `/admin/ready` and `/admin/not-ready`.
    switched_ready: AtomicBool,
    /// Written once, by the graceful stop.
    stopping: AtomicBool,
}

/// One thing that readiness depends on.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    /// Why it fails, if it does.
    pub(crate) failure: Option<&'static str>,
}

impl App {
    pub(crate) fn new(name: Name, faults: Option<FaultControl>) -> Self {
        Self {
            name,
            metrics: Metrics::default(),
            faults,
            switched_ready: AtomicBool::new(true),
            stopping: AtomicBool::new(false),
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The value of `X-Served-By`.
    pub(crate) fn served_by(&self) -> HeaderValue {
        self.name.header()
    }

    pub(crate) fn switch_ready(&self, ready: bool) {
        self.switched_ready.store(ready, Ordering::Relaxed);
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(crate) fn readiness(&self) -> [Check; 2] {
        let switched_off = !self.switched_ready.load(Ordering::Relaxed);
        [
            Check { name: "switch", failure: switched_off.then_some("switched off by POST /admin/not-ready") },
            Check { name: "stopping", failure: self.is_stopping().then_some("the server is stopping") },
        ]
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.readiness().iter().all(|check| check.failure.is_none())
    }
}
