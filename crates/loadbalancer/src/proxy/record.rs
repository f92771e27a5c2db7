//! What is counted about one attempt at a backend, from its pick to the end of the response body.
//!
//! The record is made when a backend is picked and lives in the response body. Its drop is the one place where the
//! in-flight count goes down, so no path, early return or dropped future can leave it wrong.

use std::rc::Rc;

use http::StatusCode;
use lb_core::metrics::{FailureKind, LocalReply};

use crate::clock::Tick;
use crate::conn::Client;
use crate::worker::LocalBackend;

pub(crate) struct Record {
    client: Rc<Client>,
    backend: Rc<LocalBackend>,
    /// When the request arrived, which may be before this attempt.
    arrived: Tick,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// No response head yet.
    Waiting,
    /// The head is out; the body is not through.
    Answering,
    /// Counted; only in-flight is left.
    Settled,
}

impl Record {
    /// Counts one more request in flight at `backend`.
    pub(crate) fn start(client: &Rc<Client>, backend: &Rc<LocalBackend>, arrived: Tick) -> Self {
        backend.backend.enter();
        Self { client: Rc::clone(client), backend: Rc::clone(backend), arrived, state: State::Waiting }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn backend(&self) -> &LocalBackend {
        &self.backend
    }

    /// The response head is there.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.state = State::Answering;
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.backend.shard().responses[class].add(1);
    }

    /// The attempt broke and was the backend's fault.
    pub(crate) fn failed(&mut self, kind: FailureKind) {
        self.state = State::Settled;
        self.backend.shard().failures[kind as usize].add(1);
    }

    /// The attempt ended without anybody at the backend being at fault, or was counted elsewhere.
    pub(crate) fn settle(&mut self) {
        self.state = State::Settled;
    }

    pub(crate) fn sent_to_backend(&self, bytes: u64) {
        self.backend.shard().received_bytes.add(bytes);
    }

    pub(crate) fn sent_to_client(&self, bytes: u64) {
        self.backend.shard().sent_bytes.add(bytes);
    }

    /// The response is complete.
    pub(crate) fn complete(&mut self) {
        if self.state == State::Answering {
            self.state = State::Settled;
            let took = self.client.worker.clock.now().since(self.arrived);
            self.backend.shard().response.record(took);
            self.client.response_done();
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.backend.backend.leave();
        // Nobody else ended it: the client went away while it waited, or while it took its response.
        match self.state {
            State::Waiting => self.client.worker.count_local(LocalReply::ClientGone),
            State::Answering => self.client.worker.slot().shard.cut_by_client.add(1),
            State::Settled => {}
        }
    }
}
