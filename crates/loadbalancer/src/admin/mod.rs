//! The admin listener: health for Kubernetes, metrics for Prometheus, and `/v1` for the dashboard and scripts.
//!
//! It runs on the control thread and asks the control task, so a flood here cannot slow the data plane. Everything
//! under `/v1` needs the bearer token; GET changes nothing anywhere; there is no CORS.

mod auth;
mod backend;
#[cfg(test)]
mod fuzz;
mod health;
mod problem;
mod spares;
mod stream;
mod token;
mod v1;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use lb_core::health::is_our_own;
use lb_core::metrics::text;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::control::{Command, Control};
use crate::runtime::Phase;
use crate::worker::Shared;
use spares::Spares;
pub(crate) use token::Token;

/// Connections at a time: a dashboard, a scraper, probes and some scripts, a hundred times over. It bounds what a
/// flood can take in memory and descriptors.
const MOST_CONNECTIONS: usize = 256;

/// What is set aside for this listener: its connections, its [`spares`], and files that are read for an answer.
pub(crate) const MOST_DESCRIPTORS: usize = MOST_CONNECTIONS + 48;

/// Streams at a time; each holds a connection for as long as its reader likes.
const MOST_STREAMS: usize = 64;

/// Requests that wait for a drain at a time; each holds a connection.
const MOST_WAITS: usize = 64;

/// For a reader to take anything of what it was sent: one that asks and never reads must not hold a place for ever.
const READ_STALL: Duration = Duration::from_secs(20);

/// For a request head; also closes idle connections.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What every handler sees.
#[derive(Clone)]
pub(crate) struct Admin {
    pub shared: Arc<Shared>,
    pub control: Control,
    pub token: Arc<Token>,
    pub phase: watch::Receiver<Phase>,
    pub streams: Arc<Semaphore>,
    pub waits: Arc<Semaphore>,
}

impl Admin {
    pub(crate) fn new(shared: Arc<Shared>, control: Control, token: Arc<Token>, phase: watch::Receiver<Phase>) -> Self {
        let (streams, waits) = (Arc::new(Semaphore::new(MOST_STREAMS)), Arc::new(Semaphore::new(MOST_WAITS)));
        Self { shared, control, token, phase, streams, waits }
    }
}

/// Serves until the process ends: health must be answered while the data plane drains.
pub(crate) async fn serve(listener: TcpListener, admin: Admin) {
    let routes = router(admin);
    let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let spares = Spares::new();
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => {
                let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(READ_STALL));
                stream
            }
            Err(error) if is_our_own(&error) && spares.release() => continue,
            Err(error) => {
                tracing::warn!(%error, "admin: cannot accept; pausing");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(routes.clone());
        let using = spares.using();
        tokio::spawn(async move {
            // Dropped last, when the connection's own descriptor is free.
            let (_permit, _using) = (permit, using);
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "admin: connection ended");
            }
        });
    }
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/healthz", get(health::readyz))
        .route("/startupz", get(health::startupz))
        .route("/metrics", get(metrics))
        .nest("/v1", v1::router(admin.clone()))
        .fallback(problem::no_such_path)
        .method_not_allowed_fallback(problem::no_such_method)
        .with_state(admin)
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match admin.control.ask(Command::Metrics).await {
        Ok(page) => ([(CONTENT_TYPE, text::CONTENT_TYPE)], page).into_response(),
        Err(_) => problem::ending(),
    }
}

/// Binds the admin listener.
///
/// # Errors
/// The address is taken or not ours.
pub(crate) fn bind(address: std::net::IpAddr, port: u16) -> io::Result<TcpListener> {
    TcpListener::from_std(crate::listen::bind(address, port)?)
}
