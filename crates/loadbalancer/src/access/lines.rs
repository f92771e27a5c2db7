//! One worker's lines on their way to the writer: formatted into a buffer of the worker's own, handed over in batches.
//! In the steady state nothing is allocated: emptied buffers come back from the writer, and facts are kept for the
//! next request.
//!
//! Everything here belongs to one worker; no other thread sees it.

use std::cell::{Cell, RefCell};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::line::Facts;
use super::stamp::Stamp;
use super::writer::{Batch, Log};
use crate::clock::Tick;

/// A buffer with more than this is handed over at once: some hundred lines, so that a hand-over and the system call
/// behind it are shared by as many.
const BATCH: usize = 32 * 1024;

/// Room for the line that makes a batch full.
const ROOM: usize = BATCH + 4 * 1024;

/// A buffer or the facts of a request that have grown beyond this by an unusual request are not kept.
const MOST_KEPT: usize = 2 * BATCH;
const MOST_HEAD_KEPT: usize = 4 * 1024;

/// Emptied buffers that may wait to be used again, and facts of requests: as many as a worker usually has at a time.
const SPARE_BUFFERS: usize = 4;
const SPARE_FACTS: usize = 256;

/// How long the last lines of a worker that ends may wait for room.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// A worker's end of the access log.
pub(crate) struct Lines {
    log: Log,
    page: RefCell<Page>,
    /// Where the writer sends emptied buffers to, and where they arrive.
    home: SyncSender<Vec<u8>>,
    emptied: Receiver<Vec<u8>>,
    #[expect(clippy::vec_box, reason = "an entry moves with its request, and should be small")]
    spare: RefCell<Vec<Box<Facts>>>,
    /// Unix time at the worker's tick 0; set by the sweep, since the real clock may be put right at any time.
    epoch: Cell<Duration>,
}

struct Page {
    bytes: Vec<u8>,
    lines: u64,
    stamp: Stamp,
}

impl Lines {
    pub(crate) fn new(log: Log, now: Tick) -> Self {
        let (home, emptied) = sync_channel(SPARE_BUFFERS);
        let page = Page { bytes: Vec::with_capacity(ROOM), lines: 0, stamp: Stamp::default() };
        let lines = Self { log, page: page.into(), home, emptied, spare: RefCell::default(), epoch: Cell::default() };
        lines.set_clock(now);
        lines
    }

    fn set_clock(&self, now: Tick) {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.epoch.set(unix.saturating_sub(now.since(Tick::default())));
    }

    /// What a sweep does: the time of day, and lines that have waited long enough. `now` is a fresh reading.
    pub(crate) fn sweep(&self, now: Tick) {
        self.set_clock(now);
        self.hand_over(&mut self.page.borrow_mut());
    }

    /// Facts to be filled, with the room that an earlier request made.
    pub(super) fn facts(&self) -> Box<Facts> {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes back what [`Self::facts`] gave.
    pub(super) fn done_with(&self, mut facts: Box<Facts>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_FACTS && facts.head.capacity() <= MOST_HEAD_KEPT {
            facts.clear();
            spare.push(facts);
        }
    }

    /// Writes a line about a request that has ended `now`.
    pub(super) fn write(&self, facts: &Facts, now: Tick, took: Duration) {
        let mut page = self.page.borrow_mut();
        let Page { bytes, lines, stamp } = &mut *page;
        let unix = self.epoch.get() + now.since(Tick::default());
        let unix_ms = unix.as_secs() * 1000 + u64::from(unix.subsec_millis());
        facts.put(bytes, stamp.at(unix_ms), took);
        *lines += 1;
        if bytes.len() > BATCH {
            self.hand_over(&mut page);
        }
    }

    /// Gives the writer what there is. If it has too much already the lines are dropped: requests go on.
    fn hand_over(&self, page: &mut Page) {
        let Some(batch) = self.batch(page) else { return };
        if let Err(batch) = self.log.offer(batch) {
            self.log.lost(batch.lines, "they come faster than they can be written");
        }
    }

    fn batch(&self, page: &mut Page) -> Option<Batch> {
        if page.lines == 0 {
            return None;
        }
        let emptied = self.emptied.try_recv().ok().filter(|bytes| bytes.capacity() <= MOST_KEPT);
        let next = emptied.unwrap_or_else(|| Vec::with_capacity(ROOM));
        let bytes = std::mem::replace(&mut page.bytes, next);
        Some(Batch { bytes, lines: std::mem::take(&mut page.lines), home: self.home.clone() })
    }
}

impl Drop for Lines {
    /// The worker ends. Nobody waits for it any more, so it may wait for the writer.
    fn drop(&mut self) {
        let mut page = self.page.replace(Page { bytes: Vec::new(), lines: 0, stamp: Stamp::default() });
        let Some(mut batch) = self.batch(&mut page) else { return };
        let until = Instant::now() + LAST_PATIENCE;
        while let Err(refused) = self.log.offer(batch) {
            if Instant::now() > until {
                return self.log.lost(refused.lines, "the writer did not take the last of them");
            }
            batch = refused;
            thread::sleep(Duration::from_millis(5));
        }
    }
}
