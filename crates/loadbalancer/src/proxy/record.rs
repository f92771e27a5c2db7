//! What is counted and logged about one attempt at a backend, from its pick to the end of the response body.
//!
//! The record is made when a backend is picked and lives in the response body. With it goes the request's
//! [`Permit`], whose drop is the one place where the in-flight count goes down, so no path, early return or dropped
//! future can leave it wrong.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use http::StatusCode;
use lb_core::metrics::{FailureKind, LocalReply};

use super::admit::Permit;
use crate::access::Entry;
use crate::clock::Tick;
use crate::conn::Client;
use crate::view::LocalBackend;

pub(crate) struct Record {
    client: Rc<Client>,
    permit: Permit,
    /// When the request arrived, which may be before this attempt.
    arrived: Tick,
    /// Request body bytes that were counted.
    sent: u64,
    state: State,
    /// The request's line in the access log, for as long as this is its attempt.
    entry: Entry,
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

/// Whether it counts as load. 429 is the backend's word that it has too much to do.
pub(super) fn fails(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

impl Record {
    /// Of an attempt at the place that `permit` is for.
    pub(super) fn start(client: &Rc<Client>, permit: Permit, arrived: Tick, mut entry: Entry) -> Self {
        client.deadline.begin_work(permit.backend.id, arrived);
        entry.attempt(&permit.backend.backend.spec.name);
        Self { client: Rc::clone(client), permit, arrived, sent: 0, state: State::Waiting, entry }
    }

    /// Gives up the request's line: the request goes on without this attempt.
    pub(super) fn into_entry(mut self) -> Entry {
        std::mem::take(&mut self.entry)
    }

    pub(crate) fn client(&self) -> &Rc<Client> {
        &self.client
    }

    pub(crate) fn backend(&self) -> &LocalBackend {
        &self.permit.backend
    }

    /// The response head is there.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.state = State::Answering;
        self.entry.answered(status);
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.permit.backend.shard().responses[class].add(1);
        self.note_status(status);
    }

    /// Its response is thrown away for its status, and the request repeated. That is a wish of `retry.statuses`; what the
    /// status says about the backend is for `outlier.errors` to say.
    pub(super) fn thrown_away(&mut self, status: StatusCode) {
        self.state = State::Settled;
        let shard = self.permit.backend.shard();
        shard.failures[FailureKind::Status as usize].add(1);
        if !status.is_server_error() {
            shard.repeated_well.add(1);
        }
        self.note_status(status);
    }

    /// What a status says: an error in a row, or the end of one; and load, whatever the former asks for.
    fn note_status(&self, status: StatusCode) {
        if fails(status) {
            self.permit.backend.backend.add_failure_load();
        }
        if self.client.worker.shared.config.rotation.outlier.errors.contains(status.as_u16()) {
            self.hold_against();
        } else {
            let errors = self.client.worker.shared.errors.load(Ordering::Acquire);
            if self.permit.backend.errors.replace(errors) != errors {
                self.permit.backend.backend.note_success();
            }
        }
    }

    /// One more error in a row. The control task hears of the one that is too many, and again after as many more, in case
    /// that the backend was needed, or the channel full.
    fn hold_against(&self) {
        let shared = &self.client.worker.shared;
        let (in_a_row, most) = (self.permit.backend.backend.note_error(), shared.config.rotation.outlier.consecutive);
        shared.errors.fetch_add(1, Ordering::Release);
        if most > 0 && in_a_row.is_multiple_of(most) {
            let _ = shared.suspects.try_send(self.permit.backend.id);
        }
    }

    /// The attempt broke and was the backend's fault.
    pub(crate) fn failed(&mut self, kind: FailureKind) {
        if self.state == State::Answering {
            self.entry.backend_broke();
        }
        self.state = State::Settled;
        self.permit.backend.shard().failures[kind as usize].add(1);
        self.permit.backend.backend.add_failure_load();
        // What broke after its head was a success in the row already; the interval's tally has it.
        if kind != FailureKind::Body {
            self.hold_against();
        }
    }

    /// The attempt broke because the backend had closed a kept connection meanwhile: counted, and excused.
    pub(crate) fn lost_race(&mut self) {
        self.state = State::Settled;
        self.permit.backend.shard().failures[FailureKind::Closed as usize].add(1);
        self.permit.backend.shard().excused.add(1);
    }

    /// The response is cut: the request's time has passed.
    pub(super) fn overdue(&mut self) {
        self.state = State::Settled;
        self.entry.overdue();
        self.client.worker.slot().shard.cut_overdue.add(1);
    }

    /// Its response is on its way and was cut off from our side.
    pub(crate) fn cut(&mut self) {
        self.state = State::Settled;
        self.entry.drained();
    }

    /// The attempt ended without anybody at the backend being at fault, or was counted elsewhere.
    pub(crate) fn settle(&mut self) {
        self.state = State::Settled;
    }

    /// The tunnel behind a 101 is over. Its time is no response time.
    pub(crate) fn tunnel_ended(&mut self) {
        self.state = State::Settled;
        self.entry.complete();
    }

    /// The tunnel was broken off at the backend: no failure of an answer.
    pub(crate) fn tunnel_broken(&mut self) {
        self.state = State::Settled;
        self.entry.backend_broke();
    }

    /// So many bytes of the request body have been sent in all.
    pub(crate) fn sent_to_backend(&mut self, bytes: u64) {
        let more = bytes.saturating_sub(self.sent);
        if more > 0 {
            self.sent = bytes;
            self.permit.backend.shard().received_bytes.add(more);
            self.entry.sent_to_backend(more);
        }
    }

    pub(crate) fn sent_to_client(&mut self, bytes: u64) {
        self.permit.backend.shard().sent_bytes.add(bytes);
        self.entry.sent_to_client(bytes);
    }

    /// The response is complete.
    pub(crate) fn complete(&mut self) {
        if self.state == State::Answering {
            self.state = State::Settled;
            let took = self.client.worker.clock.now().since(self.arrived);
            self.permit.backend.shard().response.record(took);
            self.entry.complete();
            self.client.response_done();
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.client.deadline.is_cut() && self.state == State::Answering {
            // The client took no more, so that nobody noticed above.
            self.cut();
        }
        self.client.deadline.end_work();
        // Nobody else ended it: the client went away while it waited, or while it took its response.
        match self.state {
            State::Waiting => self.client.worker.count_local(LocalReply::ClientGone),
            // It did not take what there was in the request's time.
            State::Answering if self.client.overdue().is_some() => self.overdue(),
            State::Answering => self.client.worker.slot().shard.cut_by_client.add(1),
            State::Settled => {}
        }
    }
}
