//! Single rules first; then a whole pool under a random schedule of faults, where all rules must hold at once.

use super::*;
use crate::outlier::ErrorAnswers;

#[path = "rotation_schedule.rs"]
mod schedule;

pub(super) const POLICY: RotationPolicy = RotationPolicy {
    outlier: OutlierPolicy {
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
    },
    panic_percent: 30,
    checks_elsewhere: false,
    slow_start: Duration::from_secs(5),
};

#[derive(Clone, Debug)]
struct Server {
    admin: AdminState,
    health: Health,
    code: ReasonCode,
    standing: Standing,
}

impl Member for Server {
    fn admin(&self) -> AdminState {
        self.admin
    }

    fn health(&self) -> Health {
        self.health
    }

    fn health_code(&self) -> ReasonCode {
        self.code
    }

    fn standing(&self) -> &Standing {
        &self.standing
    }

    fn standing_mut(&mut self) -> &mut Standing {
        &mut self.standing
    }
}

/// Wanted, and of this health; its check takes connections.
fn server(health: Health) -> Server {
    Server { admin: AdminState::Ready, health, code: ReasonCode::WrongStatus, standing: Standing::default() }
}

/// A pool whose servers are all up, past its start.
fn pool(servers: usize) -> (Rotation, Vec<Server>) {
    let (mut rotation, mut members) = (Rotation::new(POLICY, 0), vec![server(Health::Up); servers]);
    rotation.settle(&mut members, 0);
    rotation.started();
    (rotation, members)
}

fn ejected(members: &[Server]) -> Vec<usize> {
    (0..members.len()).filter(|at| members[*at].standing.is_ejected()).collect()
}

fn percents(members: &[Server]) -> Vec<u32> {
    members.iter().map(|member| member.standing.percent()).collect()
}

#[test]
fn at_most_half_are_ejected_and_never_the_last() {
    for (servers, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (9, 4)] {
        let (mut rotation, mut members) = pool(servers);
        for at in 0..servers {
            rotation.suspect(&mut members, at, 0, 0.5);
        }
        assert_eq!(ejected(&members), (0..most).collect::<Vec<_>>());
        assert_eq!(rotation.withheld(), (servers - most) as u64);
    }
}

#[test]
fn no_ejection_begins_a_panic() {
    let (mut rotation, mut members) = pool(4);
    members[0].health = Health::Down;
    members[1].health = Health::Down;
    rotation.suspect(&mut members, 2, 0, 0.5);
    assert_eq!(ejected(&members), [0_usize; 0]);
}

#[test]
fn an_ejected_backend_returns_when_its_time_is_up_and_starts_slowly() {
    let (mut rotation, mut members) = pool(3);
    assert_eq!(rotation.suspect(&mut members, 1, 0, 0.0), [News { at: 1, what: Happening::Ejected }]);
    rotation.settle(&mut members, 9999);
    assert_eq!(percents(&members), [100, 0, 100]);
    assert_eq!(rotation.next_turn_ms(&members), Some(10_000));
    let news = rotation.settle(&mut members, 10_000);
    let returned = [Happening::Returned(Return::TimeUp), Happening::CameIn].map(|what| News { at: 1, what });
    assert_eq!((news, percents(&members)), (returned.to_vec(), vec![100, 10, 100]));
    rotation.take_changed();
    let mut steps = Vec::new();
    for now_ms in (10_100..=15_000).step_by(100) {
        rotation.settle(&mut members, now_ms);
        if rotation.take_changed() {
            steps.push((now_ms, percents(&members)[1]));
        }
    }
    let expected: Vec<_> = (2..=10).map(|tenth| (10_000 + tenth * 500, tenth as u32 * 10)).collect();
    assert_eq!(steps[..], expected[..], "one snapshot per step");
}

#[test]
fn the_start_of_the_process_is_at_full_weight() {
    let (mut rotation, mut members) = (Rotation::new(POLICY, 0), vec![server(Health::Unknown); 3]);
    for at in 0..3 {
        members[at].health = Health::Up;
        rotation.settle(&mut members, at as u64 * 900);
    }
    rotation.started();
    assert_eq!(percents(&members), [100, 100, 100]);
}

#[test]
fn who_returns_together_has_equal_shares_and_who_returns_alone_has_all() {
    let (mut rotation, mut members) = pool(3);
    for member in &mut members {
        (member.health, member.code) = (Health::Down, ReasonCode::ConnectionRefused);
    }
    rotation.settle(&mut members, 1000);
    members[0].health = Health::Up;
    rotation.settle(&mut members, 2000);
    assert_eq!(percents(&members), [100, 0, 0]);
    members[1].health = Health::Up;
    members[2].health = Health::Up;
    rotation.settle(&mut members, 2100);
    assert_eq!(percents(&members), [100, 100, 100]);
    for now_ms in (2100..8000).step_by(50) {
        rotation.settle(&mut members, now_ms);
        assert!(percents(&members).iter().all(|percent| *percent >= 75), "{:?} at {now_ms}", percents(&members));
    }
    assert_eq!(percents(&members), [100, 100, 100]);
}

#[test]
fn the_ejected_come_back_early_when_the_others_go() {
    let (mut rotation, mut members) = pool(2);
    rotation.suspect(&mut members, 0, 0, 0.5);
    members[1].health = Health::Down;
    let news = rotation.settle(&mut members, 100);
    assert_eq!(news[0], News { at: 0, what: Happening::Returned(Return::Needed) });
    assert_eq!(percents(&members), [100, 0]);
    // Fewer wanted, so fewer may be out.
    let (mut rotation, mut members) = pool(4);
    rotation.suspect(&mut members, 0, 0, 0.5);
    rotation.suspect(&mut members, 1, 50, 0.5);
    members[3].admin = AdminState::Drain;
    rotation.settle(&mut members, 100);
    assert_eq!(ejected(&members), [1]);
    assert_eq!(percents(&members), [100, 0, 100, 0], "who is needed is needed whole");
}

#[test]
fn who_served_in_a_panic_keeps_its_whole_share_when_that_is_over() {
    let (mut rotation, mut members) = pool(4);
    members[0].code = ReasonCode::ConnectionRefused;
    members.iter_mut().for_each(|member| member.health = Health::Down);
    rotation.settle(&mut members, 1000);
    // The panic goes on with one that is ready; nobody is spared.
    members[3].health = Health::Up;
    rotation.settle(&mut members, 2000);
    assert_eq!(members[3].standing.tenths(), slow_start::WHOLE);
    // It is over. The first took no connections until now.
    members[0].health = Health::Up;
    members[1].health = Health::Up;
    rotation.settle(&mut members, 3000);
    assert_eq!(percents(&members), [10, 100, 0, 100]);
    // And later returns are slow again.
    members[2].health = Health::Up;
    rotation.settle(&mut members, 9000);
    assert_eq!(percents(&members), [100, 100, 10, 100]);
}

#[test]
fn checks_and_operators_take_over_from_an_ejection() {
    let (mut rotation, mut members) = pool(6);
    for at in [0, 1, 2] {
        rotation.suspect(&mut members, at, 0, 0.5);
    }
    members[0].health = Health::Down;
    members[1].admin = AdminState::Drain;
    assert!(rotation.pardon(&mut members, 2) && !rotation.pardon(&mut members, 3));
    rotation.settle(&mut members, 100);
    assert_eq!(ejected(&members), [0_usize; 0]);
    members[0].health = Health::Up;
    members[1].admin = AdminState::Ready;
    rotation.settle(&mut members, 200);
    assert_eq!(percents(&members), [10, 10, 10, 100, 100, 100]);
}

#[test]
fn a_healthy_interval_takes_one_off_and_what_came_before_a_return_is_not_held_against_it() {
    let (mut rotation, mut members) = pool(3);
    rotation.suspect(&mut members, 0, 1000, 0.0);
    let mut tallies = [Tally { requests: 1000, failed: 900 }, Tally::default(), Tally::default()];
    assert!(rotation.is_sweep_due(10_000));
    assert!(rotation.sweep(&mut members, &tallies, 10_000, || 0.0).is_empty());
    rotation.settle(&mut members, 11_000);
    tallies[0] = Tally { requests: 2000, failed: 1900 };
    // In since 11 s only: the interval that ends at 20 s says nothing, good or bad.
    assert!(rotation.sweep(&mut members, &tallies, 20_000, || 0.0).is_empty());
    assert_eq!(members[0].standing.ejections.times(), 1);
    tallies[0].requests += 100;
    assert!(rotation.sweep(&mut members, &tallies, 30_000, || 0.0).is_empty());
    assert_eq!(members[0].standing.ejections.times(), 0);
    tallies[0].requests += 100;
    tallies[0].failed += 90;
    assert_eq!(rotation.sweep(&mut members, &tallies, 40_000, || 0.0), [News { at: 0, what: Happening::Ejected }]);
    assert_eq!(members[0].standing.ejections.totals(), [1, 0, 1]);
}

#[test]
fn switched_off_nothing_is_due() {
    let outlier = OutlierPolicy { consecutive: 0, success_rate_hosts: 0, failure_percent: 0, ..POLICY.outlier };
    let off = RotationPolicy { outlier, panic_percent: 0, checks_elsewhere: false, slow_start: Duration::ZERO };
    let mut members = pool(2).1;
    let mut rotation = Rotation::new(off, 0);
    rotation.settle(&mut members, 0);
    rotation.started();
    members[0].health = Health::Down;
    rotation.settle(&mut members, 100);
    members[0].health = Health::Up;
    rotation.settle(&mut members, 200);
    assert_eq!((percents(&members), rotation.next_turn_ms(&members)), (vec![100, 100], None));
}
