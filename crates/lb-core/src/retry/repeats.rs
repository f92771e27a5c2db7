//! Whether one request may be sent once more. A decision from facts: why the attempt ended, what the request is, and
//! what was repeated before.

/// Why an attempt is to be repeated. A fixed set: it is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryCause {
    /// No connection could be made.
    Connect,
    /// There was a connection, and not a byte of the request was written to it.
    Unsent,
    /// A kept connection turned out to be closed: the price of keeping it, and nobody's fault.
    Stale,
    /// The connection broke behind the request, before the response head was complete.
    Closed,
    /// The time for one try passed.
    TryTimeout,
    /// The response has one of the statuses that are to be repeated.
    Status,
}

impl RetryCause {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Connect, Self::Unsent, Self::Stale, Self::Closed, Self::TryTimeout, Self::Status];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Unsent => "unsent",
            Self::Stale => "stale",
            Self::Closed => "closed",
            Self::TryTimeout => "try_timeout",
            Self::Status => "status",
        }
    }

    /// Whether no backend can have seen the request.
    const fn is_unsent(self) -> bool {
        matches!(self, Self::Connect | Self::Unsent)
    }
}

/// How often one request may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryLimits {
    /// After it was sent.
    pub max: u32,
    /// While nothing of it was sent.
    pub max_connect: u32,
}

/// How often one request was repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repeats {
    sent: u32,
    unsent: u32,
    /// Those that wait; each for longer than the one before.
    waits: u32,
    stale: bool,
}

/// Leave to repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// Whether it comes out of the budget.
    pub paid: bool,
    /// Which wait comes before it (see [`backoff`](super::backoff)); `None` is none at all.
    pub wait: Option<u32>,
}

impl Repeats {
    /// Whether the request may be sent once more after `cause`; asked once for each attempt that ended. `idempotent` is
    /// the method's property (RFC 9110 §9.2.2). Whether the body can be sent again is for the caller to know, who asks
    /// only then. `elsewhere` says that there is another backend to go to.
    pub fn allow(
        &mut self,
        cause: RetryCause,
        limits: RetryLimits,
        idempotent: bool,
        elsewhere: bool,
    ) -> Option<Repeat> {
        let first = self.sent + self.unsent == 0 && !self.stale;
        let (made, most) = match cause {
            cause if cause.is_unsent() => (&mut self.unsent, limits.max_connect),
            _ if !idempotent || limits.max == 0 => return None,
            // Once: a second one is not by chance any more.
            RetryCause::Stale if !self.stale => {
                self.stale = true;
                return Some(Repeat { paid: false, wait: None });
            }
            _ => (&mut self.sent, limits.max),
        };
        if *made >= most {
            return None;
        }
        *made += 1;
        // Another backend can be asked at once if the former was not reached; whatever else it was may need a moment.
        let wait = if first && elsewhere && cause.is_unsent() {
            None
        } else {
            self.waits += 1;
            Some(self.waits)
        };
        Some(Repeat { paid: !cause.is_unsent(), wait })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: RetryLimits = RetryLimits { max: 1, max_connect: 2 };

    #[test]
    fn what_was_not_sent_is_repeated_whatever_the_method() {
        let mut repeats = Repeats::default();
        let free = |wait| Some(Repeat { paid: false, wait });
        assert_eq!(repeats.allow(RetryCause::Connect, LIMITS, false, true), free(None), "another backend at once");
        assert_eq!(repeats.allow(RetryCause::Unsent, LIMITS, false, true), free(Some(1)));
        assert_eq!(repeats.allow(RetryCause::Connect, LIMITS, false, true), None, "two in all");
        assert_eq!(Repeats::default().allow(RetryCause::Connect, LIMITS, true, false), free(Some(1)));
    }

    #[test]
    fn a_kept_connection_that_was_closed_is_forgiven_once() {
        let mut repeats = Repeats::default();
        assert_eq!(repeats.allow(RetryCause::Stale, LIMITS, true, false), Some(Repeat { paid: false, wait: None }));
        assert_eq!(repeats.allow(RetryCause::Stale, LIMITS, true, true), Some(Repeat { paid: true, wait: Some(1) }));
        assert_eq!(repeats.allow(RetryCause::Closed, LIMITS, true, true), None);
        let none = RetryLimits { max: 0, max_connect: 2 };
        assert_eq!(Repeats::default().allow(RetryCause::Stale, none, true, true), None, "switched off is off");
    }

    proptest! {
        #[test]
        fn no_order_of_mishaps_gives_more_than_the_limits(
            causes in prop::collection::vec((0..6_usize, any::<bool>()), 1..20),
            max in 0..4_u32, max_connect in 0..4_u32, idempotent in any::<bool>(),
        ) {
            let limits = RetryLimits { max, max_connect };
            let (mut repeats, mut paid, mut unsent, mut stale, mut waits) = (Repeats::default(), 0, 0, 0, Vec::new());
            for (cause, elsewhere) in causes {
                let cause = RetryCause::ALL[cause];
                let Some(repeat) = repeats.allow(cause, limits, idempotent, elsewhere) else { continue };
                prop_assert!(idempotent || cause.is_unsent(), "{:?} of what must not be repeated", cause);
                match (repeat.paid, cause.is_unsent()) {
                    (true, false) => paid += 1,
                    (false, true) => unsent += 1,
                    (false, false) => stale += 1,
                    (true, true) => prop_assert!(false, "nobody did work for it"),
                }
                waits.extend(repeat.wait);
            }
            prop_assert!(paid <= max && unsent <= max_connect && stale <= u32::from(max > 0));
            prop_assert!(waits.iter().copied().eq(1..=waits.len() as u32), "{:?}", waits);
        }
    }
}
