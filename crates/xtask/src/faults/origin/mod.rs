//! The fault server: a process that answers rightly or wrongly, as its standard input says, and keeps its book.
//!
//! One program for all faults of a server and of the network before it: raw bytes over TCP, so that nothing corrects
//! what it does wrong. It ends when its standard input does, so it never outlives the run.

mod book;
mod mode;
mod serve;

use std::cell::RefCell;
use std::io::{BufRead, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::ident::Numbers;
use crate::Error;
use book::Book;
use mode::{ABSENCE, BURST};
use serve::serve;

pub(super) use mode::{How, Mode, PLACES, Place};

/// Options of `fault-origin`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    bind: IpAddr,
    #[arg(long)]
    port: u16,
    /// Its number in the ledger
    #[arg(long)]
    number: u8,
    /// Its book
    #[arg(long, value_name = "FILE")]
    book: PathBuf,
    #[arg(long, default_value = "serve")]
    mode: Mode,
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// What a graceful stop waits for at most.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// After a bind failed: the port of what was here before is free in a moment.
const BIND_AGAIN: Duration = Duration::from_millis(2);

/// What all connections watch.
#[derive(Clone, Copy, Debug, PartialEq)]
struct State {
    mode: Mode,
    /// Nobody listens.
    shut: bool,
    /// Every connection is reset.
    gone: bool,
    /// No more requests are taken.
    stopping: bool,
    /// Counts the orders, so that each can be said to be carried out.
    order: u64,
}

/// What is shared by all connections of one origin.
struct Origin {
    number: u8,
    state: watch::Receiver<State>,
    book: Book,
    numbers: RefCell<Numbers>,
    started: Instant,
}

/// # Errors
/// When it cannot serve.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let failed = |e: std::io::Error| Error::Failed(format!("fault origin: {e}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let book = Book::open(&args.book, args.number).map_err(failed)?;
    let first = State { mode: args.mode, shut: args.mode == Mode::Refuse, gone: false, stopping: false, order: 0 };
    let (state_tx, state) = watch::channel(first);
    let numbers = RefCell::new(Numbers::new(args.seed ^ u64::from(args.number)));
    let origin = Rc::new(Origin { number: args.number, state, book, numbers, started: Instant::now() });
    let (applied_tx, applied) = watch::channel(0);
    let local = tokio::task::LocalSet::new();
    local.spawn_local(accept(Rc::clone(&origin), SocketAddr::new(args.bind, args.port), applied_tx));
    local.block_on(&runtime, obey(state_tx, applied));
    Ok(())
}

/// Takes orders until there are no more, and lets the mode come and go where it does.
async fn obey(state: watch::Sender<State>, mut applied: watch::Receiver<u64>) {
    let mut orders = orders();
    let _ = applied.changed().await;
    answer("ready");
    let started = Instant::now();
    loop {
        let mode = state.borrow().mode;
        let turn = async {
            match mode {
                Mode::Vanish => sleep(until_turn(started.elapsed(), ABSENCE)).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            order = orders.recv() => match order.as_deref() {
                None => return,
                Some("stop") => {
                    state.send_modify(|state| state.stopping = true);
                    let gone = async { while state.receiver_count() > 1 { sleep(Duration::from_millis(2)).await; } };
                    let _ = tokio::time::timeout(STOP_WITHIN, gone).await;
                    return;
                }
                Some(order) => match order.parse::<Mode>() {
                    Ok(mode) => {
                        let shut = mode == Mode::Refuse;
                        state.send_modify(|state| *state = State { mode, shut, gone: false, order: state.order + 1, ..*state });
                        let order = state.borrow().order;
                        let _ = applied.wait_for(|done| *done >= order).await;
                        answer("ok");
                    }
                    Err(e) => answer(&e),
                },
            },
            () = turn => {
                let gone = is_within(started.elapsed(), ABSENCE);
                state.send_modify(|state| (state.shut, state.gone) = (gone, gone));
            }
        }
    }
}

fn answer(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// The lines of standard input.
fn orders() -> mpsc::UnboundedReceiver<String> {
    let (tx, rx) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if tx.send(line).is_err() {
                return;
            }
        }
    });
    rx
}

/// Whether the time is within the part of the period.
fn is_within(elapsed: Duration, (period, part): (Duration, Duration)) -> bool {
    elapsed.as_millis() % period.as_millis() < part.as_millis()
}

/// Until that changes.
fn until_turn(elapsed: Duration, (period, part): (Duration, Duration)) -> Duration {
    let at = elapsed.as_micros() % period.as_micros();
    let turn = if at < part.as_micros() { part } else { period };
    // Just past it, so that the next look is on the other side.
    Duration::from_micros((turn.as_micros() - at) as u64 + 100)
}

async fn accept(origin: Rc<Origin>, address: SocketAddr, applied: watch::Sender<u64>) {
    let mut state = origin.state.clone();
    let mut listener = None;
    loop {
        let now = *state.borrow_and_update();
        if now.stopping {
            return;
        }
        if now.shut {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(address).await.ok();
            if listener.is_none() {
                sleep(BIND_AGAIN).await;
                continue;
            }
        }
        if *applied.borrow() != now.order || now.order == 0 {
            applied.send_replace(now.order);
        }
        let next = async {
            match &listener {
                Some(listener) => listener.accept().await.ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            next = next => if let Some((stream, _)) = next { welcome(&origin, stream) },
        }
    }
}

fn welcome(origin: &Rc<Origin>, mut stream: TcpStream) {
    let mode = origin.state.borrow().mode;
    let burst = mode == Mode::ResetBursts && is_within(origin.started.elapsed(), BURST);
    if burst || mode == Mode::ResetFresh {
        let _ = stream.set_zero_linger();
        return;
    }
    let _ = stream.set_nodelay(true);
    let origin = Rc::clone(origin);
    tokio::task::spawn_local(async move {
        let mut state = origin.state.clone();
        let reset = tokio::select! {
            reset = serve(&origin, &mut stream) => reset,
            _ = state.wait_for(|state| state.gone) => true,
        };
        if reset {
            let _ = stream.set_zero_linger();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_each_period_is_another() {
        let period = (Duration::from_millis(1000), Duration::from_millis(200));
        let ms = Duration::from_millis;
        for (at, within, until) in [(0, true, 200), (199, true, 1), (200, false, 800), (1100, true, 100)] {
            assert_eq!(is_within(ms(at), period), within, "{at}");
            assert_eq!(until_turn(ms(at), period).as_millis(), until, "{at}");
            assert_eq!(is_within(ms(at) + until_turn(ms(at), period), period), !within, "{at}");
        }
    }
}
