//! What everything on one client connection knows of it: who it is, what is being waited for, and how far its current
//! message is.
//!
//! Written by the connection's own task only (the socket below hyper, the request path above it), and for a tunnel by the
//! poller's on the same thread, so cells suffice.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use lb_core::metrics::Rejected;

use super::request_time::{Overdue, RequestTime};
use super::rest::Past;
use super::tunnel::Tunnel;
use crate::access;
use crate::clock::Tick;
use crate::deadline::{Deadline, Waiting};
use crate::door::Body;
use crate::listen::Peer;
use crate::worker::Worker;

/// How far a client may fall behind `limits.min_body_rate` before it is cut: a pause of a mobile network, not more.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client connection.
pub(crate) struct Client {
    pub worker: Rc<Worker>,
    pub peer: Peer,
    /// Whether the request asks about the server as a whole though its target does not say `*` (RFC 9112 §3.2.4).
    pub about_server: Cell<bool>,
    /// IPv4 addresses as such, also on a socket for both.
    pub address: IpAddr,
    /// The same as text, made once.
    pub address_text: String,
    /// Whether its forwarding fields are believed.
    pub trusted: bool,
    pub deadline: Rc<Deadline>,
    /// Whether a request body was given up before its end: what is left of it must still be taken before a close.
    pub unread: Rc<Cell<bool>>,
    /// A tunnel that begins when the 101 is out.
    pub tunnel: RefCell<Option<Box<Tunnel>>>,
    /// Why the connection ends, when it is the client's fault.
    rejected: Cell<Option<Rejected>>,
    owes_refusal: Cell<bool>,
    /// The current request is a HEAD: a refusal has no body (RFC 9110 §9.3.2).
    head_only: Cell<bool>,
    /// What the door said of the current request's body.
    body: Cell<Body>,
    /// A head has been handed to hyper, and hyper has not come up with a request yet.
    parsing: Cell<bool>,
    /// From the end of a head to the end of its response's flush.
    busy: Cell<bool>,
    /// Whether a complete response waits to be flushed.
    answered: Cell<bool>,
    /// How often all that hyper had to write was written, from 0 again when there are too many.
    flushes: Cell<u32>,
    /// Whether a byte of the current head has come.
    head_begun: Cell<bool>,
    /// The connection ends behind the current response.
    last_response: Cell<bool>,
    /// The client may take that end for the response's.
    believes_an_end: Cell<bool>,
    requests: Cell<u64>,
    upload: Pace,
    download: Pace,
    /// What the current request may take.
    pub time: RequestTime,
    /// Attempts at backends that were made for it.
    pub attempts: Cell<u32>,
}

impl Client {
    pub(super) fn new(worker: Rc<Worker>, peer: Peer, past: Past) -> Rc<Self> {
        let config = &worker.shared.config;
        let address = peer.client.ip().to_canonical();
        let trusted = config.trusted_proxies.iter().any(|network| network.contains(&address));
        let deadline = worker.sweep.enter(past.waiting, past.until);
        Rc::new(Self {
            peer,
            about_server: Cell::default(),
            address,
            address_text: text_of(address),
            trusted,
            deadline,
            unread: Rc::default(),
            tunnel: RefCell::default(),
            rejected: Cell::default(),
            owes_refusal: Cell::default(),
            head_only: Cell::default(),
            body: Cell::default(),
            parsing: Cell::default(),
            busy: Cell::default(),
            answered: Cell::default(),
            flushes: Cell::default(),
            head_begun: Cell::default(),
            last_response: Cell::default(),
            believes_an_end: Cell::default(),
            requests: Cell::new(past.requests),
            upload: Pace::default(),
            download: Pace::default(),
            time: RequestTime::default(),
            attempts: Cell::default(),
            worker,
        })
    }

    /// What it goes on with after a rest.
    pub(super) fn past(&self) -> Past {
        Past { waiting: self.deadline.waiting(), until: self.deadline.at(), requests: self.requests.get() }
    }

    /// Waits for `waiting` for as long as `limit` from now, and no longer than the request may take.
    pub(crate) fn wait_for(&self, waiting: Waiting, limit: Duration) {
        self.deadline.set(waiting, self.time.at_most(self.worker.clock.now().plus(limit)));
    }

    /// Which of the times set for the request has passed.
    pub(crate) fn overdue(&self) -> Option<Overdue> {
        self.time.overdue(self.worker.clock.now())
    }

    /// What is left of the request's time, if it has an end.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        self.time.left(self.worker.clock.now())
    }

    /// One try at a backend begins, or its wait for the response head.
    pub(crate) fn try_begins(&self) {
        if let Some(limit) = self.worker.shared.config.attempts.per_try {
            self.time.try_until(self.worker.clock.now().plus(limit));
        }
    }

    /// Whether what is waited for did not come in time.
    pub(crate) fn expired(&self) -> bool {
        self.deadline.expired()
    }

    /// Notes and counts why the connection ends. The first reason stands.
    pub(crate) fn reject(&self, reason: Rejected) {
        if self.rejected.get().is_none() {
            self.rejected.set(Some(reason));
            self.worker.count_rejected(reason);
        }
    }

    /// The same for what never becomes a request: nobody above will answer it.
    pub(super) fn refuse_head(&self, reason: Rejected) {
        if self.rejected.get().is_none() {
            self.owes_refusal.set(true);
            access::rejected(&self.worker, &self.peer, reason.status(), reason.as_str());
        }
        self.reject(reason);
    }

    /// Whether the current head is that of a HEAD, as far as it has come.
    pub(super) fn asked_for_head_only(&self, head_only: bool) {
        self.head_only.set(head_only);
    }

    pub(super) fn wants_head_only(&self) -> bool {
        self.head_only.get()
    }

    /// Whether the client is still to be told why.
    pub(super) fn owes_refusal(&self) -> bool {
        self.owes_refusal.get()
    }

    pub(crate) fn rejected(&self) -> Option<Rejected> {
        self.rejected.get()
    }

    /// hyper has made a request of the head. `length` is how long it takes the body to be, if it knows.
    ///
    /// # Errors
    /// That is not what the door has seen.
    pub(crate) fn request_begins(&self, length: Option<u64>) -> Result<(), Rejected> {
        let agreed = match self.body.get() {
            Body::None => length == Some(0),
            Body::Length(announced) => length == Some(announced),
            Body::Chunked => length.is_none(),
        };
        self.requests.set(self.requests.get() + 1);
        self.attempts.set(0);
        if let Some(limit) = self.worker.shared.config.attempts.request {
            self.time.request_until(self.worker.clock.now().plus(limit));
        }
        if self.parsing.replace(false) && agreed { Ok(()) } else { Err(Rejected::Framing) }
    }

    /// Whether the current request announced a body.
    pub(crate) fn has_body(&self) -> bool {
        self.body.get() != Body::None
    }

    /// Whether the response to the current request is to be the connection's last.
    pub(crate) fn is_last_request(&self) -> bool {
        self.requests.get() >= self.worker.shared.config.limits.requests_per_connection
    }

    /// The current response is the connection's last, and says so.
    pub(crate) fn last_response(&self) {
        self.last_response.set(true);
    }

    /// The current response, a connection's last, goes to a client of HTTP/1.0, which no last chunk tells that it has all. (A
    /// length may tell it: that is not looked at.)
    pub(crate) fn will_believe_an_end(&self) {
        self.believes_an_end.set(true);
    }

    /// Whether a regular end of the connection could make half a response look complete (RFC 9112 §6.3).
    pub(super) fn believes_an_end(&self) -> bool {
        self.believes_an_end.get()
    }

    /// Whether what is sent now is the end of the connection's last response.
    pub(super) fn is_at_the_end(&self) -> bool {
        self.last_response.get() && self.answered.get()
    }

    /// The response is complete, but perhaps not yet taken by the client: until it is flushed, its body's time runs.
    pub(crate) fn response_done(&self) {
        self.answered.set(true);
        self.time.lift();
        self.wait_for(Waiting::ResponseBody, self.worker.shared.config.timeouts.body_stall);
    }

    /// Whether a head is being parsed: all that hyper can write now is an error reply of its own.
    pub(super) fn is_parsing(&self) -> bool {
        self.parsing.get()
    }

    /// Whether a request is under way: the next one must wait.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.get()
    }

    /// A whole head goes to hyper.
    pub(super) fn head_passed(&self, body: Body, about_server: bool) {
        self.about_server.set(about_server);
        self.body.set(body);
        self.parsing.set(true);
        self.busy.set(true);
        self.unread.set(false);
        self.upload.restart();
        self.download.restart();
    }

    /// hyper's buffer is written out. Returns whether that was the end of a response; `held` bytes of a next request
    /// are here already.
    pub(super) fn flushed(&self, held: bool) -> bool {
        self.flushes.set(self.flushes.get().wrapping_add(1));
        if !self.answered.replace(false) {
            return false;
        }
        self.busy.set(false);
        self.head_begun.set(held);
        let timeouts = &self.worker.shared.config.timeouts;
        if held {
            self.wait_for(Waiting::ClientHead, timeouts.client_head);
        } else {
            self.wait_for(Waiting::NextRequest, timeouts.keep_alive);
        }
        true
    }

    /// What hyper was given when this was less is written.
    pub(crate) fn flushes(&self) -> u32 {
        self.flushes.get()
    }

    /// A byte of a head has come.
    pub(super) fn head_bytes_came(&self) {
        if self.head_begun.replace(true) {
            return;
        }
        match self.deadline.waiting() {
            Waiting::FirstRequest => self.deadline.go_on(Waiting::ClientHead),
            Waiting::NextRequest => {
                self.wait_for(Waiting::ClientHead, self.worker.shared.config.timeouts.client_head);
            }
            _ => {}
        }
    }

    /// Bytes of the request body came, or `None` did although they are waited for.
    ///
    /// # Errors
    /// They come too slowly.
    pub(super) fn body_bytes_came(&self, bytes: Option<usize>) -> Result<(), Rejected> {
        let rate = self.worker.shared.config.limits.min_body_rate;
        if self.upload.keeps(bytes, rate, || self.worker.clock.now()) { Ok(()) } else { Err(Rejected::BodyTimeout) }
    }

    /// The client took bytes of a response, or `None` although they are offered.
    ///
    /// # Errors
    /// It takes them too slowly.
    pub(super) fn bytes_went(&self, bytes: Option<usize>) -> Result<(), Rejected> {
        let config = &self.worker.shared.config;
        if bytes.is_some() && self.deadline.waiting() == Waiting::ResponseBody {
            self.wait_for(Waiting::ResponseBody, config.timeouts.body_stall);
        }
        let rate = config.limits.min_body_rate;
        if self.download.keeps(bytes, rate, || self.worker.clock.now()) { Ok(()) } else { Err(Rejected::SlowReader) }
    }
}

/// As `to_string` would, at a tenth of its cost for the usual kind.
fn text_of(address: IpAddr) -> String {
    let IpAddr::V4(address) = address else { return address.to_string() };
    let mut text = String::with_capacity("255.255.255.255".len());
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        for (least, divisor) in [(100, 100), (10, 10), (0, 1)] {
            if octet >= least {
                text.push(char::from(b'0' + octet / divisor % 10));
            }
        }
    }
    text
}

/// Whether one direction of a message keeps up with a least rate. Only the time counts in which the client is waited
/// for; each byte buys time, up to [`PATIENCE`] of it.
#[derive(Debug, Default)]
struct Pace {
    /// Since when it is waited for.
    since: Cell<Option<Tick>>,
    spent: Cell<Duration>,
}

impl Pace {
    fn restart(&self) {
        self.since.set(None);
        self.spent.set(Duration::ZERO);
    }

    /// Notes that `bytes` moved, or that none did; at `rate` bytes a second, 0 for whatever.
    fn keeps(&self, bytes: Option<usize>, rate: u64, now: impl Fn() -> Tick) -> bool {
        let Some(bytes) = bytes else {
            if self.since.get().is_none() {
                self.since.set(Some(now()));
            }
            return true;
        };
        // The usual case: nothing was waited for.
        let Some(since) = self.since.take() else { return true };
        if rate == 0 {
            return true;
        }
        let bought = Duration::from_secs_f64(bytes as f64 / rate as f64);
        self.spent.set((self.spent.get() + now().since(since)).saturating_sub(bought));
        self.spent.get() <= PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_kept_while_bytes_buy_the_time_they_take() {
        let (pace, second) = (Pace::default(), Duration::from_secs(1));
        let mut now = Tick::default();
        for _ in 0..1000 {
            assert!(pace.keeps(None, 1024, || now));
            now = now.plus(second);
            assert!(pace.keeps(Some(1024), 1024, || now), "just fast enough, for ever");
        }
        let mut seconds = 0;
        loop {
            pace.keeps(None, 1024, || now);
            now = now.plus(second);
            seconds += 1;
            if !pace.keeps(Some(1), 1024, || now) {
                break;
            }
        }
        assert_eq!(seconds, 31, "a byte a second lasts for as long as the patience");
        pace.restart();
        assert!(pace.keeps(Some(1), 1024, || now));
    }

    #[test]
    fn addresses_are_written_as_everywhere() {
        for octet in 0..=255 {
            let address = IpAddr::from([octet, 0, 255 - octet, 10]);
            assert_eq!(text_of(address), address.to_string());
        }
        assert_eq!(text_of("2001:db8::1".parse().unwrap()), "2001:db8::1");
    }

    #[test]
    fn nobody_is_cut_without_a_rate() {
        let pace = Pace::default();
        pace.keeps(None, 0, Tick::default);
        assert!(pace.keeps(Some(1), 0, || Tick::default().plus(Duration::from_secs(3600))));
    }
}
