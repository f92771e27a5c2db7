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
}

/// How many connections `limit` descriptors carry; says in the log how it came about.
pub(crate) fn share_out(limit: u64, config: &Config) -> Shares {
    let backends = config.pool.backends.len();
    // A connection that is kept for the next check is held between them, too.
    let checks = if config.checks.reuse { backends } else { backends.min(config.checks.concurrency) };
    let carried = carried(limit, config.workers, checks);
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
    Shares { clients: connections, backends: 2 * carried - connections }
}

/// Half of what is left after the reserve. Under a limit so small that the reserve would take nearly all, half goes to
/// it: both sides then work, in small.
fn carried(limit: u64, workers: usize, checks: usize) -> usize {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let reserve = OWN + PER_WORKER * workers + admin::MOST_DESCRIPTORS + checks;
    ((limit - reserve.min(limit / 2)) / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_half_of_what_the_reserve_leaves() {
        let reserve = OWN + 2 * PER_WORKER + admin::MOST_DESCRIPTORS + 3;
        assert_eq!(carried(10_000, 2, 3), (10_000 - reserve) / 2);
        for limit in [0, 1, 64, 200, 1024, 4096, 1 << 20, u64::MAX] {
            let clients = carried(limit, 2, 3);
            assert!(clients >= 1);
            if limit > 64 {
                assert!(2 * clients as u64 <= limit - (reserve as u64).min(limit / 2), "{clients} of {limit}");
            }
        }
    }

    #[test]
    fn more_checks_leave_less_for_clients() {
        assert!(carried(4096, 2, 1024) < carried(4096, 2, 3));
    }
}
