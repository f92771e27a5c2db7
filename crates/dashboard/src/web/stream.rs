//! One browser's stream of events.
//!
//! A task per browser hands frames to hyper one at a time. A browser that reads slowly holds its own task up, which
//! then lags behind the feed's broadcast and is moved on to a fresh snapshot: it costs two frames of memory, and
//! nobody else anything.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::{App, problem};
use crate::feed::{Feed, Frame, heartbeat};
use crate::metrics::Metrics;
use crate::serve::stopped;

/// Something is said at least this often. The page takes three times it (`SILENCE_MS` in `stream.js`) for the end.
/// A bit more than the load balancer's own second, so that it is silent while deltas come.
const HEARTBEAT: Duration = Duration::from_millis(1200);
/// Of the connections that are served at all, some must stay free for loading the page and for health checks.
const MOST_BROWSERS: u64 = 128;

pub(super) async fn stream(State(app): State<App>) -> Response {
    let Some(seat) = Seat::take(Arc::clone(&app.feed)) else {
        let detail = format!("{MOST_BROWSERS} pages are watching already; close one");
        return problem(StatusCode::SERVICE_UNAVAILABLE, "too-many-pages", "Too many pages", detail);
    };
    // One frame: what waits here is not yet late.
    let (frames, body) = mpsc::channel(1);
    let stopping = app.stopping;
    tokio::spawn(async move { relay(&seat.feed, frames, stopping).await });
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
        // Proxies in front of the page must not collect events before they pass them on.
        (axum::http::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(ReceiverStream::new(body).map(Ok::<_, Infallible>))).into_response()
}

/// Ends when the browser goes, or at the end of the program.
async fn relay(feed: &Feed, to: mpsc::Sender<Frame>, mut stopping: watch::Receiver<bool>) {
    tokio::select! {
        _ = pass_on(feed, &to) => {}
        () = to.closed() => {}
        () = stopped(&mut stopping) => {}
    }
}

async fn pass_on(feed: &Feed, to: &mpsc::Sender<Frame>) -> Result<(), mpsc::error::SendError<Frame>> {
    let (opening, mut frames) = feed.join();
    for frame in opening {
        to.send(frame).await?;
    }
    loop {
        let next = match tokio::time::timeout(HEARTBEAT, frames.recv()).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(RecvError::Lagged(_))) => {
                Metrics::add(&feed.metrics.browsers_skipped);
                let (opening, fresh) = feed.join();
                frames = fresh;
                for frame in opening {
                    to.send(frame).await?;
                }
                continue;
            }
            // The feed lives as long as its browsers.
            Ok(Err(RecvError::Closed)) => return Ok(()),
            Err(_) => heartbeat(),
        };
        to.send(next).await?;
    }
}

/// One browser's place among those that are watching, given back when it goes.
struct Seat {
    feed: Arc<Feed>,
}

impl Seat {
    fn take(feed: Arc<Feed>) -> Option<Self> {
        let browsers = &feed.metrics.browsers;
        let taken =
            browsers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < MOST_BROWSERS).then_some(n + 1));
        taken.is_ok().then_some(Self { feed })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.feed.metrics.browsers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::fixture;

    fn name(frame: &Frame) -> String {
        let text = std::str::from_utf8(frame).unwrap();
        text.lines().next().unwrap().trim_start_matches("event: ").to_owned()
    }

    fn watching() -> (Arc<Feed>, mpsc::Receiver<Frame>, watch::Sender<bool>) {
        let feed = Arc::new(Feed::new("http://lb:8089".to_owned()));
        feed.snapshot(fixture::status(1));
        let (to, frames) = mpsc::channel(1);
        let (stop, stopping) = watch::channel(false);
        let relayed = Arc::clone(&feed);
        tokio::spawn(async move { relay(&relayed, to, stopping).await });
        (feed, frames, stop)
    }

    fn tick(feed: &Feed, tick: u64) {
        let delta = fixture::delta(tick);
        feed.delta(&delta, &serde_json::to_string(&delta).unwrap()).unwrap();
    }

    async fn next(frames: &mut mpsc::Receiver<Frame>) -> Frame {
        frames.recv().await.expect("the stream goes on")
    }

    #[tokio::test(start_paused = true)]
    async fn a_browser_gets_a_snapshot_and_then_each_delta() {
        let (feed, mut frames, _stop) = watching();
        assert_eq!(name(&next(&mut frames).await), "balancer");
        assert_eq!(name(&next(&mut frames).await), "snapshot");
        for at in 2..30 {
            tick(&feed, at);
            let frame = next(&mut frames).await;
            assert!(std::str::from_utf8(&frame).unwrap().starts_with(&format!("event: delta\nid: {at}\n")));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_browser_is_moved_on_to_a_fresh_snapshot() {
        let (feed, mut frames, _stop) = watching();
        next(&mut frames).await;
        next(&mut frames).await;
        for at in 2..=100 {
            tick(&feed, at);
            tokio::task::yield_now().await;
        }
        let mut seen = Vec::new();
        let snapshot = loop {
            let frame = next(&mut frames).await;
            if name(&frame) == "snapshot" {
                break frame;
            }
            seen.push(name(&frame));
            assert!(seen.len() < 100, "no snapshot comes: {seen:?}");
        };
        // What was under way when it stopped reading, then how things stand now: never the 95 deltas between.
        assert!(seen.len() <= 3, "{seen:?}");
        assert!(std::str::from_utf8(&snapshot).unwrap().starts_with("event: snapshot\nid: 100\n"));
        assert_eq!(feed.metrics.browsers_skipped.load(Ordering::Relaxed), 1);
        tick(&feed, 101);
        assert!(std::str::from_utf8(&next(&mut frames).await).unwrap().starts_with("event: delta\nid: 101\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_filled_with_heartbeats() {
        let (_feed, mut frames, _stop) = watching();
        next(&mut frames).await;
        next(&mut frames).await;
        let before = tokio::time::Instant::now();
        for _ in 0..3 {
            assert_eq!(name(&next(&mut frames).await), "heartbeat");
        }
        assert_eq!(before.elapsed().as_millis(), 3 * HEARTBEAT.as_millis());
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_program_ends_the_stream_even_of_a_browser_that_does_not_read() {
        let (feed, mut frames, stop) = watching();
        for at in 2..=20 {
            tick(&feed, at);
            tokio::task::yield_now().await;
        }
        stop.send_replace(true);
        tokio::task::yield_now().await;
        let mut left = 0;
        while frames.recv().await.is_some() {
            left += 1;
        }
        assert!(left <= 1, "{left}");
    }
}
