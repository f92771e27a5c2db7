//! One request from its head to the end of its answer: in-flight count, metrics, and the phase of its connection.
//!
//! It lives in the response body once there is one, so that "in flight" ends with the last byte handed over and not
//! with the head; whatever drops the body (the end, a client that left, a reset) ends the exchange.

use std::sync::Arc;

use tokio::time::Instant;

use hyper::StatusCode;

use crate::app::App;
use crate::conn::phase::Phases;

pub(crate) struct Exchange {
    app: Arc<App>,
    phases: Arc<Phases>,
    began: Instant,
    status: Option<u16>,
}

impl Exchange {
    pub(crate) fn begin(app: &Arc<App>, phases: &Arc<Phases>) -> Self {
        let began = Instant::now();
        app.metrics.request_began();
        phases.exchange_began();
        Self { app: Arc::clone(app), phases: Arc::clone(phases), began, status: None }
    }

    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status.as_u16());
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let now = Instant::now();
        self.app.metrics.request_ended(self.status, now - self.began);
        self.phases.exchange_ended(now);
    }
}
