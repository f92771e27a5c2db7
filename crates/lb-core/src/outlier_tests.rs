use proptest::prelude::*;

use super::*;

const POLICY: OutlierPolicy = OutlierPolicy {
    consecutive: 5,
    errors: ErrorAnswers::Gateway,
    interval: Duration::from_secs(10),
    success_rate_hosts: 5,
    success_rate_requests: 100,
    failure_percent: 85,
    failure_requests: 50,
    max_ejected_percent: 50,
    base_time: Duration::from_secs(10),
    max_time: Duration::from_secs(300),
};

fn tally(requests: u64, failed: u64) -> Option<Tally> {
    Some(Tally { requests, failed })
}

fn found(tallies: &[Option<Tally>]) -> Vec<(usize, Cause)> {
    outliers(&POLICY, tallies).into_iter().map(|outlier| (outlier.at, outlier.cause)).collect()
}

/// `bad` of `hosts` fail a fifth of their requests, the others nothing.
fn equally_bad(bad: usize, hosts: usize) -> Vec<Option<Tally>> {
    (0..hosts).map(|at| tally(1000, if at < bad { 200 } else { 0 })).collect()
}

#[test]
fn success_rate_is_blind_in_small_pools_and_to_several_bad_ones() {
    // z = √((n − k)/k): 2.0, 1.73, 1.87.
    assert_eq!(found(&equally_bad(1, 5)), [(0, Cause::SuccessRate)]);
    assert_eq!(found(&equally_bad(1, 4)), []);
    assert_eq!(found(&equally_bad(2, 9)), []);
    assert_eq!(found(&equally_bad(2, 10)), [(0, Cause::SuccessRate), (1, Cause::SuccessRate)]);
}

#[test]
fn one_error_in_a_hundred_is_two_sigma_in_a_calm_pool_and_no_outlier() {
    let mut tallies = equally_bad(0, 5);
    tallies[0] = tally(100, 1);
    assert_eq!(found(&tallies), []);
}

#[test]
fn nearly_everything_failed_needs_no_peers() {
    assert_eq!(found(&[tally(50, 43)]), [(0, Cause::FailurePercentage)]);
    assert_eq!(found(&[tally(50, 42), tally(49, 49), None]), []);
    let words = &outliers(&POLICY, &[tally(120, 120)])[0].words;
    assert_eq!(words, "100 % of 120 requests failed");
}

#[test]
fn the_worst_comes_first() {
    let tallies = [tally(100, 90), tally(100, 100), tally(100, 0), tally(100, 95)];
    let order: Vec<usize> = found(&tallies).into_iter().map(|(at, _)| at).collect();
    assert_eq!(order, [1, 3, 0]);
}

#[test]
fn most_of_a_pool_stays() {
    for (percent, wanted, most) in
        [(50, 0, 0), (50, 1, 0), (50, 2, 1), (50, 3, 1), (50, 4, 2), (10, 3, 1), (100, 4, 3), (0, 3, 1)]
    {
        assert_eq!(most_ejected(percent, wanted), most, "{percent} % of {wanted}");
    }
}

#[test]
fn a_tally_holds_against_a_backend_what_it_did() {
    let mut totals = BackendTotals { responses: [1, 90, 0, 4, 5], ..BackendTotals::default() };
    totals.failures[FailureKind::Connect as usize] = 2;
    totals.failures[FailureKind::Body as usize] = 1;
    totals.failures[FailureKind::Closed as usize] = 7;
    // Kept connections that it had closed: nobody's fault.
    totals.excused = 7;
    assert_eq!(Tally::of(&totals), Tally { requests: 102, failed: 8 });
    // Of ten answers that were repeated, six were a 429.
    totals.failures[FailureKind::Status as usize] = 10;
    totals.repeated_well = 6;
    assert_eq!(Tally::of(&totals), Tally { requests: 112, failed: 12 });
}

#[test]
fn gateway_errors_are_three_statuses_and_server_errors_all() {
    for (status, gateway, server) in [(500, false, true), (501, false, true), (502, true, true), (504, true, true)] {
        let counts = (ErrorAnswers::Gateway.contains(status), ErrorAnswers::Server.contains(status));
        assert_eq!(counts, (gateway, server), "{status}");
    }
    assert!([101, 200, 404, 499].iter().all(|status| !ErrorAnswers::Server.contains(*status)));
}

#[test]
fn words_say_what_and_until_when() {
    let mut ejections = Ejections::default();
    for _ in 0..2 {
        ejections.begin(&POLICY, Cause::ConsecutiveErrors, "5 errors in a row".to_owned(), 1000, 0.0);
    }
    assert_eq!(ejections.words().as_deref(), Some("5 errors in a row; out for 20 s (2nd time)"));
    assert_eq!(ejections.words_at(9000).as_deref(), Some("5 errors in a row; back in 12 s (2nd time)"));
    ejections.end();
    assert_eq!((ejections.words(), ejections.totals()), (None, [2, 0, 0]));
    assert_eq!([1, 3, 11, 22, 113].map(ordinal), ["1st time", "3rd time", "11th time", "22nd time", "113th time"]);
}

proptest! {
    #[test]
    fn equal_success_rates_eject_nobody(
        hosts in 1..40_usize,
        unit in 100..1000_u64,
        percent in 0..85_u64,
        factors in prop::collection::vec(1..50_u64, 40),
    ) {
        // The same share exactly, of different numbers of requests.
        let tallies: Vec<_> =
            factors.iter().take(hosts).map(|factor| tally(unit * 100 * factor, unit * percent * factor)).collect();
        prop_assert_eq!(found(&tallies), []);
    }

    #[test]
    fn ejections_grow_up_to_the_longest_and_decay(random in 0.0..1.0_f64, begun in 1..80_u32) {
        let mut ejections = Ejections::default();
        let mut last = Duration::ZERO;
        for _ in 0..begun {
            ejections.begin(&POLICY, Cause::SuccessRate, String::new(), 0, random);
            let time = Duration::from_millis(ejections.until_ms().unwrap());
            prop_assert!(time >= last && time <= POLICY.max_time, "{:?} after {:?}", time, last);
            prop_assert!(time >= POLICY.base_time.mul_f64(1.0 - JITTER) - Duration::from_millis(1));
            last = time;
        }
        prop_assert!(ejections.times() <= 30);
        // As many healthy intervals as it counted, and it begins anew.
        for _ in 0..ejections.times() {
            ejections.forgive_one();
        }
        prop_assert_eq!(ejections.times(), 0);
    }
}
