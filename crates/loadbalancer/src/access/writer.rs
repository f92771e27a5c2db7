//! The thread that writes the access log, and the way there.
//!
//! What may wait is bounded, in batches and in bytes; beyond that, and when writing fails, lines are dropped, counted,
//! and warned of once a minute. `dropped` and `warned` are written by whoever loses lines (workers and the writer) and
//! read by `/metrics`; relaxed, since each stands for itself. `waiting` goes up before a batch is sent and down once
//! it is written; a worker that reads it late by another's batch lets one more wait.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::config::AccessLog;

/// What may wait to be written: a second of a full disk's journal at 50,000 lines a second.
const MOST_WAITING: usize = 16 * 1024 * 1024;

/// Batches that may wait; at one per sweep and worker, some seconds of many quiet workers.
const MOST_BATCHES: usize = 1024;

/// How often it is looked whether the file is still where it was, so that a moved one is noticed within a second.
const LOOK: Duration = Duration::from_millis(500);

/// Between two warnings of lost lines.
const WARNING: Duration = Duration::from_secs(60);

/// How long the end of the process waits for the last lines: a reader that has stopped must not hold it up.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// Lines of one worker.
pub(super) struct Batch {
    pub bytes: Vec<u8>,
    pub lines: u64,
    /// Where the buffer goes once it is empty.
    pub home: SyncSender<Vec<u8>>,
}

enum Message {
    Lines(Batch),
    /// There is nothing to come.
    End,
}

/// The way to the writer; every worker has one.
#[derive(Clone)]
pub(crate) struct Log {
    messages: SyncSender<Message>,
    tally: Arc<Tally>,
}

#[derive(Debug)]
struct Tally {
    /// Bytes of memory that wait to be written.
    waiting: AtomicUsize,
    dropped: AtomicU64,
    started: Instant,
    /// Milliseconds from `started` to the last warning, plus one; 0 before the first.
    warned: AtomicU64,
}

impl Log {
    /// Lines that were not written.
    pub(crate) fn dropped(&self) -> u64 {
        self.tally.dropped.load(Ordering::Relaxed)
    }

    /// Hands a batch over, or back when too much is waiting already.
    pub(super) fn offer(&self, batch: Batch) -> Result<(), Batch> {
        let size = batch.bytes.capacity();
        if self.tally.waiting.fetch_add(size, Ordering::Relaxed) + size <= MOST_WAITING {
            match self.messages.try_send(Message::Lines(batch)) {
                Err(TrySendError::Full(Message::Lines(batch)) | TrySendError::Disconnected(Message::Lines(batch))) => {
                    self.tally.waiting.fetch_sub(size, Ordering::Relaxed);
                    return Err(batch);
                }
                _ => return Ok(()),
            }
        }
        self.tally.waiting.fetch_sub(size, Ordering::Relaxed);
        Err(batch)
    }

    pub(super) fn lost(&self, lines: u64, why: &str) {
        self.tally.lost(lines, why);
    }
}

impl Tally {
    fn lost(&self, lines: u64, why: &str) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
        self.warn(why);
    }

    fn warn(&self, why: &str) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1;
        let last = self.warned.load(Ordering::Relaxed);
        let due = last == 0 || Duration::from_millis(now - last.min(now)) >= WARNING;
        // Whoever is second finds another value, and leaves the warning to the first.
        if due && self.warned.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let lost = self.dropped.load(Ordering::Relaxed);
            tracing::warn!(lost, "access log: {why}; lines lost are counted in lb_access_log_lines_dropped_total");
        }
    }
}

/// The writer's thread.
#[derive(Debug)]
pub(crate) struct Writer {
    thread: JoinHandle<()>,
    messages: SyncSender<Message>,
}

/// Opens what `target` names and starts the writer; `None` when the access log is off.
///
/// # Errors
/// The file cannot be opened, or no thread can be had.
pub(crate) fn start(target: &AccessLog) -> io::Result<Option<(Log, Writer)>> {
    let sink = match target {
        AccessLog::Off => return Ok(None),
        AccessLog::StandardOutput => Sink::standard_output()?,
        AccessLog::File(path) => Sink::file(path)?,
    };
    let tally = Tally {
        waiting: AtomicUsize::new(0),
        dropped: AtomicU64::new(0),
        started: Instant::now(),
        warned: AtomicU64::new(0),
    };
    let (messages, receiver) = sync_channel(MOST_BATCHES);
    let log = Log { messages: messages.clone(), tally: Arc::new(tally) };
    let tally = Arc::clone(&log.tally);
    let thread = thread::Builder::new().name("access-log".to_owned()).spawn(move || run(sink, &receiver, &tally))?;
    Ok(Some((log, Writer { thread, messages })))
}

impl Writer {
    /// Waits until everything that was handed over is written, unless that takes too long. Blocks.
    pub(crate) fn finish(self) {
        let until = Instant::now() + LAST_PATIENCE;
        let mut told = false;
        while !self.thread.is_finished() && Instant::now() < until {
            told = told || self.messages.try_send(Message::End).is_ok();
            thread::sleep(Duration::from_millis(1));
        }
        if !self.thread.is_finished() {
            tracing::warn!("the last lines of the access log could not be written in time");
        }
    }
}

fn run(mut sink: Sink, messages: &Receiver<Message>, tally: &Tally) {
    loop {
        match messages.recv_timeout(LOOK) {
            Ok(Message::Lines(Batch { mut bytes, lines, home })) => {
                sink.look(tally);
                if let Err(failed) = sink.write(&bytes) {
                    tally.lost(lines - failed.written.min(lines), &format!("cannot write: {}", failed.error));
                }
                tally.waiting.fetch_sub(bytes.capacity(), Ordering::Relaxed);
                bytes.clear();
                // A worker that has spares enough, or is gone, does without.
                let _ = home.try_send(bytes);
            }
            Err(RecvTimeoutError::Timeout) => sink.look(tally),
            Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Where lines end up.
#[derive(Debug)]
struct Sink {
    out: File,
    /// With the file's identity when it was opened.
    path: Option<(PathBuf, Identity)>,
    looked: Instant,
    /// A part of a line was written and could not be taken back.
    torn: bool,
}

/// Device and inode.
type Identity = (u64, u64);

/// Lines were lost.
#[derive(Debug)]
struct Failed {
    /// Lines of the batch that were written.
    written: u64,
    error: io::Error,
}

fn open(path: &Path) -> io::Result<(File, Identity)> {
    // Addresses and paths of clients are nothing for everybody on the machine; a group may collect them.
    let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
    let metadata = file.metadata()?;
    Ok((file, (metadata.dev(), metadata.ino())))
}

impl Sink {
    fn standard_output() -> io::Result<Self> {
        // Its own descriptor: the library's buffer would keep what cannot be written and try it again.
        let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self { out, path: None, looked: Instant::now(), torn: false })
    }

    fn file(path: &Path) -> io::Result<Self> {
        let (out, identity) = open(path)?;
        Ok(Self { out, path: Some((path.to_owned(), identity)), looked: Instant::now(), torn: false })
    }

    /// Opens the file anew when another one, or none, lies at its path: log rotation moves the old one away.
    fn look(&mut self, tally: &Tally) {
        let Some((path, identity)) = &mut self.path else { return };
        if self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        let there = fs::metadata(&*path).map(|metadata| (metadata.dev(), metadata.ino()));
        if there.is_ok_and(|there| there == *identity) {
            return;
        }
        match open(path) {
            Ok((file, opened)) => (self.out, *identity, self.torn) = (file, opened, false),
            // The former file still takes lines.
            Err(error) => tally.warn(&format!("{} cannot be opened: {error}", path.display())),
        }
    }

    /// Writes whole lines. After a failure no part of a line is left behind in a file; in a pipe that part is ended.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        if self.torn {
            self.out.write_all(b"\n").map_err(|error| Failed { written: 0, error })?;
            self.torn = false;
        }
        let mut done = 0;
        let error = loop {
            match self.out.write(&bytes[done..]) {
                Ok(0) => break io::ErrorKind::WriteZero.into(),
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
            if done == bytes.len() {
                return Ok(());
            }
        };
        let whole = bytes[..done].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let written = bytes[..whole].iter().filter(|byte| **byte == b'\n').count() as u64;
        self.torn = done > whole && self.cut((done - whole) as u64).is_err();
        Err(Failed { written, error })
    }

    /// Takes the last bytes of a file back. Nobody else appends to it.
    fn cut(&self, bytes: u64) -> io::Result<()> {
        let metadata = self.out.metadata()?;
        if !metadata.is_file() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.out.set_len(metadata.len().saturating_sub(bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn sink(out: File) -> Sink {
        Sink { out, path: None, looked: Instant::now(), torn: false }
    }

    #[test]
    fn lines_that_a_broken_write_left_are_counted_and_the_torn_one_is_ended() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut sink = sink(OwnedFd::from(ours).into());
        // Far more than a socket takes at once: it takes a part, then refuses.
        let batch = "0123456789abcde\n".repeat(1 << 16);
        let failed = sink.write(batch.as_bytes()).unwrap_err();
        assert!(failed.written > 0 && failed.written < 1 << 16, "{failed:?}");
        theirs.set_nonblocking(true).unwrap();
        let mut read = Vec::new();
        assert!(theirs.read_to_end(&mut read).is_err(), "the socket is still open");
        assert_eq!(read.iter().filter(|byte| **byte == b'\n').count() as u64, failed.written);
        let whole = read.ends_with(b"\n");
        assert_eq!(sink.torn, !whole);
        sink.torn = true;
        sink.write(b"next\n").unwrap();
        let mut rest = [0; 16];
        let count = theirs.read(&mut rest).unwrap();
        assert_eq!(&rest[..count], b"\nnext\n");
        assert!(!sink.torn);
    }

    #[test]
    fn a_part_of_a_line_is_taken_back_from_a_file() {
        let path = std::env::temp_dir().join(format!("lb-access-{}", std::process::id()));
        let mut sink = Sink::file(&path).unwrap();
        sink.write(b"whole\npart").unwrap();
        sink.cut(4).unwrap();
        sink.write(b"next\n").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(text, "whole\nnext\n");
    }
}
