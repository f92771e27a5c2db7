use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const SECOND_NS: u64 = 1_000_000_000;

fn limiter(requests: u32, burst: u32, clients: usize) -> RateLimiter {
    RateLimiter::new(RatePolicy { requests, period: Duration::from_secs(1), burst }, clients)
}

fn v4(number: u32) -> Client<'static> {
    Client::Address(Ipv4Addr::from_bits(number).into())
}

#[test]
fn a_burst_then_the_rate_and_the_wait_said_is_the_wait_there_is() {
    let limiter = limiter(10, 5, 1024);
    let now_ns = 7 * SECOND_NS;
    assert_eq!((0..20).filter(|_| limiter.take(v4(1), now_ns).is_ok()).count(), 5);
    let wait = limiter.take(v4(1), now_ns).unwrap_err();
    assert_eq!(wait, Duration::from_millis(100));
    let then_ns = now_ns + wait.as_nanos() as u64;
    assert!(limiter.take(v4(1), then_ns - 1).is_err(), "too early");
    assert!(limiter.take(v4(1), then_ns).is_ok());
    assert!(limiter.take(v4(1), then_ns).is_err());
    assert!(limiter.take(v4(2), then_ns).is_ok(), "another client has a bucket of its own");
}

#[test]
fn retry_after_is_whole_seconds_and_never_too_short() {
    for (ms, seconds) in [(1, 1), (999, 1), (1000, 1), (1001, 2), (59_500, 60)] {
        assert_eq!(retry_after_s(Duration::from_millis(ms)), seconds, "{ms}");
    }
}

#[test]
fn one_64_of_ipv6_is_one_client_and_mapped_addresses_are_ipv4() {
    let limiter = limiter(1, 1, 1024);
    let take = |text: &str| limiter.take(Client::Address(text.parse().unwrap()), SECOND_NS).is_ok();
    assert!(take("2001:db8:0:1::1") && !take("2001:db8:0:1:ffff::2") && take("2001:db8:0:2::1"));
    assert!(take("192.0.2.1") && !take("::ffff:192.0.2.1"));
}

#[test]
fn names_are_told_apart() {
    let limiter = limiter(1, 1, 1024);
    assert!(limiter.take(Client::Name(b"a"), 1).is_ok() && limiter.take(Client::Name(b"b"), 1).is_ok());
    assert!(limiter.take(Client::Name(b"a"), 1).is_err());
}

#[test]
fn a_million_addresses_take_no_more_memory_and_do_not_wash_out_who_is_over_its_limit() {
    let limiter = limiter(1, 3, 65_536);
    let sets: usize = limiter.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
    assert_eq!((size_of::<Cell>(), sets * WAYS), (16, 65_536));
    let bully = Client::Name(b"bully");
    let mut passed = 0;
    for number in 0..1_000_000 {
        // A million in half a second: nobody's bucket fills up meanwhile.
        let now_ns = SECOND_NS + u64::from(number) * 500;
        assert!(limiter.take(v4(number), now_ns).is_ok(), "a first request always passes");
        passed += u32::from(limiter.take(bully, now_ns).is_ok());
    }
    assert_eq!(passed, 3, "its burst and no more");
    let after: usize = limiter.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
    assert_eq!(after, sets);
    assert!(limiter.clients(SECOND_NS) <= 65_536 && limiter.forgotten() > 900_000, "{}", limiter.forgotten());
    assert_eq!(limiter.clients(10 * SECOND_NS), 0);
}

#[test]
fn a_half_full_table_forgets_hardly_anybody() {
    let limiter = limiter(1, 1, 65_536);
    for number in 0..32_768 {
        assert!(limiter.take(v4(number), SECOND_NS).is_ok());
    }
    assert!(limiter.forgotten() < 656, "{}", limiter.forgotten());
    let again = (0..32_768).filter(|number| limiter.take(v4(*number), SECOND_NS).is_ok()).count();
    assert!(again < 1312, "{again} of 32768 had their burst twice");
}

proptest! {
    #[test]
    fn never_more_than_the_burst_and_the_rate(
        requests in 1..200_u32,
        burst in 1..50_u32,
        gaps_us in prop::collection::vec(0..100_000_u64, 1..400),
    ) {
        let limiter = limiter(requests, burst, 64);
        let (start, mut now_ns, mut passed) = (SECOND_NS, SECOND_NS, 0_u64);
        for gap_us in gaps_us {
            now_ns += gap_us * 1000;
            match limiter.take(v4(9), now_ns) {
                Ok(()) => passed += 1,
                Err(wait) => {
                    // Exact, both ways.
                    prop_assert!(wait > Duration::ZERO);
                    prop_assert!(wait <= Duration::from_secs(1) / requests);
                }
            }
            let earned = (now_ns - start) / (SECOND_NS / u64::from(requests));
            prop_assert!(passed <= u64::from(burst) + earned, "{passed} passed");
        }
    }

    #[test]
    fn who_keeps_to_the_rate_is_never_refused(requests in 1..1000_u32, count in 1..500_u64) {
        let limiter = limiter(requests, 1, 64);
        for number in 0..count {
            let now_ns = SECOND_NS + number * SECOND_NS.div_ceil(u64::from(requests));
            prop_assert!(limiter.take(v4(9), now_ns).is_ok());
        }
    }

    #[test]
    fn clocks_that_disagree_a_little_give_nothing_away(behind_us in prop::collection::vec(0..1000_u64, 1..300)) {
        let limiter = limiter(10, 5, 64);
        let mut passed = 0;
        for behind in behind_us {
            passed += u64::from(limiter.take(v4(9), 100 * SECOND_NS - behind * 1000).is_ok());
        }
        prop_assert!(passed <= 5, "{passed}");
    }
}
