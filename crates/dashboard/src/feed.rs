//! What every open page is told: the load balancer's news, once, for all of them.
//!
//! One upstream stream comes in, each browser reads from a bounded broadcast. Whoever is too slow for it starts again
//! from a fresh snapshot; nothing is kept for them.
//!
//! # Race window
//! A browser that joins must neither miss a delta nor get one twice in a way that counts. Joining (subscribe, then
//! copy the snapshot) and publishing (merge, then send) each happen under the one lock, so that the snapshot holds
//! exactly the deltas that the subscription does not.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use lb_core::api::{Delta, Status};
use serde::Serialize;
use tokio::sync::broadcast;

use crate::balancer::apply;
use crate::metrics::Metrics;

/// Deltas that a browser may lag behind: eight seconds. More would only show it the past.
const LAG: usize = 8;

/// One event, ready for the wire.
pub(crate) type Frame = Bytes;

/// See the module.
pub(crate) struct Feed {
    url: String,
    live: Mutex<Live>,
    frames: broadcast::Sender<Frame>,
    pub(crate) metrics: Metrics,
}

struct Live {
    link: Link,
    status: Option<Status>,
}

/// How things stand with the load balancer.
#[derive(Clone, Debug)]
struct Link {
    reachable: bool,
    since_unix_ms: u64,
    error: Option<String>,
    retry_at_unix_ms: Option<u64>,
}

/// The `balancer` event.
#[derive(Debug, Serialize)]
struct BalancerEvent<'a> {
    reachable: bool,
    url: &'a str,
    since_unix_ms: u64,
    /// `null` while it is reachable, and before the first try is over.
    error: Option<&'a str>,
    retry_in_ms: Option<u64>,
    now_unix_ms: u64,
}

#[derive(Debug, Serialize)]
struct Heartbeat {
    now_unix_ms: u64,
}

/// Whether the load balancer is there, for health answers.
#[derive(Clone, Debug)]
pub(crate) struct Reachability {
    pub(crate) reachable: bool,
    pub(crate) error: Option<String>,
}

impl Feed {
    pub(crate) fn new(url: String) -> Self {
        let link = Link { reachable: false, since_unix_ms: unix_ms(), error: None, retry_at_unix_ms: None };
        let (frames, _) = broadcast::channel(LAG);
        Self { url, live: Mutex::new(Live { link, status: None }), frames, metrics: Metrics::default() }
    }

    /// The admin API's address, without anything secret.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn reachability(&self) -> Reachability {
        let live = self.lock();
        Reachability { reachable: live.link.reachable, error: live.link.error.clone() }
    }

    /// What a browser must know first, and everything that comes after.
    pub(crate) fn join(&self) -> (Vec<Frame>, broadcast::Receiver<Frame>) {
        let live = self.lock();
        let receiver = self.frames.subscribe();
        let mut opening = vec![self.balancer_frame(&live.link)];
        opening.extend(live.status.as_ref().map(snapshot_frame));
        (opening, receiver)
    }

    /// A whole new status came: the load balancer is there.
    pub(crate) fn snapshot(&self, status: Status) {
        let mut live = self.lock();
        if !live.link.reachable {
            tracing::info!(url = self.url, version = status.version, "load balancer is there");
            live.link = Link { reachable: true, since_unix_ms: unix_ms(), error: None, retry_at_unix_ms: None };
            self.publish(self.balancer_frame(&live.link));
        }
        self.publish(snapshot_frame(&status));
        live.status = Some(status);
    }

    /// # Errors
    /// When a tick is missing before it; a new snapshot is needed then.
    pub(crate) fn delta(&self, delta: &Delta, json: &str) -> Result<(), ()> {
        let mut live = self.lock();
        let status = live.status.as_mut().ok_or(())?;
        apply(status, delta).map_err(|_| ())?;
        self.publish(frame("delta", Some(delta.tick), json));
        Ok(())
    }

    /// The load balancer is not there, and will be tried again after `retry`.
    pub(crate) fn lost(&self, error: &str, retry: Duration) {
        let mut live = self.lock();
        if live.link.reachable {
            Metrics::add(&self.metrics.balancer_losses);
        }
        if live.link.reachable || live.link.error.as_deref() != Some(error) {
            tracing::warn!(url = self.url, error, "load balancer is not there; trying again until it is");
        }
        let since_unix_ms = if live.link.reachable { unix_ms() } else { live.link.since_unix_ms };
        let retry_ms = u64::try_from(retry.as_millis()).unwrap_or(u64::MAX);
        live.link = Link {
            reachable: false,
            since_unix_ms,
            error: Some(error.to_owned()),
            retry_at_unix_ms: Some(unix_ms().saturating_add(retry_ms)),
        };
        self.publish(self.balancer_frame(&live.link));
    }

    fn publish(&self, frame: Frame) {
        // An error means that no page is open.
        let _ = self.frames.send(frame);
    }

    fn balancer_frame(&self, link: &Link) -> Frame {
        let now_unix_ms = unix_ms();
        let event = BalancerEvent {
            reachable: link.reachable,
            url: &self.url,
            since_unix_ms: link.since_unix_ms,
            error: link.error.as_deref(),
            retry_in_ms: link.retry_at_unix_ms.map(|at| at.saturating_sub(now_unix_ms)),
            now_unix_ms,
        };
        frame("balancer", None, &json(&event))
    }

    /// A panic while it was held cannot leave it half-written in a way that matters: the next snapshot replaces it.
    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shows the page that this program is alive while the load balancer says nothing.
pub(crate) fn heartbeat() -> Frame {
    frame("heartbeat", None, &json(&Heartbeat { now_unix_ms: unix_ms() }))
}

fn snapshot_frame(status: &Status) -> Frame {
    frame("snapshot", Some(status.tick), &json(status))
}

fn json(event: &impl Serialize) -> String {
    serde_json::to_string(event).expect("numbers, strings and lists of them are always JSON")
}

fn frame(name: &str, tick: Option<u64>, data: &str) -> Frame {
    let id = tick.map_or_else(String::new, |tick| format!("id: {tick}\n"));
    // A line break in the data would end it; JSON allows one between its words and means nothing by it.
    let data = data.replace(['\n', '\r'], " ");
    Bytes::from(format!("event: {name}\n{id}data: {data}\n\n"))
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(frame: &Frame) -> &str {
        std::str::from_utf8(frame).unwrap()
    }

    #[test]
    fn a_line_break_cannot_end_an_event() {
        assert_eq!(text(&frame("delta", Some(7), "{\n}\r")), "event: delta\nid: 7\ndata: { } \n\n");
    }

    #[test]
    fn who_joins_is_told_first_how_things_stand() {
        let feed = Feed::new("http://lb:8089".to_owned());
        let (opening, _) = feed.join();
        assert_eq!(opening.len(), 1);
        assert!(
            text(&opening[0]).starts_with("event: balancer\ndata: {\"reachable\":false,\"url\":\"http://lb:8089\"")
        );
        assert!(text(&opening[0]).contains("\"error\":null"));
    }

    #[test]
    fn the_time_of_a_loss_is_kept_over_failed_retries() {
        let feed = Feed::new("http://lb:8089".to_owned());
        let (_, mut frames) = feed.join();
        feed.lost("connection refused", Duration::from_secs(1));
        feed.lost("connection refused", Duration::from_secs(2));
        let field = |frame: &Frame, name: &str| -> serde_json::Value {
            let data = text(frame).lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
            serde_json::from_str::<serde_json::Value>(data).unwrap()[name].clone()
        };
        let (first, second) = (frames.try_recv().unwrap(), frames.try_recv().unwrap());
        assert_eq!(field(&first, "since_unix_ms"), field(&second, "since_unix_ms"));
        assert!(field(&second, "retry_in_ms").as_u64().unwrap() > 1000);
        assert_eq!(field(&second, "error"), "connection refused");
    }

    #[test]
    fn a_delta_before_any_snapshot_asks_for_one() {
        let feed = Feed::new("http://lb:8089".to_owned());
        assert!(feed.delta(&crate::balancer::fixture::delta(1), "{}").is_err());
    }
}
