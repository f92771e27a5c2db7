//! How many connections each client address has open. Exists only when `limits.connections_per_client` is set.
//!
//! A count lives as long as a connection of its client does, so the map is never larger than the number of
//! connections. It is locked when a connection comes and when it goes, one of [`SHARDS`] at a time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Far more than there are workers, so that two hardly ever want the same one.
const SHARDS: usize = 64;

/// Counts by client.
#[derive(Debug)]
pub(crate) struct PerClient {
    most: u32,
    hasher: RandomState,
    shards: [Mutex<HashMap<IpAddr, u32>>; SHARDS],
}

/// One connection's part of its client's count.
#[derive(Debug)]
pub(crate) struct Counted {
    clients: Arc<PerClient>,
    client: IpAddr,
}

impl PerClient {
    pub(crate) fn new(most: u32) -> Arc<Self> {
        let shards = std::array::from_fn(|_| Mutex::default());
        Arc::new(Self { most, hasher: RandomState::new(), shards })
    }

    /// Counts a connection of `address`, unless its client has as many as it may.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Counted> {
        let client = client_of(address);
        let mut shard = self.shard(client);
        let count = shard.entry(client).or_insert(0);
        // An entry that was just made is below: the limit is at least 1.
        if *count >= self.most {
            return None;
        }
        *count += 1;
        drop(shard);
        Some(Counted { clients: Arc::clone(self), client })
    }

    fn shard(&self, client: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        let at = self.hasher.hash_one(client) as usize % SHARDS;
        // Nothing inside can panic half way; a count is always whole.
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.clients.shard(self.client).entry(self.client) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Who is counted together: one IPv4 address, or one /64 of IPv6, which a single client has all of (RFC 6177 §2).
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_client_has_its_own_count_and_what_is_gone_is_forgotten() {
        let clients = PerClient::new(2);
        let first = clients.enter(address("192.0.2.1")).unwrap();
        let second = clients.enter(address("::ffff:192.0.2.1")).unwrap();
        assert!(clients.enter(address("192.0.2.1")).is_none());
        let other = clients.enter(address("192.0.2.2")).unwrap();
        drop(first);
        let third = clients.enter(address("192.0.2.1")).unwrap();
        assert!(clients.enter(address("192.0.2.1")).is_none());
        drop((second, third, other));
        assert!(clients.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn a_64_of_ipv6_is_one_client() {
        let clients = PerClient::new(1);
        let _one = clients.enter(address("2001:db8:0:1::1")).unwrap();
        assert!(clients.enter(address("2001:db8:0:1:ffff::2")).is_none());
        assert!(clients.enter(address("2001:db8:0:2::1")).is_some());
    }
}
