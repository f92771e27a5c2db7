//! Binding, accepting, and handing connections to workers.
//!
//! All workers accept from one socket, each through its own copy of it: one queue in the kernel, so that a shutdown
//! can empty it completely (a socket per worker with SO_REUSEPORT resets what waits in its queue when it closes), and
//! a port that is taken is noticed. Who accepts is whoever wakes first; a worker that already has more connections
//! than another hands the new one over, so that long-lived connections spread evenly too.
//!
//! A connection needs a place ([`admission`]) before it is accepted, is taken in by [`arrival`], and may count towards
//! its client's limit ([`per_client`]).

mod admission;
mod arrival;
mod per_client;

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use lb_core::health::is_our_own;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::deadline::SWEEP_INTERVAL;
use crate::worker::Worker;
pub(crate) use admission::{Admission, Pause, Place};
pub(crate) use arrival::{Peer, Seat};

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn` (4096 by default).
const BACKLOG: i32 = 4096;

/// How many connections more than the least loaded worker one may have before it hands over.
const SLACK: usize = 1;

/// First pause after an accept that failed for want of descriptors or memory, so as not to spin; it doubles up to the
/// longest: clients wait, but a system in need is not asked a hundred times a second.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How long a worker that finds no place leaves the others to accept the client that has the last one.
const LAST_CLIENT: Duration = Duration::from_millis(10);

/// Errors after which the last emptying of the queue is given up, and the pause after each.
const MOST_LAST_ERRORS: u32 = 100;
const LAST_PAUSE: Duration = Duration::from_millis(10);

/// A connection on its way to another worker.
pub(crate) type Handed = (TcpStream, SocketAddr, Place);

/// Opens a listening socket. `::` takes IPv4 as well; where there is no IPv6, it means `0.0.0.0`.
///
/// # Errors
/// The address is taken, not ours, or not allowed.
pub(crate) fn bind(address: IpAddr, port: u16) -> io::Result<std::net::TcpListener> {
    match open(SocketAddr::new(address, port)) {
        Err(error) if address == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && no_ipv6(&error) => {
            open(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))
        }
        bound => bound,
    }
}

fn open(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A restart must not wait for connections of the former process to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    // Set here, it is inherited by every accepted socket: one system call less per connection.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// EAFNOSUPPORT or EADDRNOTAVAIL: IPv6 is not there.
fn no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.kind() == io::ErrorKind::Unsupported
        || error.raw_os_error() == Some(97)
}

/// A worker's copy of the listening socket. What it accepts is not watched yet: see
/// [`ClientSocket`](crate::conn).
pub(crate) struct Listener {
    socket: AsyncFd<mio::net::TcpListener>,
    /// Whether there are other workers, which may be faster.
    contended: bool,
    /// Whether to ask for a client first: one may have been accepted since the runtime last told that some have come.
    asks: Cell<bool>,
    /// Nobody has waited since this was last taken back.
    emptied: Cell<bool>,
}

impl Listener {
    /// One of as many as there are `workers`.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub(crate) fn new(listener: std::net::TcpListener, workers: usize) -> io::Result<Self> {
        let listener = mio::net::TcpListener::from_std(listener);
        #[expect(deprecated, reason = "unsound only for what may close its descriptor early: a listener keeps its own")]
        let socket = AsyncFd::with_interest(listener, tokio::io::Interest::READABLE)?;
        let contended = workers > 1;
        Ok(Self { socket, contended, asks: Cell::new(contended), emptied: Cell::new(true) })
    }

    /// Accepts one. The runtime tells that some have come, and not how many, and it tells all workers. To accept in vain is
    /// dear, since the kernel makes a socket and a file first, and asking is not: with new connections only, it saves a
    /// twentieth of all that one costs.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        loop {
            let Poll::Ready(ready) = self.socket.poll_read_ready(cx) else {
                self.emptied.set(true);
                return Poll::Pending;
            };
            let mut ready = ready?;
            if self.asks.replace(true) && !self.somebody_waits() {
                self.asks.set(self.contended);
                ready.clear_ready();
                continue;
            }
            match ready.try_io(|listener| listener.get_ref().accept()) {
                Ok(accepted) => return Poll::Ready(accepted.map(|(stream, peer)| (stream.into(), peer))),
                // Another worker was faster.
                Err(_cleared) => self.asks.set(self.contended),
            }
        }
    }

    /// Whether a client waits to be accepted. The kernel is asked: the runtime knows only that one has come some time.
    fn somebody_waits(&self) -> bool {
        let mut asked = [PollFd::new(self.socket.get_ref(), PollFlags::IN)];
        // What it cannot say, an accept will.
        poll(&mut asked, Some(&Timespec::default())).map_or(true, |ready| ready > 0)
    }

    fn accept_now(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.socket.get_ref().accept().map(|(stream, peer)| (stream.into(), peer))
    }
}

/// What came of trying to accept.
enum Next {
    Came(TcpStream, SocketAddr, Place),
    /// There is no place for another.
    Full,
    Failed(io::Error),
}

/// Accepts until `stop`, then takes what the kernel has already queued, and closes the listener.
pub(crate) async fn accept(
    worker: &Rc<Worker>,
    listener: Listener,
    peers: &[mpsc::Sender<Handed>],
    stop: impl Future<Output = ()>,
) {
    let admission = &worker.shared.admission;
    let mut stop = std::pin::pin!(stop);
    let mut pause = SHORTEST_PAUSE;
    let mut crowded = Instant::now();
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = next(worker, &listener) => accepted,
        };
        match accepted {
            Next::Came(stream, peer, place) => {
                pause = SHORTEST_PAUSE;
                dispatch(worker, stream, peer, place, peers);
            }
            Next::Full => {
                let _paused = admission.pause(Pause::Connections, &"as many are open as may be");
                // Clients may come and go all the time while others wait: that does not begin anew with each of them.
                if listener.emptied.replace(false) {
                    crowded = Instant::now();
                }
                tokio::select! {
                    () = &mut stop => break,
                    () = admission.free() => {}
                    () = ask_for_room(admission, &listener, crowded) => {}
                }
            }
            // The client gave up while it waited: its business.
            Next::Failed(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // Idle connections to backends are worth less than a client.
            Next::Failed(error) if is_our_own(&error) && worker.close_idle() > 0 => {}
            Next::Failed(error) => {
                let _paused = admission.pause(Pause::Descriptors, &error);
                tokio::select! {
                    () = &mut stop => break,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
    empty(worker, &listener).await;
}

/// Tries to accept. A place is taken only while there may be a connection for it, so that a worker that waits for one
/// keeps none from the others.
///
/// # Cancel safety
/// Nothing is lost: what is accepted is returned in the same poll.
async fn next(worker: &Worker, listener: &Listener) -> Next {
    poll_fn(|cx| {
        let Some(place) = worker.shared.admission.enter() else { return Poll::Ready(Next::Full) };
        match listener.poll_accept(cx) {
            Poll::Ready(Ok((stream, peer))) => Poll::Ready(Next::Came(stream, peer, place)),
            Poll::Ready(Err(error)) => Poll::Ready(Next::Failed(error)),
            Poll::Pending => {
                worker.shared.admission.ask_for_room(false);
                Poll::Pending
            }
        }
    })
    .await
}

/// Says whether a client waits for a place, as often as connections at rest are swept, when there has been no end to it since
/// `crowded`. Not at once: whoever took the last place may be about to accept the client that it is for, and then nobody
/// waits. Never ends.
async fn ask_for_room(admission: &Admission, listener: &Listener, crowded: Instant) {
    let first = crowded + LAST_CLIENT;
    // A timer would end no sooner than the next turn of the runtime, and a place that comes free meanwhile end this.
    if Instant::now() < first {
        tokio::time::sleep_until(first).await;
    }
    loop {
        admission.ask_for_room(listener.somebody_waits());
        tokio::time::sleep(SWEEP_INTERVAL).await;
    }
}

/// Takes what is left in the queue. Clients whose handshake is complete believe they are connected: they get an answer,
/// whatever the limit. One of them may have given up meanwhile, which is an error of its own and not the end of the
/// queue; so is a moment without descriptors.
async fn empty(worker: &Rc<Worker>, listener: &Listener) {
    let mut errors = 0;
    while errors < MOST_LAST_ERRORS {
        match listener.accept_now() {
            Ok((stream, peer)) => spawn(worker, stream, peer, worker.shared.admission.enter_anyway()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => {
                errors += 1;
                tokio::time::sleep(LAST_PAUSE).await;
            }
        }
    }
}

fn dispatch(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, place: Place, peers: &[mpsc::Sender<Handed>]) {
    if !worker.shared.overload.has_room() {
        return arrival::refuse(worker, stream, peer, Open::new(worker, place));
    }
    let load = |id: usize| worker.shared.workers[id].connections.load(Ordering::Relaxed);
    let least = (0..peers.len()).min_by_key(|id| load(*id)).unwrap_or(worker.id);
    if least != worker.id
        && load(worker.id) > load(least) + SLACK
        && let Some(peers) = peers.get(least)
        && let Ok(permit) = peers.try_reserve()
    {
        return permit.send((stream, peer, place));
    }
    spawn(worker, stream, peer, place);
}

/// Serves a connection on this worker.
pub(crate) fn spawn(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, place: Place) {
    let open = Open::new(worker, place);
    worker.slot().busy.notify_one();
    tokio::task::spawn_local(arrival::receive(Rc::clone(worker), stream, peer, open));
}

/// Counts a connection for as long as it lives, also when its task panics.
struct Open {
    worker: Rc<Worker>,
    _place: Place,
}

impl Open {
    fn new(worker: &Rc<Worker>, place: Place) -> Self {
        worker.slot().shard.accepted.add(1);
        worker.slot().connections.fetch_add(1, Ordering::Relaxed);
        Self { worker: Rc::clone(worker), _place: place }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let slot = self.worker.slot();
        slot.shard.closed.add(1);
        slot.connections.fetch_sub(1, Ordering::Relaxed);
        if std::thread::panicking() {
            slot.shard.panics.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_that_wait_are_accepted_and_whoever_comes_later_is_told_of() {
        for workers in [1, 2] {
            let socket = bind(IpAddr::V4(Ipv4Addr::LOCALHOST), 0).unwrap();
            let address = socket.local_addr().unwrap();
            let listener = Listener::new(socket, workers).unwrap();
            let soon = Duration::from_secs(10);
            for rush in [3, 1, 5] {
                let clients: Vec<_> = (0..rush).map(|_| TcpStream::connect(address).unwrap()).collect();
                for client in &clients {
                    let accepted = tokio::time::timeout(soon, poll_fn(|cx| listener.poll_accept(cx))).await;
                    assert_eq!(accepted.expect("told of").unwrap().1, client.local_addr().unwrap());
                }
                let mut more = std::pin::pin!(poll_fn(|cx| listener.poll_accept(cx)));
                tokio::select! {
                    biased;
                    _ = &mut more => panic!("nobody is left"),
                    () = tokio::task::yield_now() => {}
                }
                assert!(!listener.somebody_waits());
            }
        }
    }
    #[tokio::test]
    async fn room_is_asked_for_while_a_client_waits_and_not_for_one_that_is_being_accepted() {
        let socket = bind(IpAddr::V4(Ipv4Addr::LOCALHOST), 0).unwrap();
        let address = socket.local_addr().unwrap();
        let listener = Listener::new(socket, 1).unwrap();
        let admission = Admission::new(1, None);
        // Looked at once for all that it does at once, and then for as long as it takes to ask.
        let ask = async |crowded, until: &mut (dyn Future<Output = ()> + Unpin)| {
            tokio::select! {
                biased;
                () = ask_for_room(&admission, &listener, crowded) => {}
                () = until => {}
            }
            admission.is_asked_for_room()
        };
        let soon = || Box::pin(tokio::time::sleep(LAST_CLIENT * 3));
        let _client = TcpStream::connect(address).unwrap();
        let now = Instant::now;
        let at_once = || std::future::ready(());
        assert!(!ask(now(), &mut at_once()).await, "not at once");
        assert!(ask(now(), &mut soon()).await, "it waits");
        assert!(ask(now() - LAST_CLIENT, &mut at_once()).await, "others have waited before it");
        listener.accept_now().unwrap();
        admission.ask_for_room(true);
        assert!(!ask(now(), &mut soon()).await, "it has been accepted");
    }
}
