//! Beliefs without a network: checkers are started and never get a turn, results are handed in.

use lb_core::health::{Failure, Pass};

use super::*;
use crate::config::{Command, parse};

/// A board of three backends, `b0` to `b2`, that are all up, with these options; and its settings.
pub(in crate::control) fn board(args: &[&str]) -> (Board, Config) {
    let names = (0..3).flat_map(|at| ["--backend".to_owned(), format!("127.0.0.1:809{at},name=b{at}")]);
    let args = ["loadbalancer".to_owned()].into_iter().chain(names).chain(args.iter().map(|arg| (*arg).to_owned()));
    let config = match parse(args.map(Into::into), |_| None).unwrap() {
        Ok(Command::Run(config)) => config,
        other => panic!("not to be run: {other:?}"),
    };
    let (reports, _) = mpsc::channel(1);
    let mut board = Board::new(&config, &reports, 0);
    for at in 0..3 {
        board.take_report(&config.health, report(at, passed()), 10);
    }
    board.settle(10);
    board.take_snapshot();
    (board, *config)
}

fn passed() -> Outcome {
    Outcome::Passed(Pass { took: Duration::from_millis(1), status: None })
}

fn refused() -> Failure {
    Failure::new(ReasonCode::ConnectionRefused, "connection refused")
}

fn report(at: u32, outcome: Outcome) -> Report {
    let (address, took) = (Some(SocketAddr::from(([127, 0, 0, 1], 8090 + at as u16))), Duration::from_millis(1));
    Report { backend: BackendId(at), epoch: 0, outcome, took, address, discovery: None }
}

fn explained(board: &Board, config: &Config, now_ms: u64) -> String {
    board.checks(&config.health, (0, 0), now_ms).explanation
}

fn live(at: u32) -> LiveFailure {
    LiveFailure { backend: BackendId(at), failure: refused() }
}

#[tokio::test]
async fn failed_connects_of_requests_take_a_backend_down() {
    let (mut board, config) = board(&[]);
    (0..3).for_each(|_| board.take_live_failure(&config.health, live(0), 20));
    assert_eq!(board.pools[0].entries[0].health.health(), Health::Down);
}

#[tokio::test]
async fn where_checks_look_at_another_port_failed_connects_of_requests_are_left_to_ejection() {
    let (mut board, config) = board(&["--check-port", "9000"]);
    (0..30).for_each(|_| board.take_live_failure(&config.health, live(0), 20));
    assert_eq!(board.pools[0].entries[0].health.health(), Health::Up);
    assert!(board.pools[0].entries[0].history.results().any(|row| row.words == "connection refused"));
    board.take_suspect(BackendId(0), 30);
    assert_eq!(board.pools[0].entries[0].state(), BackendState::Ejected);
    // Without ejection nothing else would hold it off.
    let (mut board, config) = self::board(&["--check-port", "9000", "--outlier-detection", "off"]);
    (0..3).for_each(|_| board.take_live_failure(&config.health, live(0), 20));
    assert_eq!(board.pools[0].entries[0].health.health(), Health::Down);
}

#[tokio::test]
async fn words_of_a_lasting_outage_make_no_snapshots_and_nothing_that_was_sent_is_told_to_clients() {
    let (mut board, config) = board(&[]);
    let wrong = |seen: &str| {
        let failure = Failure::new(ReasonCode::WrongBody, "\"ok\" is not in the body");
        report(0, Outcome::Failed(Failure { seen: seen.to_owned(), ..failure }))
    };
    (0..3).for_each(|at| board.take_report(&config.health, wrong(&format!(", which begins with \"secret {at}\"")), 20));
    let snapshot = board.take_snapshot().unwrap();
    assert_eq!(&*snapshot.pools[0].backends[0].reason, "\"ok\" is not in the body");
    let entry = &board.pools[0].entries[0];
    assert!(entry.last.as_ref().unwrap().words.contains("secret 2"));
    assert!(entry.history.results().last().unwrap().words.contains("secret 2"));
    for at in 0..10 {
        board.take_report(&config.health, wrong(&format!(", which begins with \"{at}\"")), 30);
    }
    assert!(board.take_snapshot().is_none());
    board.take_report(&config.health, report(0, Outcome::Failed(refused())), 40);
    assert_eq!(board.take_snapshot().unwrap().pools[0].backends[0].reason_code, ReasonCode::ConnectionRefused);
}

#[tokio::test]
async fn what_ejects_and_what_an_operator_asks_for_do_not_change_since_when_checks_say_so() {
    let (mut board, config) = board(&[]);
    board.take_suspect(BackendId(0), 50_010);
    board.settle(50_010);
    let words = explained(&board, &config, 60_010);
    assert!(words.starts_with("ejected: 5 errors in a row; back in "), "{words}");
    assert!(words.contains("by its checks up for 1 min 0 s"), "{words}");
    board.set_admin("default", "b0", AdminState::Drain, 60_010).unwrap();
    board.settle(60_010);
    let words = explained(&board, &config, 70_010);
    assert!(words.starts_with("draining; up for 1 min 10 s"), "{words}");
    board.set_admin("default", "b0", AdminState::Maintenance, 80_000).unwrap();
    assert!(explained(&board, &config, 90_000).starts_with("in maintenance for 10 s"));
}

#[test]
fn checks_are_made_together_and_hardly_later_than_they_are_due() {
    let ms = Duration::from_millis;
    for delay in [ms(1), ms(49), ms(50), ms(99), ms(100), ms(1000), ms(4501), ms(5499), ms(60_000)] {
        for due in (0..5000).map(|step| ms(7) * step) {
            let at = together(due, delay);
            assert!(due <= at && at - due <= delay / 50, "{delay:?}: {due:?} became {at:?}");
        }
    }
    // A thousand with the usual interval and its jitter, within a second of each other: no more beats than a second has.
    let mut beats: Vec<_> = (0..1000).map(|n| together(ms(60_000 + n), ms(4500 + n))).collect();
    beats.dedup();
    assert!(beats.len() <= 17, "{}", beats.len());
}
