//! A thread that looks whether checks come to an end. A loop without end cannot be unwound: the input is kept, and the
//! process ended.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::corpus::Corpus;

/// For one input. A thousand times what the slowest takes on a busy machine.
pub(crate) const LONGEST: Duration = Duration::from_secs(30);

/// Between looks.
const LOOK: Duration = Duration::from_secs(1);

/// The input under way, and since when; `None` between two.
type UnderWay = Arc<Mutex<Option<(Instant, Vec<u8>)>>>;

/// Ends its thread when it is dropped.
pub(crate) struct Watch {
    under_way: UnderWay,
    _ends: Sender<()>,
}

impl Watch {
    pub(crate) fn start(corpus: Corpus) -> Self {
        let under_way = UnderWay::default();
        let (ends, ended) = mpsc::channel::<()>();
        let watched = Arc::clone(&under_way);
        std::thread::spawn(move || {
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                let under_way = watched.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((since, bytes)) = &*under_way
                    && since.elapsed() > LONGEST
                {
                    corpus.keep("hung", bytes);
                    std::process::abort();
                }
            }
        });
        Self { under_way, _ends: ends }
    }

    pub(crate) fn begins(&self, bytes: &[u8]) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        *under_way = Some((Instant::now(), bytes.to_vec()));
    }

    pub(crate) fn ended(&self) {
        *self.under_way.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
