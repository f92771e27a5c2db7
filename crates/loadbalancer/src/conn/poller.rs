//! A worker's own poller: it watches sockets that no task waits for. To the runtime it is one descriptor.
//!
//! What is told of such a socket costs hardly more than the look that finds it: no task is woken, put in a queue and polled
//! for it, and nobody has to say anew that there is somebody to tell. So it is for sockets of which there are very many, that is
//! connections at [`rest`](super::rest), and for those that are told very often and need little done then: the two of a
//! tunnel (see [`carrier`](super::carrier)).
//!
//! Each is told once of whatever changes (edge-triggered): who is told takes everything there is, or remembers that it has not.
//!
//! State: the registry, from the moment at which somebody looks until looking fails. Belongs to one worker.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use tokio::io::unix::AsyncFd;

use super::carrier::Side;
use crate::worker::Worker;

/// Told at one look; the rest of a rush comes at the next, after what else the worker has to do.
const TOLD_AT_ONCE: usize = 128;

/// Second looks that are left out after one that found nothing.
const LEFT_OUT: u32 = 15;

/// If looking fails, it is tried again after this, and then after twice as long each time, up to that.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A socket's place: what it is, and which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A connection at rest.
    Sleeper(usize),
    /// A tunnel's socket.
    Tunnel(usize, Side),
}

impl Place {
    fn token(self) -> Token {
        Token(match self {
            Self::Sleeper(key) => key * 3,
            Self::Tunnel(key, Side::Client) => key * 3 + 1,
            Self::Tunnel(key, Side::Backend) => key * 3 + 2,
        })
    }

    fn of(token: Token) -> Self {
        let key = token.0 / 3;
        match token.0 % 3 {
            0 => Self::Sleeper(key),
            1 => Self::Tunnel(key, Side::Client),
            _ => Self::Tunnel(key, Side::Backend),
        }
    }

    fn interest(self) -> Interest {
        match self {
            Self::Sleeper(_) => Interest::READABLE,
            Self::Tunnel(..) => Interest::READABLE | Interest::WRITABLE,
        }
    }
}

/// What a worker watches besides the runtime.
#[derive(Default)]
pub(crate) struct Poller {
    /// As long as [`watch`] watches.
    registry: RefCell<Option<Registry>>,
}

impl Poller {
    /// Watches a socket. What has come already is told at once.
    ///
    /// # Errors
    /// The system has no memory for it, or nobody looks.
    pub(super) fn add(&self, socket: &TcpStream, place: Place) -> io::Result<()> {
        self.with(|registry| registry.register(&mut SourceFd(&socket.as_raw_fd()), place.token(), place.interest()))
    }

    /// Watches it in another place from now on.
    ///
    /// # Errors
    /// It is not watched.
    pub(super) fn move_to(&self, socket: &TcpStream, place: Place) -> io::Result<()> {
        self.with(|registry| registry.reregister(&mut SourceFd(&socket.as_raw_fd()), place.token(), place.interest()))
    }

    /// Watches it no longer. One that is closed need not be removed.
    pub(super) fn remove(&self, socket: &TcpStream) {
        // It fails only for what is not watched, and then there is nothing to undo.
        let _ = self.with(|registry| registry.deregister(&mut SourceFd(&socket.as_raw_fd())));
    }

    fn with(&self, act: impl FnOnce(&Registry) -> io::Result<()>) -> io::Result<()> {
        self.registry.borrow().as_ref().map_or_else(|| Err(io::ErrorKind::NotConnected.into()), act)
    }
}

/// Looks and tells. Ends with the runtime.
pub(crate) async fn watch(worker: Rc<Worker>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let Err(error) = try_watch(&worker).await;
        if worker.poller.registry.take().is_some() {
            // It has looked for a while.
            pause = FIRST_PAUSE;
        }
        tracing::warn!(
            %error,
            worker = worker.id,
            again_in = ?pause,
            "a worker cannot watch connections at rest and tunnels; idle connections take more memory, and tunnels end"
        );
        worker.rest.wake_all(&worker);
        worker.carrier.break_all();
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

async fn try_watch(worker: &Rc<Worker>) -> io::Result<Infallible> {
    let poll = Poll::new()?;
    let registry = poll.registry().try_clone()?;
    #[expect(deprecated, reason = "unsound only for what may close its descriptor early: a poller keeps its own")]
    let mut poll = AsyncFd::with_interest(poll, tokio::io::Interest::READABLE)?;
    let mut events = Events::with_capacity(TOLD_AT_ONCE);
    // Only now: what is watched has somebody to tell.
    worker.poller.registry.replace(Some(registry));
    let mut second = SecondLook::default();
    loop {
        let mut ready = poll.readable_mut().await?;
        let mut told = 0;
        loop {
            match ready.get_inner_mut().poll(&mut events, Some(Duration::ZERO)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let mut found = 0;
            for event in &events {
                tell(worker, event);
                found += 1;
            }
            if told > 0 {
                second.found(found);
            }
            told += found;
            if told >= TOLD_AT_ONCE {
                // A rush must not keep the worker from what else there is to do.
                break tokio::task::yield_now().await;
            }
            if found == 0 || !second.is_worth_it() {
                // That was all: the runtime tells of what comes after it.
                break ready.clear_ready();
            }
        }
    }
}

fn tell(worker: &Rc<Worker>, event: &Event) {
    let tell = || match Place::of(event.token()) {
        Place::Sleeper(key) => worker.rest.wake(worker, key),
        Place::Tunnel(key, side) => worker.carrier.tell(worker, key, side, event),
    };
    // One of them is lost, and counted by its seat. Nobody would look for the others.
    if catch_unwind(AssertUnwindSafe(tell)).is_err() {
        tracing::error!(worker = worker.id, "a connection was lost to a panic");
    }
}

/// Whether to look once more before the runtime is asked to say that there is something. To look by way of the runtime takes
/// two system calls, so where more comes while the last was told, a direct look costs half; where nothing does, it is one for
/// nothing, and then it is left out a few times.
#[derive(Default)]
struct SecondLook {
    left_out: u32,
}

impl SecondLook {
    fn is_worth_it(&mut self) -> bool {
        match self.left_out.checked_sub(1) {
            None => true,
            Some(left) => {
                self.left_out = left;
                false
            }
        }
    }

    fn found(&mut self, count: usize) {
        if count == 0 {
            self.left_out = LEFT_OUT;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_a_token_of_its_own() {
        let places = (0..9)
            .flat_map(|key| [Place::Sleeper(key), Place::Tunnel(key, Side::Client), Place::Tunnel(key, Side::Backend)]);
        for (number, place) in places.enumerate() {
            assert_eq!((place.token(), Place::of(Token(number))), (Token(number), place));
        }
    }

    #[test]
    fn a_look_for_nothing_is_not_made_again_at_once() {
        let mut second = SecondLook::default();
        assert!((0..100).all(|_| second.is_worth_it()));
        second.found(1);
        assert!(second.is_worth_it());
        second.found(0);
        let made: Vec<bool> = (0..2 * LEFT_OUT).map(|_| second.is_worth_it()).collect();
        assert_eq!(made.iter().position(|made| *made), Some(LEFT_OUT as usize));
        assert!(made[LEFT_OUT as usize..].iter().all(|made| *made), "until one finds nothing again");
    }

    #[test]
    fn nothing_is_watched_while_nobody_looks() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let poller = Poller::default();
        assert!(poller.add(&socket, Place::Sleeper(0)).is_err());
        poller.remove(&socket);
    }
}
