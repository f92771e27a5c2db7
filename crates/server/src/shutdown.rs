//! When to stop: the first request means gracefully, the second at once.

use std::future::pending;
use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::info;

/// Asked for by signals or, in a test, by a [`Stopper`].
#[derive(Debug, Clone)]
pub struct Shutdown {
    times: watch::Receiver<u32>,
}

/// Asks for the stop: once means gracefully, twice means now.
#[derive(Debug)]
pub struct Stopper {
    times: watch::Sender<u32>,
}

impl Stopper {
    pub fn stop(&self) {
        self.times.send_modify(|times| *times += 1);
    }
}

impl Shutdown {
    pub fn channel() -> (Stopper, Self) {
        let (tx, times) = watch::channel(0);
        (Stopper { times: tx }, Self { times })
    }

    /// By SIGTERM or SIGINT, in any order.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn on_signals() -> io::Result<Self> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let (stopper, shutdown) = Self::channel();
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    _ = term.recv() => "SIGTERM",
                    _ = int.recv() => "SIGINT",
                };
                info!(signal = name, "signal received");
                stopper.stop();
            }
        });
        Ok(shutdown)
    }

    /// Until the first request to stop.
    pub(crate) async fn gracefully(&mut self) {
        self.reached(1).await;
    }

    /// Until the second.
    pub(crate) async fn now(&mut self) {
        self.reached(2).await;
    }

    async fn reached(&mut self, times: u32) {
        if self.times.wait_for(|seen| *seen >= times).await.is_err() {
            // Nobody is left to ask.
            pending().await
        }
    }
}
