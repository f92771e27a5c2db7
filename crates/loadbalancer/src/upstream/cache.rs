//! Idle connections of one worker to one backend.
//!
//! Last in, first out: the connection used last is the one least likely to have been closed meanwhile, and the
//! surplus of a busy minute grows old at the bottom and is purged.

use std::cell::RefCell;
use std::time::Duration;

use super::UpstreamConn;
use crate::clock::Tick;
use crate::proxy_protocol::Ends;

/// Behind this a connection was part of a rush that is over.
const REST: Duration = Duration::from_secs(1);

/// Idle connections, oldest first.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "a connection moves in and out with each request: a pointer is cheaper to move")]
pub(crate) struct ConnCache {
    idle: RefCell<Vec<Box<UpstreamConn>>>,
}

impl ConnCache {
    /// A connection that looks alive, or `None`. `for_sure` asks the kernel as well. One that the backend was told is
    /// of some client is given only `on_behalf` of the same; without such, the first look finds one.
    pub(crate) fn take(&self, for_sure: bool, on_behalf: Option<Ends>) -> Option<Box<UpstreamConn>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(at) = idle.iter().rposition(|connection| connection.on_behalf == on_behalf) {
            let connection = idle.remove(at);
            let ask = for_sure || connection.doubtful;
            if connection.is_quiet() && (!ask || connection.is_quiet_for_sure()) {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose exchange is completely through. Beyond `most`, the oldest is closed.
    pub(crate) fn put(&self, mut connection: Box<UpstreamConn>, now: Tick, most: usize) {
        if most == 0 {
            return;
        }
        connection.reused = true;
        connection.idle_since = now;
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= most {
            idle.remove(0);
        }
        idle.push(connection);
    }

    /// Closes all. Returns how many.
    pub(crate) fn clear(&self) -> usize {
        self.idle.borrow_mut().drain(..).count()
    }

    /// Closes those that were idle for longer than `timeout`, and those that the backend closed. What is kept for long
    /// keeps no buffer.
    pub(crate) fn purge(&self, now: Tick, timeout: Duration) {
        self.idle.borrow_mut().retain_mut(|connection| {
            let idle = now.since(connection.idle_since);
            if idle > REST {
                connection.drop_buffers();
            }
            idle < timeout && connection.is_quiet()
        });
    }
}
