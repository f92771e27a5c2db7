//! `GET /v1/stream`: a `snapshot` event with the whole status, then a `delta` each second. A reader that cannot keep
//! up is given a fresh snapshot; nothing is queued for it beyond a few deltas. It ends when shutdown is over.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Admin, problem};
use crate::control::Command;

pub(super) async fn stream(State(admin): State<Admin>) -> Response {
    let Ok(permit) = Arc::clone(&admin.streams).try_acquire_owned() else {
        return problem::refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "too-many-streams",
            "too many streams are open; try later",
        );
    };
    // One event in the channel, one in hyper: a reader that stops reading stops us here.
    let (events, receiver) = mpsc::channel(1);
    let Ok(mut feed) = Feed::open(&admin).await else { return problem::ending() };
    tokio::spawn(async move {
        let _permit = permit;
        while let Some(event) = feed.next(&admin).await {
            if events.send(Ok::<_, Infallible>(event)).await.is_err() {
                return;
            }
        }
    });
    Sse::new(ReceiverStream::new(receiver)).into_response()
}

/// Where one reader stands.
struct Feed {
    snapshot: Option<Event>,
    tick: u64,
    deltas: tokio::sync::broadcast::Receiver<crate::control::Tick>,
}

impl Feed {
    async fn open(admin: &Admin) -> Result<Self, crate::control::Gone> {
        let (status, deltas) = admin.control.ask(Command::Subscribe).await?;
        let json = serde_json::to_string(&status).unwrap_or_default();
        let event = Event::default().event("snapshot").id(status.tick.to_string()).data(json);
        Ok(Self { snapshot: Some(event), tick: status.tick, deltas })
    }

    async fn next(&mut self, admin: &Admin) -> Option<Event> {
        loop {
            if let Some(snapshot) = self.snapshot.take() {
                return Some(snapshot);
            }
            match self.deltas.recv().await {
                Ok((tick, json)) if tick > self.tick => {
                    return Some(Event::default().event("delta").id(tick.to_string()).data(json));
                }
                // The snapshot already contains it.
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => *self = Self::open(admin).await.ok()?,
                Err(RecvError::Closed) => return None,
            }
        }
    }
}
