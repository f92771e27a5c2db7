//! One request's line to be, from its arrival to the end of its response.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use http::header::HOST;
use http::request::Parts;
use http::{Method, StatusCode, Version};
use lb_core::metrics::LocalReply;

use super::address::forwarded_for;
use super::line::{Ended, Facts, Head};
use crate::clock::Tick;
use crate::conn::Client;
use crate::listen::Peer;
use crate::proxy::sent_target;
use crate::worker::Worker;

/// What will be a line. Empty when the access log is off. Its drop writes the line; until something else is said, that
/// is one of a client that went away before there was a response.
#[derive(Default)]
pub(crate) struct Entry(Option<Open>);

struct Open {
    worker: Rc<Worker>,
    arrived: Tick,
    facts: Box<Facts>,
}

impl Entry {
    /// A request has come.
    pub(crate) fn begin(client: &Client, head: &Parts, arrived: Tick) -> Self {
        let Some(lines) = &client.worker.access else { return Self::default() };
        let mut facts = lines.facts();
        let (socket, address);
        let peer_text = if client.peer.socket == client.peer.client {
            &client.address_text
        } else {
            socket = client.peer.socket.ip().to_canonical().to_string();
            &socket
        };
        let client_text = match effective(client, head) {
            Some(behind) => {
                address = behind.to_string();
                &address
            }
            None => &client.address_text,
        };
        let target = target(client, head);
        let host = head.uri.authority().map(|authority| authority.as_str().as_bytes());
        let head = Head {
            peer: (peer_text, client.peer.socket.port()),
            client: client_text.as_bytes(),
            method: head.method.as_str().as_bytes(),
            target: target.as_bytes(),
            host: host.or_else(|| head.headers.get(HOST).map(|host| host.as_bytes())).unwrap_or_default(),
            version: version(head.version),
        };
        head.put(&mut facts.head);
        Self(Some(Open { worker: Rc::clone(&client.worker), arrived, facts }))
    }

    fn facts(&mut self) -> Option<&mut Facts> {
        self.0.as_mut().map(|open| &mut *open.facts)
    }

    /// What the request is called in logs on all sides.
    pub(crate) fn identify(&mut self, id: &[u8]) {
        if let Some(facts) = self.facts() {
            facts.id.extend_from_slice(id);
        }
    }

    /// The pool that is to answer.
    pub(crate) fn routed(&mut self, pool: &str) {
        if let Some(facts) = self.facts() {
            facts.pool.clear();
            facts.pool.extend_from_slice(pool.as_bytes());
        }
    }

    /// One more attempt, at `backend`.
    pub(crate) fn attempt(&mut self, backend: &str) {
        if let Some(facts) = self.facts() {
            facts.attempts += 1;
            facts.request_bytes = 0;
            facts.backend.clear();
            facts.backend.extend_from_slice(backend.as_bytes());
        }
    }

    /// So many bytes of the request's body went to the backend in this attempt.
    pub(crate) fn sent_to_backend(&mut self, bytes: u64) {
        if let Some(facts) = self.facts() {
            facts.request_bytes += bytes;
        }
    }

    /// The backend's response head is on its way to the client.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        if let Some(facts) = self.facts() {
            facts.status = status.as_u16();
        }
    }

    /// So many bytes of the response's body went to the client.
    pub(crate) fn sent_to_client(&mut self, bytes: u64) {
        if let Some(facts) = self.facts() {
            facts.response_bytes += bytes;
        }
    }

    /// The response has been handed over to its last byte.
    pub(crate) fn complete(&mut self) {
        self.end(Ended::Complete);
    }

    /// The response broke off at the backend.
    pub(crate) fn backend_broke(&mut self) {
        self.end(Ended::BackendBroke);
    }

    /// The response was cut: the request's time has passed.
    pub(crate) fn overdue(&mut self) {
        self.end(Ended::Overdue);
    }

    /// It was cut off here, by a drain.
    pub(crate) fn drained(&mut self) {
        self.end(Ended::Drained);
    }

    fn end(&mut self, ended: Ended) {
        if let Some(facts) = self.facts() {
            facts.ended = ended;
        }
    }

    /// The reply is ours, with a body of so many bytes. `reason` is its label; `gone` says that nobody took it.
    pub(crate) fn reply(mut self, status: u16, reason: &'static str, gone: bool, body_bytes: u64) {
        if let Some(facts) = self.facts() {
            facts.status = status;
            facts.reason = reason;
            if !gone {
                facts.response_bytes = body_bytes;
                facts.ended = Ended::Complete;
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Some(Open { worker, arrived, mut facts }) = self.0.take() else { return };
        let Some(lines) = &worker.access else { return };
        if facts.status == 0 {
            facts.status = LocalReply::ClientGone.status();
            facts.reason = LocalReply::ClientGone.as_str();
        }
        let now = worker.clock.now();
        lines.write(&facts, now, now.since(arrived));
        lines.done_with(facts);
    }
}

/// A line for what came from `peer` and was turned away before it was a request that could be read: it has a status
/// and a reason, and nothing else is known of it.
pub(crate) fn rejected(worker: &Worker, peer: &Peer, status: u16, reason: &'static str) {
    let Some(lines) = &worker.access else { return };
    let mut facts = lines.facts();
    let text = |address: std::net::SocketAddr| address.ip().to_canonical().to_string();
    let (socket, address) = (text(peer.socket), text(peer.client));
    let (peer, client) = ((&*socket, peer.socket.port()), address.as_bytes());
    Head { peer, client, method: b"", target: b"", host: b"", version: "" }.put(&mut facts.head);
    facts.status = status;
    facts.reason = reason;
    facts.ended = Ended::Complete;
    lines.write(&facts, worker.clock.now(), Duration::ZERO);
    lines.done_with(facts);
}

fn effective(client: &Client, head: &Parts) -> Option<IpAddr> {
    // Only who is trusted may say whom a request is from.
    client.trusted.then(|| forwarded_for(&head.headers, &client.worker.shared.config.trusted_proxies)).flatten()
}

/// As it is sent to backends; of what is sent to none, as much as can be said. CONNECT has an authority only.
fn target<'a>(client: &Client, head: &'a Parts) -> Cow<'a, str> {
    match (sent_target(client, head), head.uri.authority()) {
        (_, Some(authority)) if head.method == Method::CONNECT => Cow::Borrowed(authority.as_str()),
        (Some(target), _) => target,
        (None, _) => Cow::Borrowed(head.uri.path()),
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_11 => "1.1",
        Version::HTTP_2 => "2.0",
        _ => "",
    }
}
