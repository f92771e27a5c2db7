//! How many descriptors the process may have, and how they are shared out.
//!
//! What the admin API, checks, logs and the workers themselves need is set aside first; the rest is halved between
//! clients and the connections to backends made for them. So as long as the limit stays what it was at the start, no
//! number of clients can leave the operator without an answer.

use crate::admin;
use crate::config::Config;

/// Standard streams, log, token, sockets of the service manager, and what the system libraries open now and then.
const OWN: usize = 32;

/// A worker's listener, event queue, wake-up and signal descriptors, with as many to spare.
const PER_WORKER: usize = 8;

/// What is taken for the limit when the system does not say: the usual soft limit.
const USUAL: u64 = 1024;

/// Raises the soft limit to the hard one: a proxied request takes two descriptors, and the usual soft limit of 1024 is
/// for programs that use select(2). The hard limit is the operator's word.
pub fn raise() {
    match rlimit::Resource::NOFILE.get() {
        Ok((soft, hard)) if soft < hard => {
            if let Err(error) = rlimit::Resource::NOFILE.set(hard, hard) {
                tracing::warn!(%error, soft, hard, "the limit of descriptors cannot be raised");
            }
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of descriptors cannot be read"),
    }
}

/// The limit that holds now.
pub(crate) fn limit() -> u64 {
    rlimit::Resource::NOFILE.get_soft().unwrap_or(USUAL)
}

/// How many connections may be open at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    pub clients: usize,
    /// To backends, idle ones included: as many as clients may need, and what clients leave.
    pub backends: usize,
    /// The limit that open descriptors are watched against; 0 is not at all.
    pub watched: u64,
}

/// How many the process has open; `None` when the system does not say (Linux before 6.2). Takes none itself.
pub(crate) fn open() -> Option<u64> {
    std::fs::metadata("/proc/self/fd").ok().map(|directory| directory.len()).filter(|open| *open > 0)
}

/// How many connections `limit` descriptors carry; says in the log how it came about.
pub(crate) fn share_out(limit: u64, config: &Config) -> Shares {
    let backends = config.pool.backends.len();
    // A connection that is kept for the next check is held between them, too.
    let checks = if config.checks.reuse { backends } else { backends.min(config.checks.concurrency) };
    let reserve = reserve(limit, config.workers, checks);
    let carried = carried(limit, reserve);
    let connections = match config.admission.connections {
        Some(asked) if asked > carried => {
            tracing::warn!(
                "limits.connections is {asked}, but a limit of {limit} descriptors carries only {carried}; \
                 raise it (LimitNOFILE= of systemd, ulimit -n, --ulimit nofile= of a container)"
            );
            carried
        }
        Some(asked) => asked,
        None => carried,
    };
    tracing::info!(descriptors = limit, connections, "limits");
    // Both halves are alike; what a smaller limit leaves of the clients' is the backends'.
    // Where the reserve is squeezed it is what we need ourselves that fills the limit, and refusing work frees none of it.
    let watched = if is_squeezed(limit, reserve) { 0 } else { limit };
    Shares { clients: connections, backends: 2 * carried - connections, watched }
}

/// What is set aside: a tenth at least, so that a full house alone is not yet the overload that begins at 95 %
/// ([`SHED_FROM`](lb_core::overload::SHED_FROM)).
fn reserve(limit: u64, workers: usize, checks: usize) -> usize {
    let needed = OWN + PER_WORKER * workers + admin::MOST_DESCRIPTORS + checks;
    needed.max(usize::try_from(limit / 10).unwrap_or(usize::MAX))
}

fn is_squeezed(limit: u64, reserve: usize) -> bool {
    reserve as u64 > limit / 2
}

/// Half of what is left after the reserve. Under a limit so small that the reserve would take nearly all, half goes to
/// it: both sides then work, in small.
fn carried(limit: u64, reserve: usize) -> usize {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    ((limit - reserve.min(limit / 2)) / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_half_of_what_the_reserve_leaves() {
        let needed = OWN + 2 * PER_WORKER + admin::MOST_DESCRIPTORS + 3;
        assert_eq!((reserve(1024, 2, 3), carried(1024, needed)), (needed, (1024 - needed) / 2));
        for limit in [0, 1, 64, 200, 1024, 4096, 1 << 20, u64::MAX] {
            let reserve = reserve(limit, 2, 3);
            let clients = carried(limit, reserve);
            assert!(clients >= 1);
            if limit > 64 {
                assert!(2 * clients as u64 <= limit - (reserve as u64).min(limit / 2), "{clients} of {limit}");
            }
        }
    }

    #[test]
    fn more_checks_leave_less_for_clients() {
        assert!(carried(4096, reserve(4096, 2, 1024)) < carried(4096, reserve(4096, 2, 3)));
    }

    #[test]
    fn a_full_house_is_no_overload() {
        use lb_core::overload::Level;
        for limit in [1024, 4096, 65_536, 1 << 20] {
            let reserve = reserve(limit, 2, 3);
            let full = 2 * carried(limit, reserve) as u64 + OWN as u64;
            assert!(!is_squeezed(limit, reserve) && Level::Calm.next(full, limit) < Level::Shed, "{full} of {limit}");
        }
        assert!(is_squeezed(100, reserve(100, 2, 3)));
    }

    #[test]
    fn what_is_open_is_counted_without_opening_anything() {
        let Some(before) = open() else { return };
        let files: Vec<_> = (0..50).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        // Other tests open and close some meanwhile.
        assert!(open().unwrap() + 25 > before + files.len() as u64);
    }
}
