//! Follows the load balancer's stream for as long as the program lives, and tells the feed what comes and what not.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::client::{AdminClient, AdminError};
use super::sse::{SseEvent, SseReader};
use crate::feed::Feed;

/// The load balancer speaks each second: two missed deltas and a bit, so that the page can say it within 3 s.
const SILENCE: Duration = Duration::from_millis(2500);
/// Waits before each new try after the first, second, … failure. Short: it is one connection to a neighbour, and
/// somebody is looking at the page.
const RETRY_AFTER: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(3)];

/// Why a stream ended.
enum End {
    Lost(AdminError),
    /// A tick was missed: a new snapshot is needed, nothing else is wrong.
    Gap,
}

/// Never returns; stop it by dropping it.
pub(crate) async fn follow(client: Arc<AdminClient>, feed: Arc<Feed>) {
    let mut failures = 0;
    loop {
        let end = match client.stream().await {
            Ok(body) => read(body, &feed, &mut failures).await,
            Err(error) => End::Lost(error),
        };
        let pause = RETRY_AFTER[failures.min(RETRY_AFTER.len() - 1)];
        match end {
            End::Lost(error) => feed.lost(&error.to_string(), pause),
            End::Gap => tracing::debug!("a tick was missed, asking for a new snapshot"),
        }
        failures += 1;
        tokio::time::sleep(pause).await;
    }
}

async fn read(mut body: Incoming, feed: &Feed, failures: &mut usize) -> End {
    let mut reader = SseReader::default();
    loop {
        let frame = match tokio::time::timeout(SILENCE, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return End::Lost(AdminError::Exchange(format!("the stream broke: {error}"))),
            Ok(None) => return End::Lost(AdminError::Exchange("the load balancer ended the stream".to_owned())),
            Err(_) => return End::Lost(AdminError::Silent(SILENCE)),
        };
        let Ok(bytes) = frame.into_data() else { continue };
        let mut events = Vec::new();
        if let Err(error) = reader.push(&bytes, |event| events.push(event)) {
            return End::Lost(AdminError::Unexpected(format!("the stream holds no events: {error:?}")));
        }
        for event in events {
            if let Err(end) = take(&event, feed, failures) {
                return end;
            }
        }
    }
}

fn take(event: &SseEvent, feed: &Feed, failures: &mut usize) -> Result<(), End> {
    match event.name.as_str() {
        "snapshot" => {
            feed.snapshot(parse(event)?);
            *failures = 0;
            Ok(())
        }
        "delta" => feed.delta(&parse(event)?, &event.data).map_err(|_| End::Gap),
        // What a newer load balancer may say besides.
        _ => Ok(()),
    }
}

fn parse<T: DeserializeOwned>(event: &SseEvent) -> Result<T, End> {
    serde_json::from_str(&event.data).map_err(|error| {
        let problem = format!("cannot read the load balancer's {}: {error}; are both of the same version?", event.name);
        End::Lost(AdminError::Unexpected(problem))
    })
}
