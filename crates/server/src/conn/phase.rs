//! Where a connection stands between requests, and when its patience ends.
//!
//! hyper's own head timeout also runs while a connection is idle and costs an allocation for each request, so it
//! cannot give an idle connection more time than a head. Here the phase is one relaxed atomic store at each change,
//! and the connection's task looks at it when its timer fires, at most every [`HEAD_TIMEOUT`]: often enough to end
//! every wait on time, because none is shorter.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// For the whole head of a request, from its first byte (on a fresh connection: from the connect). As the load
/// balancer's own; slow heads are the classic way to hold connections.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two requests. Longer than the 60 s that most proxies keep idle upstream connections, so that they close
/// first and no request meets a closing connection.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// One connection's phase. All fields are written by the connection's own task.
pub(crate) struct Phases {
    opened: Instant,
    /// Milliseconds from `opened` to the begin of the phase, times 4, plus the phase.
    phase: AtomicU64,
    /// A request body was announced and its end not yet read.
    upload_open: AtomicBool,
    client_closed: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Accepted, no byte yet.
    Fresh = 0,
    /// A part of a head is there.
    Head = 1,
    /// A request is being answered.
    Busy = 2,
    /// Between requests.
    Idle = 3,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing is overdue; look again at this time.
    LookAgain(Instant),
    /// A head was begun and not finished in time.
    HeadLate,
    /// Nothing came in time.
    Silent,
}

impl Phases {
    pub(crate) fn new(opened: Instant) -> Self {
        Self {
            opened,
            phase: AtomicU64::new(Phase::Fresh as u64),
            upload_open: AtomicBool::new(false),
            client_closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn received(&self) {
        match self.phase().0 {
            // The time of a first head counts from the connect.
            Phase::Fresh => self.phase.store(Phase::Head as u64, Ordering::Relaxed),
            Phase::Idle => self.enter(Phase::Head, Instant::now()),
            Phase::Head | Phase::Busy => {}
        }
    }

    pub(crate) fn exchange_began(&self) {
        self.phase.store(Phase::Busy as u64, Ordering::Relaxed);
    }

    pub(crate) fn exchange_ended(&self, now: Instant) {
        self.enter(Phase::Idle, now);
    }

    pub(crate) fn upload_began(&self) {
        self.upload_open.store(true, Ordering::Relaxed);
    }

    pub(crate) fn upload_ended(&self) {
        self.upload_open.store(false, Ordering::Relaxed);
    }

    pub(crate) fn is_upload_open(&self) -> bool {
        self.upload_open.load(Ordering::Relaxed)
    }

    pub(crate) fn client_closed(&self) {
        self.client_closed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_client_closed(&self) -> bool {
        self.client_closed.load(Ordering::Relaxed)
    }

    /// Whether the first part of a request has been read: such a connection may not be closed as if it were idle.
    pub(crate) fn is_in_head(&self) -> bool {
        self.phase().0 == Phase::Head
    }

    pub(crate) fn verdict(&self, now: Instant) -> Verdict {
        let (phase, since) = self.phase();
        let (patience, overdue) = match phase {
            Phase::Busy => return Verdict::LookAgain(now + HEAD_TIMEOUT),
            Phase::Fresh => (HEAD_TIMEOUT, Verdict::Silent),
            Phase::Head => (HEAD_TIMEOUT, Verdict::HeadLate),
            Phase::Idle => (IDLE_TIMEOUT, Verdict::Silent),
        };
        let end = since + patience;
        if now >= end { overdue } else { Verdict::LookAgain(end.min(now + HEAD_TIMEOUT)) }
    }

    fn enter(&self, phase: Phase, now: Instant) {
        let since_ms = u64::try_from((now - self.opened).as_millis()).unwrap_or(u64::MAX >> 2);
        self.phase.store(since_ms << 2 | phase as u64, Ordering::Relaxed);
    }

    fn phase(&self) -> (Phase, Instant) {
        let packed = self.phase.load(Ordering::Relaxed);
        let phase = match packed & 3 {
            0 => Phase::Fresh,
            1 => Phase::Head,
            2 => Phase::Busy,
            _ => Phase::Idle,
        };
        (phase, self.opened + Duration::from_millis(packed >> 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Follows the verdicts as the connection's task does and says when the wait ends.
    fn ends(phases: &Phases, mut now: Instant) -> (Verdict, Duration) {
        loop {
            match phases.verdict(now) {
                Verdict::LookAgain(at) => {
                    assert!(at > now, "the timer must not spin");
                    now = at;
                }
                verdict => return (verdict, now - phases.opened),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_head_has_ten_seconds_from_the_connect() {
        let phases = Phases::new(Instant::now());
        assert_eq!(ends(&phases, phases.opened), (Verdict::Silent, HEAD_TIMEOUT));
        tokio::time::advance(Duration::from_secs(9)).await;
        phases.received();
        assert_eq!(ends(&phases, Instant::now()), (Verdict::HeadLate, HEAD_TIMEOUT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_head_has_ten_seconds_from_its_first_byte() {
        let phases = Phases::new(Instant::now());
        phases.exchange_began();
        phases.exchange_ended(Instant::now());
        tokio::time::advance(Duration::from_secs(70)).await;
        phases.received();
        tokio::time::advance(Duration::from_secs(1)).await;
        phases.received();
        assert_eq!(ends(&phases, Instant::now()), (Verdict::HeadLate, Duration::from_secs(80)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_has_75_seconds() {
        let phases = Phases::new(Instant::now());
        phases.exchange_began();
        tokio::time::advance(Duration::from_secs(5)).await;
        phases.exchange_ended(Instant::now());
        assert_eq!(ends(&phases, Instant::now()), (Verdict::Silent, Duration::from_secs(80)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_take_its_time() {
        let phases = Phases::new(Instant::now());
        phases.exchange_began();
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(matches!(phases.verdict(Instant::now()), Verdict::LookAgain(_)));
    }
}
