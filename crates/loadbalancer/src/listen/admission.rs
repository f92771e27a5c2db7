//! How many client connections may be open, and the pause when there is no place for more.
//!
//! One count for all workers, changed when a connection comes or goes and never by a request. A worker that finds no
//! place does not accept: clients wait in the kernel's queue, which costs nothing here, and the next close wakes it. While
//! some do wait, each worker's sweep closes connections at rest for them ([`Rest`](crate::conn::Rest)).

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use tokio::sync::Notify;

use super::per_client::PerClient;

/// Pauses that follow one another faster than this are one episode: at the limit, every close lets one client in.
const EPISODE_GAP: Duration = Duration::from_secs(1);

/// The door.
#[derive(Debug)]
pub(crate) struct Admission {
    most: usize,
    /// Places taken. Written by all workers.
    taken: CachePadded<AtomicUsize>,
    /// Workers that wait for a place.
    waiting: AtomicUsize,
    freed: Notify,
    /// A client waits for a place. Set by workers that have none; taken back by the one that makes room, and by whoever sees
    /// that nobody waits.
    wanted: AtomicBool,
    pauses: [Pauses; Pause::ALL.len()],
    pub per_client: Option<Arc<PerClient>>,
}

/// Why accepting pauses. A fixed set: it is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// `limits.connections` are open.
    Connections,
    /// The system gives no descriptor or memory.
    Descriptors,
}

/// The place of one connection; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Admission>);

/// Lasts for as long as a worker pauses.
pub(crate) struct Paused<'a> {
    admission: &'a Admission,
    pause: Pause,
}

#[derive(Debug, Default)]
struct Pauses {
    episodes: AtomicU64,
    now: AtomicUsize,
    /// When the last pause ended. Locked only when a pause begins or ends.
    ended: Mutex<Option<Instant>>,
}

impl Pause {
    pub(crate) const ALL: [Self; 2] = [Self::Connections, Self::Descriptors];

    /// The label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Descriptors => "descriptors",
        }
    }
}

impl Admission {
    /// For `most` connections, and so many of one client.
    pub(crate) fn new(most: usize, most_per_client: Option<u32>) -> Arc<Self> {
        Arc::new(Self {
            most,
            taken: CachePadded::default(),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
            wanted: AtomicBool::new(false),
            pauses: Default::default(),
            per_client: most_per_client.map(PerClient::new),
        })
    }

    /// The limit.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// A place, if one is free.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Place> {
        // Not by adding and taking back: the other workers would see a place taken that never was.
        let add = |taken| (taken < self.most).then_some(taken + 1);
        let entered = self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
        entered.is_ok().then(|| Place(Arc::clone(self)))
    }

    /// A place beyond the limit: at a shutdown, for clients that believe they are connected.
    pub(crate) fn enter_anyway(self: &Arc<Self>) -> Place {
        self.taken.fetch_add(1, Ordering::SeqCst);
        Place(Arc::clone(self))
    }

    /// Waits until there is a free place, or may be.
    ///
    /// # Race window
    /// A place that is given back between a failed [`Self::enter`] and this call is not missed: the wait is announced
    /// first and the count looked at after it, while a leaver counts first and looks for waiters after it. Both are
    /// sequentially consistent, so at least one sees the other.
    ///
    /// # Cancel safety
    /// Dropped, nobody is counted as waiting; a wake-up that came meanwhile goes to another waiter.
    pub(crate) async fn free(&self) {
        let freed = self.freed.notified();
        let _waiting = Waiting::new(&self.waiting);
        if self.taken.load(Ordering::SeqCst) >= self.most {
            freed.await;
        }
    }

    /// Says whether a client waits for a place. It is read much more often than it changes.
    pub(super) fn ask_for_room(&self, wanted: bool) {
        if self.wanted.load(Ordering::Relaxed) != wanted {
            self.wanted.store(wanted, Ordering::Relaxed);
        }
    }

    /// Whether a client waits for a place, and nobody else makes room for it. A hint: who still waits asks again.
    pub(crate) fn is_asked_for_room(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) && self.wanted.swap(false, Ordering::Relaxed)
    }

    /// Notes that a worker pauses, and warns once per episode.
    pub(crate) fn pause(&self, pause: Pause, why: &dyn std::fmt::Display) -> Paused<'_> {
        let pauses = &self.pauses[pause as usize];
        let ended = pauses.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let before = pauses.now.fetch_add(1, Ordering::Relaxed);
        if before == 0 && ended.is_none_or(|ended| ended.elapsed() > EPISODE_GAP) {
            pauses.episodes.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(reason = pause.as_str(), limit = self.most, "accepting pauses, clients wait: {why}");
        }
        Paused { admission: self, pause }
    }

    /// For `pause`: how often accepting has begun to pause, and whether it does now.
    pub(crate) fn paused(&self, pause: Pause) -> (u64, bool) {
        let pauses = &self.pauses[pause as usize];
        (pauses.episodes.load(Ordering::Relaxed), pauses.now.load(Ordering::Relaxed) > 0)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::SeqCst);
        if self.0.waiting.load(Ordering::SeqCst) > 0 {
            self.0.freed.notify_one();
        }
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        let pauses = &self.admission.pauses[self.pause as usize];
        let mut ended = pauses.ended.lock().unwrap_or_else(PoisonError::into_inner);
        pauses.now.fetch_sub(1, Ordering::Relaxed);
        *ended = Some(Instant::now());
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_connection_is_gone() {
        let admission = Admission::new(2, None);
        let (first, second) = (admission.enter().unwrap(), admission.enter().unwrap());
        assert!(admission.enter().is_none() && admission.enter().is_none());
        drop(first);
        let third = admission.enter().unwrap();
        assert!(admission.enter().is_none());
        drop((second, third));
        assert_eq!(admission.taken.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_close_wakes_whoever_waits_and_one_that_came_first_is_not_missed() {
        let admission = Admission::new(1, None);
        let place = admission.enter().unwrap();
        let waiter = Arc::clone(&admission);
        let waiter = tokio::spawn(async move { waiter.free().await });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        drop(place);
        waiter.await.unwrap();
        admission.free().await;
    }

    #[test]
    fn many_threads_never_have_more_places_than_there_are() {
        let (admission, inside) = (Admission::new(3, None), Arc::new(AtomicUsize::new(0)));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (admission, inside) = (Arc::clone(&admission), Arc::clone(&inside));
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(async {
                        for _ in 0..2000 {
                            let place = loop {
                                match admission.enter() {
                                    Some(place) => break place,
                                    None => admission.free().await,
                                }
                            };
                            assert!(inside.fetch_add(1, Ordering::SeqCst) < 3);
                            std::thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(place);
                        }
                    });
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(admission.taken.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn pauses_in_quick_succession_are_one_episode() {
        let admission = Admission::new(1, None);
        for _ in 0..3 {
            let paused = admission.pause(Pause::Connections, &"test");
            assert_eq!(admission.paused(Pause::Connections), (1, true));
            drop(paused);
        }
        assert_eq!(admission.paused(Pause::Connections), (1, false));
        assert_eq!(admission.paused(Pause::Descriptors), (0, false));
    }
}
